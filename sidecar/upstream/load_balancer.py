"""Least-connections load balancer with back-off, for upstreams and remote live engines. Pure.

The clock and the dice are the caller's, so that every decision can be told from its values.

The clock and the dice are the caller's. A name may lead to several machines, and to others later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from sidecar import errors
from sidecar.upstream.upstream_dialect import Step, Trouble

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


AGAIN_S = 0.05
"""How soon one that is being tried may turn out to be well."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where one may be: ``server`` is the place of its name in the settings, ``rank`` 0 where the
    system would go first (a name that has addresses of two kinds mostly means one machine)."""

    server: int
    host: str
    rank: int = 0


@dataclass(slots=True)
class _Seen:
    """What is known of one: ``running`` sessions of ours, of which ``trying`` have no answer yet;
    ``misses``: troubles in a row; ``used``: the last turn that it had."""

    running: int = 0
    trying: int = 0
    misses: int = 0
    aside_until: float = 0.0
    full_until: float = 0.0
    used: int = 0
    gone: bool = False

    def open_at(self, now: float) -> bool:
        """Whether it may be asked: after a trouble by one at a time."""
        rests = now < self.aside_until or now < self.full_until
        return not (self.gone or rests or (self.misses and self.trying))


@dataclass(slots=True)
class Addresses:
    """The state of all; ``dice`` gives numbers from 0 to 1."""

    dice: Callable[[], float]
    _seen: dict[Address, _Seen] = field(default_factory=dict)
    _turns: int = 0

    def found(self, server: int, hosts: Sequence[tuple[str, int]]) -> None:
        """A name leads to these now, each with its rank. Sessions at another stay there."""
        there = {Address(server, host, rank) for host, rank in hosts}
        for address, seen in list(self._seen.items()):
            if address.server == server:
                seen.gone = address not in there
                if seen.gone and not seen.running:
                    del self._seen[address]
        for address in there:
            self._seen.setdefault(address, _Seen())

    def take(
        self, now: float, without: Collection[Address] = (), *, well: bool = False
    ) -> Address | None:
        """Who gets the next session: who has the fewest of ours, of equals who waited longest; or
        nobody. ``well``: nobody who is on trial. To be `answered` and, once it is over, `left`."""
        free = [
            one
            for one, seen in self._seen.items()
            if one not in without and seen.open_at(now) and not (well and seen.misses)
        ]
        ranks = {one.server: min(it.rank for it in free if it.server == one.server) for one in free}
        free = [one for one in free if one.rank == ranks[one.server]]
        if not free:
            return None
        return self._taken(min(free, key=lambda one: (*self._load(one), self.dice())))

    def trial(self, without: Collection[Address]) -> Address | None:
        """Who is asked although it stands aside, before somebody is told that nobody answers: who
        would be free first. Nobody where all that are left are on trial already."""
        aside = [
            one
            for one, seen in self._seen.items()
            if one not in without and not (seen.gone or seen.trying)
        ]
        if not aside:
            return None
        return self._taken(min(aside, key=lambda one: (self._seen[one].aside_until, one.rank)))

    def free_in(self, now: float, without: Collection[Address] = ()) -> float | None:
        """Seconds until somebody may be free, who is not now; None where nobody is left."""
        waits = [
            max(seen.aside_until - now, seen.full_until - now, AGAIN_S)
            for one, seen in self._seen.items()
            if one not in without and not seen.gone
        ]
        return min(waits, default=None)

    def is_full(self, now: float, without: Collection[Address] = ()) -> bool:
        """Whether somebody is there, and has no room."""
        return any(
            now < seen.full_until
            for one, seen in self._seen.items()
            if one not in without and not seen.gone
        )

    @property
    def running(self) -> int:
        """Sessions of ours, at all of them."""
        return sum(seen.running for seen in self._seen.values())

    def answered(self, address: Address) -> None:
        """It said what it thinks of the session, or nothing at all."""
        self._seen[address].trying -= 1

    def left(self, address: Address) -> None:
        """A session is no longer there, whatever came of it."""
        seen = self._seen[address]
        seen.running -= 1
        if seen.gone and not seen.running:
            del self._seen[address]

    def well(self, address: Address) -> None:
        """It took a session: whatever was wrong is over."""
        self._seen[address].misses = 0

    def full(self, address: Address, now: float, after_s: float) -> None:
        """It is well, and has no room until then."""
        self._seen[address].full_until = now + after_s * (1 + self.dice() / 10)

    def rests(self, address: Address, now: float, for_s: float) -> None:
        """It is on its way out, in good order."""
        seen = self._seen[address]
        seen.aside_until = max(seen.aside_until, now + for_s)

    def failed(self, address: Address, now: float) -> None:
        """It is in trouble: aside it stands (`aside_s`). What others said of it already is one
        trouble."""
        seen = self._seen[address]
        if now < seen.aside_until:
            return
        seen.misses += 1
        seen.aside_until = now + aside_s(seen.misses, self.dice())

    def _taken(self, address: Address) -> Address:
        seen = self._seen[address]
        self._turns += 1
        seen.running, seen.trying, seen.used = seen.running + 1, seen.trying + 1, self._turns
        return address

    def _load(self, address: Address) -> tuple[int, int]:
        seen = self._seen[address]
        return seen.running, seen.used
