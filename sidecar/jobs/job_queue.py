"""Job queue: its limit, whom it refuses until when, a dispatcher for each job that runs at once.

All dispatchers take jobs from one queue (`jobs.wait_queue`) and run them in one engine
(`jobs.job_runner`). The state of all jobs is in `jobs.job_event_log`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

from sidecar import errors
from sidecar.audio.audio_source import AudioSource
from sidecar.concurrency import cancel_after, wait_for_event
from sidecar.interfaces.engine_interface import EngineSpec
from sidecar.jobs.engine_probe import EngineProbe
from sidecar.jobs.faults import fault_of, known_error, passes
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_record import JobRecord, JobState
from sidecar.jobs.job_runner import Job, JobRun
from sidecar.jobs.recording_opener import RecordingOpener
from sidecar.jobs.reservations import Reservation
from sidecar.jobs.wait_queue import QueueOptions, QueuePosition, WaitQueue
from sidecar.limit_overrides import limit
from sidecar.workers.engine import Engine

log = logging.getLogger(__name__)
MAX_RETRY_AFTER_S = 60
"""Longest Retry-After. OpenAI's SDKs ignore a longer one and retry after a second."""
MAX_RETURNS = 1000
"""Refused clients that are expected again; older ones are dropped."""
MAX_RETURNS_OF_OTHERS = 4
"""Expected returns of one owner that delay another: an owner's many retries delay only itself."""
RETURN_S = limit("openai_retry_grace", 30.0)
"""Seconds from a client's timeout to the same request: OpenAI's SDKs send it after 0.5 to 8 s."""


class Dispatcher:
    """Dispatcher with a number, which runs jobs in an engine from `open` until `close`."""

    def __init__(
        self,
        number: int,
        engine: Engine[EngineSpec],
        wait_queue: WaitQueue,
        probe: EngineProbe,
        opener: RecordingOpener,
        options: QueueOptions,
    ) -> None:
        self.number = number
        self._engine, self._probe, self._opener = engine, probe, opener
        self.wait_queue = wait_queue
        self._options = options
        self._news = asyncio.Event()
        """Set if the queue has changed."""
        self.run: JobRun | None = None
        """Job at work; None if it is free."""
        self._closing = False
        self._runner: asyncio.Task[None] | None = None
        wait_queue.watch(self._news.set)

    def open(self, on_end: Callable[[asyncio.Task[None]], None]) -> None:
        """Start to take jobs; ``on_end`` is called if that ends without `close`: a fault."""
        self._runner = asyncio.get_running_loop().create_task(
            self._dispatch(), name=f"dispatcher-{self.number}"
        )
        self._runner.add_done_callback(lambda task: None if self._closing else on_end(task))

    async def close(self) -> None:
        """Stop; a job that runs and has not ended is queued again."""
        self._closing = True
        if self._runner is not None:
            if self.run is not None and not self.run.job.ended:
                self.run.stop()
            self._runner.cancel()
            await asyncio.wait({self._runner})

    async def _dispatch(self) -> None:
        while not self._closing:
            job = await self._take_next()
            self.wait_queue.begin(job, self.number)
            plan, breakers = self._options.plan, self.wait_queue.breakers
            self.run = run = JobRun(job, self._engine, plan, self._options.max_s, breakers)
            try:
                end = await run.work()
            finally:
                self.run = None
                self.wait_queue.finish(job, self.number)
            if end.error is not None and fault_of(end.error) is not errors.Fault.RECORDING:
                self.wait_queue.hold(job, end.error, end.vain_s)
                if self._probe.due and self.wait_queue.due(self.number) is None:
                    self._probe.begin()  # perhaps no kept job comes, and requests get the error
                if fault_of(end.error) is errors.Fault.STORAGE:
                    self._opener.renew(job)
            elif (breakers.open or breakers.crashes) and job.state is JobState.DONE:
                breakers.done(persisted=not job.record.durable)

    async def _take_next(self) -> Job:
        """Wait for a job. If the machine is to blame for an error in the choice, choose again after
        a pause; another error fails the job that has waited longest."""
        while True:
            try:
                return await self._due()
            except Exception as error:
                if not self.wait_queue:
                    raise
                if passes(error):
                    self.wait_queue.breakers.failed(known_error(error))
                    await asyncio.sleep(self._options.fault_retry_s)
                    continue
                due = next(iter(self.wait_queue))
                log.exception("internal error while job %s was started", due.id)
                self.wait_queue.leave(due)
                due.fail(errors.EngineFailed())

    async def _due(self) -> Job:
        """Wait for the next job.

        If the engine would have to be reloaded for it, wait a moment longer: a client that uses the
        loaded precision may be about to send its next recording.
        """
        now = time.monotonic
        deadline: float | None = None
        while True:
            since = now()
            job = self.wait_queue.due(self.number)
            if job is not None and job.record.kept and await self._probe.was_due():
                continue  # it went before what might end the engine
            if job is not None:
                another = self.wait_queue.wanted(job) is not self._engine.model.precision
                if not (self._engine.loaded and another):
                    return job
                deadline = now() + self._options.next_job_wait_s if deadline is None else deadline
                if now() >= deadline:
                    return job
            self._news.clear()
            if job is None or deadline is None:
                in_s = self.wait_queue.next_start_in_s(since) if self.wait_queue else None
                with suppress(TimeoutError):
                    async with asyncio.timeout(in_s):
                        await self._news.wait()
            else:
                await wait_for_event(self._news, deadline - now())


