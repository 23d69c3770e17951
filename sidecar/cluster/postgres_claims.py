"""Claims on shared jobs in PostgreSQL: each call is one function of the database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sidecar import errors
from sidecar.cluster.claims import Claim, Offer
from sidecar.cluster.eligibility import unschedulable
from sidecar.cluster.housekeeping import Housekeeping
from sidecar.cluster.rows import Rows, StoredEvent, StoredJob, fold, kind_of, worn
from sidecar.database.database import Database
from sidecar.jobs.events import Failed, Failure, JobEvent, Refused
from sidecar.jobs.order import PASSED_OVER_S
from sidecar.jobs.record import JobRecord
from sidecar.jobs.retention import FEW_SEGMENTS, weight
from sidecar.jobs.written import Unreadable
from sidecar.metering.outcomes import outcome_of
from sidecar.metering.tally import JobTally
from sidecar.vault.sealing import SealBroken

log = logging.getLogger(__name__)

_EVENTS = """
    SELECT job, seq, at, kind, change FROM vibevoice.events
    WHERE job = %s AND seq <= %s ORDER BY seq"""
WAITING, ENDED = "vibevoice_waiting", "vibevoice_ended"
"""Channels: something may be claimed; a job was ended or deleted."""


class PostgresClaims:
    """The `Claims` of one node."""

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
        """Claim the next job; None if there is none."""
        values = (self._node, token, [*offer.loaded], offer.loaded_for_s, PASSED_OVER_S)
        rows = await self._database.call("claim_1", *values)
        if not rows:
            return None
        job_id, seq, submitted = rows[0]
        events = await self._database.fetch(_EVENTS, (job_id, seq)) if seq else []
        try:
            past = [self._rows.event(StoredEvent(*row)) for row in events]
            record = fold(self._rows.record(StoredJob(job_id, submitted)), past)
            record = replace(record, seq=seq)  # also behind an event that changed nothing
        except (SealBroken, Unreadable) as error:
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
        """Append events to a claimed job; whether they are persisted."""
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
            await self._housekeeping.settle(record.owner)
        return bool(persisted)

    async def _sealed(self, record: JobRecord, events: Sequence[JobEvent]) -> list[bytes]:
        """Encrypt events; a whole transcript in a thread."""

        def sealed() -> list[bytes]:
            return [self._rows.sealed_event(record.id, one) for one in events]

        long = record.over and len(record.segments) > FEW_SEGMENTS
        return await asyncio.to_thread(sealed) if long else sealed()

    async def release(self, token: str) -> None:
        """Give a job back."""
        await self._database.call("release_1", token)

    async def mine(self) -> frozenset[str]:
        """Return the tokens of all claims of this node that hold."""
        rows = await self._database.fetch(
            "SELECT claim FROM vibevoice.jobs WHERE node = %s", (self._node,)
        )
        return frozenset(claim for (claim,) in rows)

    async def judge(self, verdicts: Mapping[str, Failure | None]) -> None:
        """Persist why this node cannot do jobs; None for those that it can."""
        failures = [
            self._rows.sealed_failure(job_id, self._node, failure) if failure else None
            for job_id, failure in verdicts.items()
        ]
        await self._database.call("judge_1", self._node, [*verdicts], failures)

    async def unjudged(self, most: int) -> Sequence[JobRecord]:
        """Return waiting jobs, as they were submitted, that no node is known to be able to do."""
        found = []
        for job_id, submitted in await self._database.call("unjudged_1", self._node, most):
            try:
                found.append(self._rows.record(StoredJob(job_id, submitted)))
            except (SealBroken, Unreadable) as error:
                await self._refuse_unreadable(job_id, error)
        return found

    async def end_unschedulable(self, patience_s: float) -> None:
        """Tell of jobs that all nodes refuse, and end them after ``patience_s``."""
        for job_id, seq, nodes, failures, told, for_s in await self._database.call("refused_1"):
            ends = for_s >= patience_s
            if told and not ends:
                continue
            try:
                said = [
                    self._rows.failure(job_id, node, one)
                    for node, one in zip(nodes, failures, strict=True)
                ]
            except (SealBroken, Unreadable) as error:
                log.error("what nodes say of job %s cannot be read: %s", job_id, error)
                continue
            failure = Failure.of(unschedulable(said))
            event = JobEvent(seq + 1, 0.0, Failed(failure) if ends else Refused(failure))
            sealed = self._rows.sealed_event(job_id, event)
            whom = None if ends else nodes
            rows = await self._database.call("tell_refused_1", job_id, seq, whom, sealed)
            if (lasted_s := rows[0][0]) is not None:
                self._tally.failed(failure.code, lasted_s, outcome_of(failure.error()))

    def on_waiting(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called when there may be something to claim."""
        self._database.listen(WAITING, lambda _: tell())

    def on_ended(self, tell: Callable[[str], None]) -> None:
        """Have ``tell`` called with each job that was ended elsewhere."""
        self._database.listen(ENDED, tell)

    async def _refuse_unreadable(self, job_id: str, error: Exception) -> None:
        """Leave a job to nodes that can read it, such as those of a later release."""
        log.error("job %s in the database cannot be read: %s", job_id, error or "damaged")
        await self.judge({job_id: Failure.of(errors.AudioLost("Its record is damaged."))})
