"""Scheduler: fair order of waiting jobs by owner and priority. Pure.

Owners share by predicted seconds of work, not by the number of files: weighted fair queueing
(Demers, Keshav, Shenker 1989) with equal weights. Each owner has a tag, the work it has had; the
owner with the least work by the end of its next job goes first. An owner that returns after a while
starts at the time that has passed for all (the work done, divided by the owners that wanted it, and
at least the tag of the last owner whose job was started). By the end of a job, no owner counts as
behind that time, as one does whose jobs cannot run for long. So no owner saves up work, and none
waits for ever behind newcomers.

Of one owner's jobs the interactive ones go first, in the order of their arrival. A batch job that
has waited for long counts as interactive.

A load costs seconds to minutes, so jobs of the loaded precision go first. But the job that is due
is passed over for a limited time only. So two clients that want different precisions take turns at
that interval instead of at every job. The limit counts from the last load: if all jobs of a queue
had waited for longer, every job would need a load.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.interfaces.engine_interface import Precision
from sidecar.jobs.job_record import Priority

MAX_PASSED_OVER_S = 60.0
"""Longest time for which jobs of the loaded precision pass over one that is due."""
NEXT_JOB_WAIT_S = 0.3
"""Wait in which a client usually sends its next recording after the answer to the last."""
BATCH_AGING_S = 600.0
"""Wait after which a batch job counts as interactive, as in `later_1` of shared jobs."""


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """Waiting job. ``came``: its arrival by the clock of `SchedulerMoment`. ``work_s``: predicted
    seconds of work, as they count between owners."""

    owner: str
    wanted: Precision
    work_s: float
    came: float = 0.0
    priority: Priority = Priority.INTERACTIVE

    def urgent(self, now: float) -> bool:
        """Return whether the job goes before its owner's batch jobs."""
        return self.priority is Priority.INTERACTIVE or now - self.came >= BATCH_AGING_S


@dataclass(frozen=True, slots=True)
class SchedulerMoment:
    """Moment of a decision: ``at``, in seconds of any clock. ``loaded``: the loaded precision,
    since ``loaded_at``; None if none is loaded."""

    at: float = 0.0
    loaded: Precision | None = None
    loaded_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class OwnerShares:
    """Work that each owner has had. ``passed``: the work that has passed for all of them."""

    passed: float = 0.0
    tags: Mapping[str, float] = field(default_factory=dict)

    def tag(self, owner: str) -> float:
        """Return the tag of an owner; an unknown one has the present value of ``passed``."""
        return self.tags.get(owner, self.passed)

    def joined(self, owner: str) -> OwnerShares:
        """Return the shares after an owner without jobs got one: its unused share lapses."""
        return OwnerShares(self.passed, {**self.tags, owner: max(self.tag(owner), self.passed)})

    def charged(self, owner: str, work_s: float, active: Collection[str]) -> OwnerShares:
        """Return the shares after work of an owner was started; ``active``:
        all owners with jobs here."""
        tag = _tag_after(self.tag(owner), work_s, self.passed)
        passed = min(tag, self.passed + work_s / max(1, len(active)))
        passed = max(self.passed, tag - work_s, passed)
        tags = {**self.tags, owner: tag}
        known = {one: tag for one, tag in tags.items() if one in active or tag > passed}
        return OwnerShares(passed, known)

    def refunded(self, owner: str, work_s: float) -> OwnerShares:
        """Return the shares after ``work_s`` of started work was not done (negative: after more was
        done than was charged)."""
        return OwnerShares(self.passed, {**self.tags, owner: self.tag(owner) - work_s})


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """Job at ``index``, which is next after ``wait_s`` seconds."""

    index: int
    wait_s: float


def schedule_jobs(
    waiting: Sequence[WaitingJob],
    shares: OwnerShares,
    moment: SchedulerMoment,
    *,
    takes_s: Sequence[float] | None = None,
    busy_s: Sequence[float] = (0.0,),
    load_s: float = 0.0,
) -> Iterator[ScheduledJob]:
    """Yield all waiting jobs in the order in which they would run if no other arrived.

    With several dispatchers of the engine, the one that is free first takes the next job (Graham
    1966: a list schedule); of equal ones the first. ``takes_s``: the present predictions, if other
    than ``work_s``. ``busy_s``: the seconds that the running jobs of each dispatcher still take.
    ``load_s``: the seconds of a load.
    """
    queues = _OwnerQueues(waiting, shares, moment.at)
    slots = [_SimulatedSlot(waiting, queues, moment, one) for one in busy_s]
    for _ in waiting:
        slot = min(slots, key=lambda one: one.free_s)
        index = slot.next()
        yield ScheduledJob(index, slot.free_s)
        queues.take(index)
        work_s = waiting[index].work_s if takes_s is None else takes_s[index]
        slot.take(index, work_s, load_s)


