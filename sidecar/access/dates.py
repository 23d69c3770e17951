"""Dates of the calendar: until when a token or a certificate holds, which others compare with their
own clocks."""

from __future__ import annotations

import datetime

from sidecar import clock


def today() -> datetime.datetime:
    """Now, in UTC, to the second."""
    return datetime.datetime.fromtimestamp(int(clock.wall()), datetime.UTC)
