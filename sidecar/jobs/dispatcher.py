"""Dispatcher of an engine slot: starts waiting jobs, alone or in batches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from sidecar import errors
from sidecar.interfaces.engine_interface import EngineSpec, Precision
from sidecar.jobs.job_runner import Job, JobRun, OptionsPlanner
from sidecar.jobs.scheduler import NEXT_JOB_WAIT_S
from sidecar.jobs.wait_queue import WaitQueue
from sidecar.workers.engine_slot import EngineSlot

log = logging.getLogger(__name__)


BatchChooser = Callable[[Iterator[Job], Precision], Sequence[Job]]
"""Chooser of a batch. It gets the waiting jobs of one precision in queue order, the due one first,
and returns those to run together. The order is computed as the jobs are taken."""


@dataclass(frozen=True, slots=True)
class DispatchOptions:
    """Options of dispatch, equal for all dispatchers of a queue."""

    plan: OptionsPlanner
    max_s: float
    company: BatchChooser = lambda waiting, _: [next(waiting)]


class Dispatcher:
    """Dispatcher with the number ``at``, which runs jobs in an engine slot
    from `open` until `close`."""

    def __init__(
        self, at: int, place: EngineSlot[EngineSpec], lineup: WaitQueue, terms: DispatchOptions
    ) -> None:
        self._at = at
        self._place = place
        self._waiting = lineup
        self._terms = terms
        self._news = asyncio.Event()
        """Set if the queue has changed."""
        self._run: JobRun | None = None
        self._runner: asyncio.Task[None] | None = None
        lineup.watch(self._news.set)

    def open(self, ended: Callable[[Dispatcher, BaseException | None], None]) -> None:
        """Start the dispatcher task; ``ended`` is called if the task ends
        without `close`: a fault."""
        runner = asyncio.get_running_loop().create_task(self._dispatch(), name=f"lane-{self._at}")
        self._runner = runner

        def over(task: asyncio.Task[None]) -> None:
            if task is self._runner:
                self._runner = None
                self._waiting.shut(self._at)
                ended(self, None if task.cancelled() else task.exception())

        runner.add_done_callback(over)

    async def close(self) -> None:
        """Stop; jobs that run and have not ended are queued again."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.wait({runner})

    @property
    def open_(self) -> bool:
        """Return whether the dispatcher task runs."""
        return self._runner is not None

    @property
    def running(self) -> list[Job]:
        """Jobs that run."""
        return [*self._run.jobs] if self._run is not None else []

    def leave(self, job: Job) -> None:
        """Drop a job that was ended from outside, and go on with the others of its run."""
        if self._run is not None and job in self._run.jobs:
            self._run.leave(job)

    def interrupt(self) -> None:
        """Put running jobs back to the head of the queue."""
        if self._run is not None:
            self._run.interrupt()

    def stop(self, end: Callable[[Job], None]) -> None:
        """Call ``end`` for all running jobs, and stop their use of the engine."""
        busy = not all(job.ended for job in self.running)
        for job in self.running:
            end(job)
        if self._run is not None and busy:
            self._run.stop()

    async def _dispatch(self) -> None:
        while True:
            jobs = await self._take_next()
            self._waiting.begin(jobs, self._at)
            run = self._run = JobRun(jobs, self._place, self._terms.plan, self._terms.max_s)
            try:
                await run.over()
            finally:
                run.interrupt()
                await run.end()
                self._run = None
                self._waiting.finish(jobs, self._at)

    async def _take_next(self) -> Sequence[Job]:
        """Wait for a job and take it out of the queue, with the others of its batch. An error in
        the choice fails the job that was due."""
        while True:
            due: Job | None = None
            try:
                due = await self._due()
                jobs = self._with_company(due)
            except Exception:
                if not self._waiting:
                    raise
                due = due or self._waiting.first()
                log.exception("internal error while job %s was started", due.id)
                self._waiting.leave(due)
                due.fail(errors.EngineFailed())
                continue
            return jobs

    async def _due(self) -> Job:
        """Wait for the next job.

        If the engine would have to be reloaded for it, wait a moment longer: a client that uses the
        loaded precision may be about to send its next recording.
        """
        now = time.monotonic
        deadline: float | None = None
        while True:
            job = self._waiting.due(self._at)
            if job is not None:
                if not self._needs_a_load(job):
                    return job
                deadline = now() + NEXT_JOB_WAIT_S if deadline is None else deadline
                if now() >= deadline:
                    return job
            self._news.clear()
            pause_s = deadline - now() if job is not None and deadline is not None else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._news.wait()

    def _with_company(self, job: Job) -> Sequence[Job]:
        """Return the batch of a job; if several dispatchers are free, at most the share of one."""
        if job.record.alone:
            return [job]
        wanted = self._waiting.wanted
        others = (one for one in self._waiting.in_turn() if one is not job)
        same = (one for one in others if wanted(one) is wanted(job) and not one.record.alone)
        share = math.ceil(len(self._waiting) / max(1, self._waiting.free()))
        return self._terms.company(chain([job], islice(same, share - 1)), wanted(job))

    def _needs_a_load(self, job: Job) -> bool:
        """Return whether a job needs another precision than the loaded one."""
        wanted = self._waiting.wanted(job)
        return self._place.loaded and wanted is not self._place.precision