class _SimulatedSlot:
    """Simulated dispatcher that is free in ``free_s`` seconds."""

    def __init__(
        self,
        waiting: Sequence[WaitingJob],
        queues: _OwnerQueues,
        moment: SchedulerMoment,
        busy_s: float,
    ) -> None:
        self._waiting, self._queues, self._at = waiting, queues, moment.at
        self.free_s = busy_s
        self._loaded, self._loaded_at = moment.loaded, moment.loaded_at

    def next(self) -> int:
        """Return the index of the dispatcher's next job."""
        index = self._queues.due()
        job, now = self._waiting[index], self._at + self.free_s
        passed_over_s = now - max(job.came, self._loaded_at)
        if self._loaded not in (None, job.wanted) and passed_over_s < MAX_PASSED_OVER_S:
            return self._queues.due_at(self._loaded, index)
        return index

    def take(self, index: int, work_s: float, load_s: float) -> None:
        """Run a job at the dispatcher."""
        wanted = self._waiting[index].wanted
        if wanted is not self._loaded:
            self.free_s += load_s
            self._loaded, self._loaded_at = wanted, self._at + self.free_s
        self.free_s += work_s


class _OwnerQueues:
    """Waiting jobs by index: a queue for each owner and precision, and a heap
    of the owners' next jobs."""

    def __init__(self, waiting: Sequence[WaitingJob], shares: OwnerShares, now: float) -> None:
        self._waiting = waiting
        self._tags = {job.owner: shares.tag(job.owner) for job in waiting}
        self._passed = shares.passed
        self._ranked = sorted(range(len(waiting)), key=lambda one: not waiting[one].urgent(now))
        """Indexes in the order in which an owner's jobs run; the queues
        hold positions in this list."""
        self._queues: dict[str, dict[Precision, deque[int]]] = {}
        for position, index in enumerate(self._ranked):
            job = waiting[index]
            own = self._queues.setdefault(job.owner, {})
            own.setdefault(job.wanted, deque()).append(position)
        self._heads = [self._head(owner) for owner in self._queues]
        """Heap of the owners' next jobs: the owner's tag after the job, its index, the owner."""
        heapq.heapify(self._heads)

    def due(self) -> int:
        """Return the next job by fair order; at least one waits."""
        return self._heads[0][1]

    def due_at(self, precision: Precision | None, otherwise: int) -> int:
        """Return the next job of a precision; ``otherwise`` if there is none."""
        firsts = (own[precision][0] for own in self._queues.values() if precision in own)
        return min(map(self._end, firsts), default=(0.0, otherwise))[1]

    def take(self, index: int) -> None:
        """Remove a job that was next, and charge its owner."""
        job = self._waiting[index]
        own = self._queues[job.owner]
        queue = own[job.wanted]
        queue.popleft()
        if not queue:
            del own[job.wanted]
        self._tags[job.owner] = self._tag_after(job)
        if self._heads[0][2] != job.owner:  # it went before the job that was due
            self._heads = [head for head in self._heads if head[2] != job.owner]
            heapq.heapify(self._heads)
            if own:
                heapq.heappush(self._heads, self._head(job.owner))
        elif own:
            heapq.heapreplace(self._heads, self._head(job.owner))
        else:
            heapq.heappop(self._heads)

    def _head(self, owner: str) -> tuple[float, int, str]:
        return *self._end(min(line[0] for line in self._queues[owner].values())), owner

    def _end(self, position: int) -> tuple[float, int]:
        index = self._ranked[position]
        job = self._waiting[index]
        return self._tag_after(job), index

    def _tag_after(self, job: WaitingJob) -> float:
        return _tag_after(self._tags[job.owner], job.work_s, self._passed)


def _tag_after(tag: float, work_s: float, passed: float) -> float:
    """Return the tag of an owner by the end of a job; ``passed``: the work that has passed for
    all, behind which nobody counts then."""
    return max(tag + work_s, passed)
