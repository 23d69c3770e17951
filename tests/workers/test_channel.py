import socket

import pytest

from sidecar.workers import channel
from sidecar.workers.rpc_server import RpcSender


def test_consecutive_rpc_messages_are_received_separately_and_in_order() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for number in range(50):
            RpcSender(ours).send({"number": number})
        assert [channel.receive_message(theirs)[0].message["number"] for _ in range(50)] == list(
            range(50)
        )


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
            channel.receive_message(theirs)


def test_send_to_closed_socket_raises_channel_closed() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(channel.ChannelClosed):
        RpcSender(ours).send({"operation": "cancel"})


@pytest.mark.parametrize("text", ["plain", "Zürich 漢字 😀", "half a pair: \ud83d", 'a "quote"\n'])
def test_any_text_in_an_rpc_message_arrives_unchanged_also_half_a_surrogate_pair(text: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        RpcSender(ours).send({"text": text})
        assert channel.receive_message(theirs)[0].message == {"text": text}


def test_audio_behind_an_rpc_message_arrives_unchanged() -> None:
    sound = bytes(range(256)) * 40
    frame = channel.encode_frame({"call": 1}, sound)
    assert len(frame) == channel.HEADER.size + len(b'{"call":1}') + len(sound)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        RpcSender(ours).send({"call": 1}, sound)
        received, fds = channel.receive_message(theirs)
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
