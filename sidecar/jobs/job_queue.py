"""Job queue and dispatcher of each engine slot.

All lanes take from one line (`jobs.wait_queue`); what becomes of those that run is
`jobs.job_runner`'s.

Who waits, and in which order, is `jobs.wait_queue`'s; what runs in a place, `jobs.job_queue`'s;
what is known of all, `jobs.job_log`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from sidecar import errors
from sidecar.interfaces.engine_interface import EngineSpec, Precision
from sidecar.jobs.duration_prediction import DurationPredictor
from sidecar.jobs.job_log import JobLog
from sidecar.jobs.job_runner import Job, JobRun, OptionsPlanner
from sidecar.jobs.reservations import Reservation
from sidecar.jobs.wait_queue import GuessJobSeconds, WaitQueue
from sidecar.workers.engine_slot import EngineSlot

log = logging.getLogger(__name__)

NEXT_JOB_WAIT_S = 0.3
"""Time in which a client sends its next recording after the answer to the last."""

MAX_RETRY_AFTER_S = 60
"""OpenAI's SDKs wait no longer for a Retry-After; if it says more, they come after a second."""
MAX_RETURNS = 1000
"""Clients that were refused and are expected again; more are not told apart."""
MAX_RETURNS_OF_OTHERS = 4
"""Those of one owner that another waits for: who is refused often delays itself alone."""

BatchChooser = Callable[[Iterator[Job], Precision], Sequence[Job]]
"""Of jobs that wait for the same precision, in turn, the first of which is due: those to run in
step. Who is in turn is worked out as they are taken."""


@dataclass(frozen=True, slots=True)
class DispatchOptions:
    """Options of dispatch, the same in all places.

    ``lead_s``: if a job is likely to end within so many seconds, the next is handed to the engine,
    which begins with it by itself; at 0 when the job has ended.
    """

    plan: OptionsPlanner
    max_s: float
    company: BatchChooser = lambda waiting, _: [next(waiting)]
    lead_s: float = 0.0


class Dispatcher:
    """Sees to the place with the number ``at`` in the line, from `open` until `close`."""

    def __init__(
        self, at: int, place: EngineSlot[EngineSpec], lineup: WaitQueue, terms: DispatchOptions
    ) -> None:
        self._at = at
        self._place = place
        self._waiting = lineup
        self._terms = terms
        self._news = asyncio.Event()
        """Somebody came, or something became of those that run."""
        self._runs: list[JobRun] = []
        """First the one that is at work, then one that waits at the engine."""
        self._runner: asyncio.Task[None] | None = None
        lineup.watch(self._news.set)

    def open(self, ended: Callable[[Dispatcher, BaseException | None], None]) -> None:
        """Start to work; ``ended`` is called if that ends although nobody closed it: a fault."""
        runner = asyncio.get_running_loop().create_task(self._run(), name=f"lane-{self._at}")
        self._runner = runner

        def over(task: asyncio.Task[None]) -> None:
            if task is self._runner:
                self._runner = None
                self._waiting.shut(self._at)
                ended(self, None if task.cancelled() else task.exception())

        runner.add_done_callback(over)

    async def close(self) -> None:
        """Stop; who runs and has not ended waits again."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.wait({runner})

    @property
    def open_(self) -> bool:
        """Return whether the place has a running task."""
        return self._runner is not None

    @property
    def running(self) -> list[Job]:
        """Jobs that run, or wait at the engine."""
        return [job for run in self._runs for job in run.jobs]

    def leave(self, job: Job) -> None:
        """Go on without a job that was ended by somebody else."""
        for run in self._runs:
            if job in run.jobs:
                run.leave(job)

    def interrupt(self) -> None:
        """Put what runs back to the head of the queue."""
        for run in self._runs:
            run.interrupt()

    def stop(self, end: Callable[[Job], None]) -> None:
        """Have all that run ended or put off, and give up the engine."""
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
        """Until nothing runs; before a job ends the next is handed to the engine, behind it."""
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
        """Run the next behind the one that is at work, if nothing has to change for it."""
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
            return  # who is chosen when this has ended meets the same, and is told
        if alone:
            self._start([job], run)

    def _take_back(self) -> None:
        """Let go of the runs that are over, the last first: who was put back keeps its place."""
        for run in list(reversed(self._runs)):
            waits_again = not all(job.ended for job in run.jobs)
            if run.over and (not waits_again or run is self._runs[-1]):
                self._runs.remove(run)
                self._waiting.finish(run.jobs, self._at)

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
                log.exception("internal error while job %s was started", due.id)
                self._waiting.leave(due)
                due.fail(errors.EngineFailed())
                continue
            return jobs

    async def _due(self) -> Job:
        """Wait for the job that is next.

        One for which the engine would have to be loaded anew waits a moment longer: a client that
        uses what is loaded may be about to send its next.
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
        """Return the jobs that run with it; if several slots are free, no more than are its
        share."""
        if job.record.alone:
            return [job]
        wanted = self._waiting.wanted
        others = (one for one in self._waiting.in_turn() if one is not job)
        same = (one for one in others if wanted(one) is wanted(job) and not one.record.alone)
        share = math.ceil(len(self._waiting) / max(1, self._waiting.free()))
        return self._terms.company(chain([job], islice(same, share - 1)), wanted(job))

    def _needs_a_load(self, job: Job) -> bool:
        """Return whether a job needs another engine or precision than the loaded one."""
        wanted = self._waiting.wanted(job)
        return self._place.loaded and wanted is not self._place.precision


