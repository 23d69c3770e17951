"""Wait queue: waiting jobs, positions, what runs and for how long.

All places are of one engine and take from one line. A place goes by its number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice

from sidecar.interfaces.engine_interface import EngineSpec, Precision
from sidecar.jobs import scheduler
from sidecar.jobs.duration_prediction import MIN_JOB_S, DurationPredictor, remaining_s
from sidecar.jobs.job_record import JobState
from sidecar.jobs.job_runner import Job
from sidecar.workers.engine_slot import EngineSlot

PredictJobSeconds = Callable[[Job], float]
"""Seconds of work of a job, by what is known now."""


class RunningJobs:
    """Running jobs of a slot (``place``); times are of `time.monotonic`."""

    def __init__(
        self, place: EngineSlot[EngineSpec], pace: DurationPredictor, takes_s: PredictJobSeconds
    ) -> None:
        self.place = place
        self.running: list[Sequence[Job]] = []
        """First those at work, alone or in step; then who is behind them."""
        self.shut = False
        """Nobody sees to this place any more."""
        self._pace = pace
        self._takes_s = takes_s
        self._begun_at = 0.0
        self._loaded_at = place.loaded_at

    @property
    def free(self) -> bool:
        """Return whether a job could begin."""
        return not self.running and not self.shut

    def begin(self, jobs: Sequence[Job], now: float) -> None:
        """These run, alone or in step, when those are over that run now."""
        if not self.running:
            self._begun_at = now
        self.running.append(jobs)

    def finish(self, jobs: Sequence[Job], now: float) -> None:
        """Remove jobs that run no more; the duration of a load is learned."""
        if jobs is self.running[0]:
            self._begun_at = now
        self.running.remove(jobs)
        if self.place.loaded and self.place.loaded_at != self._loaded_at:
            self._loaded_at = self.place.loaded_at
            self._pace.learn_load(self.place.precision, self.place.load_s)

    def busy_s(self, now: float) -> float:
        """Return the seconds that running jobs still take, with the engine's load."""
        first, *behind = [[job for job in jobs if not job.ended] for jobs in self.running] or [[]]
        after_s = sum(max(map(self._takes_s, jobs), default=0.0) for jobs in behind)
        return self._at_work_s(first, now) + after_s

    def open_in_s(self, now: float) -> float:
        """Seconds until one could be begun."""
        return math.inf if self.shut else self.busy_s(now)

    def _at_work_s(self, working: Sequence[Job], now: float) -> float:
        if not working:
            return 0.0
        if not self.place.loaded:
            load_s = self._pace.load_s(self.place.precision)
            return load_s * (1.0 - (self.place.loading or 0.0)) + max(map(self._takes_s, working))
        elapsed_s = now - max(self._begun_at, self.place.loaded_at)
        return max(
            remaining_s(self._takes_s(job), elapsed_s, job.record.progress.fraction)
            for job in working
        )


POSITIONS_MAX_AGE_S = 1.0
"""Positions and waits that are asked for are so old at most: to work them out takes a moment."""

GuessJobSeconds = Callable[[Job, Precision], float | None]
"""Seconds of work of a job, before anything was measured; None where nobody can tell."""


