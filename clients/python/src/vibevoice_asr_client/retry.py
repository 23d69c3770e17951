"""When something is tried again, and after how long. Pure: chance is handed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Callable, Optional

PASSING = frozenset({408, 425, 429, 502, 503, 504})
"""Answers that may be another one a little later. 408 is a silence of ours that a network made."""
LONGEST_ASKED_S = 3600.0
"""A `Retry-After` beyond an hour is for people to decide on."""


@dataclass(frozen=True)
class Retry:
    """How patient a client is: ``attempts`` in all for one thing, each wait twice the one before.

    A `Retry-After` of the service counts instead, up to ``longest_asked_s``. Anything that came
    through in between makes the count begin anew.
    """

    attempts: int = 6
    first_s: float = 0.5
    longest_s: float = 30.0
    longest_asked_s: float = LONGEST_ASKED_S
    on_wait: Optional[Callable[[Exception], None]] = None
    """Called with the error (`ClientError`) before each wait."""

    def wait_s(
        self, failures: int, chance: float, asked_s: Optional[float] = None
    ) -> Optional[float]:
        """Seconds to wait after so many failures in a row; None: it has been enough.

        ``chance`` (0 to 1) spreads clients that failed together: full jitter over the upper half.
        """
        if failures >= self.attempts:
            return None
        if asked_s is not None:
            return asked_s + chance if asked_s <= self.longest_asked_s else None
        wait = min(self.first_s * 2.0 ** min(failures - 1, 30), self.longest_s)
        return wait * (0.5 + chance / 2)


NEVER = Retry(attempts=1)
"""One attempt."""


def asked_s(header: Optional[str], now: datetime) -> Optional[float]:
    """Seconds that a `Retry-After` asks for: a number of them, or a date; None if it is neither."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=timezone.utc)
    return max(0.0, (at - now).total_seconds())
