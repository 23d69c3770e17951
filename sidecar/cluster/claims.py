"""Claims on shared jobs, as a node makes them: each call is one function of the database.

A claim is the right of one node to run one job and to append to its events. It holds until the job
has ended, the node releases it, or the node is taken for dead. No other service appends to a
claimed job, except to end it, which ends the claim as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sidecar import errors
from sidecar.cluster.eligibility import unschedulable
from sidecar.cluster.job_rows import Rows, fold, kind_of, worn
from sidecar.cluster.shared_retention import Housekeeping
from sidecar.jobs.events import Failed, Failure, JobEvent, Refused
from sidecar.jobs.record import JobRecord
from sidecar.jobs.retention import FEW_SEGMENTS, weight
from sidecar.jobs.scheduler import PASSED_OVER_S
from sidecar.jobs.written import Unreadable
from sidecar.observability.outcomes import outcome_of
from sidecar.observability.tally import JobTally
from sidecar.storage.database import Database

log = logging.getLogger(__name__)

# a machine may be at fault; two that fail alike put the blame on the recording
TRIES = 2
"""Nodes that try a job which could not be done, before it fails."""
# memory and loaded engines change within half a minute, and a judgement costs milliseconds
JUDGED_S = 30.0
"""Seconds for which a node's verdict about a job holds."""
LOOKED_AT = 1000
"""Refused jobs that are looked at in one call: tenths of a second."""
WAITING, ENDED = "vibevoice_waiting", "vibevoice_ended"
"""Channels: something may be claimed; a job was ended or deleted."""
_EVENTS = """
    SELECT job, seq, at, kind, change FROM vibevoice.events
    WHERE job = %s AND seq <= %s ORDER BY seq"""


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


class Claims:
    """The shared jobs, as one node sees them.

    All calls but the ``on_*`` may be repeated, and raise `errors.JournalUnreachable` if the
    database is away.
    """

    def __init__(
        self,
        database: Database,
        rows: Rows,
        node_id: str,
        housekeeping: Housekeeping,
        tally: JobTally,
    ) -> None:
        self._database, self._rows, self._node = database, rows, node_id
        self._housekeeping, self._tally = housekeeping, tally

    async def claim(self, token: str, offer: Offer) -> Claim | None:
        """Claim the next job in fair order that this node has not refused in the last `JUDGED_S`;
        None if there is none. If the token holds a claim already, return that one."""
        values = (self._node, token, [*offer.loaded], offer.loaded_for_s, PASSED_OVER_S)
        rows = await self._database.call("claim_1", *values)
        if not rows:
            return None
        job_id, seq, submitted = rows[0]
        events = await self._database.fetch(_EVENTS, (job_id, seq)) if seq else []
        try:
            past = [self._rows.event(*row) for row in events]
            record = fold(self._rows.record(job_id, submitted), past)
            record = replace(record, seq=seq)  # also behind an event that changed nothing
        except Unreadable as error:
            await self._refuse_unreadable(job_id, error)
            await self.release(token)
            return None
        return Claim(token, record, worn(past))

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
        ((persisted,),) = await self._database.call(
            "report_1",
            record.id,
            token,
            base,
            [one.seq for one in events],
            [one.at for one in events],
            [one.fleeting for one in events],
            [kind_of(one.change) for one in events],
            await self._sealed(record, events),
            record.state.value,
            record.progress.fraction or 0.0,
            record.behind,
            weight(record) if record.over else 0,
            self._rows.sealed_summary(record),
            [one.seq for one in worn],
            await self._sealed(record, worn),
        )
        if persisted and record.over:
            self._housekeeping.settle(record.owner)
        return bool(persisted)

    async def _sealed(self, record: JobRecord, events: Sequence[JobEvent]) -> list[bytes]:
        """Encrypt events; a whole transcript in a thread."""

        def sealed() -> list[bytes]:
            return [self._rows.sealed_event(record.id, one) for one in events]

        long = record.over and len(record.segments) > FEW_SEGMENTS
        return await asyncio.to_thread(sealed) if long else sealed()

    async def release(self, token: str) -> None:
        """Give a claimed job back, which waits by its last report; others may claim it at once."""
        await self._database.call("release_1", token)

    async def mine(self) -> frozenset[str]:
        """Return the tokens of all claims of this node that hold."""
        rows = await self._database.fetch(
            "SELECT claim FROM vibevoice.jobs WHERE node = %s", (self._node,)
        )
        return frozenset(claim for (claim,) in rows)

    async def judge(self, verdicts: Mapping[str, Failure | None]) -> None:
        """Persist, by job id, why this node cannot do a job; None if it can."""
        failures = [
            self._rows.sealed_failure(job_id, self._node, failure) if failure else None
            for job_id, failure in verdicts.items()
        ]
        await self._database.call("judge_1", self._node, [*verdicts], failures)

    async def unjudged(self, most: int) -> Sequence[JobRecord]:
        """Return waiting jobs, as they were submitted, that no live node is known to be able to do,
        and that this node did not judge in the last `JUDGED_S`."""
        found = []
        for job_id, submitted in await self._database.call("unjudged_1", self._node, most):
            try:
                found.append(self._rows.record(job_id, submitted))
            except Unreadable as error:
                await self._refuse_unreadable(job_id, error)
        return found

    async def end_unschedulable(self, patience_s: float) -> None:
        """Say of each waiting job that all live nodes refuse that it is so, and end it after
        ``patience_s``."""
        rows = await self._database.call("refused_1", LOOKED_AT)
        for job_id, seq, nodes, failures, told, for_s in rows:
            ends = for_s >= patience_s
            if told and not ends:
                continue
            try:
                said = [
                    self._rows.failure(job_id, node, one)
                    for node, one in zip(nodes, failures, strict=True)
                ]
            except Unreadable as error:
                log.error("what nodes say of job %s cannot be read: %s", job_id, error)
                continue
            failure = Failure.of(unschedulable(said))
            event = JobEvent(seq + 1, 0.0, Failed(failure) if ends else Refused(failure))
            sealed = self._rows.sealed_event(job_id, event)
            whom = None if ends else nodes
            ((lasted_s,),) = await self._database.call("tell_refused_1", job_id, seq, whom, sealed)
            if lasted_s is not None:
                self._tally.failed(failure.code, lasted_s, outcome_of(failure.error()))

    def on_waiting(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called when there may be something to claim."""
        self._database.listen(WAITING, lambda _: tell())

    def on_ended(self, tell: Callable[[str], None]) -> None:
        """Have ``tell`` called with the id of each claimed job that another service ended or
        deleted; with "" if a call may have been missed."""
        self._database.listen(ENDED, tell)

    async def _refuse_unreadable(self, job_id: str, error: Exception) -> None:
        """Leave a job to nodes that can read it, such as those of a later release."""
        log.error("job %s in the database cannot be read: %s", job_id, error)
        await self.judge({job_id: Failure.of(errors.AudioLost("Its record is damaged."))})
