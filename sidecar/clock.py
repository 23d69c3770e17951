"""The clock on the wall: dates for people and for records that outlive the process.

Nothing is decided by it, for it may jump; waits are monotonic. Who needs it is handed it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since 1970, in UTC."""


def wall() -> float:
    """The time of day, in seconds since 1970."""
    return time.time()


def for_people(seconds: float) -> str:
    """A time of day as in `2026-11-20T21:10:00Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
