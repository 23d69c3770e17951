"""Whether those who speak wait too long for their words, so that nobody else is let in. Pure.

How many an engine hears hangs on the machine, on what else it does, and on how much is said: a
hundred who listen cost nothing. So it is measured: of each final, how long it took from the end of
its sound, beyond the shortest that was ever seen here (what a model takes even for one alone).
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 30.0
"""What lies further back says nothing about now."""
LEAST = 10
"""Finals that it takes to say anything: a few may be late for any reason."""
LATE_SHARE = 0.1
"""Of them may be late."""
_KEPT = 2000


class Waits:
    """Give it the delay of each final, ask it before the next is let in; seconds of any clock.

    ``most_s``: what a final may wait because of others; 0 is no limit.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._least = float("inf")
        self._delays: deque[tuple[float, float]] = deque(maxlen=_KEPT)

    def add(self, delay_s: float, now: float) -> None:
        """A final was told, so long after its end was known."""
        self._least = min(self._least, delay_s)
        self._delays.append((now, delay_s))

    def too_long(self, now: float) -> bool:
        """Whether those who are there would suffer from one more."""
        while self._delays and now - self._delays[0][0] > WINDOW_S:
            self._delays.popleft()
        if not self._most_s or len(self._delays) < LEAST:
            return False
        late = sum(delay_s - self._least > self._most_s for _, delay_s in self._delays)
        return late > LATE_SHARE * len(self._delays)
