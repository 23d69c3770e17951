from __future__ import annotations

import socket

import pytest

from sidecar.workers import channel
from sidecar.workers.rpc_server import RpcSender


def test_several_messages_keep_their_borders() -> None:
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
        b"",
        b"\0\0",
        b"\0\0\0\5\0\0\0\0{}",
        b"\0\0\0\2\0\0\0\0[]",
        b"\0\0\0\3\0\0\0\0abc",
        b"\0\0\0\2\0\0\0\2{}a",
    ],
    ids=repr,
)
def test_whatever_is_no_message_closes_the_channel(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(sent)
        ours.close()
        with pytest.raises(channel.ChannelClosed):
            channel.receive_message(theirs)


def test_sending_to_nobody_says_so() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(channel.ChannelClosed):
        RpcSender(ours).send({"operation": "cancel"})


@pytest.mark.parametrize("text", ["plain", "Zürich 漢字 😀", "half a pair: \ud83d", 'a "quote"\n'])
def test_any_text_arrives_as_it_was(text: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        RpcSender(ours).send({"text": text})
        assert channel.receive_message(theirs)[0].message == {"text": text}


def test_sound_rides_behind_a_message_as_it_is() -> None:
    sound = bytes(range(256)) * 40
    frame = channel.encode_frame({"call": 1}, sound)
    assert len(frame) == channel.HEADER.size + len(b'{"call":1}') + len(sound)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        RpcSender(ours).send({"call": 1}, sound)
        received, fds = channel.receive_message(theirs)
    assert (received, fds) == (({"call": 1}, sound, len(frame)), [])


def test_a_prompt_in_other_scripts_is_sent_as_it_is_and_not_in_escapes() -> None:
    assert len(channel.encode_frame({"prompt": "漢" * 1000})) < 3100


def test_a_frame_comes_off_the_front_only_once_it_is_whole() -> None:
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
def test_a_frame_that_holds_no_message_is_the_end(body: bytes) -> None:
    with pytest.raises(channel.ChannelClosed):
        channel.take_frame(bytearray(channel.HEADER.pack(len(body), 0) + body))
    with pytest.raises(channel.ChannelClosed, match="beyond"):
        channel.take_frame(bytearray(channel.HEADER.pack(channel.MAX_FRAME_BYTES, 1)))
