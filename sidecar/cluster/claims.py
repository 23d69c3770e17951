"""Claims on shared jobs: protocol, claimed jobs, renewal, reports.

A claim is the right of one node to run one job and to append to its events. It holds until the job
has ended, the node releases it, or the node expires. No other service appends to a claimed job,
except to end it, which ends the claim as well.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from sidecar import errors
from sidecar.audio.audio_source import AudioSource
from sidecar.cluster.job_rows import (
    DECRYPT_IN_THREAD_BYTES,
    JobRows,
    event_kind,
    log_unreadable,
    replay_events,
)
from sidecar.cluster.shared_retention import SharedRetention
from sidecar.concurrency import backoff_s, cancel_after
from sidecar.jobs import job_record
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import JobChange, JobEvent, JobFailure, JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.jobs.retention import render_result, retained_bytes
from sidecar.jobs.scheduler import MAX_PASSED_OVER_S
from sidecar.jobs.sqlite_event_log import UnreadableRecord
from sidecar.observability.metrics import JobMetrics, outcome_of_error
from sidecar.storage.postgres_database import PostgresDatabase, Row, retry_while_unavailable
from sidecar.storage.postgres_settings import MAX_RETRY_PAUSE_S, MIN_RETRY_PAUSE_S

log = logging.getLogger(__name__)

# One machine may be at fault. If two fail alike, the recording is to blame.
MAX_NODE_ATTEMPTS = 2
"""Nodes that try a job before it fails."""
# Memory and loaded engines change within half a minute, and a verdict costs milliseconds.
ELIGIBILITY_TTL_S = 30.0
"""Seconds for which a node's verdict about a job holds."""
UNSCHEDULABLE_BATCH = 1000
"""Refused jobs of one call: tenths of a second."""
WAITING, ENDED = "vibevoice_waiting", "vibevoice_ended"
"""Channels: a job may be claimed; a job was ended or deleted."""
TAKE_UP_TRIES = 3
"""Tries to read some events of a claimed job, before it is given back and others are claimed."""
PAGE_BYTES, PAGE_EVENTS = 1 << 20, 500
"""Events that are read at once. A recording of a day has 4,000 checkpoints with 110 MB of states,
which no line carries within the time limit of a call."""
_PAGE = """
    SELECT job, seq, at, kind, data FROM (
        SELECT *, sum(size) OVER (ORDER BY seq) - size AS before FROM (
            SELECT job, seq, at, kind, coalesce(whole, change) AS data,
                coalesce(octet_length(coalesce(whole, change)), 0) AS size FROM vibevoice.events
            WHERE job = %s AND seq > %s AND seq <= %s ORDER BY seq LIMIT %s) following) sized
    WHERE before < %s ORDER BY seq"""
REFUSED_JOBS = """
    SELECT job, seq, nodes, ARRAY(
        SELECT failure FROM vibevoice.refusals r WHERE r.job = due.job AND r.node = ANY (nodes)
        ORDER BY r.node), for_s >= %s
    FROM vibevoice.refused_1 due WHERE NOT told OR for_s >= %s LIMIT %s"""
"""Jobs that all nodes refuse: their nodes' reasons, and whether they end for that."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Claimed job. ``token``: of this claim, sent with every report. ``record``: the job at
    the claim. ``begins``: whether the claim counts as the start of an attempt. ``more``:
    whether other jobs may wait."""

    token: str
    record: JobRecord
    begins: bool = False
    more: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class ClaimPreferences:
    """Preferences of a node: requested precisions that need no load now, and for how many seconds
    the loaded one has been loaded. ``loaded``: values of `Precision` as requested, for example
    ``{"auto", "fp16"}``; empty if nothing is loaded. ``begins``: whether an attempt of the job
    begins at once and alone, so that the claim counts as one if the node dies."""

    loaded: frozenset[str] = frozenset()
    loaded_for_s: float = 0.0
    begins: bool = False


