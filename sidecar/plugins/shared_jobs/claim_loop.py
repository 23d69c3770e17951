"""Claim loop of a node, and the eligibility of the node for jobs."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from sidecar import errors
from sidecar.audio.audio_source import AudioSource, StoredRecordingRef
from sidecar.bounded_dict import BoundedDict
from sidecar.concurrency import BackgroundTaskGroup, ThreadLimiter, cancel_after
from sidecar.jobs import job_record
from sidecar.jobs.attempt_end import AttemptEnd, poison_error
from sidecar.jobs.faults import MAX_FAULTY_JOBS, FaultHistory, passes
from sidecar.jobs.job_engine import JobEngine
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import JobFailure, JobRecord
from sidecar.jobs.persistent_recordings import opening_timeout_s
from sidecar.jobs.wait_queue import is_long
from sidecar.plugins.shared_jobs import postgres_database
from sidecar.plugins.shared_jobs.claims import (
    ELIGIBILITY_TTL_S,
    Claim,
    ClaimPreferences,
    ClaimStore,
)
from sidecar.plugins.shared_jobs.held_claims import ClaimedJob, HeldClaim, HeldClaims
from sidecar.storage.recording_storage import answering
from sidecar.workers.engine_lease import EngineState

log = logging.getLogger(__name__)


# An engine ends within its grace for cancels, and is killed then.
ENGINE_STOP_TIMEOUT_S = 5.0
"""Seconds for engines to stop at the end of a drain."""
ENGINE_STOP_POLL_S = 0.02


LIVE_DECODER = "live"
"""Decoder of a recording that was transcribed in a live session: it cannot be opened again."""
UNSCHEDULABLE_AFTER_S = 600.0
"""Seconds that a job waits while every available node refuses it. Time without any node does not
count. All services that share jobs must use the same value."""
UNSCHEDULABLE_CHECK_INTERVAL_S = 3.0
"""Seconds between two searches for unschedulable jobs, by one node for all."""
ELIGIBILITY_BATCH = 20
"""Jobs that are judged at once: a memory plan takes milliseconds of the event loop."""


def ineligibility(
    record: JobRecord, engine: JobEngine, max_s: float, storage: str = "folder"
) -> errors.SidecarError | None:
    """Return why this node cannot do a job now; None if it can. ``max_s``: the longest recording
    that it accepts, in seconds. ``storage``: the kind of its storage of recordings."""
    if engine.engine.state is EngineState.STUCK:
        return errors.EngineStuck()
    if record.audio_info.decoder == LIVE_DECODER:
        return errors.AudioLost("The live session of this job did not end.")
    if isinstance(record.audio, StoredRecordingRef) and record.audio.storage != storage:
        return errors.StorageUnreachable(
            f"The recording is in a {record.audio.storage}, but this service uses a {storage}.",
            hint="Start it with the storage of the recording (VIBEVOICE_UPLOADS).",
        )
    if (error := engine.refusal(record.options)) is not None:
        return error
    work_s = record.audio_info.work_s
    if work_s is not None and work_s > max_s:
        return errors.AudioTooLong(
            f"The recording has {work_s / 3600:.1f} h; the limit is {max_s / 3600:.1f} h."
        )
    try:
        engine.admit(record.options, record.audio_info.total_s)
    except errors.SidecarError as error:
        return error
    return None


class EligibilityJudge:
    """Judge of the eligibility of one node for jobs."""

    def __init__(
        self,
        claims: ClaimStore,
        refusal: Callable[[JobRecord], errors.SidecarError | None],
        patience_s: float = UNSCHEDULABLE_AFTER_S,
        every_s: float = UNSCHEDULABLE_CHECK_INTERVAL_S,
    ) -> None:
        """``refusal``: why this node cannot do a job now; None if it can. ``patience_s``: seconds
        that a job waits that all nodes refuse. ``every_s``: between two searches for such jobs."""
        self._claims, self._refusal = claims, refusal
        self._patience_s, self._every_s = patience_s, every_s
        self._avoided = BoundedDict[str, tuple[float, JobFailure]](MAX_FAULTY_JOBS)
        """Jobs that this node avoids, until when by the loop's clock, and why."""

    def avoid(self, job_id: str, failure: JobFailure, for_s: float) -> None:
        """Refuse a job for a while: it took its place here for long, and in vain."""
        self._avoided[job_id] = asyncio.get_running_loop().time() + for_s, failure

    def failure(self, record: JobRecord) -> JobFailure | None:
        """Return why this node cannot do a job; None if it can."""
        until, avoided = self._avoided.get(record.id, (0.0, None))
        if asyncio.get_running_loop().time() < until:
            return avoided
        try:
            error = self._refusal(record)
        except Exception:
            log.exception(
                "internal error while the eligibility of job %s was determined", record.id
            )
            error = errors.SidecarError()
        return None if error is None else JobFailure.of(error)

    async def refuse(self, job_id: str, failure: JobFailure) -> None:
        """Persist that this node cannot do a job; retried while the database does not answer."""
        await postgres_database.retry_while_unavailable(
            partial(self._claims.judge, {job_id: failure})
        )

    async def judge_waiting(self) -> None:
        """Judge the next jobs that no node is known to be able to do.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        verdicts = dict[str, JobFailure | None]()
        for record in await self._claims.unjudged(ELIGIBILITY_BATCH):
            verdicts[record.id] = self.failure(record)
            await asyncio.sleep(0)  # each verdict may take a while
        if verdicts:
            await self._claims.judge(verdicts)

    async def end_unschedulable(self) -> None:
        """End jobs that all nodes have refused for ``patience_s``.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        await self._claims.end_unschedulable(self._patience_s, self._every_s)


