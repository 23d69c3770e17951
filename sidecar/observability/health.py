"""Health: outcomes of recent recognitions, and when they make the service unhealthy.

`Service.trouble` reports it, or an engine that hangs and cannot be killed.
"""

from collections import Counter, deque
from collections.abc import Callable
from enum import StrEnum

from sidecar import errors
from sidecar.limit_overrides import limit

_ENGINE_FAULTS = (
    errors.DeviceLost,
    errors.EngineCrashed,
    errors.EngineFailed,
    errors.EngineUnavailable,
    errors.ModelLoadFailed,
    errors.OutOfMemory,
)
MAX_OUTCOME_SECONDS = 300
HEALTH_WINDOW_S = 60.0
"""Time in seconds whose recognitions decide about the health."""
MIN_OUTCOMES = limit("health_min_events", 5)
"""Minimum outcomes within `HEALTH_WINDOW_S` from which health is judged."""
MIN_SUCCESS_RATIO = limit("health_min_success_ratio", 0.5)
MAX_TIMED_OUT_RATIO = 0.5


class RecognitionOutcome(StrEnum):
    """Outcome of a recognition."""

    DONE = "done"
    TIMED_OUT = "timed_out"
    FAILED = "failed"
    """Error of the engine. Client errors and cancellations are not counted as outcomes."""


def outcome_of_error(error: errors.SidecarError) -> RecognitionOutcome | None:
    """Return the outcome of an error for the engine; `None` if the engine did not cause it."""
    if isinstance(error, errors.EngineFailed) and error.timed_out:
        return RecognitionOutcome.TIMED_OUT
    internal = error.code == errors.SidecarError.code
    return RecognitionOutcome.FAILED if internal or isinstance(error, _ENGINE_FAULTS) else None


Outcomes = Counter[RecognitionOutcome]
"""Number of each outcome."""


class OutcomeWindow:
    """Outcomes of the last `MAX_OUTCOME_SECONDS` seconds in which there were any, with one entry
    per second, so that its size is bounded.

    ``now``: a monotonic clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._seconds = deque[tuple[int, Outcomes]](maxlen=MAX_OUTCOME_SECONDS)

    def add(self, outcome: RecognitionOutcome) -> None:
        """Add an outcome at the current time."""
        second = int(self._now())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Outcomes()))
        self._seconds[-1][1][outcome] += 1

    def lately(self, window_s: float) -> Outcomes:
        """Return the outcomes of the last ``window_s`` seconds."""
        oldest = self._now() - window_s
        recent = (counts for second, counts in self._seconds if second >= oldest)
        return sum(recent, Outcomes())


def health_problem(lately: Outcomes) -> str | None:
    """Return the reason why the service is not healthy; `None` if it is, or if there are too few
    outcomes."""
    total = lately.total()
    if not total or total < MIN_OUTCOMES:
        return None
    if lately[RecognitionOutcome.TIMED_OUT] / total > MAX_TIMED_OUT_RATIO:
        return "too_many_timeouts"
    if lately[RecognitionOutcome.DONE] / total < MIN_SUCCESS_RATIO:
        return "too_many_failures"
    return None
