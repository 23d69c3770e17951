"""Those who wait, and who of them is next: `order` decides, here is what it decides on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from sidecar.jobs.job import Job
from sidecar.jobs.order import Moment, Shares, Turn, Waiting, turns
from sidecar.jobs.pace import Pace, remaining_s
from sidecar.jobs.record import JobState
from sidecar.speech.engine import Precision
from sidecar.workers.slot import EngineSlot

FRESH_S = 1.0
"""Positions and waits that are asked for are so old at most: to work them out takes a moment."""

Guess = Callable[[Job, Precision], float | None]
"""Seconds of work of a job, before anything was measured; None where nobody can tell."""


class Lineup:
    """The jobs that wait for one engine, and how much of it each owner has had."""

    def __init__(
        self,
        slot: EngineSlot,
        guess: Guess = lambda job, precision: None,
        pace: Pace | None = None,
    ) -> None:
        self._slot = slot
        self._guess = guess
        self._pace = pace if pace is not None else Pace()
        self._loaded_at = slot.loaded_at
        self._shares = Shares()
        self._jobs: dict[str, Job] = {}
        """By id, in order of arrival; who was put back is before who came later."""
        self._values: dict[str, Waiting] = {}
        """What is decided on, of those of whom it was asked for since precisions resolve as now."""
        self._resolution = slot.resolution
        self._running: list[Sequence[Job]] = []
        """First those at work, alone or in step; then who is behind them."""
        self._begun_at = 0.0
        self._predicted: dict[str, float] = {}
        """Seconds of work of each that waits or runs."""
        self._turns: dict[str, tuple[int, float]] = {}
        self._turns_until = 0.0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter([*self._jobs.values()])

    def __contains__(self, job: Job) -> bool:
        return job.id in self._jobs

    def get(self, job_id: str) -> Job | None:
        """The job with this id, if it waits."""
        return self._jobs.get(job_id)

    def wanted(self, job: Job) -> Precision:
        """At which precision a job would run now."""
        return self._slot.resolve(job.options.precision, job.arrived_at)

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

    def begin(self, jobs: Sequence[Job]) -> None:
        """These run, alone or in step, when those are over that run now; what they take of the
        engine is their owners'."""
        active = self._active()
        for job in jobs:
            self._gone(job)
            work_s = self._predicted[job.id] / len(jobs)
            self._shares = self._shares.charged(job.record.owner, work_s, active)
        if not self._running:
            self._begun_at = time.monotonic()
        self._running.append(jobs)
        self._changed()

    def finish(self, jobs: Sequence[Job]) -> None:
        """They run no more; who has not ended waits again, in front, and has had nothing."""
        if jobs is self._running[0]:
            self._begun_at = time.monotonic()
        self._running.remove(jobs)
        self._learn_load()
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

    def first(self) -> Job:
        """Who has waited longest; somebody waits."""
        return next(iter(self._jobs.values()))

    def due(self) -> Job:
        """Who is next; somebody waits."""
        return next(self.in_turn())

    def in_turn(self) -> Iterator[Job]:
        """All who wait, in the order in which they would run; each is worked out as it is taken."""
        jobs = [*self._jobs.values()]
        return (jobs[turn.index] for turn in turns(self._waiting(), self._shares, self._moment()))

    def turn(self, job: Job) -> tuple[int, float] | None:
        """How many go before a job, and for about how many seconds; None when it waits no more."""
        if job.id not in self._jobs:
            return None
        now = time.monotonic()
        if now >= self._turns_until:
            ids = [*self._jobs]
            in_turn = enumerate(self._timed(now))
            self._turns = {ids[turn.index]: (place, turn.wait_s) for place, turn in in_turn}
            self._turns_until = now + FRESH_S
        return self._turns[job.id]

    def _timed(self, now: float) -> Iterator[Turn]:
        return turns(
            self._waiting(),
            self._shares,
            self._moment(),
            takes_s=[*map(self._takes_s, self._jobs.values())],
            busy_s=self.busy_s(now),
            load_s=self._pace.load_s(self._slot.precision),
        )

    def _waiting(self) -> list[Waiting]:
        if self._resolution != self._slot.resolution:
            self._resolution = self._slot.resolution
            self._values.clear()
        return [self._values.get(job_id) or self._value(job) for job_id, job in self._jobs.items()]

    def _value(self, job: Job) -> Waiting:
        """Made once: everybody who asks for its place asks for all of them."""
        record, work_s = job.record, self._predicted[job.id]
        value = Waiting(record.owner, self.wanted(job), work_s, job.arrived_at, record.priority)
        self._values[job.id] = value
        return value

    def _moment(self) -> Moment:
        loaded = self._slot.precision if self._slot.loaded else None
        return Moment(time.monotonic(), loaded, self._slot.loaded_at)

    def busy_s(self, now: float) -> float:
        """What those that run still take, with what the engine takes to be there for them."""
        first, *behind = [[job for job in jobs if not job.ended] for jobs in self._running] or [[]]
        after_s = sum(max(map(self._takes_s, jobs), default=0.0) for jobs in behind)
        return self._at_work_s(first, now) + after_s

    def _at_work_s(self, working: Sequence[Job], now: float) -> float:
        if not working:
            return 0.0
        if not self._slot.loaded:
            load_s = self._pace.load_s(self._slot.precision) * (1.0 - (self._slot.loading or 0.0))
            return load_s + max(map(self._takes_s, working))
        elapsed_s = now - max(self._begun_at, self._slot.loaded_at)
        return max(
            remaining_s(self._takes_s(job), elapsed_s, job.record.progress.fraction)
            for job in working
        )

    def _active(self) -> set[str]:
        return {job.record.owner for job in chain(self._jobs.values(), *self._running)}

    def _takes_s(self, job: Job) -> float:
        """Seconds of work of a job, by what is known now; between owners that counts which was
        known when it came, or what one has had would change with it."""
        return self._pace.seconds(
            self.wanted(job), job.facts.total_s, guess_s=self._predicted[job.id]
        )

    def _learn(self, job: Job, together: int) -> None:
        record = job.record
        if together == 1 and record.state is JobState.DONE and record.transcript is not None:
            done = record.transcript
            self._pace.learn(done.precision, done.duration, record.processing_s)

    def _learn_load(self) -> None:
        if self._slot.loaded and self._slot.loaded_at != self._loaded_at:
            self._loaded_at = self._slot.loaded_at
            self._pace.learn_load(self._slot.precision, self._slot.load_s)

    def _gone(self, job: Job) -> None:
        del self._jobs[job.id]
        self._values.pop(job.id, None)

    def _changed(self) -> None:
        self._turns_until = 0.0
