import os
import socket
import sys
from collections import deque
from functools import partial
from typing import Any

import pytest

from sidecar.workers import channel
from sidecar.workers.rpc_server import RpcSender


class Reads(socket.socket):
    """Counts its reads."""

    count = 0

    def recv(self, *args: int) -> bytes:
        self.count += 1
        return super().recv(*args)

    def recvmsg(self, *args: int) -> Any:
        self.count += 1
        return super().recvmsg(*args)


def test_consecutive_rpc_messages_are_received_separately_in_order_and_in_few_reads() -> None:
    ours, theirs = socket.socketpair()
    sent, raw = [{"number": number} for number in range(50)], bytes(640)
    with ours, Reads(fileno=theirs.detach()) as reads:
        ours.sendall(b"".join(channel.encode_frame(one, raw) for one in sent))
        reader = channel.ChannelReader(reads)
        found = [reader.receive()[0] for _ in sent]
    assert found == [(one, raw, len(channel.encode_frame(one, raw))) for one in sent]
    # elsewhere a message's descriptors come with its first bytes
    assert reads.count <= (len(sent) if sys.platform == "win32" else 2 * len(sent))


@pytest.mark.parametrize(
    "sent",
    [
        *(b"", b"\0\0", b"\0\0\0\5\0\0\0\0{}"),
        *(b"\0\0\0\2\0\0\0\0[]", b"\0\0\0\3\0\0\0\0abc", b"\0\0\0\2\0\0\0\2{}a"),
    ],
    ids=repr,
)
def test_receive_of_invalid_message_raises_channel_closed(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(sent)
        ours.close()
        with pytest.raises(channel.ChannelClosed):
            channel.ChannelReader(theirs).receive()


def test_send_to_closed_socket_raises_channel_closed() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    sent = partial(RpcSender(ours).send, {"operation": "cancel"})
    with ours, pytest.raises(channel.ChannelClosed):
        deque(iter(sent, 1))  # the first is lost on a TCP connection, which Windows has here


@pytest.mark.parametrize("text", ["plain", "Zürich 漢字 😀", "half a pair: \ud83d", 'a "quote"\n'])
def test_any_text_in_an_rpc_message_arrives_unchanged_also_half_a_surrogate_pair(text: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        RpcSender(ours).send({"text": text})
        assert channel.ChannelReader(theirs).receive()[0].message == {"text": text}


def test_both_ends_of_a_workers_channel_send_small_frames_without_nagle_delay() -> None:
    """Windows has a TCP connection there, others a socket pair of Unix."""
    program = (
        "import socket; from sidecar.workers import channel; sock = channel.inherited_socket();"
        "tcp = sock.family == socket.AF_INET;"
        "sock.sendall(b'%d' % (tcp and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))"
    )
    process, ours = channel.spawn_worker([sys.executable, "-c", program], dict(os.environ))
    with process, ours:
        theirs_is_set = ours.recv(1) == b"1"
        is_tcp = ours.family == socket.AF_INET
        assert is_tcp == theirs_is_set
        assert not is_tcp or ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_audio_behind_an_rpc_message_arrives_unchanged() -> None:
    sound = bytes(range(256)) * 40
    frame = channel.encode_frame({"call": 1}, sound)
    assert len(frame) == channel.HEADER.size + len(b'{"call":1}') + len(sound)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        RpcSender(ours).send({"call": 1}, sound)
        received, fds = channel.ChannelReader(theirs).receive()
    assert (received, fds) == (({"call": 1}, sound, len(frame)), [])


def test_prompt_in_other_script_is_sent_without_escapes() -> None:
    assert len(channel.encode_frame({"prompt": "漢" * 1000})) < 3100


def test_frame_is_returned_only_when_all_its_bytes_have_arrived() -> None:
    frame = channel.encode_frame({"number": 1}, b"sound")
    data = bytearray()
    for byte in frame[:-1]:
        data.append(byte)
        assert channel.take_frame(data) is None
    data += frame[-1:] + frame[:3]
    assert channel.take_frame(data) == ({"number": 1}, b"sound", len(frame))
    assert bytes(data) == frame[:3]


@pytest.mark.parametrize(
    "body", [b"abc", b"[]", b"[" * 100_000], ids=["no JSON", "no object", "too deep"]
)
def test_frame_that_is_invalid_or_too_long_raises_channel_closed(body: bytes) -> None:
    with pytest.raises(channel.ChannelClosed):
        channel.take_frame(bytearray(channel.HEADER.pack(len(body), 0) + body))
    with pytest.raises(channel.ChannelClosed, match="beyond"):
        channel.take_frame(bytearray(channel.HEADER.pack(channel.MAX_FRAME_BYTES, 1)))
