"""The queue: one job at a time, the rest in order; progress, cancel, one retry after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from enum import StrEnum

from sidecar import errors
from sidecar.audio.decode import AudioFacts
from sidecar.audio.source import AudioSource
from sidecar.engine import Precision, TranscribeOptions
from sidecar.runtime import residency
from sidecar.runtime.slot import EngineSlot
from sidecar.runtime.worker import WorkerDied
from sidecar.transcript import Event, Finished, Progress, Segment, SegmentReady, Transcript

log = logging.getLogger(__name__)

ATTEMPTS = 2
"""A job whose engine dies is tried once more, on a fresh worker."""
LINGER_S = 0.3
"""What a client takes at most to send its next recording after the answer to the last."""
KEPT_JOBS = 256
"""Ended jobs that are remembered at most, whatever their age."""


class JobState(StrEnum):
    """Where a job is in its life; the last three are for good."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})


class Job:
    """One recording on its way to a transcript. Only the queue changes it."""

    def __init__(self, source: AudioSource, facts: AudioFacts, options: TranscribeOptions) -> None:
        self.id = uuid.uuid4().hex
        self.options = options
        self.facts = facts
        self.source = source
        self.state = JobState.QUEUED
        self.progress = Progress(0.0, facts.total_s)
        self.segments: list[Segment] = []
        self.transcript: Transcript | None = None
        self.error: errors.SidecarError | None = None
        self.arrived_at = time.monotonic()
        self.attempts = 0
        self.processing_s = 0.0
        self.ended_at: float | None = None
        self._changed = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED

    async def result(self) -> Transcript:
        """Wait for the transcript.

        Raises:
            errors.SidecarError: why there is none.
        """
        await self._over.wait()
        if self.error is not None:
            raise self.error
        assert self.transcript is not None
        return self.transcript

    async def changes(self) -> AsyncIterator[Job]:
        """This job, now and after every change, until it has ended."""
        while not self.ended:
            changed = self._changed  # before the yield: what happens meanwhile is not missed
            yield self
            await changed.wait()
        yield self

    def _publish(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def apply(self, event: Event) -> None:
        """Take in what the engine reported."""
        match event:
            case Progress():
                self.progress = event
            case SegmentReady(index, segment):
                self.segments[index:] = [segment, *self.segments[index + 1 :]]
            case Finished(transcript):
                self.transcript = transcript
                self.segments = list(transcript.segments)
                self.progress = Progress(transcript.duration, transcript.duration)
        self._publish()

    def begin(self) -> None:
        """An attempt starts, from nothing."""
        self.state = JobState.RUNNING
        self.attempts += 1
        self.segments = []
        self.progress = Progress(0.0, self.facts.total_s)
        self._publish()

    def wait_again(self) -> None:
        """Back to the queue, as if nothing had happened."""
        self.state = JobState.QUEUED
        self.attempts = 0
        self.segments = []
        self.progress = Progress(0.0, self.facts.total_s)
        self._publish()

    def end(self, state: JobState, error: errors.SidecarError | None = None) -> None:
        """The job is over; its audio is let go of."""
        if self.ended:
            return
        self.state, self.error, self.ended_at = state, error, time.monotonic()
        self.source.close()
        self._over.set()
        self._publish()


class JobQueue:
    """First come, first served, on one engine."""

    def __init__(
        self,
        slot: EngineSlot,
        *,
        limit: int,
        retention_s: float,
        max_s: float,
        plan: Callable[[Job, Precision], TranscribeOptions],
    ) -> None:
        self._slot = slot
        self._plan = plan
        self._limit = limit
        self._retention_s = retention_s
        self._max_s = max_s
        self._waiting: deque[Job] = deque()
        self._jobs: dict[str, Job] = {}
        self._ended: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._running: tuple[Job, asyncio.Task[None]] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._interrupted = False

    def open(self) -> None:
        """Start to work."""
        self._runner = asyncio.get_running_loop().create_task(self._run(), name="job-queue")

    async def close(self) -> None:
        """Stop; jobs that have not ended end with `errors.ShuttingDown`."""
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner
            self._runner = None
        for job in self._jobs.values():
            job.end(JobState.FAILED, errors.ShuttingDown())
        self._waiting.clear()

    @property
    def depth(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    def check_room(self) -> None:
        """Raise `errors.QueueFull` when no more job is taken."""
        if len(self._waiting) >= self._limit:
            raise errors.QueueFull(
                f"{len(self._waiting)} jobs are waiting and the queue takes no more."
            )

    def submit(self, job: Job) -> None:
        """Take a place at the end.

        Raises:
            errors.QueueFull: there is none.
        """
        self.check_room()
        self._forget_old()
        self._jobs[job.id] = job
        self._waiting.append(job)
        self._arrived.set()

    def get(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            errors.JobNotFound: there is none, or no longer.
        """
        self._forget_old()
        try:
            return self._jobs[job_id]
        except KeyError:
            raise errors.JobNotFound() from None

    def jobs(self) -> list[Job]:
        """All that are remembered, oldest first."""
        self._forget_old()
        return list(self._jobs.values())

    def position(self, job: Job) -> int | None:
        """How many go first; None when it waits no more."""
        return self._waiting.index(job) if job in self._waiting else None

    def cancel(self, job: Job) -> None:
        """End a job, waiting or running; one that has ended stays as it is."""
        if self._running is not None and self._running[0] is job:
            self._running[1].cancel()
        elif job in self._waiting:
            self._waiting.remove(job)
            self._ended.append(job)
        job.end(JobState.CANCELLED, errors.JobCancelled())

    def interrupt(self) -> None:
        """Put the job that runs back to the head of the queue."""
        if self._running is not None:
            self._interrupted = True
            self._running[1].cancel()

    async def _run(self) -> None:
        while True:
            job = await self._take_next()
            task = asyncio.get_running_loop().create_task(self._work(job), name=f"job-{job.id}")
            self._running = job, task
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.wait({task})
                raise
            finally:
                self._running = None
                if job.ended:
                    self._ended.append(job)
                else:
                    self._waiting.appendleft(job)
                self._interrupted = False

    async def _take_next(self) -> Job:
        """Wait for a job and take it out.

        One for which the engine would have to be loaded anew waits a moment longer: a client that
        uses what is loaded may be about to send its next.
        """
        now = asyncio.get_running_loop().time
        deadline: float | None = None
        while True:
            if self._waiting:
                job = self._next()
                if not self._needs_a_load(job):
                    break
                deadline = now() + LINGER_S if deadline is None else deadline
                if now() >= deadline:
                    break
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline if self._waiting else None):
                    await self._arrived.wait()
        self._waiting.remove(job)
        return job

    def _next(self) -> Job:
        now = time.monotonic()
        index = residency.next_job(
            [self._slot.resolve(job.options.precision, job.arrived_at) for job in self._waiting],
            [now - max(job.arrived_at, self._slot.loaded_at) for job in self._waiting],
            self._slot.precision if self._slot.loaded else None,
        )
        return self._waiting[index]

    def _needs_a_load(self, job: Job) -> bool:
        """Whether what is loaded would have to go for it."""
        wanted = self._slot.resolve(job.options.precision, job.arrived_at)
        return self._slot.loaded and wanted is not self._slot.precision

    async def _work(self, job: Job) -> None:
        """Bring one job to its end, whatever that is; or back to where it waits."""
        try:
            while not job.ended:
                job.begin()
                try:
                    await self._attempt(job)
                    job.end(JobState.DONE)
                except WorkerDied:
                    log.error("the engine's process died in job %s", job.id)
                    if job.attempts >= ATTEMPTS:
                        job.end(JobState.FAILED, errors.EngineCrashed())
        except errors.SidecarError as error:
            job.end(JobState.FAILED, error)
        except asyncio.CancelledError:
            if self._interrupted and not job.ended:
                job.wait_again()
            else:
                job.end(JobState.CANCELLED, errors.JobCancelled())
        except Exception:
            log.exception("job %s failed", job.id)
            job.end(JobState.FAILED, errors.EngineFailed())

    async def _attempt(self, job: Job) -> None:
        async with self._slot.lease(job.options.precision, job.arrived_at) as engine:
            begun = time.monotonic()
            options = self._plan(job, engine.precision)
            events = engine.transcribe(job.source.fd, job.facts, options, self._max_s)
            async with aclosing(events):
                async for event in events:
                    job.processing_s = time.monotonic() - begun
                    job.apply(event)
        if job.transcript is None and not job.ended:
            raise errors.EngineFailed("The engine ended without a transcript.")

    def _forget_old(self) -> None:
        """Drop results that are too old or too many; they lie in the order in which they ended."""
        oldest_kept = time.monotonic() - self._retention_s
        while self._ended and (
            len(self._ended) > KEPT_JOBS or (self._ended[0].ended_at or 0.0) < oldest_kept
        ):
            self._jobs.pop(self._ended.popleft().id, None)