class JobQueue:
    """One engine for all who wait, in turn."""

    def __init__(
        self,
        place: EngineSlot[EngineSpec],
        store: JobLog,
        terms: DispatchOptions,
        *,
        limit: int,
        places: int = 1,
        guess: GuessJobSeconds = lambda job, precision: None,
        pace: DurationPredictor | None = None,
    ) -> None:
        """``places``: so many run at once in the ``place``. ``limit``: so many may wait."""
        self._store = store
        self._limit = limit
        self._waiting = WaitQueue(place, places, guess, pace)
        self._lanes = [Dispatcher(at, place, self._waiting, terms) for at in range(places)]
        self._broken = asyncio.Event()
        self._draining = False
        self._returns: list[tuple[float, str]] = []
        """Times when rejected clients come again by their Retry-After, and their owners."""
        self._put_off: list[Job] = []
        """Those that the next start goes on with."""

    def open(self) -> None:
        """Start to work."""
        for lane in self._lanes:
            lane.open(self._lane_ended)

    async def close(self) -> None:
        """Stop; jobs that have not ended end with `errors.ShuttingDown`, unless they outlive it."""
        self._draining = True
        self._end_all(errors.ShuttingDown())
        await asyncio.gather(*(lane.close() for lane in self._lanes))
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
        """Return whether no job is accepted any more."""
        return self._draining

    @property
    def depth(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    @property
    def places(self) -> int:
        """Return the number of jobs that may run at once."""
        return len(self._lanes)

    @property
    def running(self) -> int:
        """Jobs that run, or wait at the engine."""
        return len(self._running)

    def check_open(self) -> None:
        """Raise `errors.ShuttingDown` when no job is taken any more."""
        if self._draining:
            raise errors.ShuttingDown()

    def check_room(self, promised: int = 0, caller: str | None = None) -> None:
        """Raise `errors.QueueFull` when no more job is taken, `errors.ShuttingDown` for ever.

        ``promised``: places that are kept for others. ``caller``: the owner who is told so and
        comes again; None: nobody is. Who comes first where nothing runs does not wait.
        """
        self.check_open()
        taken = len(self._waiting) + promised
        most = self._limit + max(0, self._waiting.free() - len(self._waiting))
        if taken >= most:
            raise errors.QueueFull(
                f"{taken} jobs are waiting or being uploaded: the queue is full.",
                retry_after=self._room_in_s(taken - most + 1, caller),
            )

    def _room_in_s(self, missing: int, caller: str | None) -> int:
        """Seconds after which a client that is refused now finds a place, if ``missing`` jobs have
        to begin first, and those that were refused before it come again when they were told to;
        of each other owner no more than a few."""
        now = time.monotonic()
        self._returns = [one for one in self._returns if one[0] > now][-MAX_RETURNS:]
        expected = Counter(owner for _, owner in self._returns)
        before = expected.pop(caller or "", 0)
        before += sum(min(count, MAX_RETURNS_OF_OTHERS) for count in expected.values())
        wait_s = self._waiting.begun_in_s(missing + before)
        told_s = min(max(1, math.ceil(wait_s)), MAX_RETRY_AFTER_S)
        if caller is not None:
            self._returns.append((now + told_s, caller))
        return told_s

    async def submit(self, job: Job, *, promised: Reservation | None = None) -> None:
        """Accept a job: return once it is persisted. ``promised``: the place that was kept for it,
        released as soon as the job counts here.

        Raises:
            errors.QueueFull: there is no place.
            errors.SidecarError: it cannot be persisted; there is no job.
        """
        self.check_room(caller=job.record.owner) if promised is None else self.check_open()
        self._waiting.join(job)
        job.enter(self._store)
        if promised is not None:
            promised.release()
        job.source.settle()
        try:
            await job.written()
        except BaseException:
            self.cancel(job)
            self._store.forget(job.id)  # the same request sent again is a new one
            raise

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

    def live(self, job_id: str) -> Job | None:
        """The job with this id, if it waits or runs."""
        running = (job for job in self._running if job.id == job_id)
        return self._waiting.get(job_id) or next(running, None)

    def position(self, job: Job) -> int | None:
        """Return the number of jobs that go first; None when it waits no more."""
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
        for lane in self._lanes:
            lane.leave(job)

    def interrupt(self) -> None:
        """Put what runs back to the head of the queue."""
        for lane in self._lanes:
            lane.interrupt()

    @property
    def _running(self) -> list[Job]:
        return [job for lane in self._lanes for job in lane.running]

    def _end_all(self, error: errors.SidecarError) -> None:
        """End who waits and who runs."""
        for job in self._waiting:
            self._end(job, error)
        self._waiting.clear()
        for lane in self._lanes:
            lane.stop(lambda job: self._end(job, error))

    def _end(self, job: Job, error: errors.SidecarError) -> None:
        """End a job with the service; one that outlives it stays as it is for the next start."""
        if not job.record.durable:
            job.fail(error)
        elif not job.ended and job not in self._put_off:
            self._put_off.append(job)
            self._waiting.halt()  # the service ends: nobody is begun any more

    def _lane_ended(self, lane: Dispatcher, fault: BaseException | None) -> None:
        """Without its runner a place is out. Without any every job would wait for ever: end them,
        take no more, and say so."""
        if any(one.open_ for one in self._lanes):
            log.critical(
                "internal error: the dispatcher of an engine slot ended; the other slots go on",
                exc_info=fault,
            )
            return
        log.critical(
            "internal error: the last dispatcher ended; the service fails its jobs and stops",
            exc_info=fault,
        )
        self._draining = True
        self._end_all(errors.EngineFailed("The service stops after an internal error."))
        self._broken.set()
