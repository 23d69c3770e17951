"""Until when a token or a certificate holds, by the calendar.

Others compare these dates with clocks of their own.
"""

from __future__ import annotations

import datetime

from sidecar import clock


def today() -> datetime.datetime:
    """Now, in UTC, to the second."""
    return datetime.datetime.fromtimestamp(int(clock.wall()), datetime.UTC)
