"""The queue: who is taken in, who is next and with whom, and the runner that sees to it.

Who waits, and in which order, is `jobs.lineup`'s.

What becomes of those that run is `jobs.runner`'s; what is known of all is `jobs.store`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from sidecar import errors
from sidecar.jobs.job import Job
from sidecar.jobs.lineup import Guess, Lineup
from sidecar.jobs.pace import Pace
from sidecar.jobs.runner import Plan, Run
from sidecar.jobs.store import JobStore
from sidecar.speech.engine import Precision
from sidecar.workers.slot import EngineSlot

log = logging.getLogger(__name__)

LINGER_S = 0.3
"""What a client takes at most to send its next recording after the answer to the last."""

Company = Callable[[Iterator[Job], Precision], Sequence[Job]]
"""Of jobs that wait for the same precision, in turn, the first of which is due: those to run in
step. Who is in turn is worked out as they are taken."""


class JobQueue:
    """One engine for all who wait, in turn."""

    def __init__(
        self,
        slot: EngineSlot,
        store: JobStore,
        *,
        limit: int,
        max_s: float,
        plan: Plan,
        company: Company = lambda waiting, _: [next(waiting)],
        guess: Guess = lambda job, precision: None,
        pace: Pace | None = None,
        lead_s: float = 0.0,
    ) -> None:
        """``lead_s``: when a job is likely to end within so many seconds, the next is handed to the
        engine, which begins with it by itself; at 0 when the job has ended."""
        self._slot = slot
        self._store = store
        self._plan = plan
        self._company = company
        self._limit = limit
        self._max_s = max_s
        self._waiting = Lineup(slot, guess, pace)
        self._lead_s = lead_s
        self._news = asyncio.Event()
        """Somebody came, or something became of those that run."""
        self._runs: list[Run] = []
        """First the one that is at work, then one that waits at the engine."""
        self._runner: asyncio.Task[None] | None = None
        self._broken = asyncio.Event()
        self._draining = False
        self._put_off: list[Job] = []
        """Those that the next start goes on with."""

    def open(self) -> None:
        """Start to work."""
        self._runner = asyncio.get_running_loop().create_task(self._run(), name="job-queue")
        self._runner.add_done_callback(self._runner_ended)

    async def close(self) -> None:
        """Stop; jobs that have not ended end with `errors.ShuttingDown`, unless they outlive it."""
        self._draining = True
        runner, self._runner = self._runner, None
        self._end_all(errors.ShuttingDown())
        if runner is not None:
            runner.cancel()
            await asyncio.wait({runner})
        for job in self._put_off:
            job.source.close()

    async def drain(self, grace_s: float) -> None:
        """Take no more jobs; those that wait end with `errors.ShuttingDown`, and after ``grace_s``
        those that run, alone or in company."""
        self._draining = True
        running = self._running
        for job in self._waiting:
            self._end(job, errors.ShuttingDown())
        self._waiting.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                for job in running:
                    await job.over()
        self._end_all(errors.ShuttingDown())

    async def broken(self) -> None:
        """Wait until no job is worked on any more although nobody closed the queue: a fault."""
        await self._broken.wait()

    @property
    def draining(self) -> bool:
        """Whether no job is taken any more."""
        return self._draining

    @property
    def depth(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Jobs that run, or wait at the engine."""
        return len(self._running)

    def check_open(self) -> None:
        """Raise `errors.ShuttingDown` when no job is taken any more."""
        if self._draining:
            raise errors.ShuttingDown()

    def check_room(self, promised: int = 0) -> None:
        """Raise `errors.QueueFull` when no more job is taken, `errors.ShuttingDown` for ever.

        ``promised``: places that are kept for others. Where nothing runs, the first to come does
        not wait.
        """
        self.check_open()
        taken = len(self._waiting) + promised
        if taken >= self._limit + (not self._runs and not self._waiting):
            raise errors.QueueFull(
                f"{taken} jobs are waiting or on their way, and the queue takes no more."
            )

    def submit(self, job: Job, *, promised: bool = False) -> None:
        """Take in a job that waits; ``promised`` if a place was kept for it.

        Raises:
            errors.QueueFull: there is none.
        """
        self.check_open() if promised else self.check_room()
        self._waiting.join(job)
        job.enter(self._store)
        self._news.set()

    def of(self, owner: str, *, running: bool = True) -> list[Job]:
        """An owner's jobs that wait, and those that run unless they are left out."""
        live = [*self._waiting, *(self._running if running else ())]
        return [job for job in live if job.record.owner == owner]

    def resume(self, job: Job) -> None:
        """Take in a job of before the start, which was accepted then: there is a place for it."""
        if self._draining:
            self._put_off.append(job)
            return
        job.enter_again(self._store)
        self._waiting.join(job)
        self._news.set()

    def live(self, job_id: str) -> Job | None:
        """The job with this id, if it waits or runs."""
        running = (job for job in self._running if job.id == job_id)
        return self._waiting.get(job_id) or next(running, None)

    def position(self, job: Job) -> int | None:
        """How many go first; None when it waits no more."""
        turn = self._waiting.turn(job)
        return turn[0] if turn is not None else None

    def wait_s(self, job: Job) -> float | None:
        """For about how many seconds others go first; None when it waits no more."""
        turn = self._waiting.turn(job)
        return turn[1] if turn is not None else None

    def cancel(self, job: Job) -> None:
        """End a job, waiting or running; one that has ended stays as it is."""
        if job.ended:
            return
        if job in self._waiting:
            self._waiting.leave(job)
        job.cancel()
        for run in self._runs:
            if job in run.jobs:
                run.leave(job)

    def interrupt(self) -> None:
        """Put what runs back to the head of the queue."""
        for run in self._runs:
            run.interrupt()

    @property
    def _running(self) -> list[Job]:
        return [job for run in self._runs for job in run.jobs]

    def _end_all(self, error: errors.SidecarError) -> None:
        """End who waits and who runs."""
        busy = [run for run in self._runs if not all(job.ended for job in run.jobs)]
        for job in [*self._waiting, *self._running]:
            self._end(job, error)
        self._waiting.clear()
        for run in busy:
            run.stop()

    def _end(self, job: Job, error: errors.SidecarError) -> None:
        """End a job with the service; one that outlives it stays as it is for the next start."""
        if not job.record.durable:
            job.fail(error)
        elif not job.ended and job not in self._put_off:
            self._put_off.append(job)

    async def _run(self) -> None:
        while True:
            self._start(await self._take_next())
            try:
                await self._see_to_runs()
            finally:
                for run in self._runs:
                    await run.end()
                self._take_back()

    def _start(self, jobs: Sequence[Job], behind: Run | None = None) -> None:
        self._waiting.begin(jobs)
        run = Run(jobs, self._slot, self._plan, self._max_s, self._news.set, behind)
        self._runs.append(run)

    async def _see_to_runs(self) -> None:
        """Until nothing runs; before a job ends the next is handed to the engine, behind it."""
        while self._runs:
            self._news.clear()
            busy_s = self._waiting.busy_s(time.monotonic())
            if self._lead_s and busy_s <= self._lead_s:
                self._follow()
            followed = len(self._runs) > 1 or not (self._lead_s and self._waiting)
            pause_s = None if followed else max(busy_s - self._lead_s, self._lead_s / 2)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._news.wait()
            self._take_back()

    def _follow(self) -> None:
        """Run the next behind the one that is at work, if nothing has to change for it."""
        run = self._runs[0]
        free = run.followable and self._slot.loaded and not self._slot.awaited
        if len(self._runs) > 1 or not self._waiting or not free or self._put_off:
            return
        try:
            job = self._waiting.due()
            alone = not self._needs_a_load(job) and len(self._with_company(job)) == 1
        except Exception:
            log.debug("nobody is chosen ahead", exc_info=True)
            return  # who is chosen when this has ended meets the same, and is told
        if alone:
            self._start([job], run)

    def _take_back(self) -> None:
        """Let go of the runs that are over, the last first: who was put back keeps its place."""
        for run in list(reversed(self._runs)):
            waits_again = not all(job.ended for job in run.jobs)
            if run.over and (not waits_again or run is self._runs[-1]):
                self._runs.remove(run)
                self._waiting.finish(run.jobs)

    def _runner_ended(self, runner: asyncio.Task[None]) -> None:
        """Without a runner every job would wait for ever: end them, take no more, and say so."""
        if runner is not self._runner:
            return  # it was closed
        cause = None if runner.cancelled() else runner.exception()
        log.critical("no job is worked on any more: the queue's runner ended", exc_info=cause)
        self._draining = True
        self._end_all(errors.EngineFailed("The service has a fault and ends."))
        self._broken.set()

    async def _take_next(self) -> Sequence[Job]:
        """Wait for a job and take it out, with those that run in its company. What goes wrong with
        the choice costs the job that was due."""
        while True:
            due: Job | None = None
            try:
                due = await self._due()
                jobs = self._with_company(due)
            except Exception:
                if not self._waiting:
                    raise
                due = due or self._waiting.first()
                log.exception("job %s could not be begun", due.id)
                self._waiting.leave(due)
                due.fail(errors.EngineFailed())
                continue
            return jobs

    async def _due(self) -> Job:
        """Wait for the job that is next.

        One for which the engine would have to be loaded anew waits a moment longer: a client that
        uses what is loaded may be about to send its next.
        """
        if self._put_off:  # the service ends: nobody is begun any more
            await asyncio.Event().wait()
        now = asyncio.get_running_loop().time
        deadline: float | None = None
        while True:
            if self._waiting:
                job = self._waiting.due()
                if not self._needs_a_load(job):
                    return job
                deadline = now() + LINGER_S if deadline is None else deadline
                if now() >= deadline:
                    return job
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline if self._waiting else None):
                    await self._news.wait()

    def _with_company(self, job: Job) -> Sequence[Job]:
        if job.record.alone:
            return [job]
        wanted = self._waiting.wanted
        others = (one for one in self._waiting.in_turn() if one is not job)
        same = (one for one in others if wanted(one) is wanted(job) and not one.record.alone)
        return self._company(chain([job], same), wanted(job))

    def _needs_a_load(self, job: Job) -> bool:
        """Whether what is loaded would have to go for it."""
        return self._slot.loaded and self._waiting.wanted(job) is not self._slot.precision
