"""Threads for what may hang: a kind that hangs holds up nothing else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest
from serving import PATIENCE_S

from sidecar.threads import Threads


class Thing:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


async def test_a_kind_that_hangs_holds_up_its_own_alone() -> None:
    release = threading.Event()
    hanging, others = Threads("hanging", 2), Threads("others", 2)
    hung = [asyncio.ensure_future(hanging.run(release.wait)) for _ in range(50)]
    try:
        assert [await others.run(divmod, number, 3) for number in range(9)][8] == (2, 2)
        assert await asyncio.to_thread(int, "7") == 7
        assert [thread.name for thread in threading.enumerate()].count("hanging") == 2
    finally:
        release.set()
    assert await asyncio.gather(*hung) == [True] * 50


async def test_what_work_raises_is_raised_and_its_place_is_free_again() -> None:
    threads = Threads("one", 1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await threads.run(divmod, 1, 0)
    assert await threads.run(divmod, 1, 1) == (1, 0)


async def test_a_result_that_nobody_waits_for_any_more_is_closed() -> None:
    release, thing = threading.Event(), Thing()
    threads = Threads("one", 1)

    def slow() -> Thing:
        release.wait()
        return thing

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await threads.run(slow)
    with pytest.raises(TimeoutError):  # the place is taken until the thread has ended
        async with asyncio.timeout(0.05):
            await threads.run(int)
    release.set()
    assert await threads.run(int) == 0
    assert thing.closed


def test_the_end_of_the_process_waits_for_no_disk() -> None:
    code = """
import asyncio, threading
from sidecar.threads import Threads

async def main():
    asyncio.ensure_future(Threads("hangs", 1).run(threading.Event().wait))
    await asyncio.sleep(0.05)

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], timeout=PATIENCE_S, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
