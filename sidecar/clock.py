"""Wall clock and calendar dates: the only module that reads the time of day.

No decision depends on it, because it can jump, except the ages of results: of a service's own at
its start (`jobs.retention`), and of shared ones. Waits use the monotonic clock, which stands still
while the machine is suspended; ages of a running service use `lasting_time`. Code that needs the
wall clock gets it as an argument. Clients compare these dates with their own clocks.
"""

import datetime
import sys
import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since 1970, in UTC."""


wall_time: Clock = time.time


def lasting_time() -> float:
    """Return the seconds since some moment: monotonic, with those of the machine's suspensions."""
    return time.monotonic() + suspended_s()


_NEAR_S = 0.25
"""Maximum seconds between two clocks that are read together: the process may be stopped there."""
_suspended_s = 0.0
"""How long the machine was suspended, as last seen."""


def suspended_s() -> float:
    """Return how long the machine was suspended since its boot, to the second; it never becomes
    less. 0 where the monotonic clock counts that, too, and on systems that do not tell."""
    global _suspended_s
    if sys.platform != "darwin" and sys.platform != "linux":
        return 0.0
    if sys.platform == "darwin":  # Python's monotonic clock is the second
        total, awake = time.CLOCK_MONOTONIC, time.CLOCK_UPTIME_RAW
    else:
        total, awake = time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC
    while True:
        before = time.clock_gettime(awake)
        found = time.clock_gettime(total) - before
        if time.clock_gettime(awake) - before < _NEAR_S:
            break
    if found >= _suspended_s + 1.0:  # else a difference of the reads
        _suspended_s = float(round(found))
    return _suspended_s


def format_utc(seconds: float) -> str:
    """Return a time of day in the form `2026-11-20T21:10:00Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def utc_moment() -> datetime.datetime:
    """Return the current time in UTC, as exactly as the clock has it."""
    return datetime.datetime.fromtimestamp(wall_time(), datetime.UTC)


def utc_now() -> datetime.datetime:
    """Return the current time in UTC, to the second."""
    return utc_moment().replace(microsecond=0)
