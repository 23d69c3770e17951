"""Wall clock and calendar dates: the only module that reads the time of day.

Nothing is decided by it, for it may jump; waits are monotonic. Who needs it is handed it.

Others compare these dates with clocks of their own.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since 1970, in UTC."""


def wall_time() -> float:
    """The time of day, in seconds since 1970."""
    return time.time()


def format_utc(seconds: float) -> str:
    """A time of day as in `2026-11-20T21:10:00Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def utc_now() -> datetime.datetime:
    """Now, in UTC, to the second."""
    return datetime.datetime.fromtimestamp(int(wall_time()), datetime.UTC)
