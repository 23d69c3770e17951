"""Where jobs are shared: takes them in for whoever is free, and says who waits, from the store.

To the rest of a service it is what the queue is to one that keeps its jobs to itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from sidecar import clock, errors
from sidecar.jobs.events import Cancelled
from sidecar.jobs.job import Job
from sidecar.jobs.lineup import FRESH_S
from sidecar.jobs.log import JobLog
from sidecar.jobs.order import Moment, Shares, Waiting, turns
from sidecar.jobs.pulling import Pulling
from sidecar.jobs.queue import JobQueue
from sidecar.jobs.record import JobRecord, JobState
from sidecar.jobs.room import Hold
from sidecar.jobs.surveying import Survey
from sidecar.speech.engine import Precision

WorkS = Callable[[JobRecord], float]
"""Seconds of work of a job, as far as that is known here."""


class SharedQueue:
    """The jobs of all services that share a store, as one of them sees them that takes some in, and
    works on some unless ``queue`` is None."""

    def __init__(
        self,
        store: JobLog,
        limit: int,
        work_s: WorkS,
        queue: JobQueue | None = None,
        pulling: Pulling | None = None,
        survey: Survey | None = None,
        now: clock.Clock = clock.wall,
    ) -> None:
        """``limit``: jobs that may wait, of all services together. ``pulling``: who brings the jobs
        for ``queue``; ``survey``: who says which it cannot do."""
        self._store, self._limit, self._work_s, self._now = store, limit, work_s, now
        self._queue, self._pulling, self._survey = queue, pulling, survey
        self._awaited: dict[str, Job] = {}
        """Those whose clients wait here, and would not come back for them."""
        self._draining = False
        self._turns: dict[str, tuple[int, float]] = {}
        self._turns_until = 0.0

    @property
    def pulling(self) -> Pulling | None:
        """Who brings jobs to be worked on here; None where none are."""
        return self._pulling

    def open(self) -> None:
        """Start to work."""
        if self._queue is not None and self._pulling is not None:
            self._queue.open()
            self._pulling.open()
        if self._survey is not None:
            self._survey.open()

    async def close(self) -> None:
        """Stop. What is accepted is done by others, or at the next start."""
        self._draining = True
        if self._survey is not None:
            await self._survey.close()
        if self._pulling is not None:
            await self._pulling.close()
        if self._queue is not None:
            await self._queue.close()

    async def drain(self, grace_s: float) -> None:
        """Take no more jobs and begin none; after ``grace_s`` those that run here are given back,
        and those whose clients wait here end with `errors.ShuttingDown`."""
        self._draining = True
        await asyncio.gather(self._part(grace_s), self._stop_work(grace_s))

    async def broken(self) -> None:
        """Wait until no job is worked on any more although nobody closed the queue: a fault."""
        if self._queue is None:
            await asyncio.Event().wait()
        else:
            await self._queue.broken()

    @property
    def draining(self) -> bool:
        """Whether no job is taken any more."""
        return self._draining

    @property
    def depth(self) -> int:
        """Jobs that wait, of all services."""
        return len(self._in(JobState.QUEUED))

    @property
    def running(self) -> int:
        """Jobs that run, in all services."""
        return len(self._in(JobState.RUNNING))

    def check_open(self) -> None:
        """Raise `errors.ShuttingDown` when no job is taken any more."""
        if self._draining:
            raise errors.ShuttingDown()

    def check_room(self, promised: int = 0) -> None:
        """Raise `errors.QueueFull` when no more job is taken, `errors.ShuttingDown` for ever.

        ``promised``: places that are kept here for others; of those that other services keep nobody
        knows.
        """
        self.check_open()
        taken = self.depth + promised
        if taken >= self._limit:
            raise errors.QueueFull(
                f"{taken} jobs are waiting or on their way, and the queue takes no more."
            )

    async def submit(self, job: Job, *, promised: Hold | None = None) -> None:
        """Accept a job, as `JobQueue.submit`.

        Raises:
            errors.QueueFull: there is no place.
            errors.SidecarError: it cannot be persisted; there is no job.
            KeyTaken: another service accepted a job with its key.
        """
        self.check_room() if promised is None else self.check_open()
        job.enter(self._store)
        if promised is not None:
            promised.release()
        job.source.close()  # it was kept where whoever works finds it
        self._turns_until = 0.0
        if not job.record.kept:
            self.expect(job)
        try:
            await job.written()
        except BaseException:
            self.cancel(job)
            self._store.forget(job.id)
            raise

    def expect(self, job: Job) -> None:
        """A client waits here for a job, and nobody asks for it later."""
        self._awaited = {one.id: one for one in self._awaited.values() if not one.ended}
        self._awaited[job.id] = job

    def give_up(self, job: Job) -> None:
        """No client waits here for it any more; it goes on."""
        self._awaited.pop(job.id, None)

    def awaits(self, record: JobRecord) -> bool:
        """Whether a job was taken in here for a client that waits for its answer."""
        return record.id in self._awaited

    def of(self, owner: str, *, running: bool = True) -> list[JobRecord]:
        """An owner's jobs that wait, and those that run unless they are left out."""
        states = (JobState.QUEUED, JobState.RUNNING) if running else (JobState.QUEUED,)
        return [record for record in self._in(*states) if record.owner == owner]

    def live(self, job_id: str) -> JobRecord | None:
        """The job with this id, if it waits or runs anywhere."""
        with contextlib.suppress(errors.JobNotFound):
            record = self._store.get(job_id)
            return None if record.over else record
        return None

    def position(self, job: JobRecord) -> int | None:
        """About how many go first; None when it waits no more."""
        turn = self._turn(job)
        return turn[0] if turn is not None else None

    def wait_s(self, job: JobRecord) -> float | None:
        """For about how many seconds others go first; None when it waits no more."""
        turn = self._turn(job)
        return turn[1] if turn is not None else None

    def cancel(self, job: Job | JobRecord) -> None:
        """End a job, waiting or running anywhere; one that has ended stays as it is."""
        with contextlib.suppress(errors.JobNotFound):
            self._store.append(job.id, Cancelled())

    def interrupt(self) -> None:
        """Put what runs here back."""
        if self._queue is not None:
            self._queue.interrupt()

    def _in(self, *states: JobState) -> list[JobRecord]:
        return [record for record in self._store.all() if record.state in states]

    def _turn(self, job: JobRecord) -> tuple[int, float] | None:
        """Worked out anew once a second, and for one that came since at another service: everybody
        who asks for its place asks for all of them."""
        if job.state is not JobState.QUEUED:
            return None
        now = time.monotonic()
        if now >= self._turns_until or job.id not in self._turns:
            self._turns = self._worked_out()
            self._turns_until = now + FRESH_S
        return self._turns.get(job.id)

    def _worked_out(self) -> dict[str, tuple[int, float]]:
        """By the order that holds between owners, as if those that run now were all there was: how
        much each has had before that only the database knows."""
        waiting, running = self._in(JobState.QUEUED), self._in(JobState.RUNNING)
        now = self._now()
        had: dict[str, float] = {}
        for record in running:
            had[record.owner] = had.get(record.owner, 0.0) + self._work_s(record)
        values = [
            Waiting(
                record.owner, Precision.AUTO, self._work_s(record), record.created, record.priority
            )
            for record in waiting
        ]
        busy_s = sum(
            self._work_s(record) * (1.0 - (record.progress.fraction or 0.0)) for record in running
        )
        places = max(1, len(running))
        in_turn = turns(values, Shares(tags=had), Moment(now), busy_s=[busy_s])
        return {
            waiting[turn.index].id: (place, turn.wait_s / places)
            for place, turn in enumerate(in_turn)
        }

    async def _stop_work(self, grace_s: float) -> None:
        if self._survey is not None:
            await self._survey.close()
        if self._pulling is not None:
            await self._pulling.drain(grace_s)

    async def _part(self, grace_s: float) -> None:
        """Let clients that wait here have their answers, as long as there is time."""
        left: Sequence[Job] = [job for job in self._awaited.values() if not job.ended]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                for job in left:
                    await job.over()
        for job in left:
            if not job.ended:
                self.cancel(job)
                job.part(errors.ShuttingDown())
