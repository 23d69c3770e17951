"""Machines that hear live for this one: who gets the next session, who rests, for how long. Pure.

The clock and the dice are the caller's. A name may lead to several machines, and to others later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from sidecar.upstream.pool import aside_s

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
