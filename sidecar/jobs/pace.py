"""How long work takes: predicted from what was measured here, and from a guess before that. Pure.

Work is a beginning and so much for each second of audio; loading is told apart. The line is the
one of Theil and Sen (Sen 1968): the middle one of the slopes between all pairs of jobs, so that
more than a quarter of them may be as wrong as they like.
"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

GUESS = 0.25
"""Seconds of work for a second of audio, before anything was measured: the embedded engine needs
that on a slow core."""
LEAST_S = 0.2
"""What a job takes however short it is: it is read, begun and answered."""
USUAL_S = 600.0
"""Of a recording that does not say how long it is."""
REMEMBERED = 15
"""Of so many jobs the ones in the middle count: one that was slow is no measure."""
LOADS = 5
"""The same of loads."""
FEW = 3
"""As long as fewer were measured, what was known before the start counts."""
APART = 1.5
"""Jobs of which one has so many times the other's audio tell beginning and pace apart."""
SLOPES = 6
"""As few pairs of such are enough: those of four jobs."""


@dataclass(frozen=True, slots=True)
class Means:
    """What does the work. ``model``: the name of its weights, '' where it has none of its own."""

    engine: str = ""
    model: str = ""
    precision: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of one: seconds to begin, seconds for each of audio (None: not measured yet),
    seconds to load."""

    begin_s: float = 0.0
    per_s: float | None = None
    load_s: float = 0.0


Known = Mapping[Means, Line]


class Pace:
    """Seconds of work for a recording, for each precision of one engine."""

    def __init__(self, engine: str = "", model: str = "", known: Known | None = None) -> None:
        """``known``: what was measured before the start, of this engine and others."""
        self._means = Means(engine, model)
        self._before = dict(known or {})
        self._measured: defaultdict[str, deque[tuple[float, float]]] = defaultdict(
            lambda: deque(maxlen=REMEMBERED)
        )
        self._loads: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LOADS))
        self._lines: dict[str, Line] = {}
        """As they were worked out since something was learned."""

    def seconds(self, precision: str, audio_s: float | None, guess_s: float | None = None) -> float:
        """Predicted seconds of work of a recording; ``guess_s``, if somebody has one, counts until
        something was measured."""
        length_s = USUAL_S if audio_s is None else audio_s
        line = self._line(precision)
        if line.per_s is not None:
            return max(LEAST_S, line.begin_s + length_s * line.per_s)
        return max(LEAST_S, length_s * GUESS if guess_s is None else guess_s)

    def knows(self, precision: str) -> bool:
        """Whether something was measured."""
        return self._line(precision).per_s is not None

    def load_s(self, precision: str) -> float:
        """Predicted seconds of a load; 0 before anything was measured."""
        return self._line(precision).load_s

    def learn(self, precision: str, audio_s: float, work_s: float) -> None:
        """A recording took so long, alone, in an engine that was there."""
        if audio_s > 0:
            self._measured[precision].append((audio_s, work_s))
            self._lines.clear()

    def learn_load(self, precision: str, load_s: float) -> None:
        """It took so long until the engine was there."""
        self._loads[precision].append(load_s)
        self._lines.clear()

    @property
    def known(self) -> dict[Means, Line]:
        """All that is worth to be remembered; what is of now comes last."""
        now = {
            replace(self._means, precision=precision): self._line(precision)
            for precision in {*self._measured, *self._loads}
        }
        return {means: line for means, line in self._before.items() if means not in now} | now

    def _line(self, precision: str) -> Line:
        if precision not in self._lines:
            self._lines[precision] = self._worked_out(precision)
        return self._lines[precision]

    def _worked_out(self, precision: str) -> Line:
        before = self._before.get(replace(self._means, precision=precision), Line())
        measured, loads = self._measured.get(precision, ()), self._loads.get(precision)
        load_s = statistics.median(loads) if loads else before.load_s
        if not measured or (len(measured) < FEW and before.per_s is not None):
            return replace(before, load_s=load_s)
        begin_s, per_s = fitted([*measured])
        return Line(begin_s, per_s, load_s)


def fitted(measured: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Seconds to begin, and for each second of audio, of jobs with (seconds of audio, of work)."""
    slopes = [
        (one[1] - other[1]) / (one[0] - other[0])
        for one, other in combinations(measured, 2)
        if max(one[0], other[0]) >= APART * min(one[0], other[0])
    ]
    if len(slopes) >= SLOPES and (slope := statistics.median(slopes)) > 0:
        begin_s = statistics.median(work_s - slope * audio_s for audio_s, work_s in measured)
        if begin_s >= 0:
            return begin_s, slope
    return 0.0, statistics.median(work_s / audio_s for audio_s, work_s in measured)


def remaining_s(work_s: float, elapsed_s: float, fraction: float | None) -> float:
    """What is left of a job that runs, by how far it is (0 to 1) or else by what was predicted;
    never nothing."""
    if fraction:
        return max(LEAST_S, elapsed_s / fraction * (1.0 - fraction))
    return max(LEAST_S, work_s - elapsed_s)
