"""Whether words while somebody speaks are worth what they cost, by what it takes here. Pure.

An engine that cannot be stopped within a stretch keeps a final waiting for as long as the stretch
takes that it is at. Where that is long, all that can wait is left out: there are finals only.
"""

from __future__ import annotations

from sidecar.live.runtime.schedule import Urgency

MOST_S = 1.0
"""What may keep a final waiting; and a partial that takes longer is behind before it is told."""
AGAIN_S = 60.0
"""After so long it is tried again: the machine may have been busy with something else."""
_NEW = 0.5
"""What the last one counts in the mean."""


class Pace:
    """Give it what each took, ask it before the next."""

    def __init__(self) -> None:
        self._means: dict[Urgency, float] = {}
        self._again: dict[Urgency, float] = {}

    def took(self, urgency: Urgency, work_s: float, now: float) -> None:
        """A stretch was recognised, in ``work_s`` seconds. What is heard in a pause is heard as a
        final is."""
        for kind in _alike(urgency):
            mean = self._means.get(kind, work_s)
            self._means[kind] = mean + _NEW * (work_s - mean)
            self._again[kind] = now + AGAIN_S

    def allows(self, urgency: Urgency, now: float) -> bool:
        """Whether it is worth it; finals always are."""
        if urgency is Urgency.FINAL:
            return True
        slow = self._means.get(urgency, 0.0) > MOST_S
        return not slow or now >= self._again[urgency]

    def tried(self, urgency: Urgency, now: float) -> None:
        """It is being recognised: one at a time where it was too slow before."""
        if self._means.get(urgency, 0.0) > MOST_S:
            self._again[urgency] = now + AGAIN_S


def _alike(urgency: Urgency) -> tuple[Urgency, ...]:
    return (Urgency.PARTIAL,) if urgency is Urgency.PARTIAL else (Urgency.SPECULATIVE,)
