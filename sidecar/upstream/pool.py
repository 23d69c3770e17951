"""Several upstreams: who gets the next piece, who stands aside, and for how long. Pure.

The clock and the dice are the caller's, so that every decision can be told from its values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from sidecar import errors
from sidecar.upstream.trouble import Step, Trouble

FIRST_ASIDE_S, LONGEST_ASIDE_S = 0.5, 60.0
"""A server that failed stands aside for so long, twice as long each time. Short at first: what
comes first of a trial is a look at its health, and no recording."""
LONGEST_DOUBLING = 10
MOST_BROKEN = 3
"""So many servers may break over one piece: one bad recording must not take all of them down."""
PATIENCE_S = 8.0
"""So long a piece waits for a server to come back, where none can be reached: some restarts."""


def aside_s(misses: int, dice: float) -> float:
    """How long one stands aside after so many troubles in a row, with some jitter (``dice`` is from
    0 to 1) so that those who wait do not come back all at once."""
    longest: float = FIRST_ASIDE_S * 2 ** min(misses - 1, LONGEST_DOUBLING)
    return min(longest, LONGEST_ASIDE_S) * (0.5 + dice / 2)


@dataclass(slots=True)
class Node:
    """What is known of one upstream.

    ``running``: pieces of ours there. ``waiting``: what else waits there, by its own account.
    ``misses``: troubles in a row. ``used``: the last turn that it had.
    """

    running: int = 0
    waiting: int = 0
    misses: int = 0
    aside_until: float = 0.0
    used: int = 0

    def open_at(self, now: float) -> bool:
        """Whether it may be asked: not aside, and after a trouble by one at a time."""
        return now >= self.aside_until and not (self.misses and self.running)


@dataclass(slots=True)
class Pool:
    """The state of all upstreams, by their index; ``dice`` gives numbers from 0 to 1."""

    count: int
    dice: Callable[[], float]
    nodes: list[Node] = field(default_factory=list)
    turns: int = 0

    def __post_init__(self) -> None:
        """All are taken to be well."""
        self.nodes = [Node() for _ in range(self.count)]

    def take(self, now: float, without: Collection[int] = (), *, well: bool = False) -> int | None:
        """Who hears the next piece: the least loaded, of equals who waited longest; or nobody.
        ``well``: nobody who is on trial."""
        free = [
            index
            for index, node in enumerate(self.nodes)
            if index not in without and node.open_at(now) and not (well and node.misses)
        ]
        if not free:
            return None
        return self._taken(min(free, key=lambda index: self._load(self.nodes[index])))

    def trial(self, without: Collection[int]) -> int | None:
        """Who is asked although it stands aside, before somebody is told that nobody answers: who
        would be free first. Nobody where all that are left are on trial already."""
        aside = [
            index
            for index, node in enumerate(self.nodes)
            if index not in without and not node.running
        ]
        if not aside:
            return None
        return self._taken(min(aside, key=lambda index: self.nodes[index].aside_until))

    def free_in(self, now: float, without: Collection[int] = ()) -> float | None:
        """Seconds until somebody may be free, who is not now; None where nobody is left."""
        waits = [
            max(node.aside_until - now, 0.05)
            for index, node in enumerate(self.nodes)
            if index not in without
        ]
        return min(waits, default=None)

    def left(self, index: int) -> None:
        """A piece is no longer there, whatever came of it."""
        self.nodes[index].running -= 1

    def well(self, index: int) -> None:
        """It heard a piece: whatever was wrong is over."""
        self.nodes[index].misses, self.nodes[index].aside_until = 0, 0.0

    def seen(self, index: int, waiting: int) -> None:
        """It says that it is well, and how many recordings it has. That does not end its time
        aside: who breaks over every recording may feel well."""
        node = self.nodes[index]
        node.waiting = max(0, waiting - node.running)

    def failed(self, index: int, now: float, retry_after: float | None = None) -> None:
        """It is in trouble, or says when it has time again: aside it stands, with some jitter so
        that those who wait do not come back all at once."""
        node = self.nodes[index]
        if retry_after is not None:
            node.aside_until = max(node.aside_until, now + retry_after * (1 + self.dice() / 10))
            return
        if now < node.aside_until:
            return  # others have said so; it is one trouble
        node.misses += 1
        node.aside_until = now + aside_s(node.misses, self.dice())

    def _taken(self, index: int) -> int:
        self.turns += 1
        self.nodes[index].running += 1
        self.nodes[index].used = self.turns
        return index

    def _load(self, node: Node) -> tuple[int, int]:
        return node.running + node.waiting, node.used


@dataclass(slots=True)
class Patience:
    """What one piece has been through: how long it goes on, and what is told when it does not.

    ``until``: the end of its time, where servers are there but busy or broken; ``begun``: since
    when it waits for one that can be reached; ``asked``: who was asked for it.
    """

    begun: float
    until: float
    broken: int = 0
    reached: bool = False
    asked: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    last: errors.SidecarError | None = None

    def after(self, index: int, trouble: Trouble) -> Step:
        """What to do after server ``index`` had this trouble; NEVER: give up with `error`."""
        self.last = trouble.error
        self.reached = self.reached or trouble.sent
        if trouble.step is Step.ELSEWHERE:
            self.refused.add(index)
        if trouble.step is Step.AGAIN and trouble.sent:
            self.broken += 1
            if self.broken >= MOST_BROKEN:
                return Step.NEVER
        return trouble.step

    def waits(self, now: float, free_in_s: float | None) -> bool:
        """Whether to wait for a server that may be free in so long."""
        return free_in_s is not None and not self.over(now + free_in_s)

    def over(self, now: float) -> bool:
        """Whether it has waited for long enough: nobody is asked twice any more."""
        end = self.until if self.reached else min(self.until, self.begun + PATIENCE_S)
        return now >= end

    @property
    def error(self) -> errors.SidecarError:
        """What is told when it is given up."""
        return self.last or errors.UpstreamUnreachable()
