"""When something was said: places in a stream of sound as times. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

KEPT_S = 120.0
"""Of sound; nobody asks for what lies further back."""
STEP_S = 0.01
"""Places are no closer together: however short the chunks are, there are no more than 12,000."""


class SoundClock:
    """Sound comes in chunks; what lies ``s`` seconds before a chunk's end was said ``s`` seconds
    before it came. A client that pauses between two makes no difference to that."""

    def __init__(self) -> None:
        self._ends: deque[tuple[float, float]] = deque()

    def came(self, upto: float, now: float) -> None:
        """All sound up to ``upto`` seconds is there by ``now``."""
        ends = self._ends
        if ends and upto <= ends[-1][0]:
            return
        if len(ends) > 1 and upto - ends[-2][0] < STEP_S:
            ends.pop()
        ends.append((upto, now))
        while self._ends[-1][0] - self._ends[0][0] > KEPT_S:
            self._ends.popleft()

    def time(self, position: float) -> float:
        """When what is at ``position`` was said."""
        if not self._ends:
            return position
        at = bisect_left(self._ends, (position,))
        end, came = self._ends[min(at, len(self._ends) - 1)]
        return came - max(0.0, end - position)
