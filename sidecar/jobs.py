"""The queue: one job at a time, the rest in order; progress, cancel, one retry after a crash.

Where the engine can, short recordings that wait run in company: decoded in step, each with a result
of its own. What goes wrong there is tried again alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from sidecar import errors
from sidecar.engine import Precision, TranscribeOptions
from sidecar.job import Job, JobState
from sidecar.runtime import residency
from sidecar.runtime.lease import LeasedEngine
from sidecar.runtime.slot import EngineSlot
from sidecar.runtime.worker import WorkerDied
from sidecar.transcript import Finished

log = logging.getLogger(__name__)

ATTEMPTS = 2
"""A job whose engine dies is tried once more, on a fresh worker."""
LINGER_S = 0.3
"""What a client takes at most to send its next recording after the answer to the last."""
KEPT_JOBS = 256
"""Ended jobs that are remembered at most, whatever their age."""


Company = Callable[[Sequence[Job], Precision], Sequence[Job]]
"""Of jobs that wait for the same precision, the first of which is due: those to run in step."""


@dataclass(slots=True)
class _Running:
    """The jobs that run, the task that runs them; in company the engine, and whom it hears."""

    jobs: Sequence[Job]
    task: asyncio.Task[None]
    engine: LeasedEngine | None = None
    heard: Sequence[Job] = ()


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
        company: Company = lambda waiting, _: waiting[:1],
    ) -> None:
        self._slot = slot
        self._plan = plan
        self._company = company
        self._limit = limit
        self._retention_s = retention_s
        self._max_s = max_s
        self._waiting: deque[Job] = deque()
        self._jobs: dict[str, Job] = {}
        self._ended: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._running: _Running | None = None
        self._runner: asyncio.Task[None] | None = None
        self._interrupted = False
        self._draining = False

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

    async def drain(self, grace_s: float) -> None:
        """Take no more jobs; those that wait end with `errors.ShuttingDown`, and after ``grace_s``
        those that run."""
        self._draining = True
        for job in self._waiting:
            job.end(JobState.FAILED, errors.ShuttingDown())
        self._ended.extend(self._waiting)
        self._waiting.clear()
        if self._running is None:
            return
        running = self._running
        await asyncio.wait({running.task}, timeout=grace_s)
        for job in running.jobs:
            job.end(JobState.FAILED, errors.ShuttingDown())
        running.task.cancel()

    @property
    def depth(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    def check_room(self) -> None:
        """Raise `errors.QueueFull` when no more job is taken, `errors.ShuttingDown` for ever."""
        if self._draining:
            raise errors.ShuttingDown()
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
        running = self._running
        if job in self._waiting:
            self._waiting.remove(job)
            self._ended.append(job)
        job.end(JobState.CANCELLED, errors.JobCancelled())
        if running is None or job not in running.jobs:
            return
        if all(one.ended for one in running.jobs):
            running.task.cancel()
        elif running.engine is not None and job in running.heard:
            running.engine.leave(running.heard.index(job))

    def interrupt(self) -> None:
        """Put what runs back to the head of the queue."""
        if self._running is not None:
            self._interrupted = True
            self._running.task.cancel()

    async def _run(self) -> None:
        while True:
            jobs = await self._take_next()
            work = self._work(jobs[0]) if len(jobs) == 1 else self._work_together(jobs)
            task = asyncio.get_running_loop().create_task(work, name=f"job-{jobs[0].id}")
            self._running = _Running(jobs, task)
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.wait({task})
                raise
            finally:
                self._running = None
                self._ended.extend(job for job in jobs if job.ended)
                self._waiting.extendleft(job for job in reversed(jobs) if not job.ended)
                self._interrupted = False

    async def _take_next(self) -> Sequence[Job]:
        """Wait for a job and take it out, with those that run in its company.

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
        jobs = self._with_company(job)
        for one in jobs:
            self._waiting.remove(one)
        return jobs

    def _with_company(self, job: Job) -> Sequence[Job]:
        if job.alone:
            return [job]
        wanted = self._wanted(job)
        others = (one for one in self._waiting if one is not job and not one.alone)
        return self._company([job, *(one for one in others if self._wanted(one) is wanted)], wanted)

    def _wanted(self, job: Job) -> Precision:
        return self._slot.resolve(job.options.precision, job.arrived_at)

    def _next(self) -> Job:
        now = time.monotonic()
        index = residency.next_job(
            [self._wanted(job) for job in self._waiting],
            [now - max(job.arrived_at, self._slot.loaded_at) for job in self._waiting],
            self._slot.precision if self._slot.loaded else None,
        )
        return self._waiting[index]

    def _needs_a_load(self, job: Job) -> bool:
        """Whether what is loaded would have to go for it."""
        return self._slot.loaded and self._wanted(job) is not self._slot.precision

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

    async def _work_together(self, jobs: Sequence[Job]) -> None:
        """Run jobs in step. Those that do not end go back to where they wait, for a run alone."""
        for job in jobs:
            job.begin()
        try:
            await self._attempt_together(jobs)
        except asyncio.CancelledError:
            if not self._interrupted:
                for job in jobs:
                    job.end(JobState.CANCELLED, errors.JobCancelled())
        except WorkerDied:
            log.error("the engine's process died in the company of %d jobs", len(jobs))
        except errors.SidecarError as error:
            log.warning("jobs go on one by one: %s", error)
        except Exception:
            log.exception("jobs go on one by one")
        for job in jobs:
            if not job.ended:
                job.alone = not self._interrupted
                job.wait_again()

    async def _attempt_together(self, jobs: Sequence[Job]) -> None:
        async with self._slot.lease(jobs[0].options.precision, jobs[0].arrived_at) as engine:
            assert self._running is not None
            jobs = [job for job in jobs if not job.ended]  # some may have left while it loaded
            self._running.engine, self._running.heard = engine, jobs
            begun = time.monotonic()
            events = engine.transcribe_together(
                [(job.source.fd, job.facts, self._plan(job, engine.precision)) for job in jobs],
                self._max_s,
            )
            async with aclosing(events):
                async for number, event in events:
                    job = jobs[number]
                    if isinstance(event, errors.SidecarError):
                        if not isinstance(event, errors.GpuOutOfMemory):  # alone there is more
                            job.end(JobState.FAILED, event)
                    elif not job.ended:
                        job.processing_s = time.monotonic() - begun
                        job.apply(event)
                        if isinstance(event, Finished):
                            job.end(JobState.DONE)

    def _forget_old(self) -> None:
        """Drop results that are too old or too many; they lie in the order in which they ended."""
        oldest_kept = time.monotonic() - self._retention_s
        while self._ended and (
            len(self._ended) > KEPT_JOBS or (self._ended[0].ended_at or 0.0) < oldest_kept
        ):
            self._jobs.pop(self._ended.popleft().id, None)