class SubmissionQueue(ABC):
    """Queue that accepts jobs: of this process, or of all services that share jobs."""

    def __init__(self, limit: int, begun_in_s: Callable[[int], float | None]) -> None:
        """``limit``: jobs that may wait. ``begun_in_s``: returns the seconds until this many
        waiting jobs have started; None if unknown."""
        self._limit, self._begun_in_s = limit, begun_in_s
        self._returns: list[tuple[float, str]] = []
        """When each refused client was told to retry, and its owner."""
        self.draining = False
        """Whether no job is accepted any more."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Return the number of jobs that wait."""

    @property
    @abstractmethod
    def running(self) -> int:
        """Return the number of jobs that run."""

    @property
    def paused(self) -> errors.SidecarError | None:
        """Return the transient error because of which jobs wait now."""
        return None

    @property
    def faults(self) -> Mapping[errors.Fault, errors.SidecarError]:
        """Return what jobs need and does not work now, with the last error of each."""
        return {}

    @property
    def _waiting_limit(self) -> int:
        """Return the number of jobs that may wait now."""
        return self._limit

    def check_open(self) -> None:
        """Raise `errors.ShuttingDown` if no job is accepted any more."""
        if self.draining:
            raise errors.ShuttingDown()

    def check_capacity(self, reserved: int = 0, owner: str | None = None) -> None:
        """Raise `errors.QueueFull` if the queue is full, `errors.ShuttingDown` if it accepts no
        more jobs.

        ``reserved``: queue positions that are reserved for others. ``owner``: the one that is
        refused and retries; None: no retry is expected.
        """
        self.check_open()
        taken, most = self.depth + reserved, self._waiting_limit
        if taken >= most:
            raise errors.QueueFull(
                f"The queue is full; jobs that wait or are being uploaded: {taken}.",
                retry_after=self._retry_after_s(taken - most + 1, owner),
            )

    @abstractmethod
    async def submit(self, job: Job, *, reservation: Reservation | None = None) -> None:
        """Accept a job: return once it is persisted."""

    @abstractmethod
    async def drain(self, grace_s: float) -> None:
        """Accept no more jobs; running ones have ``grace_s`` to end."""

    @abstractmethod
    async def broken(self) -> None:
        """Wait for a fault that ends all work."""

    @abstractmethod
    def interrupt(self) -> None:
        """Put back the jobs that run here."""

    @abstractmethod
    def leave(self, job: Job, digest: str) -> None:
        """Leave a job whose client timed out to the same request (``digest``) within `RETURN_S`,
        after which it is cancelled without a result. If it ends meanwhile, its result is for that
        request. That may ask another service."""

    @abstractmethod
    async def take(self, owner: str, digest: str, source: AudioSource) -> Job | None:
        """Return the job that the same request left; None if there is none. The job has its own
        recording; ``source`` is closed then.

        Raises:
            errors.JournalUnreachable: the store does not answer.
        """

    @abstractmethod
    async def has_left(self, owner: str) -> bool:
        """Return whether a client of an owner has left a job, which needs no place in the queue.

        Raises:
            errors.JournalUnreachable: the store does not answer.
        """

    def _retry_after_s(self, missing: int, owner: str | None) -> int | None:
        """Return the seconds after which a refused client finds a free queue position; None if
        unknown.

        ``missing`` jobs have to start first, and clients that were refused earlier retry at their
        times; of each other owner a few count. ``owner``: the owner that retries; None: no retry
        is expected.
        """
        now = time.monotonic()
        self._returns = [one for one in self._returns if one[0] > now][-MAX_RETURNS:]
        expected = Counter(expected_owner for _, expected_owner in self._returns)
        before = expected.pop(owner or "", 0)
        before += sum(min(count, MAX_RETURNS_OF_OTHERS) for count in expected.values())
        wait_s = self._begun_in_s(missing + before)
        if wait_s is None:
            return None
        retry_s = min(max(1, math.ceil(wait_s)), MAX_RETRY_AFTER_S)
        if owner is not None:
            self._returns.append((now + retry_s, owner))
        return retry_s


