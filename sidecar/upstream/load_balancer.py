"""Least-connections load balancer with back-off, for upstreams and remote live engines. Pure.

The caller supplies the clock and the random numbers, so that every decision follows from its
arguments. One server name may resolve to several machines, and to others later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sidecar import errors
from sidecar.concurrency import backoff_s
from sidecar.upstream.upstream_dialect import ChunkFailure, FailureStep

Key = TypeVar("Key", bound=Hashable)
"""Key of a server: an upstream's index, or an `EngineAddress`."""

MIN_BACKOFF_S, MAX_BACKOFF_S = 0.5, 60.0
"""Back-off of a failed server, doubled with each failure. It is short at first because a trial
starts with a health check and not with a recording."""
HEALTH_POLL_INTERVAL_S = 5.0
"""Interval of health checks of all upstreams, while there is work and more than one upstream."""
PROBE_TIMEOUT_S = 3.0
"""Timeout of a health check, and of a connection."""
LOST_AFTER_POLLS = 3
"""Missed health checks after which a server is lost, if it normally answers them at once. Its work
is then retried elsewhere; the connection alone would not show the loss."""
MAX_BROKEN_SERVERS = 3
"""Servers that may break over one chunk: one bad recording must not take all of them down."""
UNREACHABLE_WAIT_S = 8.0
"""A chunk waits this long if no server can be reached: a server may be restarting."""
TRIAL_POLL_S = 0.05
"""Poll interval while an upstream is on trial."""


def cooldown_s(misses: int, dice: float) -> float:
    """Return the cooldown in seconds after ``misses`` failures in a row, with jitter so that
    clients do not return all at once. ``dice``: a random number from 0 to 1."""
    return backoff_s(misses - 1, MIN_BACKOFF_S, MAX_BACKOFF_S) * (0.5 + dice / 2)


@dataclass(slots=True)
class ChunkAttempts(Generic[Key]):
    """Attempts of one chunk or session: their deadline, and the error if all fail.

    ``until``: deadline if a server was reached (``reached``) but is busy or broken. ``begun``:
    start of the wait for a reachable server. ``asked``: the servers that were tried.
    """

    begun: float
    until: float
    broken: int = 0
    reached: bool = False
    asked: set[Key] = field(default_factory=set)
    refused: set[Key] = field(default_factory=set)
    last: errors.SidecarError | None = None

    def after(self, key: Key, trouble: ChunkFailure) -> FailureStep:
        """Return the next step after ``key`` had this failure; NEVER means to give up with
        `error`."""
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
        """Return whether to wait for a server that may be free in ``free_in_s`` seconds."""
        return free_in_s is not None and not self.over(now + free_in_s)

    def over(self, now: float) -> bool:
        """Return whether its time is up; after that no server is tried twice."""
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

    ``group``, ``rank``: as in `UpstreamBalancer.found`. ``running``: our chunks or sessions there,
    of which ``trying`` have no answer yet. ``waiting``: other work that the server reports.
    ``misses``: failures in a row. ``used``: number of its last turn.
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
        """Return whether it may be used: not in cooldown or full, and after a failure by one at a
        time."""
        return not (self.gone or now < self.free_at or (self.misses and self.trying))

    @property
    def free_at(self) -> float:
        """Return the time when it is neither in cooldown nor full."""
        return max(self.aside_until, self.full_until)


@dataclass(slots=True)
class UpstreamBalancer(Generic[Key]):
    """Load balancer with the state of all upstreams. ``dice`` returns numbers from 0 to 1.
    ``shuffled``: choose at random among servers that were never used, not in the order of
    `found`."""

    dice: Callable[[], float]
    shuffled: bool = False
    nodes: dict[Key, UpstreamState] = field(default_factory=dict)
    turns: int = 0

    def found(self, group: int, ranks: Mapping[Key, int]) -> None:
        """Set the members of a group; new ones are taken to be healthy. Rank 0 is what the system
        would try first (a name with addresses of two kinds mostly means one machine). Work that
        runs on removed members stays there."""
        for key, node in list(self.nodes.items()):
            if node.group == group:
                node.gone = key not in ranks
                self._forget(key)
        for key, rank in ranks.items():
            self.nodes.setdefault(key, UpstreamState(group)).rank = rank

    def choose(self, now: float, patience: ChunkAttempts[Key]) -> tuple[Key | None, float | None]:
        """Return the server to try next, or the seconds until the next check; neither means give
        up.

        If a server's cooldown lasts longer than the deadline, it is tried once all the same,
        because it may be back. A chunk that no server has received yet does not wait for a full
        one.
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
        """Return the least loaded server, of equals the one unused for longest; None if none is
        open. ``well``: skip servers on trial. Call `answered` when it responds, and `left` at the
        end."""
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
        """Return the server with the earliest end of its back-off, for a last attempt. None if all
        that are left are on trial already."""
        aside = {key: node for key, node in self._there(without).items() if not node.trying}
        return self._taken(
            min(aside, key=lambda key: (aside[key].aside_until, aside[key].rank), default=None)
        )

    def free_in(self, now: float, without: Collection[Key] = ()) -> float | None:
        """Return the seconds until a server may be free, at least `TRIAL_POLL_S`; None if none is
        left."""
        there = self._there(without).values()
        return min((max(node.free_at - now, TRIAL_POLL_S) for node in there), default=None)

    def is_full(self, now: float, without: Collection[Key] = ()) -> bool:
        """Return whether a server is there that is full."""
        return any(now < node.full_until for node in self._there(without).values())

    @property
    def running(self) -> int:
        """Return the number of our chunks or sessions at all servers."""
        return sum(node.running for node in self.nodes.values())

    def answered(self, key: Key) -> None:
        """Note that the server answered a session, or that its attempt ended without an answer."""
        self.nodes[key].trying -= 1

    def left(self, key: Key) -> None:
        """Note that a chunk or session has left the server, whatever its result."""
        node = self.nodes[key]
        node.running -= 1
        node.trying = min(node.trying, node.running)  # one that never answered is on trial no more
        self._forget(key)

    def well(self, key: Key) -> None:
        """Note that the server did its work: reset its failures and its cooldown."""
        self.nodes[key].misses, self.nodes[key].aside_until = 0, 0.0

    def seen(self, key: Key, waiting: int) -> None:
        """Note that a health check succeeded, and the number of recordings there. It does not end
        the cooldown: a server that fails on every recording may still report that it is healthy."""
        node = self.nodes[key]
        node.waiting = max(0, waiting - node.running)

    def full(self, key: Key, now: float, after_s: float) -> None:
        """Note that the server is healthy but full for ``after_s`` seconds."""
        self.nodes[key].full_until = now + self._jittered(after_s)

    def failed(self, key: Key, now: float, retry_after: float | None = None) -> None:
        """Put the server in cooldown after a failure, or for the ``retry_after`` that it sent, with
        jitter so that clients do not return all at once."""
        node = self.nodes[key]
        if retry_after is not None:
            node.aside_until = max(node.aside_until, now + self._jittered(retry_after))
        elif now >= node.aside_until:  # else it is the same failure, noted by another chunk
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
