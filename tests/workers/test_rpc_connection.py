"""The service's end of the line as it runs: on a socket that does not block, either side slow."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest
from service_process import new_file, settle, until

from sidecar.workers import channel
from sidecar.workers.rpc_client import RpcConnection
from sidecar.workers.rpc_server import RpcSender

SMALL = 4096
"""Of a socket's buffer; some systems give 8 KiB."""
CLOSED = "the connection is closed"


class Ends(NamedTuple):
    """The service's, over the socket ``ours``, and the worker's, which blocks."""

    line: RpcConnection
    theirs: socket.socket
    ours: socket.socket


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[IO[bytes]]:
    path = new_file(tmp_path / "recording", b"sound")
    with path.open("rb") as file:
        yield file


class Heard:
    """What a line brought, and how it ended."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[dict[str, Any] | str] = asyncio.Queue()

    def take(self, frame: channel.ChannelFrame) -> None:
        self.frames.put_nowait(frame.message)

    async def next(self) -> dict[str, Any] | str:
        return await self.frames.get()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture(params=[SMALL, None], ids=["small buffers", "usual buffers"])
async def ends(
    request: pytest.FixtureRequest, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Ends]:
    ours, theirs = socket.socketpair()
    if request.param:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, request.param)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, request.param)
    line = RpcConnection(ours, os.getpid(), lambda: heard.frames.put_nowait(CLOSED))
    monkeypatch.setattr(line, "receive", heard.take)
    await line.connect()
    yield Ends(line, theirs, ours)
    line.close()
    theirs.close()
    ours.close()


async def send(line: RpcConnection, message: dict[str, Any], fds: list[int]) -> None:
    await line.send(*channel.encode_with_files(message, fds, os.getpid()))


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(work, *arguments)


@pytest.mark.posix("file descriptors by number")
async def test_message_with_a_file_waits_behind_a_larger_one_and_all_arrive_in_order(
    ends: Ends, recording: IO[bytes]
) -> None:
    line, theirs, _ = ends
    text = "😀" * 500_000
    await send(line, {"text": text}, [recording.fileno()])
    line.send_nowait({"operation": "leave"})
    following = asyncio.ensure_future(send(line, {"text": "next"}, [recording.fileno()]))
    await settle()
    assert not following.done(), "an open file does not go past what waits"
    reader = channel.ChannelReader(theirs)
    received = [await in_thread(reader.receive) for _ in range(3)]
    await following
    assert [frame.message for frame, _ in received] == [
        {"text": text},
        {"operation": "leave"},
        {"text": "next"},
    ]
    files = [fds for _, fds in received]
    assert [len(fds) for fds in files] == [1, 0, 1]
    for fds in files:
        for fd in fds:
            assert os.pread(fd, 10, 0) == b"sound"
            os.close(fd)


@pytest.mark.posix("file descriptors by number")
async def test_cancelled_send_sends_nothing(ends: Ends, recording: IO[bytes]) -> None:
    line, theirs, _ = ends
    line.send_nowait({"text": "x" * 1_000_000})
    cancelled = asyncio.ensure_future(send(line, {"number": 1}, [recording.fileno()]))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    line.send_nowait({"number": 2})
    reader = channel.ChannelReader(theirs)
    numbers = [(await in_thread(reader.receive))[0].message.get("number") for _ in range(2)]
    assert numbers == [None, 2]


@pytest.mark.posix("file descriptors by number")
async def test_open_file_does_not_overtake_message_queued_as_socket_drains(
    ends: Ends, recording: IO[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    line, theirs, _ = ends
    came, resume = bytearray(), line.resume_writing

    def somebody_is_quicker() -> None:
        resume()
        monkeypatch.undo()
        line.send_nowait({"text": "y" * 1_000_000})
        came.extend(theirs.recv(1 << 20))  # the socket has room, and the rest of that waits

    monkeypatch.setattr(line, "resume_writing", somebody_is_quicker)
    line.send_nowait({"text": "x" * 1_000_000})
    sending = asyncio.ensure_future(send(line, {"number": 1}, [recording.fileno()]))
    said: list[dict[str, Any]] = []
    while len(said) < 3:
        await asyncio.sleep(0)
        with contextlib.suppress(BlockingIOError):
            came += theirs.recv(1 << 20, socket.MSG_DONTWAIT)
        while (frame := channel.take_frame(came)) is not None:
            said.append(frame.message)
    await sending
    assert [one.get("text", "")[:1] for one in said] == ["x", "y", ""]
    assert said[-1] == {"number": 1}


@pytest.mark.posix("file descriptors by number")
@pytest.mark.parametrize("code", [errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM])
async def test_send_of_open_file_is_retried_if_the_system_has_no_room_for_it(
    ends: Ends, recording: IO[bytes], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    line, theirs, _ = ends
    refusals, send_fds = [OSError(code, "no room")], socket.send_fds

    def refused_once(sock: socket.socket, frames: list[bytes], files: list[int]) -> int:
        if refusals:
            raise refusals.pop()
        return send_fds(sock, frames, files)

    monkeypatch.setattr(socket, "send_fds", refused_once)
    await send(line, {"number": 1}, [recording.fileno()])
    frame, (fd,) = await in_thread(channel.ChannelReader(theirs).receive)
    os.close(fd)
    assert frame.message == {"number": 1}


@pytest.mark.posix("file descriptors by number")
async def test_open_file_is_tried_again_until_full_socket_takes_it(
    ends: Ends, recording: IO[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    line, theirs, _ = ends
    held, tried = 0, list[bytes]()
    send_fds = socket.send_fds

    def noted(sock: socket.socket, frames: list[bytes], files: list[int]) -> int:
        tried.extend(frames)
        return send_fds(sock, frames, files)

    monkeypatch.setattr(socket, "send_fds", noted)
    with contextlib.suppress(BlockingIOError):
        while True:
            held += ends.ours.send(bytes(4096))
    sending = asyncio.ensure_future(send(line, {"number": 1}, [recording.fileno()]))
    await until(lambda: len(tried) > 1, "the socket is full, and is tried again")
    assert not sending.done()
    while held:
        held -= len(await in_thread(theirs.recv, held))
    frame, (fd,) = await in_thread(channel.ChannelReader(theirs).receive)
    await sending
    assert frame.message == {"number": 1}
    assert os.pread(fd, 10, 0) == b"sound"
    os.close(fd)


async def test_large_frames_arrive_whole_and_in_order(ends: Ends, heard: Heard) -> None:
    theirs = ends.theirs
    text = "x" * (3 << 20)
    sending = asyncio.ensure_future(
        in_thread(lambda: [RpcSender(theirs).send({"n": n, "text": text}) for n in range(3)])
    )
    assert [await heard.next() for _ in range(3)] == [{"n": n, "text": text} for n in range(3)]
    await sending


async def test_message_sent_before_close_is_received_before_close(ends: Ends, heard: Heard) -> None:
    theirs = ends.theirs
    RpcSender(theirs).send({"number": 1})
    theirs.close()
    assert await heard.next() == {"number": 1}
    assert await heard.next() == CLOSED


async def test_invalid_frame_closes_connection(ends: Ends, heard: Heard) -> None:
    theirs = ends.theirs
    theirs.sendall(channel.HEADER.pack(3, 0) + b"abc" + channel.encode_frame({"number": 1}))
    assert await heard.next() == CLOSED
    assert heard.frames.empty()


@pytest.mark.posix("file descriptors by number")
async def test_waiting_send_raises_once_worker_is_gone(ends: Ends, recording: IO[bytes]) -> None:
    line, theirs, _ = ends
    line.send_nowait({"text": "x" * 1_000_000})
    waiting = asyncio.ensure_future(send(line, {}, [recording.fileno()]))
    await asyncio.sleep(0)
    theirs.close()
    with pytest.raises(channel.ChannelClosed):
        await waiting
