"""Least-connections load balancer with back-off, for upstreams and remote live engines. Pure.

The clock and the dice are the caller's, so that every decision can be told from its values. A name
may lead to several machines, and to others later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sidecar import errors
from sidecar.concurrency import backoff_s
from sidecar.upstream.upstream_dialect import ChunkFailure, FailureStep

Key = TypeVar("Key", bound=Hashable)
"""One of those that can be asked: an upstream's number, or an `EngineAddress`."""

MIN_BACKOFF_S, MAX_BACKOFF_S = 0.5, 60.0
"""A server that failed stands aside for so long, twice as long each time. Short at first: what
comes first of a trial is a look at its health, and no recording."""
HEALTH_POLL_INTERVAL_S = 5.0
"""From one look at all upstreams to the next, while there is work and a choice."""
PROBE_TIMEOUT_S = 3.0
"""So long a server may take to say how it is, and to be connected to."""
LOST_AFTER_POLLS = 3
"""After so many looks without an answer, a server that always answers them is lost, and what it
works on is tried elsewhere; its connection alone would not tell."""
MAX_BROKEN_SERVERS = 3
"""So many servers may break over one piece: one bad recording must not take all of them down."""
UNREACHABLE_WAIT_S = 8.0
"""So long a piece waits for a server to come back, where none can be reached: some restarts."""
TRIAL_POLL_S = 0.05
"""Interval of checks while an upstream is tried again."""


def cooldown_s(misses: int, dice: float) -> float:
    """Return the cooldown after so many failures in a row, with some jitter (``dice`` is from 0
    to 1) so that clients do not return all at once."""
    return backoff_s(misses - 1, MIN_BACKOFF_S, MAX_BACKOFF_S) * (0.5 + dice / 2)


