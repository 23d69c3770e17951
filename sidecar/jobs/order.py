"""Who is next of the jobs that wait: pure. Positions and waits come from the same function.

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

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.speech.engine import Precision

PASSED_OVER_S = 60.0
"""Longest time that jobs of the loaded precision go before one that is due."""
AGED_S = 600.0
"""After so long a job of a batch is waited for, too."""


class Priority(StrEnum):
    """What an owner wants first of its own; between owners it makes no difference."""

    INTERACTIVE = "interactive"
    """Somebody waits for it."""
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that waits. ``work_s``: predicted seconds of work, as they count between owners;
    ``takes_s``: as they are predicted now, if otherwise. ``waited_s``: since it came;
    ``passed_over_s``: since then or since the engine was loaded, whichever was later."""

    owner: str
    wanted: Precision
    work_s: float
    waited_s: float = 0.0
    passed_over_s: float = 0.0
    priority: Priority = Priority.INTERACTIVE
    takes_s: float | None = None

    @property
    def urgent(self) -> bool:
        """Whether it goes before those of its owner that nobody waits for."""
        return self.priority is Priority.INTERACTIVE or self.waited_s >= AGED_S


@dataclass(frozen=True, slots=True)
class Shares:
    """How much work each owner has had. ``passed``: what has passed for all of them."""

    passed: float = 0.0
    tags: Mapping[str, float] = field(default_factory=dict)

    def tag(self, owner: str) -> float:
        """Where an owner stands; who is not known stands where time does."""
        return self.tags.get(owner, self.passed)

    def joined(self, owner: str) -> Shares:
        """An owner who had nothing here has something again: what it left unused is gone."""
        return Shares(self.passed, {**self.tags, owner: max(self.tag(owner), self.passed)})

    def charged(self, owner: str, work_s: float, active: Collection[str]) -> Shares:
        """Work of an owner was begun, one of those who have something here."""
        passed = self.passed + work_s / max(1, len(active))
        tags = {**self.tags, owner: self.tag(owner) + work_s}
        known = {one: tag for one, tag in tags.items() if one in active or tag > passed}
        return Shares(passed, known)

    def refunded(self, owner: str, work_s: float) -> Shares:
        """Work that was begun came to nothing by no fault of its owner's."""
        return Shares(self.passed, {**self.tags, owner: self.tag(owner) - work_s})


@dataclass(frozen=True, slots=True)
class Turn:
    """The job at ``index`` is next, after ``wait_s`` seconds."""

    index: int
    wait_s: float


def next_job(waiting: Sequence[Waiting], shares: Shares, loaded: Precision | None) -> int:
    """The index of the job to run, of those in order of arrival; at least one waits.

    ``loaded``: the precision in memory, None while there is none.
    """
    return next(turns(waiting, shares, loaded)).index


def turns(
    waiting: Sequence[Waiting],
    shares: Shares,
    loaded: Precision | None,
    *,
    busy_s: float = 0.0,
    load_s: float = 0.0,
) -> Iterator[Turn]:
    """All who wait, in the order in which they would run if nobody else came.

    ``busy_s``: what the job that runs still takes. ``load_s``: what it takes to load anew.
    """

    def rank(index: int) -> tuple[bool, int]:
        return not waiting[index].urgent, index

    def finish(index: int) -> tuple[float, int]:
        return tags[waiting[index].owner] + waiting[index].work_s, index

    tags = {job.owner: shares.tag(job.owner) for job in waiting}
    queues: dict[tuple[str, Precision], deque[int]] = {}
    for index in sorted(range(len(waiting)), key=rank):
        queues.setdefault((waiting[index].owner, waiting[index].wanted), deque()).append(index)
    elapsed, loaded_at = busy_s, None
    while queues:
        heads: dict[str, int] = {}
        for (owner, _), queue in queues.items():
            heads[owner] = min(queue[0], heads.get(owner, queue[0]), key=rank)
        index = min(heads.values(), key=finish)
        passed_over_s = waiting[index].passed_over_s + elapsed
        if loaded_at is not None:
            passed_over_s = min(passed_over_s, elapsed - loaded_at)
        if loaded not in (None, waiting[index].wanted) and passed_over_s < PASSED_OVER_S:
            fitting = (queue[0] for (_, wanted), queue in queues.items() if wanted is loaded)
            index = min(fitting, key=finish, default=index)
        job = waiting[index]
        yield Turn(index, elapsed)
        if job.wanted is not loaded:
            elapsed += load_s
            loaded, loaded_at = job.wanted, elapsed
        elapsed += job.work_s if job.takes_s is None else job.takes_s
        tags[job.owner] += job.work_s
        queues[job.owner, job.wanted].popleft()
        if not queues[job.owner, job.wanted]:
            del queues[job.owner, job.wanted]
