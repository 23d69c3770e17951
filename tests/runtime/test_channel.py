from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from sidecar.runtime import channel


def test_a_message_and_an_open_file_arrive_together(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(b"sound")
    ours, theirs = socket.socketpair()
    with ours, theirs, path.open("rb") as file:
        text = "ä" * 100_000  # more than a socket's buffer: it takes two to pass it
        sender = threading.Thread(
            target=channel.send, args=(ours, {"text": text}, [file.fileno()]), daemon=True
        )
        sender.start()
        message, (fd,) = channel.receive(theirs)
        sender.join()
    assert message == {"text": text}
    assert os.read(fd, 10) == b"sound"
    os.close(fd)


def test_several_messages_keep_their_borders() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for number in range(50):
            channel.send(ours, {"number": number})
        assert [channel.receive(theirs)[0]["number"] for _ in range(50)] == list(range(50))


@pytest.mark.parametrize(
    "sent", [b"", b"\0\0", b"\0\0\0\5{}", b"\0\0\0\2[]", b"\0\0\0\3abc"], ids=repr
)
def test_whatever_is_no_message_closes_the_channel(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(sent)
        ours.close()
        with pytest.raises(channel.ChannelClosed):
            channel.receive(theirs)


def test_sending_to_nobody_says_so() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(channel.ChannelClosed):
        channel.send(ours, {"operation": "cancel"})
