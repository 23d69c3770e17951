"""Claims on shared jobs, as a node makes them.

A claim is the right of one node to run one job and to append to its events. It holds until the job
has ended, the node releases it, or the node is taken for dead. No other service appends to a
claimed job, except to end it, which ends the claim as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecar.jobs.events import Failure, JobEvent
from sidecar.jobs.record import JobRecord

# a machine may be at fault; two that fail alike put the blame on the recording
TRIES = 2
"""Nodes that try a job which could not be done, before it fails."""
# memory and loaded engines change within half a minute, and a judgement costs milliseconds
JUDGED_S = 30.0
"""Seconds for which a node's verdict about a job holds."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed job. ``token``: of this claim; every report carries it. ``record``: the job as it
    stands. ``worn``: its earlier checkpoints without their state, as they are to be persisted with
    the end of the job."""

    token: str
    record: JobRecord
    worn: Sequence[JobEvent] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """What a node prefers: requested precisions that need no load now, and for how many seconds
    the loaded one has been loaded. ``loaded``: values of `Precision` as requested, for example
    ``{"auto", "fp16"}``; empty if nothing is loaded."""

    loaded: frozenset[str] = frozenset()
    loaded_for_s: float = 0.0


class Claims(Protocol):
    """The shared jobs, as one node sees them.

    All calls but the ``on_*`` may be repeated, and raise `errors.JournalUnreachable` if the
    database is away.
    """

    async def claim(self, token: str, offer: Offer) -> Claim | None:
        """Claim the next job in fair order that this node has not refused in the last `JUDGED_S`;
        None if there is none. If the token holds a claim already, return that one."""
        ...

    async def report(
        self,
        token: str,
        base: int,
        record: JobRecord,
        events: Sequence[JobEvent],
        worn: Sequence[JobEvent] = (),
    ) -> bool:
        """Append events to a claimed job whose last event has the number ``base``.

        The numbers of ``events`` ascend, with gaps. ``record`` is the job after them: its state
        becomes the job's, and its end ends the claim. ``worn`` replaces earlier events. Return
        whether all is persisted, also of a report that is repeated; False if the claim is lost.
        """
        ...

    async def release(self, token: str) -> None:
        """Give a claimed job back, which waits by its last report; others may claim it at once."""
        ...

    async def mine(self) -> frozenset[str]:
        """Return the tokens of all claims of this node that hold."""
        ...

    async def judge(self, verdicts: Mapping[str, Failure | None]) -> None:
        """Persist, by job id, why this node cannot do a job; None if it can."""
        ...

    async def unjudged(self, most: int) -> Sequence[JobRecord]:
        """Return waiting jobs that no live node is known to be able to do, and that this node did
        not judge in the last `JUDGED_S`."""
        ...

    async def end_unschedulable(self, patience_s: float) -> None:
        """Say of each waiting job that all live nodes refuse that it is so, and end it after
        ``patience_s``."""
        ...

    def on_waiting(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called when there may be something to claim."""
        ...

    def on_ended(self, tell: Callable[[str], None]) -> None:
        """Have ``tell`` called with the id of each claimed job that another service ended or
        deleted; with "" if a call may have been missed."""
        ...
