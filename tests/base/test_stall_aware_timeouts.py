"""How long others are waited for, where it is we who are late."""

import asyncio
import socket

import pytest
from service_process import stand_still, until

from sidecar.concurrency import OneShotTimer, wait_for_event


@pytest.mark.posix("file descriptors by number")
async def test_event_that_arrives_while_event_loop_is_blocked_is_no_timeout() -> None:
    came, loop = asyncio.Event(), asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loop.add_reader(ours, came.set)
        waiting = asyncio.ensure_future(wait_for_event(came, 0.06))
        await asyncio.sleep(0)
        theirs.send(b"I was quick")
        stand_still(0.2)  # a collection, or a machine that swaps
        assert await waiting
        loop.remove_reader(ours)


async def test_wait_for_event_returns_false_after_its_timeout() -> None:
    assert not await wait_for_event(asyncio.Event(), 0.06)


async def test_timer_due_while_event_loop_is_blocked_fires_after_pending_input() -> None:
    rung: list[str] = []
    OneShotTimer(0.06, lambda: rung.append("one"))
    other = OneShotTimer(0.06, lambda: rung.append("other"))
    stand_still(0.2)
    for _ in range(3):  # what came is read
        await asyncio.sleep(0)
    assert rung == []
    other.cancel()
    await until(lambda: rung)
    assert rung == ["one"]
