"""What came of the last recordings and utterances, and whether that is healthy. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sidecar import errors


class Outcome(StrEnum):
    """What came of something that was to be recognised."""

    DONE = "done"
    TIMED_OUT = "timed_out"
    FAILED = "failed"
    """The engine's fault. What is the client's fault, or was cancelled, is no outcome here."""


_FAULTS = (
    errors.DeviceLost,
    errors.EngineCrashed,
    errors.EngineFailed,
    errors.EngineUnavailable,
    errors.ModelLoadFailed,
    errors.UpstreamError,
)


def outcome_of(error: errors.SidecarError) -> Outcome | None:
    """What an error says of the engine; None where it says nothing of it."""
    if isinstance(error, errors.UpstreamTimeout):
        return Outcome.TIMED_OUT
    internal = error.code == errors.SidecarError.code
    return Outcome.FAILED if internal or isinstance(error, _FAULTS) else None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on so much goes wrong that the service is not healthy: ``least`` outcomes within
    ``window_s`` seconds, of which a share beyond ``most_timed_out`` was not there in time, or less
    than ``least_done`` went well."""

    window_s: float = 60.0
    least: int = 5
    most_timed_out: float = 0.5
    least_done: float = 0.5


@dataclass(frozen=True, slots=True)
class Lately:
    """How many there were of each within the window."""

    done: int = 0
    timed_out: int = 0
    failed: int = 0

    @property
    def all(self) -> int:
        """Together."""
        return self.done + self.timed_out + self.failed


def trouble(lately: Lately, thresholds: Thresholds) -> str | None:
    """Why it is not healthy, None where it is, or where too little happened to say."""
    if not lately.all or lately.all < thresholds.least:
        return None
    if lately.timed_out / lately.all > thresholds.most_timed_out:
        return "too_many_timeouts"
    if lately.done / lately.all < thresholds.least_done:
        return "too_many_failures"
    return None


class Outcomes:
    """Outcomes of the window, second by second: as many numbers as it has seconds, however much
    happens. ``now``: a clock that only goes forward."""

    def __init__(self, window_s: float, now: Callable[[], float]) -> None:
        self._window_s, self._now = window_s, now
        self._seconds: deque[tuple[int, dict[Outcome, int]]] = deque()

    def add(self, outcome: Outcome) -> None:
        """One more, now."""
        second = int(self._now())
        if not self._seconds or self._seconds[-1][0] != second:
            self._forget()
            self._seconds.append((second, {}))
        counts = self._seconds[-1][1]
        counts[outcome] = counts.get(outcome, 0) + 1

    def lately(self) -> Lately:
        """Those within the window."""
        self._forget()
        sums = {one: sum(each.get(one, 0) for _, each in self._seconds) for one in Outcome}
        return Lately(sums[Outcome.DONE], sums[Outcome.TIMED_OUT], sums[Outcome.FAILED])

    def _forget(self) -> None:
        oldest = self._now() - self._window_s
        while self._seconds and self._seconds[0][0] < oldest:
            self._seconds.popleft()
