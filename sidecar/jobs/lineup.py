"""Those who wait, and who of them is next: `order` decides, here is what it decides on.

All places take from one line. A place goes by its number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from sidecar.jobs.job import Job
from sidecar.jobs.order import At, Shares, Waiting, schedule
from sidecar.jobs.pace import Pace
from sidecar.jobs.record import JobState
from sidecar.jobs.working import Working
from sidecar.speech.engine import Precision
from sidecar.workers.place import Place

FRESH_S = 1.0
"""Positions and waits that are asked for are so old at most: to work them out takes a moment."""

Guess = Callable[[Job, Precision], float | None]
"""Seconds of work of a job, before anything was measured; None where nobody can tell."""


class Lineup:
    """The jobs that wait for some places, and how much of them each owner has had."""

    def __init__(
        self,
        places: Sequence[Place],
        guess: Guess = lambda job, precision: None,
        pace: Pace | None = None,
    ) -> None:
        self._guess = guess
        self._pace = pace if pace is not None else Pace()
        self._working = [Working(place, self._pace, self._takes_s) for place in places]
        self._shares = Shares()
        self._jobs: dict[str, Job] = {}
        """By id, in order of arrival; who was put back is before who came later."""
        self._values: dict[tuple[Precision, float], dict[str, Waiting]] = {}
        """What is decided on, of those of whom it was asked for, by how precisions resolve."""
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

    def wanted(self, job: Job, at: int) -> Precision:
        """At which precision a job would run in a place now."""
        return _wanted(job, self._working[at].place)

    def join(self, job: Job) -> None:
        """One more waits."""
        if job.record.owner not in self._active():
            self._shares = self._shares.joined(job.record.owner)
        wanted = self.wanted(job, 0)
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
        """They run no more; who has not ended waits again, in front, and has had nothing."""
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
        """Nobody waits any more."""
        for job_id in self._jobs:
            del self._predicted[job_id]
        self._jobs.clear()
        self._values.clear()
        self._changed()

    def halt(self) -> None:
        """Nobody is next any more: those who wait do so for another start."""
        self._halted = True

    def rest(self, at: int, until: float = math.inf) -> None:
        """Nobody is begun in a place before (`time.monotonic`)."""
        self._working[at].rests_until = until
        self._changed()

    def rests_until(self, at: int) -> float:
        """Until when nobody is begun in a place; the past where one may be."""
        return self._working[at].rests_until

    def free(self) -> int:
        """In how many places one could be begun now."""
        now = time.monotonic()
        return sum(one.free(now) for one in self._working)

    @property
    def reached(self) -> bool:
        """Whether there is a place that does not rest."""
        now = time.monotonic()
        return any(now >= one.rests_until for one in self._working)

    def first(self) -> Job:
        """Who has waited longest; somebody waits."""
        return next(iter(self._jobs.values()))

    def due(self, at: int) -> Job | None:
        """Who is next in a place, when those that are free take theirs; None where they take all,
        or it rests."""
        now = time.monotonic()
        if self._halted or not self._jobs or now < self._working[at].rests_until:
            return None
        open_ = [number for number, one in enumerate(self._working) if one.free(now)]
        numbers = sorted({*open_, at})
        turns = schedule([*self._places(numbers, now)], self._shares)
        mine = (turn.index for turn in turns if numbers[turn.at] == at)
        if (index := next(mine, None)) is None:
            return None
        return [*self._jobs.values()][index]

    def in_turn(self, at: int) -> Iterator[Job]:
        """All who wait, in the order in which they would run in one place; each is worked out as it
        is taken."""
        jobs = [*self._jobs.values()]
        turns = schedule([*self._places([at], time.monotonic())], self._shares)
        return (jobs[turn.index] for turn in turns)

    def turn(self, job: Job) -> tuple[int, float] | None:
        """How many go before a job, and for about how many seconds; None when it waits no more."""
        if job.id not in self._jobs:
            return None
        now = time.monotonic()
        if now >= self._turns_until:
            ids = [*self._jobs]
            places = self._places(range(len(self._working)), now, timed=True)
            turns = schedule([*places], self._shares)
            self._turns = {ids[one.index]: (place, one.wait_s) for place, one in enumerate(turns)}
            self._turns_until = now + FRESH_S
        return self._turns[job.id]

    def busy_s(self, at: int) -> float:
        """What those that run in a place still take, with what its engine takes to be there."""
        return self._working[at].busy_s(time.monotonic())

    def _places(self, numbers: Sequence[int], now: float, *, timed: bool = False) -> Iterator[At]:
        """Places as they are; ``timed``: with what keeps them busy, and how long things take."""
        lines: dict[tuple[Precision, float], tuple[list[Waiting], list[float]]] = {}
        for one in (self._working[number] for number in numbers):
            place, resolution = one.place, one.place.resolution
            if resolution not in lines:
                takes_s = [self._takes_s(job, place) for job in self if timed]
                lines[resolution] = self._waiting(place), takes_s
            waiting, takes_s = lines[resolution]
            if timed:
                yield At(waiting, one.moment(now), takes_s, one.open_in_s(now), one.loads_s)
            else:
                yield At(waiting, one.moment(now))

    def _waiting(self, place: Place) -> list[Waiting]:
        """All who wait, as they would run in a place; made once: who asks for its turn there asks
        for all of them."""
        for old in self._values.keys() - {one.place.resolution for one in self._working}:
            del self._values[old]
        known = self._values.setdefault(place.resolution, {})
        for job_id in self._jobs.keys() - known.keys():
            job, work_s = self._jobs[job_id], self._predicted[job_id]
            record, wanted = job.record, _wanted(job, place)
            known[job_id] = Waiting(record.owner, wanted, work_s, job.arrived_at, record.priority)
        return [known[job_id] for job_id in self._jobs]

    def _active(self) -> set[str]:
        running = chain.from_iterable(one.running for one in self._working)
        return {job.record.owner for job in chain(self._jobs.values(), *running)}

    def _takes_s(self, job: Job, place: Place) -> float:
        """Seconds of work of a job, by what is known now; between owners that counts which was
        known when it came, or what one has had would change with it."""
        wanted, predicted_s = _wanted(job, place), self._predicted[job.id]
        return self._pace.seconds(wanted, job.facts.total_s, guess_s=predicted_s)

    def _learn(self, job: Job, together: int) -> None:
        record = job.record
        if together == 1 and record.state is JobState.DONE and record.transcript is not None:
            done = record.transcript
            self._pace.learn(done.precision, done.duration, record.processing_s)

    def _gone(self, job: Job) -> None:
        del self._jobs[job.id]
        for known in self._values.values():
            known.pop(job.id, None)

    def _changed(self) -> None:
        self._turns_until = 0.0
        for news in self._watching:
            news()


def _wanted(job: Job, place: Place) -> Precision:
    return place.resolve(job.options.precision, job.arrived_at)
