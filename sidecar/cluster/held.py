"""Claims that a node holds: from the claim until the end is reported, or the claim is lost."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial

from sidecar.cluster.claimed_job import ClaimedJob
from sidecar.cluster.claims import Claim, Claims
from sidecar.cluster.reporting import Reporter
from sidecar.jobs.events import Change, JobEvent, PutBack
from sidecar.jobs.log import MemoryLog
from sidecar.jobs.queue import JobQueue
from sidecar.jobs.record import JobRecord, JobState
from sidecar.storage.retrying import at_most, patiently

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Held:
    """A claim, and what this node has made of it. ``job``: once its recording is open."""

    claim: Claim
    reporter: Reporter
    job: ClaimedJob | None = None

    @property
    def record(self) -> JobRecord:
        """The job as it was claimed."""
        return self.claim.record

    @property
    def id(self) -> str:
        """The id of the job."""
        return self.claim.record.id


class HeldClaims:
    """Enters claimed jobs in the node's log, has them reported, and stops them untold once their
    claim is lost."""

    def __init__(self, claims: Claims, log: MemoryLog, queue: JobQueue) -> None:
        """``log``: that of ``queue``, with the claimed jobs only."""
        self._claims, self._log, self._queue = claims, log, queue
        self._held: dict[str, Held] = {}
        self._unknown: frozenset[str] = frozenset()
        """Claims that the last check did not know of."""
        self.freed = asyncio.Event()
        """Set when a job has ended here, or a claim is gone."""
        log.listen(self._heard)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, held: Held) -> bool:
        return self._held.get(held.id) is held

    @property
    def busy(self) -> int:
        """Number of claimed jobs that have not ended here."""
        return sum(not self._record(held).over for held in self._held.values())

    def add(self, claim: Claim) -> Held:
        """Hold a claim. If this node had lost the job before without noticing, that ends first."""
        if (lost := self._held.get(claim.record.id)) is not None:
            self._lose(lost)
        self._log.enter(claim.record)
        held = Held(claim, Reporter(self._claims, self._log, claim))
        self._held[held.id] = held
        held.reporter.open(partial(self._reports_ended, held))
        return held

    def append(self, held: Held, change: Change) -> None:
        """Note what happened to a job, to be reported."""
        self._log.append(held.id, change)

    async def release(self, held: Held) -> None:
        """Give a claim back, however long the database is away."""
        await patiently(partial(self._claims.release, held.claim.token))
        self._drop(held)

    async def release_all(self, within_s: float, asking: str) -> None:
        """Report what is left to report and release all claims, also one with the token ``asking``
        that may have been made. What takes longer is left to the expiry of this service."""
        work = [self._give_back(held) for held in self._held.values()]
        if asking:
            work.append(patiently(partial(self._claims.release, asking)))
        await at_most(within_s, asyncio.gather(*work))
        for held in [*self._held.values()]:
            log.warning("job %s is not given back: the database is away", held.id)
            self._drop(held)

    async def check(self, asking: str = "") -> None:
        """Stop jobs whose claim is lost, and give back claims that nothing here knows of. A job
        that has ended here is left to its reporter. ``asking``: a token whose claim may be made.

        Raises:
            errors.JournalUnreachable: the database is away.
        """
        held_now = [*self._held.values()]
        mine = await self._claims.mine()
        for held in held_now:
            if held.claim.token not in mine and self._runs(held):
                self._lose(held)
        known = {held.claim.token for held in (*held_now, *self._held.values())} | {asking}
        unknown = mine - known
        for token in unknown & self._unknown:  # also a moment ago: no claim is being answered
            log.warning("a claim that this node does not know of is given back")
            await self._claims.release(token)
        self._unknown = unknown

    def end(self, job_id: str) -> None:
        """Stop a job that another service has ended."""
        held = self._held.get(job_id)
        if held is not None and self._runs(held):
            self._drop(held)

    async def _give_back(self, held: Held) -> None:
        if held not in self:
            return
        if held.job is not None:
            held.job.let_go()
        if self._record(held).state is JobState.RUNNING:
            self.append(held, PutBack())
        await held.reporter.flushed()
        if held in self:
            await self.release(held)

    def _reports_ended(self, held: Held, persisted: bool) -> None:
        if held in self:
            (self._drop if persisted else self._lose)(held)

    def _lose(self, held: Held) -> None:
        log.warning("job %s stops here: its claim is lost", held.id)
        self._drop(held)

    def _drop(self, held: Held) -> None:
        """Forget a claim; if the job has not ended it stops untold."""
        if held not in self:
            return
        del self._held[held.id]
        held.reporter.close()
        if held.job is not None:
            held.job.let_go()
            self._queue.cancel(held.job)
        self._log.forget(held.id)
        self.freed.set()

    def _record(self, held: Held) -> JobRecord:
        return self._log.get(held.id)

    def _runs(self, held: Held) -> bool:
        return held in self and not self._record(held).over

    def _heard(self, record: JobRecord, event: JobEvent) -> None:
        if record.over:
            self.freed.set()