class JobQueue(SubmissionQueue):
    """Queue of all jobs of one engine."""

    def __init__(
        self,
        engine: Engine[EngineSpec],
        event_log: JobEventLog,
        options: QueueOptions,
    ) -> None:
        self.event_log = event_log
        self.options = options
        self._wait_queue = WaitQueue(engine, options)
        self.breakers = self._wait_queue.breakers
        super().__init__(options.limit, self._wait_queue.begun_in_s)
        self.probe = EngineProbe(engine, self._wait_queue, options)
        self.opener = RecordingOpener(self._wait_queue, options)
        self.dispatchers = [
            Dispatcher(number, engine, self._wait_queue, self.probe, self.opener, options)
            for number in range(options.concurrency)
        ]
        self._broken = asyncio.Event()
        self._put_off: list[Job] = []
        """Durable jobs that the next start resumes."""
        self._left = dict[Job, tuple[str, asyncio.TimerHandle]]()

    def open(self) -> None:
        """Start the dispatchers."""
        for dispatcher in self.dispatchers:
            dispatcher.open(self._on_dispatcher_end)

    async def close(self) -> None:
        """Stop; unfinished jobs end with `errors.ShuttingDown`, unless they are durable."""
        self.draining = True
        self._end_all(errors.ShuttingDown())
        await asyncio.gather(*(dispatcher.close() for dispatcher in self.dispatchers))
        await self.probe.close()
        for job in self._put_off:
            self.opener.remove(job)
            job.close()

    async def drain(self, grace_s: float, *, resumable_too: bool = False) -> None:
        """Accept no more jobs. Waiting jobs end with `errors.ShuttingDown`, and after ``grace_s``
        those that still run; durable jobs are left to the next start, and those with resume points
        at once, unless they have the grace, too (``resumable_too``)."""
        self.draining = True
        self.event_log.note_stop()
        if not resumable_too:
            self._stop_runs(
                errors.ShuttingDown(), lambda one: one.durable and bool(one.resume_points)
            )
        running = [job for job in self._running if job not in self._put_off]
        self._end_waiting(errors.ShuttingDown())
        await cancel_after(grace_s, asyncio.gather(*(job.over() for job in running)))
        self._end_all(errors.ShuttingDown())

    async def broken(self) -> None:
        """Wait until a dispatcher has ended although the queue was not closed: a fault."""
        await self._broken.wait()

    @property
    def depth(self) -> int:
        """Return the number of jobs that wait."""
        return len(self._wait_queue)

    @property
    def running(self) -> int:
        """Return the number of jobs that run."""
        return len(self._running)

    @property
    def paused(self) -> errors.SidecarError | None:
        """As `SubmissionQueue.paused`; None if no job waits or is being tried."""
        waits = self.depth or not all(run.reported for run in self._runs)
        return next(iter(self.faults.values()), None) if waits else None

    @property
    def faults(self) -> Mapping[errors.Fault, errors.SidecarError]:
        """As `SubmissionQueue.faults`."""
        return {**self.breakers.broken, **self.opener.faults}

    @property
    def _waiting_limit(self) -> int:
        """Return the number of jobs that may wait now. Free dispatchers count on top of the limit,
        since their jobs do not wait."""
        return self._limit + max(0, self._wait_queue.free() - len(self._wait_queue))

    async def submit(self, job: Job, *, reservation: Reservation | None = None) -> None:
        """Accept a job: return once it is persisted. ``reservation``: its reservation, released as
        soon as the job counts here.

        Raises:
            errors.QueueFull: the queue has no free position.
            errors.SidecarError: it cannot be persisted; there is no job.
        """
        self.check_capacity(owner=job.record.owner) if reservation is None else self.check_open()
        self._wait_queue.join(job)
        job.enter(self.event_log)
        if reservation is not None:
            reservation.close()
        if job.source is not None:
            job.source.settle()
        try:
            await job.written()
        except BaseException:
            self.cancel(job)
            self.event_log.delete(job.id)  # a retry of the request creates a new job
            raise

    def of(self, owner: str) -> list[JobRecord]:
        """Return an owner's jobs that wait and run."""
        live = [*self._wait_queue, *self._running]
        return [job.record for job in live if job.record.owner == owner]

    def resume(self, job: Job) -> None:
        """Queue a job of before the start. It was accepted then, so the limit does not apply."""
        job.enter(self.event_log, known=True)
        if job.source is None:
            self.opener.add(job)
        self._wait_queue.join(job)
        self._wait_queue.check_model(job)

    def live(self, job_id: str) -> Job | None:
        """Return the job with this id, if it waits or runs."""
        running = (job for job in self._running if job.id == job_id)
        return self._wait_queue.get(job_id) or next(running, None)

    def alone(self, record: JobRecord) -> bool:
        """As `WaitQueue.alone`."""
        return self._wait_queue.alone(record)

    def position(self, job_id: str) -> QueuePosition | None:
        """As `WaitQueue.position`."""
        return self._wait_queue.position(job_id)

    def cancel(self, job: Job) -> None:
        """Cancel a waiting or running job; a job that has ended does not change."""
        if job.ended:
            return
        if job in self._wait_queue:
            self._wait_queue.leave(job)
        job.cancel()
        for run in self._runs:
            if run.job is job:
                run.stop()

    def leave(self, job: Job, digest: str) -> None:
        """As `SubmissionQueue.leave`."""

        def end() -> None:
            del self._left[job]
            self.cancel(job)

        self._left[job] = digest, asyncio.get_running_loop().call_later(RETURN_S, end)

    async def take(self, owner: str, digest: str, source: AudioSource) -> Job | None:
        """As `SubmissionQueue.take`."""
        for job, (left_as, overdue) in self._left.items():
            same = (job.record.owner, left_as) == (owner, digest)
            if same and job.state is not JobState.CANCELLED:
                overdue.cancel()
                del self._left[job]
                source.close()
                return job
        return None

    async def has_left(self, owner: str) -> bool:
        """As `SubmissionQueue.has_left`."""
        return any(job.record.owner == owner for job in self._left)

    def interrupt(self) -> None:
        """Put running jobs back to the head of the queue."""
        for run in self._runs:
            if not run.job.ended:
                run.stop()

    @property
    def _runs(self) -> list[JobRun]:
        return [dispatcher.run for dispatcher in self.dispatchers if dispatcher.run is not None]

    @property
    def _running(self) -> list[Job]:
        return [run.job for run in self._runs]

    def _end_all(self, error: errors.SidecarError) -> None:
        """End waiting and running jobs."""
        self._end_waiting(error)
        self._stop_runs(error)

    def _end_waiting(self, error: errors.SidecarError) -> None:
        for job in self._wait_queue:
            self._wait_queue.leave(job)
            self._end(job, error)

    def _stop_runs(
        self, error: errors.SidecarError, which: Callable[[JobRecord], bool] = lambda record: True
    ) -> None:
        """End running jobs as `_end` does."""
        for run in self._runs:
            if not run.job.ended and which(run.job.record):
                self._end(run.job, error)
                run.stop()

    def _end(self, job: Job, error: errors.SidecarError) -> None:
        """End a job with the service; a durable one stays as it is for the next start."""
        if not job.record.durable:
            job.fail(error)
        elif not job.ended and job not in self._put_off:
            self._put_off.append(job)
            self._wait_queue.halt()  # the service ends: start no more jobs

    def _on_dispatcher_end(self, task: asyncio.Task[None]) -> None:
        """End the jobs and accept no more: some would wait for ever."""
        log.critical(
            "internal error: a dispatcher ended; the service fails its jobs and stops",
            exc_info=None if task.cancelled() else task.exception(),
        )
        self.draining = True
        self._end_all(errors.EngineFailed("The service stops after an internal error."))
        self._broken.set()
