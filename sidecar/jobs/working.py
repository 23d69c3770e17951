"""What runs in one place, and for how long it is busy with that."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sidecar.jobs.job import Job
from sidecar.jobs.pace import Pace, remaining_s
from sidecar.workers.slot_interface import Place

Takes = Callable[[Job], float]
"""Seconds of work of a job, by what is known now."""


class Working:
    """Those that run in a ``place``; times are of `time.monotonic`."""

    def __init__(self, place: Place, pace: Pace, takes_s: Takes) -> None:
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
        """Whether one could be begun."""
        return not self.running and not self.shut

    def begin(self, jobs: Sequence[Job], now: float) -> None:
        """These run, alone or in step, when those are over that run now."""
        if not self.running:
            self._begun_at = now
        self.running.append(jobs)

    def finish(self, jobs: Sequence[Job], now: float) -> None:
        """They run no more; how long a load took is learned."""
        if jobs is self.running[0]:
            self._begun_at = now
        self.running.remove(jobs)
        if self.place.loaded and self.place.loaded_at != self._loaded_at:
            self._loaded_at = self.place.loaded_at
            self._pace.learn_load(self.place.precision, self.place.load_s)

    def busy_s(self, now: float) -> float:
        """What those that run still take, with what the engine takes to be there for them."""
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
