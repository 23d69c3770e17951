"""Scheduler: fair order of waiting jobs by owner and priority. Pure.

Between owners it is fair by predicted seconds of work, not by the number of files: weighted fair
queueing (Demers, Keshav, Shenker 1989) with equal weights. Each owner has a tag, the work it has
had; who would have had least by the end of its next job goes first. Who comes back after a while
begins at the time that has passed for all (the work done, shared by those who wanted it), so that
nobody saves up, and nobody waits for ever behind newcomers.

Of one owner's jobs those that somebody waits for go before the rest, in the order of their arrival;
a job that has waited for long counts as waited for.

Loading anew costs seconds to minutes, so jobs that want what is loaded go first; but who is due is
not passed over for longer than a limit, so two clients that want different things take turns at
that pace instead of at every job. The limit counts from the last load: in a queue whose jobs have
all waited for longer, every one of them would be a turn of its own.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.interfaces.engine_interface import Precision

MAX_PASSED_OVER_S = 60.0
"""Longest time that jobs of the loaded precision go before one that is due."""
BATCH_AGING_S = 600.0
"""After so long a job of a batch is waited for, too. Shared jobs have it in
`later_1` (storage/migrations)."""


class Priority(StrEnum):
    """Priority among an owner's own jobs; between owners it makes no difference."""

    INTERACTIVE = "interactive"
    """Somebody waits for it."""
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A job that waits, since it ``came`` by the clock of `SchedulerMoment`. ``work_s``: predicted
    seconds of work, as they count between owners."""

    owner: str
    wanted: Precision
    work_s: float
    came: float = 0.0
    priority: Priority = Priority.INTERACTIVE

    def urgent(self, now: float) -> bool:
        """Return whether it goes before its owner's batch jobs."""
        return self.priority is Priority.INTERACTIVE or now - self.came >= BATCH_AGING_S


@dataclass(frozen=True, slots=True)
class SchedulerMoment:
    """Moment of a decision: ``at``, in seconds of any clock. ``loaded``: the precision in
    memory, since ``loaded_at``; None while there is none."""

    at: float = 0.0
    loaded: Precision | None = None
    loaded_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class OwnerShares:
    """Work that each owner has had. ``passed``: what has passed for all of them."""

    passed: float = 0.0
    tags: Mapping[str, float] = field(default_factory=dict)

    def tag(self, owner: str) -> float:
        """Return the tag of an owner; an unknown one has the current time."""
        return self.tags.get(owner, self.passed)

    def joined(self, owner: str) -> OwnerShares:
        """An owner who had nothing here has something again: what it left unused is gone."""
        return OwnerShares(self.passed, {**self.tags, owner: max(self.tag(owner), self.passed)})

    def charged(self, owner: str, work_s: float, active: Collection[str]) -> OwnerShares:
        """Work of an owner was begun, one of those who have something here."""
        passed = self.passed + work_s / max(1, len(active))
        tags = {**self.tags, owner: self.tag(owner) + work_s}
        known = {one: tag for one, tag in tags.items() if one in active or tag > passed}
        return OwnerShares(passed, known)

    def refunded(self, owner: str, work_s: float) -> OwnerShares:
        """Work that was begun came to nothing by no fault of its owner's."""
        return OwnerShares(self.passed, {**self.tags, owner: self.tag(owner) - work_s})


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """The job at ``index`` is next, after ``wait_s`` seconds."""

    index: int
    wait_s: float


def next_job(waiting: Sequence[WaitingJob], shares: OwnerShares, moment: SchedulerMoment) -> int:
    """The index of the job to run, of those in order of arrival; at least one waits."""
    return next(schedule_jobs(waiting, shares, moment)).index


