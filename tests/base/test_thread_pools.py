"""Threads for what may hang: a kind that hangs holds up nothing else."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from open_descriptors import opened
from service_process import PATIENCE_S, new_file

from sidecar.audio.audio_format import read_file_at
from sidecar.concurrency import ThreadLimiter


class Thing:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


async def test_hanging_threads_of_one_limiter_do_not_block_another_limiter() -> None:
    release = threading.Event()
    hanging, others = ThreadLimiter("hanging", 2), ThreadLimiter("others", 2)
    hung = [asyncio.ensure_future(hanging.run(release.wait)) for _ in range(50)]
    try:
        assert [await others.run(divmod, number, 3) for number in range(9)][8] == (2, 2)
        assert await asyncio.to_thread(int, "7") == 7
        assert [thread.name for thread in threading.enumerate()].count("hanging") == 2
    finally:
        release.set()
    assert await asyncio.gather(*hung) == [True] * 50


async def test_exception_in_a_limited_thread_is_raised_and_frees_the_thread() -> None:
    threads = ThreadLimiter("one", 1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await threads.run(divmod, 1, 0)
    assert await threads.run(divmod, 1, 1) == (1, 0)


async def test_cancelled_call_holds_its_thread_until_it_ends_and_closes_the_result() -> None:
    release, thing = threading.Event(), Thing()
    threads = ThreadLimiter("cancelled", 1)  # a thread of another test may be ending yet

    def slow() -> Thing:
        release.wait()
        return thing

    first = asyncio.ensure_future(threads.run(slow))
    await asyncio.sleep(0)  # it has begun
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.ensure_future(threads.run(int))
    await asyncio.sleep(0)
    assert [thread.name for thread in threading.enumerate()].count("cancelled") == 1
    release.set()
    assert await second == 0
    assert thing.closed


@pytest.mark.parametrize("way", ["closed", "undone"])
async def test_result_that_comes_with_the_cancellation_is_closed_or_undone(
    way: str, tmp_path: Path
) -> None:
    threads, thing, undone = ThreadLimiter(way, 1), Thing(), threading.Event()
    with (tmp_path / "file").open("wb") as file:
        if way == "closed":
            work = asyncio.ensure_future(threads.run(lambda: thing))
        else:
            made = threads.run_on(file.fileno(), lambda fd: thing, unwanted=lambda _: undone.set())
            work = asyncio.ensure_future(made)
        await asyncio.sleep(0)  # it has begun
        while way in (thread.name for thread in threading.enumerate()):
            # real time: between two looks; the loop stands still, so the result is not yet taken
            time.sleep(0.001)  # noqa: ASYNC251
        asyncio.get_running_loop().call_soon(work.cancel)
        await asyncio.wait({work})
    assert work.cancelled()
    assert thing.closed if way == "closed" else await asyncio.to_thread(undone.wait, PATIENCE_S)


async def test_calls_cancelled_before_their_thread_starts_leave_no_open_descriptor(
    tmp_path: Path,
) -> None:
    threads, release, seen = ThreadLimiter("hangs", 1), threading.Event(), list[int]()
    path = new_file(tmp_path / "file", b"what is in it")

    def read(fd: int) -> bytes:
        release.wait()
        seen.append(fd)
        return read_file_at(fd, 0, 100)

    fd = os.open(path, os.O_RDONLY)
    before = opened()
    asked = [asyncio.ensure_future(threads.run_on(fd, read)) for _ in range(20)]
    await asyncio.sleep(0)
    for one in asked[1:]:
        one.cancel()
    await asyncio.wait(asked[1:])
    assert len(opened() - before) == 1
    os.close(fd)
    release.set()
    assert await asked[0] == b"what is in it"
    assert seen != [fd]
    assert opened() - before == set()


def test_process_exit_does_not_wait_for_hanging_threads() -> None:
    code = """
import asyncio, threading
from sidecar.concurrency import ThreadLimiter

async def main():
    asyncio.ensure_future(ThreadLimiter("hangs", 1).run(threading.Event().wait))
    await asyncio.sleep(0)
    assert threading.active_count() == 2

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], timeout=PATIENCE_S, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