@dataclass(slots=True)
class ChunkAttempts(Generic[Key]):
    """Attempts of one chunk or session: how long they go on, and the error at their end.

    ``until``: the end of its time, where servers are there but busy or broken (``reached``);
    ``begun``: since when it waits for one that can be reached; ``asked``: the servers that were
    asked for it.
    """

    begun: float
    until: float
    broken: int = 0
    reached: bool = False
    asked: set[Key] = field(default_factory=set)
    refused: set[Key] = field(default_factory=set)
    last: errors.SidecarError | None = None

    def after(self, key: Key, trouble: ChunkFailure) -> FailureStep:
        """Return what to do after ``key`` had this failure; NEVER: give up with `error`."""
        self.last = trouble.error
        self.reached = self.reached or trouble.sent
        if trouble.step is FailureStep.ELSEWHERE:
            self.refused.add(key)
        if trouble.step is FailureStep.AGAIN and trouble.sent:
            self.broken += 1
            if self.broken >= MAX_BROKEN_SERVERS:
                return FailureStep.NEVER
        return trouble.step

    def waits(self, now: float, free_in_s: float | None) -> bool:
        """Return whether to wait for a server that may be free in so many seconds."""
        return free_in_s is not None and not self.over(now + free_in_s)

    def over(self, now: float) -> bool:
        """Return whether it has waited for long enough: no server is asked twice any more."""
        end = self.until if self.reached else min(self.until, self.begun + UNREACHABLE_WAIT_S)
        return now >= end

    @property
    def error(self) -> errors.SidecarError:
        """Return the error of a chunk or session that is given up."""
        return self.last or errors.UpstreamUnreachable()


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Address of an engine: ``server`` is the index of its name in the settings."""

    server: int
    host: str


@dataclass(slots=True)
class UpstreamState:
    """State of one upstream.

    ``group``, ``rank``: as in `UpstreamBalancer.found`. ``running``: chunks or sessions of ours
    there, of which ``trying`` have no answer yet. ``waiting``: what else waits there, by its own
    account. ``misses``: failures in a row. ``used``: the last turn that it had.
    """

    group: int
    rank: int = 0
    running: int = 0
    trying: int = 0
    waiting: int = 0
    misses: int = 0
    aside_until: float = 0.0
    full_until: float = 0.0
    used: int = 0
    gone: bool = False

    def open_at(self, now: float) -> bool:
        """Return whether it may be asked: not backing off, and after a failure by one at a time."""
        return not (self.gone or now < self.free_at or (self.misses and self.trying))

    @property
    def free_at(self) -> float:
        """Return the time when it is neither in cooldown nor full."""
        return max(self.aside_until, self.full_until)


@dataclass(slots=True)
class UpstreamBalancer(Generic[Key]):
    """The state of all. ``dice`` gives numbers from 0 to 1; ``shuffled``: of those that were never
    used any comes first, and not the first that was `found`."""

    dice: Callable[[], float]
    shuffled: bool = False
    nodes: dict[Key, UpstreamState] = field(default_factory=dict)
    turns: int = 0

    def found(self, group: int, ranks: Mapping[Key, int]) -> None:
        """These are the members of a group now, taken to be well; the rank is 0 where the system
        would go first (a name that has addresses of two kinds mostly means one machine). What runs
        at others stays there."""
        for key, node in list(self.nodes.items()):
            if node.group == group:
                node.gone = key not in ranks
                self._forget(key)
        for key, rank in ranks.items():
            self.nodes.setdefault(key, UpstreamState(group)).rank = rank

    def choose(self, now: float, patience: ChunkAttempts[Key]) -> tuple[Key | None, float | None]:
        """Return the server to ask next, or in how many seconds to look again; neither: give up.

        A server that backs off for longer than this waits is asked once all the same, because it
        may be back. A chunk that no server has heard yet does not wait for a full one.
        """
        asked, over = patience.refused | patience.asked, patience.over(now)
        key = self.take(now, asked if over else patience.refused, well=over)
        if key is not None:
            return key, None
        wait_s = self.free_in(now, patience.refused)
        full = self.is_full(now, patience.refused)
        if patience.waits(now, wait_s) and (patience.reached or not full):
            return None, wait_s
        return None if over or full else self.trial(asked), None

    def take(self, now: float, without: Collection[Key] = (), *, well: bool = False) -> Key | None:
        """Return the least loaded server, of equals the one unused for longest, or None. ``well``:
        none that is on trial. Call `answered` if an answer comes, and `left` at the end."""
        free = {
            key: node
            for key, node in self._there(without).items()
            if node.open_at(now) and not (well and node.misses)
        }
        first = {
            one.group: min(it.rank for it in free.values() if it.group == one.group)
            for one in free.values()
        }
        free = {key: node for key, node in free.items() if node.rank == first[node.group]}
        return self._taken(min(free, key=self._load, default=None))

    def trial(self, without: Collection[Key]) -> Key | None:
        """Return the server whose back-off ends first, for a last attempt. None if all that are
        left are on trial already."""
        aside = {key: node for key, node in self._there(without).items() if not node.trying}
        return self._taken(
            min(aside, key=lambda key: (aside[key].aside_until, aside[key].rank), default=None)
        )

    def free_in(self, now: float, without: Collection[Key] = ()) -> float | None:
        """Seconds until somebody may be free, who is not now; None where nobody is left."""
        there = self._there(without).values()
        return min((max(node.free_at - now, TRIAL_POLL_S) for node in there), default=None)

    def is_full(self, now: float, without: Collection[Key] = ()) -> bool:
        """Return whether a server is there and has no room."""
        return any(now < node.full_until for node in self._there(without).values())

    @property
    def running(self) -> int:
        """Pieces or sessions of ours, at all of them."""
        return sum(node.running for node in self.nodes.values())

    def answered(self, key: Key) -> None:
        """It said what it thinks of the session, or nothing at all."""
        self.nodes[key].trying -= 1

    def left(self, key: Key) -> None:
        """Note that a chunk or session has left the server, whatever its result."""
        node = self.nodes[key]
        node.running -= 1
        node.trying = min(node.trying, node.running)  # who never answered tries no more
        self._forget(key)

    def well(self, key: Key) -> None:
        """It did what it was asked: whatever was wrong is over."""
        self.nodes[key].misses, self.nodes[key].aside_until = 0, 0.0

    def seen(self, key: Key, waiting: int) -> None:
        """It says that it is well, and how many recordings it has. That does not end its time
        aside: who breaks over every recording may feel well."""
        node = self.nodes[key]
        node.waiting = max(0, waiting - node.running)

    def full(self, key: Key, now: float, after_s: float) -> None:
        """It is well, and has no room until then."""
        self.nodes[key].full_until = now + self._jittered(after_s)

    def failed(self, key: Key, now: float, retry_after: float | None = None) -> None:
        """It is in trouble, or says when it has time again: aside it stands, with some jitter so
        that those who wait do not come back all at once."""
        node = self.nodes[key]
        if retry_after is not None:
            node.aside_until = max(node.aside_until, now + self._jittered(retry_after))
        elif now >= node.aside_until:  # else others have said so; it is one trouble
            node.misses += 1
            node.aside_until = now + cooldown_s(node.misses, self.dice())

    def _there(self, without: Collection[Key]) -> dict[Key, UpstreamState]:
        return {
            key: node for key, node in self.nodes.items() if key not in without and not node.gone
        }

    def _taken(self, key: Key | None) -> Key | None:
        if key is not None:
            node = self.nodes[key]
            self.turns += 1
            node.running, node.trying, node.used = node.running + 1, node.trying + 1, self.turns
        return key

    def _forget(self, key: Key) -> None:
        if self.nodes[key].gone and not self.nodes[key].running:
            del self.nodes[key]

    def _load(self, key: Key) -> tuple[int, int, float]:
        node = self.nodes[key]
        return node.running + node.waiting, node.used, self.dice() if self.shuffled else 0.0

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + self.dice() / 10)