def schedule_jobs(
    waiting: Sequence[WaitingJob],
    shares: OwnerShares,
    moment: SchedulerMoment,
    *,
    takes_s: Sequence[float] | None = None,
    busy_s: Sequence[float] = (0.0,),
    load_s: float = 0.0,
) -> Iterator[ScheduledJob]:
    """All who wait, in the order in which they would run if nobody else came, in one place or in
    several of the same engine: whichever is free first takes the next (Graham 1966: a list
    schedule), of equals the first.

    ``takes_s``: what each takes as it is predicted now, if otherwise than its ``work_s``.
    ``busy_s``: for each place, what runs there still takes. ``load_s``: what it takes to load anew.
    """
    lines = _OwnerQueues(waiting, shares, moment.at)
    places = [_SimulatedSlot(waiting, lines, moment, one) for one in busy_s]
    for _ in waiting:
        place = min(places, key=lambda one: one.free_s)
        index = place.next()
        yield ScheduledJob(index, place.free_s)
        lines.take(index)
        work_s = waiting[index].work_s if takes_s is None else takes_s[index]
        place.take(index, work_s, load_s)


class _SimulatedSlot:
    """One as it will be: free in ``free_s`` seconds."""

    def __init__(
        self,
        waiting: Sequence[WaitingJob],
        lines: _OwnerQueues,
        moment: SchedulerMoment,
        busy_s: float,
    ) -> None:
        self._waiting, self._lines, self._at = waiting, lines, moment.at
        self.free_s = busy_s
        self._loaded, self._loaded_at = moment.loaded, moment.loaded_at

    def next(self) -> int:
        """Return the next job of a place."""
        index = self._lines.due()
        job, now = self._waiting[index], self._at + self.free_s
        passed_over_s = now - max(job.came, self._loaded_at)
        if self._loaded not in (None, job.wanted) and passed_over_s < MAX_PASSED_OVER_S:
            return self._lines.due_at(self._loaded, index)
        return index

    def take(self, index: int, work_s: float, load_s: float) -> None:
        """It runs here."""
        wanted = self._waiting[index].wanted
        if wanted is not self._loaded:
            self.free_s += load_s
            self._loaded, self._loaded_at = wanted, self._at + self.free_s
        self.free_s += work_s


class _OwnerQueues:
    """Waiting jobs, by index: of each owner a queue for each precision, and the first of all
    that would end with the least."""

    def __init__(self, waiting: Sequence[WaitingJob], shares: OwnerShares, now: float) -> None:
        self._waiting = waiting
        self._tags = {job.owner: shares.tag(job.owner) for job in waiting}
        self._ranked = sorted(range(len(waiting)), key=lambda one: not waiting[one].urgent(now))
        """Indexes, in the order in which an owner wants its own; lines are of places in this."""
        self._lines: dict[str, dict[Precision, deque[int]]] = {}
        for place, index in enumerate(self._ranked):
            job = waiting[index]
            own = self._lines.setdefault(job.owner, {})
            own.setdefault(job.wanted, deque()).append(place)
        self._heads = [self._head(owner) for owner in self._lines]
        """Of each owner the next, as a heap: what it will have had by the end, its index, whose."""
        heapq.heapify(self._heads)

    def due(self) -> int:
        """Return the next job by fair order; at least one waits."""
        return self._heads[0][1]

    def due_at(self, precision: Precision | None, otherwise: int) -> int:
        """The same of those who want a precision; ``otherwise`` where nobody does."""
        firsts = (own[precision][0] for own in self._lines.values() if precision in own)
        return min(map(self._end, firsts), default=(0.0, otherwise))[1]

    def take(self, index: int) -> None:
        """One that was next has its turn."""
        job = self._waiting[index]
        own = self._lines[job.owner]
        line = own[job.wanted]
        line.popleft()
        if not line:
            del own[job.wanted]
        self._tags[job.owner] += job.work_s
        if self._heads[0][2] != job.owner:  # it went before the one that was due
            self._heads = [head for head in self._heads if head[2] != job.owner]
            heapq.heapify(self._heads)
            if own:
                heapq.heappush(self._heads, self._head(job.owner))
        elif own:
            heapq.heapreplace(self._heads, self._head(job.owner))
        else:
            heapq.heappop(self._heads)

    def _head(self, owner: str) -> tuple[float, int, str]:
        return *self._end(min(line[0] for line in self._lines[owner].values())), owner

    def _end(self, place: int) -> tuple[float, int]:
        index = self._ranked[place]
        job = self._waiting[index]
        return self._tags[job.owner] + job.work_s, index
