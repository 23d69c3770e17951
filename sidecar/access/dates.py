"""The date: the one thing that the clock on the wall is asked for. How long a token or a
certificate holds is written in dates of the calendar, and compared by others with their clocks."""

from __future__ import annotations

import datetime


def today() -> datetime.datetime:
    """Now, in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
