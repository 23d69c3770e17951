"""How long others are waited for, where it is we who are late."""

import asyncio
import socket

from service_process import stand_still, until

from sidecar.concurrency import OneShotTimer, wait_for_event


async def test_event_during_a_stall_of_the_loop_is_in_time() -> None:
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


async def test_wait_for_event_ends_after_its_limit() -> None:
    assert not await wait_for_event(asyncio.Event(), 0.06)


async def test_timer_fires_after_the_input_of_a_stall_is_read() -> None:
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
