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
    """Options of dispatch, equal for all dispatchers of a queue.

    ``lead_s``: if a job is likely to end within so many seconds, the next one is handed to the
    engine, which starts it without a pause. At 0 the next job is handed over when the last has
    ended.
    """

    plan: OptionsPlanner
    max_s: float
    company: BatchChooser = lambda waiting, _: [next(waiting)]
    lead_s: float = 0.0


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
        """Set if the queue or a run has changed."""
        self._runs: list[JobRun] = []
        """At most two: the run at work, then the run that waits at the engine."""
        self._runner: asyncio.Task[None] | None = None
        lineup.watch(self._news.set)

    def open(self, ended: Callable[[Dispatcher, BaseException | None], None]) -> None:
        """Start the dispatcher task; ``ended`` is called if the task ends
        without `close`: a fault."""
        runner = asyncio.get_running_loop().create_task(self._run(), name=f"lane-{self._at}")
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
        """Jobs that run, or wait at the engine."""
        return [job for run in self._runs for job in run.jobs]

    def leave(self, job: Job) -> None:
        """Drop a job that was ended from outside, and go on with the others of its run."""
        for run in self._runs:
            if job in run.jobs:
                run.leave(job)

    def interrupt(self) -> None:
        """Put running jobs back to the head of the queue."""
        for run in self._runs:
            run.interrupt()

    def stop(self, end: Callable[[Job], None]) -> None:
        """Call ``end`` for all running jobs, and stop their use of the engine."""
        busy = [run for run in self._runs if not all(job.ended for job in run.jobs)]
        for job in self.running:
            end(job)
        for run in busy:
            run.stop()

    async def _run(self) -> None:
        while True:
            self._start(await self._take_next())
            try:
                await self._see_to_runs()
            finally:
                for run in self._runs:
                    run.interrupt()
                    await run.end()
                self._take_back()

    def _start(self, jobs: Sequence[Job], behind: JobRun | None = None) -> None:
        self._waiting.begin(jobs, self._at)
        terms = self._terms
        run = JobRun(jobs, self._place, terms.plan, terms.max_s, self._news.set, behind)
        self._runs.append(run)

    async def _see_to_runs(self) -> None:
        """Wait until nothing runs; shortly before a job ends, hand the next one to the engine."""
        lead_s = self._terms.lead_s
        while self._runs:
            self._news.clear()
            busy_s = self._waiting.busy_s(self._at)
            if lead_s and busy_s <= lead_s:
                self._follow()
            followed = len(self._runs) > 1 or not (lead_s and self._waiting)
            pause_s = None if followed else max(busy_s - lead_s, lead_s / 2)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._news.wait()
            self._take_back()

    def _follow(self) -> None:
        """Start the next job behind the one at work, if the loaded
        engine needs no change for it."""
        run = self._runs[0]
        free = run.followable and self._place.loaded and not self._place.awaited
        if len(self._runs) > 1 or not free:
            return
        try:
            job = self._waiting.due(self._at)
            if job is None or self._needs_a_load(job):
                return
            alone = len(self._with_company(job)) == 1
        except Exception:
            log.debug("no job was chosen in advance", exc_info=True)
            return  # the choice is repeated when this run has ended; an error is reported then
        if alone:
            self._start([job], run)

    def _take_back(self) -> None:
        """Remove ended runs, the last first, so that a job that was put back
        keeps its queue position."""
        for run in list(reversed(self._runs)):
            waits_again = not all(job.ended for job in run.jobs)
            if run.over and (not waits_again or run is self._runs[-1]):
                self._runs.remove(run)
                self._waiting.finish(run.jobs, self._at)

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
