"""Claim loop of a node."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial

from sidecar import errors
from sidecar.concurrency import BackgroundTaskGroup, cancel_after
from sidecar.jobs import job_record
from sidecar.jobs.attempt_end import last_attempt, poison_error
from sidecar.jobs.faults import known_error, passes
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import JobEvent, JobFailure, JobRecord, JobState
from sidecar.jobs.job_runner import OpenRecording
from sidecar.jobs.wait_queue import is_long
from sidecar.plugins.shared_jobs import postgres_database
from sidecar.plugins.shared_jobs.claims import Claim, ClaimPreferences, ClaimStore
from sidecar.plugins.shared_jobs.held_claims import ClaimedJob, HeldClaim, HeldClaims

log = logging.getLogger(__name__)


# An engine ends within its grace for cancels, and is killed then.
ENGINE_STOP_TIMEOUT_S = 5.0
"""Seconds for engines to stop at the end of a drain."""
ENGINE_STOP_POLL_S = 0.02


SECOND_TRY_S = 1.0
"""Rest of a recording that its node could not decode: the bytes stay the same. With none another
node that cannot do it now would not be waited for."""
UNSCHEDULABLE_AFTER_S = 600.0
"""Seconds that a job waits while no available node can do it. Time without any node does not count.
All services that share jobs must use the same value."""
UNSCHEDULABLE_CHECK_INTERVAL_S = 3.0
"""Seconds between two searches for unschedulable jobs, by one node for all."""


class ClaimLoop:
    """Loop that claims jobs for the queue of this service, as many as it can run."""

    check_s = 3.0
    """Seconds between two checks of claims and of waiting jobs; if a claim is lost, another node's
    work is wasted until that is noticed."""
    idle_poll_s = 3.0
    """Seconds after which an idle node asks for a job without a notification, since freed memory
    causes none."""
    final_report_s = 3.0
    """Seconds at least for the last reports of a node that stops; others expire it after so long
    without heartbeats."""

    def __init__(
        self,
        claims: ClaimStore,
        log: JobEventLog,
        queue: JobQueue,
        open_recording: OpenRecording,
        admit: Callable[[JobRecord], object],
        preferences: Callable[[], ClaimPreferences],
        *,
        patience_s: float = UNSCHEDULABLE_AFTER_S,
    ) -> None:
        """``log``: that of ``queue``, with the claimed jobs only. ``open_recording``: opens that of
        a job. ``admit``: raises an error if a job cannot run now. ``patience_s``: seconds that a
        job waits that no node can do."""
        self._claims, self.queue = claims, queue
        self._open_recording, self._admit = open_recording, admit
        self._preferences, self._patience_s = preferences, patience_s
        self.held = HeldClaims(claims, log, queue)
        """Claims, including those whose last report is being sent."""
        self._more = True
        """Whether jobs may wait without a notification to come."""
        self._draining = False
        self._waiting, self._missed = asyncio.Event(), asyncio.Event()
        self._claiming, self._checking = BackgroundTaskGroup(), BackgroundTaskGroup()
        log.listen(self._on_event)

    def open(self) -> None:
        """Start to claim."""
        self._claims.on_waiting(self._waiting.set)
        self._claims.on_ended(self._ended_elsewhere)
        self._spawn(self._claim_forever())
        self._checking.spawn("check claims", postgres_database.run_periodically(self._check, 0.0))

    async def drain(self, grace_s: float) -> None:
        """Claim no more, and leave jobs that do not run to other nodes. Running ones have
        ``grace_s`` to end; then other nodes resume them from their resume points."""
        self._draining = True
        over_at = time.monotonic() + grace_s
        await self._claiming.close()
        await asyncio.gather(
            cancel_after(grace_s, self.held.release_waiting()),
            self.queue.drain(grace_s, resumable_too=True),
        )
        stops_at = time.monotonic() + ENGINE_STOP_TIMEOUT_S
        while self.queue.running and time.monotonic() < stops_at:
            await self._a_moment()
        await self.held.release_all(max(self.final_report_s, over_at - time.monotonic()))

    async def close(self) -> None:
        """Release all claims and stop."""
        self._draining = True
        await self._claiming.close()
        await self.held.release_all(self.final_report_s)
        await self._checking.close()

    async def _claim_forever(self) -> None:
        while True:
            while self._full:
                self.held.capacity_freed.clear()
                await self.held.capacity_freed.wait()
            held_s = self.queue.breakers.held_until(kept=True) - time.monotonic()
            if held_s > 0:  # another node may do the jobs meanwhile
                await asyncio.sleep(min(held_s, self.idle_poll_s))
                continue
            if await self.queue.probe.was_due():
                continue
            waits = any(one.state is JobState.QUEUED for one in self.held.busy)
            if waits and self.queue.breakers.fresh_first:
                await self._a_moment()
                continue
            if not self._more:
                await cancel_after(self.idle_poll_s, self._waiting.wait())
                self._more = True
                continue
            try:
                held = await self._claimed()
            except Exception:
                log.exception("internal error while a job was claimed; claiming goes on")
                await asyncio.sleep(postgres_database.FAULT_RETRY_PAUSE_S)
                continue
            if held is not None:
                self._spawn(self._begin(held))

    @property
    def _full(self) -> bool:
        """Return whether the next job would have to wait."""
        busy = self.held.busy
        return len(busy) >= self.queue.options.concurrency or any(map(self.queue.alone, busy))

    async def _claimed(self) -> HeldClaim | None:
        """Claim the next job; retried while the database does not answer."""
        token = self.held.pending_token = uuid.uuid4().hex
        self._more = True
        self._waiting.clear()

        def ask(fresh: bool) -> Awaitable[Claim | None]:
            return self._claims.claim(token, self._current_preferences(fresh))

        fresh = self.queue.breakers.fresh_first
        claim = await postgres_database.retry_while_unavailable(partial(ask, fresh))
        if claim is None and fresh:
            claim = await postgres_database.retry_while_unavailable(partial(ask, False))
        self.held.pending_token = ""
        self._more = claim is not None and claim.more
        return None if claim is None else self.held.add(claim)

    def _current_preferences(self, fresh: bool) -> ClaimPreferences:
        preferences, busy = self._preferences(), self.held.busy
        if sum(map(is_long, busy)) >= self.queue.options.long_concurrency:
            preferences = replace(preferences, can=preferences.can.without_long())
        return replace(preferences, begins=not busy, fresh=fresh)

    async def _begin(self, held: HeldClaim) -> None:
        """Queue the job; a poison job ends."""
        record = held.claimed_record
        try:
            if (end := poison_error(record)) is not None:
                self.held.append(held, job_record.FailedChange(JobFailure.of(end)))
                return
            self._admit(record)
            if last_attempt(record):
                await self.queue.probe.prove()
            while self.queue.live(held.id) is not None:
                # an earlier claim on it was lost here, and its engine has yet to stop
                await self._a_moment()
            if held in self.held:  # it was not ended, nor the claim lost, meanwhile
                leave = partial(self._leave, held)
                held.job = ClaimedJob(record, self._open_recording, held.flushed, leave)
                self.queue.resume(held.job)
        except Exception as error:
            if (known := known_error(error)) is not error:
                log.exception("internal error while job %s was taken up", held.id)
            self._leave(held, known)

    async def _a_moment(self) -> None:
        self.held.capacity_freed.clear()
        await cancel_after(ENGINE_STOP_POLL_S, self.held.capacity_freed.wait())

    def _leave(
        self,
        held: HeldClaim,
        error: errors.SidecarError | None = None,
        vain_s: float = 0.0,
        unable: bool = False,
    ) -> None:
        """Leave a job to other nodes. After an error others go before it here, too, for at least
        twice the time for which it kept them waiting in vain."""
        if error is None:
            self._spawn(self.held.leave(held))
        else:
            self._spawn(self._put_off(held, error, vain_s, unable))

    async def _put_off(
        self, held: HeldClaim, error: errors.SidecarError, vain_s: float, unable: bool
    ) -> None:
        log.info("job %s is left to other nodes: %s", held.id, error)
        if passes(error):
            self.queue.breakers.failed(error)
        rest_s = max(self.queue.breakers.rest_s(error, held.tries + 1), 2 * vain_s)
        if unable and isinstance(error, errors.BadAudio) and not passes(error):
            rest_s = SECOND_TRY_S  # by this node only if there is no other
        if passes(error) is not passes(JobFailure.of(error).error()):  # others judge its code
            # one that passes may have a text that blames a client
            other = errors.Unschedulable(error.detail, hint=error.hint)
            error = errors.MachineBusy() if passes(error) else other
        await self.held.leave(held, error, rest_s, unable=unable)

    async def _check(self) -> None:
        await cancel_after(self.check_s, self._missed.wait())
        self._missed.clear()
        await self.held.check()
        if not self._draining:
            await self._claims.end_unschedulable(self._patience_s, UNSCHEDULABLE_CHECK_INTERVAL_S)

    def _on_event(self, record: JobRecord, event: JobEvent) -> None:
        if record.over and is_long(record):
            self._waiting.set()  # the last claim may have left long jobs out

    def _ended_elsewhere(self, job_id: str) -> None:
        if job_id:
            self.held.end(job_id)
        else:
            self._missed.set()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self._claiming.spawn("claims", work)
