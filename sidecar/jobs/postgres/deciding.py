"""Whether what a service says of a job counts: pure, and decided where the job's row is locked.

A job is whoever's claimed it last. Whose claim was taken over says nothing more of it; somebody who
ends it is heard whatever the one says that works on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sidecar.jobs.events import Cancelled, Edited, JobEvent
from sidecar.jobs.record import ENDED, JobState


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a job is by the database: its last event, and by which claim somebody has it."""

    state: JobState
    seq: int
    claim: str | None


@dataclass(frozen=True, slots=True)
class Said:
    """What a service says: an event, the state after it and the number of the event before it as
    the service knows them, and the claim that it has on the job. ``takes``: the claim begins here,
    with a job that nobody has."""

    event: JobEvent
    state: JobState
    base: int
    claim: str | None = None
    takes: bool = False


def after(standing: Standing, said: Said) -> Standing | None:
    """Where the job is then; None where it does not count.

    Its ``seq`` is the event's, which is another than it said where that is taken.
    """
    if not _counts(standing, said):
        return None
    seq = max(said.event.seq, standing.seq + 1)
    claim = said.claim if said.takes else standing.claim
    return replace(standing, state=said.state, seq=seq, claim=claim)


def _counts(standing: Standing, said: Said) -> bool:
    over = standing.state in ENDED
    match said.event.change:
        case Cancelled():
            return not over
        case Edited():
            return over and standing.seq == said.base
    if over:
        return False
    if standing.claim is not None:
        return standing.claim == said.claim and not said.takes
    return standing.seq == said.base and (said.claim is None or said.takes)
