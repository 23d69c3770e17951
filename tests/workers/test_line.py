"""The service's end of the line as it runs: on a socket that does not block, either side slow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from serving import PATIENCE_S

from sidecar.workers import channel
from sidecar.workers.line import UNREAD_LIMIT, Line

SMALL = 4096
"""Of a socket's buffer; some systems give 8 KiB."""


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[IO[bytes]]:
    path = tmp_path / "recording"
    path.write_bytes(b"sound")
    with path.open("rb") as file:
        yield file


@pytest.fixture(params=[SMALL, None], ids=["small buffers", "usual buffers"])
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Line, socket.socket]]:
    """The service's end, and the worker's, which blocks."""
    ours, theirs = socket.socketpair()
    if request.param:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, request.param)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, request.param)
    line = await Line.on(ours, os.getpid())
    yield line, theirs
    line.close()
    theirs.close()
    ours.close()


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.to_thread(work, *arguments)


@pytest.mark.skipif(os.name == "nt", reason="files travel as handles")
async def test_a_message_that_the_socket_does_not_hold_waits_for_a_slow_reader(
    ends: tuple[Line, socket.socket], recording: IO[bytes]
) -> None:
    line, theirs = ends
    text = "😀" * 500_000
    async with asyncio.timeout(PATIENCE_S):
        await line.send({"text": text}, [recording.fileno()])
        line.tell({"operation": "leave"})
        following = asyncio.ensure_future(line.send({"text": "next"}, [recording.fileno()]))
        await asyncio.sleep(0.05)
        assert not following.done(), "an open file does not go past what waits"
    received = [await in_thread(channel.receive, theirs) for _ in range(3)]
    await following
    assert [message for message, _ in received] == [
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


@pytest.mark.skipif(os.name == "nt", reason="files travel as handles")
async def test_a_message_is_sent_whole_or_if_it_is_cancelled_not_at_all(
    ends: tuple[Line, socket.socket], recording: IO[bytes]
) -> None:
    line, theirs = ends
    line.tell({"text": "x" * 1_000_000})
    cancelled = asyncio.ensure_future(line.send({"number": 1}, [recording.fileno()]))
    await asyncio.sleep(0.02)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    line.tell({"number": 2})
    numbers = [(await in_thread(channel.receive, theirs))[0].get("number") for _ in range(2)]
    assert numbers == [None, 2]


@pytest.mark.skipif(os.name == "nt", reason="files travel as handles")
async def test_an_open_file_waits_until_a_full_socket_takes_it(
    ends: tuple[Line, socket.socket], recording: IO[bytes]
) -> None:
    line, theirs = ends
    held = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            held += line._sock.send(bytes(4096))
    sending = asyncio.ensure_future(line.send({"number": 1}, [recording.fileno()]))
    await asyncio.sleep(0.02)
    assert not sending.done()
    while held:
        held -= len(await in_thread(theirs.recv, held))
    message, (fd,) = await in_thread(channel.receive, theirs)
    await sending
    assert message == {"number": 1}
    assert os.pread(fd, 10, 0) == b"sound"
    os.close(fd)


async def test_a_worker_that_says_more_than_anybody_reads_has_to_wait(
    ends: tuple[Line, socket.socket],
) -> None:
    line, theirs = ends
    frames, size, sent = 32, 1 << 20, 0

    def flood() -> None:
        nonlocal sent
        for number in range(frames):
            channel.send(theirs, {"number": number, "text": "x" * size})
            sent += 1

    flooding = asyncio.ensure_future(asyncio.to_thread(flood))
    await asyncio.sleep(0.3)
    assert sent * size <= 2 * UNREAD_LIMIT + (1 << 20)
    async with asyncio.timeout(PATIENCE_S):
        assert [(await line.frame())["number"] for _ in range(frames)] == list(range(frames))
        await flooding


async def test_a_frame_larger_than_what_may_lie_unread_arrives(
    ends: tuple[Line, socket.socket],
) -> None:
    line, theirs = ends
    text = "x" * (3 * UNREAD_LIMIT)
    sending = asyncio.ensure_future(in_thread(channel.send, theirs, {"text": text}))
    assert (await line.frame()) == {"text": text}
    await sending


async def test_what_was_said_before_the_end_is_heard(ends: tuple[Line, socket.socket]) -> None:
    line, theirs = ends
    channel.send(theirs, {"number": 1})
    theirs.close()
    await asyncio.sleep(0.05)
    assert await line.frame() == {"number": 1}
    with pytest.raises(channel.ChannelClosed):
        await line.frame()


async def test_nobody_waits_for_a_worker_that_is_gone(
    ends: tuple[Line, socket.socket], recording: IO[bytes]
) -> None:
    line, theirs = ends
    line.tell({"text": "x" * 1_000_000})
    waiting = asyncio.ensure_future(line.send({}, [recording.fileno()]))
    await asyncio.sleep(0.02)
    theirs.close()
    async with asyncio.timeout(5):
        with pytest.raises(channel.ChannelClosed):
            await waiting
