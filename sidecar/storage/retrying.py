"""Calls that are repeated until the database answers, and waits with a limit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sidecar import errors
from sidecar.storage.timing import FIRST_PAUSE_S, LONGEST_PAUSE_S

log = logging.getLogger(__name__)

T = TypeVar("T")

# a fault in the code will not have gone soon, and each try writes a traceback
FAULT_PAUSE_S = 8.0
"""Seconds after an error that is not an outage."""


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Return what ``call`` returns, and call it again for as long as the database is away."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return await call()
        except errors.JournalUnreachable:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        except Exception:
            log.exception("the database could not be asked; it is tried again")
            await asyncio.sleep(FAULT_PAUSE_S)


async def repeatedly(call: Callable[[], Awaitable[object]], pause_s: float) -> None:
    """Call, for ever, with so many seconds in between; an error ends nothing."""
    while True:
        try:
            await call()
        except errors.JournalUnreachable:
            log.debug("the database is away")
        except Exception:
            log.exception("a repeated call failed")
        await asyncio.sleep(pause_s)


async def at_most(most_s: float, what: Awaitable[object]) -> None:
    """Wait for ``what``, which is cancelled after ``most_s``."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(most_s):
            await what
