"""How long others are waited for: time in which our own event loop stood still hardly counts.

What came meanwhile lies unread then, and would be too late by the time it is looked at: a process
that answered at once would be taken for one that hangs, a person who speaks for one who is silent.
So a wait goes in parts. A standstill takes one, however long it is; in the next what came is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

PARTS = 6


async def comes(event: asyncio.Event, within_s: float) -> bool:
    """Whether the event is set within so many seconds."""
    for _ in range(PARTS):
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s / PARTS):
                await event.wait()
        if event.is_set():
            return True
    return False


class Alarm:
    """Calls ``then`` in so many seconds, unless it is cancelled."""

    def __init__(self, seconds: float, then: Callable[[], object]) -> None:
        self._step_s, self._then = seconds / PARTS, then
        self._handle = self._after(PARTS)

    def cancel(self) -> None:
        """It is not called."""
        self._handle.cancel()

    def _after(self, parts: int) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._step_s, self._passed, parts - 1)

    def _passed(self, left: int) -> None:
        if left:
            self._handle = self._after(left)
        else:
            self._then()