class WaitQueue:
    """The jobs that wait for an engine, which has so many at once as there are ``places``, and how
    much of it each owner has had."""

    def __init__(
        self,
        place: EngineSlot[EngineSpec],
        places: int = 1,
        guess: GuessJobSeconds = lambda job, precision: None,
        pace: DurationPredictor | None = None,
    ) -> None:
        self._guess = guess
        self._pace = pace if pace is not None else DurationPredictor()
        self._place = place
        self._working = [RunningJobs(place, self._pace, self._takes_s) for _ in range(places)]
        self._shares = scheduler.OwnerShares()
        self._jobs: dict[str, Job] = {}
        """By id, in order of arrival; who was put back is before who came later."""
        self._values: dict[str, scheduler.WaitingJob] = {}
        """Scheduling values of jobs, as precisions resolve now."""
        self._resolution = place.resolution
        self._predicted: dict[str, float] = {}
        """Seconds of work of each that waits or runs."""
        self._turns: dict[str, tuple[int, float]] = {}
        self._turns_until = 0.0
        self._halted = False
        self._watching: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter([*self._jobs.values()])

    def __contains__(self, job: Job) -> bool:
        return job.id in self._jobs

    def get(self, job_id: str) -> Job | None:
        """The job with this id, if it waits."""
        return self._jobs.get(job_id)

    def watch(self, news: Callable[[], None]) -> None:
        """Have it called when somebody came, left, was begun or put back."""
        self._watching.append(news)

    def wanted(self, job: Job) -> Precision:
        """At which precision a job would run now."""
        return self._place.resolve(job.options.precision, job.arrived_at)

    def join(self, job: Job) -> None:
        """One more waits."""
        if job.record.owner not in self._active():
            self._shares = self._shares.joined(job.record.owner)
        wanted = self.wanted(job)
        guess_s = None if self._pace.knows(wanted) else self._guess(job, wanted)
        self._predicted[job.id] = self._pace.seconds(wanted, job.facts.total_s, guess_s)
        self._jobs[job.id] = job
        self._changed()

    def leave(self, job: Job) -> None:
        """One waits no more, for it has ended."""
        self._gone(job)
        del self._predicted[job.id]
        self._changed()

    def begin(self, jobs: Sequence[Job], at: int) -> None:
        """These run, alone or in step, when those are over that run there now; what they take of
        the place is their owners'."""
        active = self._active()
        for job in jobs:
            self._gone(job)
            work_s = self._predicted[job.id] / len(jobs)
            self._shares = self._shares.charged(job.record.owner, work_s, active)
        self._working[at].begin(jobs, time.monotonic())
        self._changed()

    def finish(self, jobs: Sequence[Job], at: int) -> None:
        """Remove jobs that run no more; one that has not ended waits again, in front, and has
        had nothing."""
        self._working[at].finish(jobs, time.monotonic())
        for job in jobs:
            if job.ended:
                self._learn(job, len(jobs))
                del self._predicted[job.id]
            else:
                work_s = self._predicted[job.id] / len(jobs)
                self._shares = self._shares.refunded(job.record.owner, work_s)
        self._jobs = {job.id: job for job in jobs if not job.ended} | self._jobs
        self._changed()

    def clear(self) -> None:
        """Remove all waiting jobs."""
        for job_id in self._jobs:
            del self._predicted[job_id]
        self._jobs.clear()
        self._values.clear()
        self._changed()

    def halt(self) -> None:
        """Start no more jobs: those that wait do so for another start."""
        self._halted = True

    def shut(self, at: int) -> None:
        """Start no more jobs in a slot."""
        self._working[at].shut = True
        self._changed()

    def free(self) -> int:
        """In how many places one could be begun now."""
        return sum(one.free for one in self._working)

    def first(self) -> Job:
        """Return the job that has waited longest; at least one waits."""
        return next(iter(self._jobs.values()))

    def due(self, at: int) -> Job | None:
        """Return the next job of a place, after free places before it have taken theirs; None if
        they take all."""
        if self._halted:
            return None
        before = sum(one.free for one in self._working[:at])
        return next(islice(self.in_turn(before + 1), before, None), None)

    def in_turn(self, places: int = 1) -> Iterator[Job]:
        """All who wait, in the order in which they would run in so many free places; each is worked
        out as it is taken."""
        jobs = [*self._jobs.values()]
        found = self._worked_out(time.monotonic(), [0.0] * places)
        return (jobs[turn.index] for turn in found)

    def turn(self, job: Job) -> tuple[int, float] | None:
        """Return the number of jobs before a job, and their duration in seconds; None when it
        waits no more."""
        if job.id not in self._jobs:
            return None
        return self._all_turns()[job.id]

    def begun_in_s(self, count: int) -> float:
        """For about how many seconds fewer than ``count`` jobs begin; those behind the ones that
        wait are taken to be like them."""
        waits_s = sorted(wait_s for _, wait_s in self._all_turns().values())
        if count <= len(waits_s):
            return waits_s[count - 1]
        takes_s = [self._takes_s(job) for job in self._jobs.values()]
        each_s = sum(takes_s) / len(takes_s) if takes_s else MIN_JOB_S
        last_s = waits_s[-1] if waits_s else 0.0
        return last_s + (count - len(waits_s)) * each_s / len(self._working)

    def _all_turns(self) -> Mapping[str, tuple[int, float]]:
        """`turn` of all who wait, by their ids."""
        now = time.monotonic()
        if now >= self._turns_until:
            jobs = [*self._jobs.values()]
            takes_s = [self._takes_s(job) for job in jobs]
            busy_s = [one.open_in_s(now) for one in self._working]
            load_s = self._pace.load_s(self._place.precision)
            found = self._worked_out(now, busy_s, takes_s=takes_s, load_s=load_s)
            self._turns = {jobs[one.index].id: (n, one.wait_s) for n, one in enumerate(found)}
            self._turns_until = now + POSITIONS_MAX_AGE_S
        return self._turns

    def busy_s(self, at: int) -> float:
        """Return the seconds that running jobs of a place still take, with its engine's load."""
        return self._working[at].busy_s(time.monotonic())

    def _worked_out(
        self,
        now: float,
        busy_s: Sequence[float],
        *,
        takes_s: Sequence[float] | None = None,
        load_s: float = 0.0,
    ) -> Iterator[scheduler.ScheduledJob]:
        """As `order.turns`, of all who wait."""
        loaded = self._place.precision if self._place.loaded else None
        moment = scheduler.SchedulerMoment(now, loaded, self._place.loaded_at)
        values = self._waiting()
        return scheduler.schedule_jobs(
            values, self._shares, moment, takes_s=takes_s, busy_s=busy_s, load_s=load_s
        )

    def _waiting(self) -> list[scheduler.WaitingJob]:
        """All waiting jobs; each is computed once: a position needs all of them."""
        if self._resolution != self._place.resolution:
            self._resolution = self._place.resolution
            self._values.clear()
        for job_id in self._jobs.keys() - self._values.keys():
            job, work_s = self._jobs[job_id], self._predicted[job_id]
            record, wanted = job.record, self.wanted(job)
            self._values[job_id] = scheduler.WaitingJob(
                record.owner, wanted, work_s, job.arrived_at, record.priority
            )
        return [self._values[job_id] for job_id in self._jobs]

    def _active(self) -> set[str]:
        running = chain.from_iterable(one.running for one in self._working)
        return {job.record.owner for job in chain(self._jobs.values(), *running)}

    def _takes_s(self, job: Job) -> float:
        """Seconds of work of a job, by what is known now; between owners that counts which was
        known when it came, or what one has had would change with it."""
        wanted, predicted_s = self.wanted(job), self._predicted[job.id]
        return self._pace.seconds(wanted, job.facts.total_s, guess_s=predicted_s)

    def _learn(self, job: Job, together: int) -> None:
        record = job.record
        if together == 1 and record.state is JobState.DONE and record.transcript is not None:
            done = record.transcript
            self._pace.learn(done.precision, done.duration, record.processing_s)

    def _gone(self, job: Job) -> None:
        del self._jobs[job.id]
        self._values.pop(job.id, None)

    def _changed(self) -> None:
        self._turns_until = 0.0
        for news in self._watching:
            news()
