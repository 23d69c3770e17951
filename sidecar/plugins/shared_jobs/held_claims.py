"""Claimed jobs of a node: run, renewal and reports of their claims."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from sidecar.concurrency import cancel_after
from sidecar.errors import SidecarError
from sidecar.jobs import job_record
from sidecar.jobs.attempt_end import AttemptEnd, may_pass_on
from sidecar.jobs.faults import passes
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import CountsAs, JobChange, JobEvent, JobRecord, RequeuedChange
from sidecar.jobs.job_runner import Job, OpenRecording
from sidecar.plugins.shared_jobs.claims import Claim, ClaimStore
from sidecar.plugins.shared_jobs.postgres_database import retry_while_unavailable

log = logging.getLogger(__name__)

ENDS_SOON = {CountsAs.CRASH, CountsAs.UNABLE_NODE}
"""What an attempt counts as of which the second ends a job."""
REPORT_BATCH_S = 0.005
"""Seconds in which events are collected, as the last segment and the end are one commit then."""


class ClaimedJob(Job):
    """Job that writes to its node's log as long as it is claimed. After that, it ends in this
    process without a report."""

    shared = True

    def __init__(
        self,
        record: JobRecord,
        open_recording: OpenRecording,
        reported: Callable[[], Awaitable[None]],
        leave: Callable[[SidecarError | None, float, bool], None],
    ) -> None:
        """``reported``: waits until all its events so far are persisted. ``leave``: leaves the job
        to other nodes, because of an error if there is one, after the seconds for which it kept the
        engine in vain; here it is done last if one more such attempt here may end it."""
        super().__init__(None, record, open_recording)
        self._reported, self._leave = reported, leave
        self.claimed = True
        """Whether its events are reported."""

    def end_attempt(self, end: AttemptEnd) -> None:
        """Apply the end of an attempt. A job that an error left without an end is done by a node
        without this fault, and one that runs alone from now on by the node that is free first;
        here it ends without a report."""
        beside = not self.record.alone
        super().end_attempt(end)
        left = end.error is not None or (beside and self.record.alone)
        if left and self.claimed and not self.ended:
            counted = {one.counts_as for one in end.changes if isinstance(one, RequeuedChange)}
            self._leave(end.error, end.vain_s, bool(counted & ENDS_SOON))
            self.claimed = False
            self.cancel()

    def not_opened(self, error: SidecarError) -> None:
        """Leave the job to other nodes; it fails if two cannot open its recording."""
        changes: tuple[RequeuedChange | job_record.FailedChange, ...] = ()
        if not passes(error) and may_pass_on(self.record):
            self._append(job_record.StartedChange())
            changes = (RequeuedChange(CountsAs.UNABLE_NODE),)
        elif not passes(error):
            changes = (job_record.FailedChange(job_record.JobFailure.of(error)),)
        self.end_attempt(AttemptEnd(changes, error, time.monotonic() - self.arrived_at))

    def refuse(self, error: SidecarError | None) -> None:
        """Leave the job to nodes whose models can do it."""
        if error is not None and self.claimed:
            self._leave(None, 0.0, False)

    async def written(self) -> None:
        """Wait until its events so far are persisted, however long the database does not
        answer, or the claim is lost."""
        if self.claimed:
            await self._reported()

    def _append(self, change: JobChange) -> None:
        if self.claimed:
            super()._append(change)
        elif isinstance(change, job_record.CancelledChange) and not self.ended:
            event = JobEvent(self.record.seq + 1, self.record.created, change)
            self._on_event(job_record.apply_event(self.record, event), event)


class HeldClaim:
    """Claim of a node. `run` reports the events of its job."""

    def __init__(self, claims: ClaimStore, log: JobEventLog, claim: Claim) -> None:
        """``log`` has the job, as it was claimed."""
        self._claims, self._log = claims, log
        self.token, self.claimed_record, self.id = claim.token, claim.record, claim.record.id
        """Token, the job as it was claimed (`job` has it as it is now), and its id."""
        self.tries = claim.tries
        """How often this node put the job off."""
        self.job: ClaimedJob | None = None
        """None until its recording is open."""
        self._base = claim.record.seq
        """Number of the last event that the database has."""
        self._counted = self._base + claim.begins
        """Number of the last event that the database knows of, by a report or by the claim."""
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        """Set when a task waits for a report, or the job has ended."""
        self._moved = asyncio.Event()
        """Set, and replaced, each time that the database has more events."""
        self._over = False
        log.listen(self._on_event, self.id)

    async def flushed(self) -> None:
        """Wait until all events so far are persisted, or never will be. The start of an attempt
        that the claim implies is not waited for."""
        if self._over:  # the log may have forgotten the job
            return
        record = self._log.get(self.id)
        last = record.seq
        if last <= self._counted and not record.over:
            return
        self._urgent.set()
        while self._base < last and not self._over:
            await self._moved.wait()

    async def run(self) -> bool:
        """Report events as they come. Return True once the end of the job is persisted, False once
        the claim is lost."""
        try:
            while True:
                await self._news.wait()
                await cancel_after(REPORT_BATCH_S, self._urgent.wait())
                self._news.clear()
                self._urgent.clear()
                record = self._log.get(self.id)
                if not await self._reported(record):
                    return False
                if record.over:
                    return True
        finally:
            self.finish()

    async def _reported(self, record: JobRecord) -> bool:
        """Report the events since the last report; return False if the claim is lost."""
        events = tuple(self._log.events(record.id, self._base))
        report = partial(self._claims.report, self.token, self._base, record, events)
        if not await retry_while_unavailable(report):
            return False
        self._base = record.seq
        self._move()
        return True

    def _on_event(self, record: JobRecord, event: JobEvent) -> None:
        self._news.set()
        if record.over:
            self._urgent.set()

    def finish(self) -> None:
        """Report no more: events that are not reported yet are dropped."""
        self._over = True
        self._move()

    def _move(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


class HeldClaims:
    """Claimed jobs of a node: in its log, reported, and stopped without a
    report if the claim is lost."""

    def __init__(self, claims: ClaimStore, log: JobEventLog, queue: JobQueue) -> None:
        """``log``: that of ``queue``, with the claimed jobs only."""
        self._claims, self._log, self._queue = claims, log, queue
        self._held: dict[str, HeldClaim] = {}
        self._reports: dict[HeldClaim, asyncio.Task[None]] = {}
        """Tasks that report the events of the claimed jobs."""
        self.pending_token = ""
        """Token of a claim call without an answer: the claim may exist."""
        self.capacity_freed = asyncio.Event()
        """Set when a job has ended here, or a claim is gone."""
        log.listen(self._on_event)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, held: HeldClaim) -> bool:
        return self._held.get(held.id) is held

    @property
    def busy(self) -> list[JobRecord]:
        """Return the claimed jobs that have not ended here."""
        records = map(self._record, self._held.values())
        return [record for record in records if not record.over]

    def add(self, claim: Claim) -> HeldClaim:
        """Hold a claim. If this node had an earlier claim on the job and missed
        its loss, that ends first."""
        if (lost := self._held.get(claim.record.id)) is not None:
            self._lose(lost)
        self._log.enter(claim.record)
        held = HeldClaim(self._claims, self._log, claim)
        self._held[held.id] = held
        report = asyncio.get_running_loop().create_task(self._report(held), name="reports")
        self._reports[held] = report
        return held

    def append(self, held: HeldClaim, change: JobChange) -> None:
        """Append an event to a job, to be reported."""
        self._log.append(held.id, change)

    async def leave(
        self,
        held: HeldClaim,
        error: SidecarError | None = None,
        for_s: float = 0.0,
        *,
        unable: bool = False,
    ) -> None:
        """Report what is left to report, and leave a job to other nodes: because of an error, for
        ``for_s`` seconds; ``unable``: as of `ClaimStore.put_off`. Retried while the database does
        not answer."""
        await held.flushed()
        if held not in self:  # ended by its client meanwhile
            return
        call = partial(self._claims.release, held.token)
        if error is not None:
            call = partial(self._claims.put_off, held.token, held.id, error, for_s, unable=unable)
        await retry_while_unavailable(call)
        self._drop(held)

    async def release_waiting(self) -> None:
        """Leave the jobs that do not run to other nodes."""
        waiting = [
            held
            for held in self._held.values()
            if self._record(held).state is job_record.JobState.QUEUED
        ]
        await asyncio.gather(*map(self._report_and_release, waiting))

    async def release_all(self, within_s: float) -> None:
        """Report what is left to report and release all claims, one without an answer too. What
        takes longer is left to the expiry of this service."""
        work = [self._report_and_release(held) for held in self._held.values()]
        if token := self.pending_token:
            work.append(retry_while_unavailable(partial(self._claims.release, token)))
        await cancel_after(within_s, asyncio.gather(*work))
        for held in [*self._held.values()]:
            log.warning(
                "the claim on job %s is not released: the database does not answer; it expires",
                held.id,
            )
            self._drop(held)

    async def check(self) -> None:
        """Stop jobs whose claim is lost, and release unknown claims of this node. A job that has
        ended here is left to its reporter.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        held_now = [*self._held.values()]
        mine = await self._claims.mine()
        for held in held_now:
            if held.token not in mine and self._runs(held):
                self._lose(held)
        known = {held.token for held in (*held_now, *self._held.values())}
        for token in mine - known - {self.pending_token}:
            log.warning("an unknown claim of this node was released")
            await self._claims.release(token)

    def end(self, job_id: str) -> None:
        """Stop a job that another service has ended."""
        held = self._held.get(job_id)
        if held is not None and self._runs(held):
            self._drop(held)

    async def _report_and_release(self, held: HeldClaim) -> None:
        if held not in self:
            return
        if held.job is not None:
            held.job.claimed = False
        if self._record(held).state is job_record.JobState.RUNNING:
            self.append(held, RequeuedChange())
        await self.leave(held)

    async def _report(self, held: HeldClaim) -> None:
        try:
            persisted = await held.run()
        except Exception:  # it would rest in a task that nobody awaits
            log.exception("internal error in the reports of job %s", held.id)
            persisted = False
        if held in self:
            (self._drop if persisted else self._lose)(held)

    def _lose(self, held: HeldClaim) -> None:
        log.warning("job %s stopped on this node: its claim was lost", held.id)
        self._drop(held)

    def _drop(self, held: HeldClaim) -> None:
        """Drop a claim; a job that has not ended stops without a report."""
        if held not in self:
            return
        del self._held[held.id]
        self._reports.pop(held).cancel()  # perhaps the task that runs this: it awaits nothing more
        held.finish()
        if held.job is not None:
            held.job.claimed = False
            self._queue.cancel(held.job)
        self._log.delete(held.id)
        self.capacity_freed.set()

    def _record(self, held: HeldClaim) -> JobRecord:
        return self._log.get(held.id)

    def _runs(self, held: HeldClaim) -> bool:
        return held in self and not self._record(held).over

    def _on_event(self, record: JobRecord, event: JobEvent) -> None:
        if record.over:
            self.capacity_freed.set()