class ClaimStore:
    """Shared jobs, as one node sees them.

    All methods but the ``on_*`` may be repeated, and raise `errors.JournalUnreachable` if the
    database does not answer.
    """

    def __init__(
        self,
        database: PostgresDatabase,
        rows: JobRows,
        node_id: str,
        housekeeping: SharedRetention,
        tally: JobMetrics,
    ) -> None:
        self._database, self._rows, self._node = database, rows, node_id
        self._housekeeping, self._tally = housekeeping, tally

    async def claim(self, token: str, offer: ClaimPreferences) -> Claim | None:
        """Claim the next job in fair order that this node has not refused in the last
        `ELIGIBILITY_TTL_S`. Return None if there is none. If the token has a claim
        already, return that one."""
        loaded = [*offer.loaded], offer.loaded_for_s, MAX_PASSED_OVER_S
        rows = await self._database.call("claim_1", self._node, token, *loaded, offer.begins)
        if not rows:
            return None
        job_id, seq, submitted, more = rows[0]
        try:
            record = await self._past(self._rows.record(job_id, submitted), seq)
            return Claim(token, record, offer.begins, more)
        except UnreadableRecord as error:
            await self._refuse_unreadable(job_id, error)
        except errors.JournalUnreachable:
            log.warning("job %s is left to other nodes: its events cannot be read here", job_id)
            reason = errors.JournalUnreachable("The events of the job cannot be read.")
            await self.judge({job_id: JobFailure.of(reason)})
        await self.release(token)
        return None

    async def _past(self, record: JobRecord, last: int) -> JobRecord:
        """Return a job, as it was submitted, after its events up to the number ``last``.

        Raises:
            UnreadableRecord: an event is damaged, or of a later release.
            errors.JournalUnreachable: the database did not answer `TAKE_UP_TRIES` times.
        """
        while record.seq < last:
            values = record.id, record.seq, last, PAGE_EVENTS, PAGE_BYTES
            rows = await self._page(values)
            if not rows:
                break

            def after(record: JobRecord = record, rows: Sequence[Row] = rows) -> JobRecord:
                return replay_events(record, [self._rows.event(*row) for row in rows])

            long = sum(len(row[4] or b"") for row in rows) > DECRYPT_IN_THREAD_BYTES
            record = await asyncio.to_thread(after) if long else after()
        return replace(record, seq=last)  # also if the last event changed nothing

    async def _page(self, values: Sequence[object]) -> Sequence[Row]:
        for attempt in range(TAKE_UP_TRIES - 1):
            try:
                return await self._database.fetch(_PAGE, values, binary=True)
            except errors.JournalUnreachable:
                await asyncio.sleep(backoff_s(attempt, MIN_RETRY_PAUSE_S, MAX_RETRY_PAUSE_S))
        return await self._database.fetch(_PAGE, values, binary=True)

    async def report(
        self, token: str, base: int, record: JobRecord, events: Sequence[JobEvent]
    ) -> bool:
        """Append events to a claimed job whose last event has the number ``base``.

        The numbers of ``events`` ascend, with gaps. ``record`` is the job after them: its state
        becomes the job's, and its end ends the claim. Return whether all is persisted, also for a
        repeated report; False if the claim is lost.
        """
        sealed = await render_result(  # a whole transcript in a thread
            record.segments if record.over else (),
            lambda: [self._rows.encrypt_event(record.id, one.worn) for one in events],
        )
        ((persisted,),) = await self._database.call(
            "report_1",
            record.id,
            token,
            base,
            [one.seq for one in events],
            [one.at for one in events],
            [one.superseded_by_next for one in events],
            [event_kind(one.change) for one in events],
            sealed,
            [
                None if one.worn is one else self._rows.encrypt_event(record.id, one)
                for one in events
            ],
            record.state.value,
            record.progress.fraction or 0.0,
            _worked_s(record),
            retained_bytes(record) if record.over else 0,
            self._rows.encrypt_summary(record),
        )
        if persisted and record.over:
            self._housekeeping.settle(record.owner)
        return bool(persisted)

    async def release(self, token: str) -> None:
        """Give a claimed job back, in the state of its last report; other
        nodes may claim it at once."""
        await self._database.call("release_1", token)

    async def mine(self) -> frozenset[str]:
        """Return the tokens of all valid claims of this node."""
        rows = await self._database.fetch(
            "SELECT claim FROM vibevoice.jobs WHERE node = %s", (self._node,)
        )
        return frozenset(claim for (claim,) in rows)

    async def judge(self, verdicts: Mapping[str, JobFailure | None]) -> None:
        """Persist, by job id, why this node cannot do a job; None if it can."""
        failures = [
            self._rows.encrypt_failure(job_id, self._node, failure) if failure else None
            for job_id, failure in verdicts.items()
        ]
        await self._database.call("judge_1", self._node, [*verdicts], failures)

    async def unjudged(self, most: int) -> Sequence[JobRecord]:
        """Return waiting jobs, as they were submitted, that no live node is known to be able to
        run. Those that this node judged in the last `ELIGIBILITY_TTL_S` are left out."""
        found = []
        for job_id, submitted in await self._database.call("unjudged_1", self._node, most):
            try:
                found.append(self._rows.record(job_id, submitted))
            except UnreadableRecord as error:
                await self._refuse_unreadable(job_id, error)
        return found

    async def end_unschedulable(
        self, patience_s: float, every_s: float = 0.0, most: int = UNSCHEDULABLE_BATCH
    ) -> None:
        """Mark each waiting job that all live nodes reject, and end it after ``patience_s``.
        ``every_s``: not if another node did so in the last seconds. ``most``: jobs of this call."""
        if not await self._database.call("turn_1", "refused", every_s):
            return
        for job_id, seq, nodes, failures, ends in await self._database.fetch(
            REFUSED_JOBS, (patience_s, patience_s, most)
        ):
            try:
                said = [
                    self._rows.failure(job_id, node, one)
                    for node, one in zip(nodes, failures, strict=True)
                ]
            except UnreadableRecord as error:
                log_unreadable(job_id, error)
                continue
            failure = JobFailure.of(unschedulable_error(said))
            kind = job_record.FailedChange if ends else job_record.UnschedulableChange
            sealed = self._rows.encrypt_event(job_id, JobEvent(seq + 1, 0.0, kind(failure)))
            ((lasted_s,),) = await self._database.call(
                "tell_refused_1", job_id, seq, nodes, ends, sealed
            )
            if lasted_s is not None:
                self._tally.failed(failure.code, lasted_s, outcome_of_error(failure.error()))

    def on_waiting(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` when there may be a job to claim."""
        self._database.listen(WAITING, lambda _: tell())

    def on_ended(self, tell: Callable[[str], None]) -> None:
        """Call ``tell`` with the id of each claimed job that another service ended or deleted; with
        "" if a notification may have been lost."""
        self._database.listen(ENDED, tell)

    async def _refuse_unreadable(self, job_id: str, error: Exception) -> None:
        """Leave a job to nodes that can read it, such as those of a later release."""
        log_unreadable(job_id, error)
        await self.judge(
            {job_id: JobFailure.of(errors.AudioLost("The record of the job is damaged."))}
        )


def _worked_s(record: JobRecord) -> float:
    """Return the seconds of audio that are recognized, whatever the header of a recording says."""
    known = record.transcript.duration if record.transcript else record.progress.audio_s_done
    return known if 0 < known < math.inf else 0.0


def unschedulable_error(refusals: Sequence[JobFailure]) -> errors.Unschedulable:
    """Return the error of a job that all nodes refuse: each reason once, the most frequent first.
    Its hint is that of the most frequent reason."""
    by_code = Counter(one.code for one in refusals)
    one_of: Mapping[str, JobFailure] = {one.code: one for one in reversed(refusals)}
    parts = [
        f"{count} × {code} ({one_of[code].detail.rstrip('.')})"
        for code, count in by_code.most_common()
    ]
    single = len(refusals) == 1
    nodes = "The only node that is there" if single else f"None of {len(refusals)} nodes"
    cannot = "cannot do it" if single else "that are there can do it"
    hint = one_of[by_code.most_common(1)[0][0]].hint
    return errors.Unschedulable(
        f"{nodes} {cannot}: {', '.join(parts)}.",
        hint=f"{hint} Or start a node that can do it.".lstrip(),
    )


NODE_ERRORS = (
    errors.ModelLoadFailed,
    errors.BadCheckpoint,
    errors.EngineUnavailable,
    errors.GpuOutOfMemory,
    errors.WontFit,
)
"""Errors of an engine that may be this machine's and not the recording's: another node may try."""


class ClaimedJob(Job):
    """Job that writes to its node's log as long as it is claimed. After that, it ends in this
    process without a report."""

    def __init__(
        self,
        source: AudioSource,
        record: JobRecord,
        reported: Callable[[], Awaitable[None]],
        passes_on: Callable[[errors.SidecarError], bool],
        puts_off: Callable[[errors.SidecarError], None],
    ) -> None:
        """``reported``: waits until all its events so far are persisted. ``passes_on``: whether
        another node will try the job after an error of this machine. ``puts_off``: gives the job
        back because of a fault of the node or the storage."""
        super().__init__(source, record)
        self._reported = reported
        self._passes_on, self._puts_off = passes_on, puts_off
        self.claimed = True
        """Whether its events are reported."""

    def let_go(self) -> None:
        """Stop writing to the log."""
        self.claimed = False

    def put_off(self, fault: errors.SidecarError) -> None:
        """End without a report: a node without this fault will do the job."""
        super().put_off(fault)
        if self.claimed and not self.ended:
            self._puts_off(fault)
            self.let_go()
            self.cancel()

    def fail(self, error: errors.SidecarError) -> None:
        """End without a transcript, or without a report if another node will try."""
        passes = self.claimed and isinstance(error, NODE_ERRORS) and not self.ended
        if passes and self._passes_on(error):
            self.requeue(counted=True, passed=True)
            self.let_go()
            self.cancel()
        else:
            super().fail(error)

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
            self.source.close()


REPORT_BATCH_S = 0.005
"""Seconds in which events are collected for a report. The last segment and the end of a recording
would be a commit each, and the end would wait for the other."""


class HeldClaim:
    """Claim of a node, which reports the events of its job, from `open` until the job has ended,
    the claim is lost, or `close`."""

    def __init__(self, claims: ClaimStore, log: JobEventLog, claim: Claim) -> None:
        """``log`` has the job, as it was claimed."""
        self._claims, self._log = claims, log
        self.token, self.claimed_record, self.id = claim.token, claim.record, claim.record.id
        """Token, the job as it was claimed (`job` has it as it is now), and its id."""
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
        self._task: asyncio.Task[bool] | None = None
        log.listen(self._on_event, self.id)

    @property
    def may_pass_on(self) -> bool:
        """Return whether another node may try the job after this one."""
        record = self.claimed_record if self.job is None else self.job.record
        return record.passed + 1 < MAX_NODE_ATTEMPTS

    def open(self, ended: Callable[[bool], None]) -> None:
        """Start to report. ``ended`` is called with True once the end of the job is persisted, with
        False once the claim is lost."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="reports")

        def done(task: asyncio.Task[bool]) -> None:
            if not task.cancelled():
                ended(task.result())

        self._task.add_done_callback(done)

    def close(self) -> None:
        """Stop; events that are not reported yet are dropped."""
        if self._task is not None:
            self._task.cancel()
        self._finish()

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

    async def _run(self) -> bool:
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
            self._finish()

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

    def _finish(self) -> None:
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
        self._unknown: frozenset[str] = frozenset()
        """Claims that were unknown at the last check."""
        self.capacity_freed = asyncio.Event()
        """Set when a job has ended here, or a claim is gone."""
        log.listen(self._on_event)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, held: HeldClaim) -> bool:
        return self._held.get(held.id) is held

    @property
    def busy(self) -> int:
        """Return the number of claimed jobs that have not ended here."""
        return sum(not self._record(held).over for held in self._held.values())

    def add(self, claim: Claim) -> HeldClaim:
        """Hold a claim. If this node had an earlier claim on the job and missed
        its loss, that ends first."""
        if (lost := self._held.get(claim.record.id)) is not None:
            self._lose(lost)
        self._log.enter(claim.record)
        held = HeldClaim(self._claims, self._log, claim)
        self._held[held.id] = held
        held.open(partial(self._reports_ended, held))
        return held

    def append(self, held: HeldClaim, change: JobChange) -> None:
        """Append an event to a job, to be reported."""
        self._log.append(held.id, change)

    async def release(self, held: HeldClaim) -> None:
        """Give a claim back; retried while the database does not answer."""
        await retry_while_unavailable(partial(self._claims.release, held.token))
        self._drop(held)

    async def release_all(self, within_s: float, asking: str) -> None:
        """Report what is left to report and release all claims. ``asking``: token of a
        claim call without an answer, which is released too. What takes longer is left to
        the expiry of this service."""
        work = [self._give_back(held) for held in self._held.values()]
        if asking:
            work.append(retry_while_unavailable(partial(self._claims.release, asking)))
        await cancel_after(within_s, asyncio.gather(*work))
        for held in [*self._held.values()]:
            log.warning(
                "the claim on job %s is not released: the database does not answer; it expires",
                held.id,
            )
            self._drop(held)

    async def check(self, asking: str = "") -> None:
        """Stop jobs whose claim is lost, and release unknown claims of this node. A job that has
        ended here is left to its reporter. ``asking``: token of a claim call without an answer.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        held_now = [*self._held.values()]
        mine = await self._claims.mine()
        for held in held_now:
            if held.token not in mine and self._runs(held):
                self._lose(held)
        known = {held.token for held in (*held_now, *self._held.values())} | {asking}
        unknown = mine - known
        # unknown at the last check too, so not the answer to a claim in progress
        for token in unknown & self._unknown:
            log.warning("an unknown claim of this node was released")
            await self._claims.release(token)
        self._unknown = unknown

    def end(self, job_id: str) -> None:
        """Stop a job that another service has ended."""
        held = self._held.get(job_id)
        if held is not None and self._runs(held):
            self._drop(held)

    async def _give_back(self, held: HeldClaim) -> None:
        if held not in self:
            return
        if held.job is not None:
            held.job.let_go()
        if self._record(held).state is job_record.JobState.RUNNING:
            self.append(held, job_record.RequeuedChange())
        await held.flushed()
        if held in self:
            await self.release(held)

    def _reports_ended(self, held: HeldClaim, persisted: bool) -> None:
        if held in self:
            (self._drop if persisted else self._lose)(held)

    def _lose(self, held: HeldClaim) -> None:
        log.warning("job %s stopped on this node: its claim was lost", held.id)
        self._drop(held)

    def _drop(self, held: HeldClaim) -> None:
        """Forget a claim; a job that has not ended stops without a report."""
        if held not in self:
            return
        del self._held[held.id]
        held.close()
        if held.job is not None:
            held.job.let_go()
            self._queue.cancel(held.job)
        self._log.forget(held.id)
        self.capacity_freed.set()

    def _record(self, held: HeldClaim) -> JobRecord:
        return self._log.get(held.id)

    def _runs(self, held: HeldClaim) -> bool:
        return held in self and not self._record(held).over

    def _on_event(self, record: JobRecord, event: JobEvent) -> None:
        if record.over:
            self.capacity_freed.set()