class ClaimLoop:
    """Loop that claims jobs for the queue of this service, as many as it can run."""

    check_s = 3.0
    """Seconds between two checks of claims and of waiting jobs; if a claim is lost, another node's
    work is wasted until that is noticed."""
    idle_poll_s = 3.0
    """Seconds after which an idle node asks for a job without a notification, since freed memory
    causes none."""
    storage_backoff_s = 5.0
    """Seconds without claims after a recording could not be opened: all nodes ask a storage that
    does not answer."""
    final_report_s = 3.0
    """Seconds at least for the last reports of a node that stops; others expire it after so long
    without heartbeats."""

    def __init__(
        self,
        claims: ClaimStore,
        log: JobEventLog,
        queue: JobQueue,
        open_recording: Callable[[job_record.JobRecord], AudioSource],
        judge: EligibilityJudge,
        threads: ThreadLimiter,
        *,
        preferences: Callable[[], ClaimPreferences] = ClaimPreferences,
        concurrency: int = 1,
        long_concurrency: int | None = None,
    ) -> None:
        """``log``: that of ``queue``, with the claimed jobs only. ``open_recording``: opens that of
        a job, in one of ``threads``. ``concurrency``, ``long_concurrency``: as of `JobQueue`."""
        self._claims, self.queue = claims, queue
        self._open_recording, self._judge, self._threads = open_recording, judge, threads
        self._preferences, self._concurrency = preferences, concurrency
        self._long_concurrency = concurrency if long_concurrency is None else long_concurrency
        self.held = HeldClaims(claims, log, queue)
        """Claims, including those whose last report is being sent."""
        self.record_timeout_s: Callable[[JobRecord], float] = opening_timeout_s
        """Seconds to open the recording of a job."""
        self.paused: errors.SidecarError | None = None
        """Error of this node or of the storage, if it could open no recording since."""
        self._paused_at = 0.0
        self._faults = FaultHistory()
        self._pending_token = ""
        """Token of a claim call without an answer: the claim may exist."""
        self._more = True
        """Whether jobs may wait without a notification to come."""
        self._aside = 0
        self._draining = False
        self._waiting, self._missed = asyncio.Event(), asyncio.Event()
        self._claiming, self._checking = BackgroundTaskGroup(), BackgroundTaskGroup()

    def open(self) -> None:
        """Start to claim."""
        self._claims.on_waiting(self._waiting.set)
        self._claims.on_ended(self._ended_elsewhere)
        self._spawn(self._claim_forever())
        self._checking.spawn("check claims", postgres_database.run_periodically(self._check, 0.0))

    async def drain(self, grace_s: float) -> None:
        """Claim no more. Running jobs have ``grace_s`` to end; then other nodes resume
        them from their resume points."""
        self._draining = True
        over_at = time.monotonic() + grace_s
        await self._claiming.close()
        await self.queue.drain(grace_s, resumable_too=True)
        stops_at = time.monotonic() + ENGINE_STOP_TIMEOUT_S
        while self.queue.running and time.monotonic() < stops_at:
            await self._a_moment()
        await self._release_all(max(self.final_report_s, over_at - time.monotonic()))

    async def close(self) -> None:
        """Release all claims and stop."""
        self._draining = True
        await self._claiming.close()
        await self._release_all(self.final_report_s)
        await self._checking.close()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Claim nothing within this context."""
        self._aside += 1
        try:
            yield
        finally:
            self._aside -= 1
            self.held.capacity_freed.set()

    async def _claim_forever(self) -> None:
        while True:
            while self._full or self._aside:
                self.held.capacity_freed.clear()
                await self.held.capacity_freed.wait()
            held_s = self.queue.breakers.held_until(kept=True) - time.monotonic()
            if held_s > 0:  # another node may do the jobs meanwhile
                await asyncio.sleep(min(held_s, self.idle_poll_s))
                continue
            if not self._more:
                await cancel_after(self.idle_poll_s, self._waiting.wait())
                self._more = True
                continue
            try:
                held = await self._claimed_fit()
            except Exception:
                log.exception("internal error while a job was claimed; claiming goes on")
                await asyncio.sleep(postgres_database.FAULT_RETRY_PAUSE_S)
                continue
            if held is not None:
                self._spawn(self._begin(held))

    @property
    def _full(self) -> bool:
        """Return whether the next job may have to wait: a claim does not choose short ones."""
        busy = self.held.busy
        full = len(busy) >= self._concurrency or sum(map(is_long, busy)) >= self._long_concurrency
        return full or self.held.by_itself

    async def _claimed_fit(self) -> HeldClaim | None:
        """Claim the next job that this node can do. Others are refused, and a poison job ends."""
        while (held := await self._claimed()) is not None:
            if (end := poison_error(held.claimed_record)) is not None:
                self.held.append(held, job_record.FailedChange(job_record.JobFailure.of(end)))
            elif (failure := self._judge.failure(held.claimed_record)) is not None:
                await self._refuse(held, failure)
            else:
                return held
        return None

    async def _claimed(self) -> HeldClaim | None:
        """Claim the next job; retried while the database does not answer."""
        token = self._pending_token = uuid.uuid4().hex
        self._more = True
        self._waiting.clear()
        busy = bool(self.held.busy)

        def ask() -> Awaitable[Claim | None]:
            preferences = self._preferences()
            return self._claims.claim(token, replace(preferences, begins=not busy))

        claim = await postgres_database.retry_while_unavailable(ask)
        self._pending_token = ""
        self._more = claim is not None and claim.more
        if claim is None:
            if time.monotonic() - self._paused_at > 2 * ELIGIBILITY_TTL_S:
                self.paused = None  # no job waits, not even one that is refused for it
            return None
        return self.held.add(claim)

    async def _refuse(self, held: HeldClaim, failure: job_record.JobFailure) -> None:
        """Leave a job that this node cannot do to others, and judge other waiting jobs."""
        await self._judge.refuse(held.id, failure)
        await self.held.release(held)
        with contextlib.suppress(errors.JournalUnreachable):
            await self._judge.judge_waiting()

    async def _begin(self, held: HeldClaim) -> None:
        """Open the recording, and queue the job."""
        job = await self._job(held)
        while self.queue.live(held.id) is not None:
            # an earlier claim on it was lost here, and its engine has yet to stop
            await self._a_moment()
        if job is not None and job.claimed:
            self.queue.resume(job)

    async def _a_moment(self) -> None:
        self.held.capacity_freed.clear()
        await cancel_after(ENGINE_STOP_POLL_S, self.held.capacity_freed.wait())

    async def _job(self, held: HeldClaim) -> ClaimedJob | None:
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            async with answering(self.record_timeout_s(held.claimed_record)):
                source = await self._threads.run(self._open_recording, held.claimed_record)
        except Exception as error:
            known = error if isinstance(error, errors.SidecarError) else errors.SidecarError()
            if known is not error:
                log.exception("internal error while the recording of job %s was opened", held.id)
            if passes(error):
                self._put_off(held, known, clock() - begun)
            else:
                self._not_opened(held, known)
        else:
            return self._made(held, source)
        return None

    def _made(self, held: HeldClaim, source: AudioSource) -> ClaimedJob | None:
        self.paused = None
        self._faults.note_well(held.id)
        if held not in self.held:  # the job was ended, or the claim lost, meanwhile
            source.close()
            return None
        leave = partial(self._leave, held)
        held.job = ClaimedJob(source, held.claimed_record, held.flushed, leave)
        return held.job

    def _leave(self, held: HeldClaim, end: AttemptEnd) -> None:
        """Leave a job to other nodes after an attempt that met an error."""
        assert end.error is not None
        if end.unable_node:
            self._spawn(self._pass_on(held, end.error))
        else:
            self._put_off(held, end.error, end.vain_s)

    def _put_off(self, held: HeldClaim, error: errors.SidecarError, took_s: float) -> None:
        """Leave a job, without a counted attempt, to nodes without this fault; here others go
        before it, for twice the time that its opening took, or that it kept the engine in vain, if
        that was long. If they meet it too, claim none for a moment."""
        level = logging.WARNING if self.paused is None else logging.DEBUG  # it may last for hours
        log.log(level, "job %s is released for another node: %s", held.id, error)
        self.paused, self._paused_at = error, time.monotonic()
        if not passes(JobFailure.of(error).error()):
            # By its code, from which its fault is judged later, it would not pass.
            error = (
                errors.MachineBusy()  # the error's own text blames the request
                if isinstance(error, errors.BadRequest)
                else errors.MachineBusy(error.detail, hint=error.hint)
            )
        rest_s = 2 * took_s
        if rest_s > ELIGIBILITY_TTL_S:
            self._judge.avoid(held.id, JobFailure.of(error), rest_s)
        if held in self.held:
            if self._faults.note_fault(held.id):
                self._spawn(self._rest())
            self._spawn(self._pass_on(held, error))

    async def _rest(self) -> None:
        with self.aside():
            await asyncio.sleep(self.storage_backoff_s)

    def _not_opened(self, held: HeldClaim, error: errors.SidecarError) -> None:
        log.warning("job %s is not run here: its recording cannot be opened: %s", held.id, error)
        if held not in self.held:
            return
        if self._passes_on(held, error):
            self.held.append(held, job_record.StartedChange())
            self.held.append(held, job_record.RequeuedChange(job_record.CountsAs.UNABLE_NODE))
        else:
            self.held.append(held, job_record.FailedChange(job_record.JobFailure.of(error)))

    def _passes_on(self, held: HeldClaim, error: errors.SidecarError) -> bool:
        """Return whether another node will try a job; it gets the job once that is reported."""
        if not held.may_pass_on:
            return False
        self._spawn(self._pass_on(held, error))
        return True

    async def _pass_on(self, held: HeldClaim, error: errors.SidecarError) -> None:
        await held.flushed()
        if held in self.held:  # not ended by its client meanwhile
            await self._judge.refuse(held.id, job_record.JobFailure.of(error))
        await held.flushed()
        if held in self.held:
            await self.held.release(held)

    async def _release_all(self, within_s: float) -> None:
        pending_token, self._pending_token = self._pending_token, ""
        await self.held.release_all(within_s, pending_token)

    async def _check(self) -> None:
        await cancel_after(self.check_s, self._missed.wait())
        self._missed.clear()
        await self.held.check(self._pending_token)
        if not self._draining:
            await self._judge.judge_waiting()
            await self._judge.end_unschedulable()

    def _ended_elsewhere(self, job_id: str) -> None:
        if job_id:
            self.held.end(job_id)
        else:
            self._missed.set()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self._claiming.spawn("claims", work)
