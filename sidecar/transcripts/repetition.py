"""When a model says the same again and again: for every engine that writes token by token. Pure.

People repeat themselves too, so repetition alone is never enough: the words must be more than the
time for them can hold, or the model must not have found an end.
"""

from __future__ import annotations

from collections import deque

COPIES = 3
"""So often something must have come before it is a repetition: the first time and two more."""

CHARACTERS_PER_S = 25.0
"""More is not said in a second: 300 English words a minute; conversation has 12 to 16."""

SLACK_S = 2.0
"""So far times may be off before a text counts as too long for them."""

WINDOW = 128
"""Tokens looked back upon; no longer period is seen inside a text."""

MIN_REPEATED_TOKENS = 16
"""A shorter repetition is none: `No, no, no, no.`, or the zeros of a number."""

FEW_TOKENS = 24
"""Different tokens in a window of stuck text, at most. Plain speech has 70 and more."""


def overfull(characters: int, seconds: float) -> bool:
    """Whether a text is more than is said in so many seconds."""
    return characters > CHARACTERS_PER_S * (seconds + SLACK_S)


class RepeatedTokens:
    """How long the last tokens have been repeating themselves, for every period in a window.

    A token costs as many steps as it has come in the window: few in speech, the window in a loop.
    """

    def __init__(self) -> None:
        self._count = 0
        self._window: deque[int] = deque()
        self._places: dict[int, deque[int]] = {}
        self._runs: dict[int, int] = {}

    def add(self, token_id: int) -> None:
        """Take one token."""
        if len(self._window) == WINDOW:
            oldest = self._window.popleft()
            self._places[oldest].popleft()
            if not self._places[oldest]:
                del self._places[oldest]
        places = self._places.setdefault(token_id, deque())
        periods = (self._count - place for place in places)
        self._runs = {period: self._runs.get(period, 0) + 1 for period in periods}
        places.append(self._count)
        self._window.append(token_id)
        self._count += 1

    @property
    def repeated(self) -> int:
        """Tokens at the end that are `COPIES` or more of the same; 0 if they are not."""
        return max(
            (run + period for period, run in self._runs.items() if run >= (COPIES - 1) * period),
            default=0,
        )

    @property
    def period(self) -> int:
        """How many tokens it is that come again; 0 if none do."""
        return min(
            (period for period, run in self._runs.items() if run >= (COPIES - 1) * period),
            default=0,
        )

    @property
    def different(self) -> int:
        """Different tokens in a full window; before it is full, the whole window."""
        return len(self._places) if len(self._window) == WINDOW else WINDOW
