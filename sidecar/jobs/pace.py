"""How long work takes: predicted from what was measured here, and from a guess before that."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque

GUESS = 0.25
"""Seconds of work for a second of audio, before anything was measured: the embedded engine needs
that on a slow core."""
LEAST_S = 0.2
"""What a job takes however short it is: it is read, begun and answered."""
USUAL_S = 600.0
"""Of a recording that does not say how long it is."""
REMEMBERED = 15
"""Of so many jobs the one in the middle counts: one that was slow is no measure."""


class Pace:
    """Seconds of work for a second of audio, for each precision."""

    def __init__(self) -> None:
        self._measured: defaultdict[str, deque[float]] = defaultdict(
            lambda: deque(maxlen=REMEMBERED)
        )

    def seconds(self, precision: str, audio_s: float | None, guess_s: float | None = None) -> float:
        """Predicted seconds of work of a recording; ``guess_s``, if somebody has one, counts until
        something was measured."""
        length_s = USUAL_S if audio_s is None else audio_s
        if measured := self._measured.get(precision):
            return max(LEAST_S, length_s * statistics.median(measured))
        return max(LEAST_S, length_s * GUESS if guess_s is None else guess_s)

    def learn(self, precision: str, audio_s: float, work_s: float) -> None:
        """A recording took so long, alone."""
        if audio_s > 0:
            self._measured[precision].append(work_s / audio_s)


def remaining_s(work_s: float, elapsed_s: float, fraction: float | None) -> float:
    """What is left of a job that runs, by how far it is (0 to 1) or else by what was predicted;
    never nothing."""
    if fraction:
        return max(LEAST_S, elapsed_s / fraction * (1.0 - fraction))
    return max(LEAST_S, work_s - elapsed_s)
