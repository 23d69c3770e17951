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


def server_backoff_s(failures: int, dice: float) -> float:
    """Return the back-off in seconds after ``failures`` failures in a row, with jitter so that
    clients do not return all at once. ``dice``: a random number from 0 to 1."""
    return backoff_s(failures - 1, MIN_BACKOFF_S, MAX_BACKOFF_S) * (0.5 + dice / 2)


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
    ``failures``: failures in a row. ``used``: number of its last turn.
    """

    group: int
    rank: int = 0
    running: int = 0
    trying: int = 0
    waiting: int = 0
    failures: int = 0
    backoff_until: float = 0.0
    full_until: float = 0.0
    used: int = 0
    gone: bool = False

    def open_at(self, now: float) -> bool:
        """Return whether it may be used: not in back-off or full, and after a failure by one at a
        time."""
        return not (self.gone or now < self.free_at or (self.failures and self.trying))

    @property
    def free_at(self) -> float:
        """Return the time when it is neither in back-off nor full."""
        return max(self.backoff_until, self.full_until)


@dataclass(slots=True)
class UpstreamBalancer(Generic[Key]):
    """Load balancer with the state of all upstreams. ``dice`` returns numbers from 0 to 1.
    ``shuffled``: choose at random among servers that were never used, not in the order of
    `found`."""

    dice: Callable[[], float]
    shuffled: bool = False
    servers: dict[Key, UpstreamState] = field(default_factory=dict)
    turns: int = 0

    def found(self, group: int, ranks: Mapping[Key, int]) -> None:
        """Set the members of a group; new ones are taken to be healthy. Rank 0 is what the system
        would try first (a name with addresses of two kinds mostly means one machine). Work that
        runs on removed members stays there."""
        for key, server in list(self.servers.items()):
            if server.group == group:
                server.gone = key not in ranks
                self._forget(key)
        for key, rank in ranks.items():
            self.servers.setdefault(key, UpstreamState(group)).rank = rank

    def choose(self, now: float, attempts: ChunkAttempts[Key]) -> tuple[Key | None, float | None]:
        """Return the server to try next, or the seconds until the next check; neither means give
        up.

        If a server's back-off lasts longer than the deadline, it is tried once all the same,
        because it may be back. A chunk that no server has received yet does not wait for a full
        one.
        """
        asked, over = attempts.refused | attempts.asked, attempts.over(now)
        key = self.take(now, asked if over else attempts.refused, well=over)
        if key is not None:
            return key, None
        wait_s = self.free_in(now, attempts.refused)
        full = self.is_full(now, attempts.refused)
        if attempts.waits(now, wait_s) and (attempts.reached or not full):
            return None, wait_s
        return None if over or full else self.trial(asked), None

    def take(self, now: float, without: Collection[Key] = (), *, well: bool = False) -> Key | None:
        """Return the least loaded server, of equals the one unused for longest; None if none is
        open. ``well``: skip servers on trial. Call `answered` when it responds, and `left` at the
        end."""
        free = {
            key: server
            for key, server in self._there(without).items()
            if server.open_at(now) and not (well and server.failures)
        }
        first = {
            one.group: min(it.rank for it in free.values() if it.group == one.group)
            for one in free.values()
        }
        free = {key: server for key, server in free.items() if server.rank == first[server.group]}
        return self._taken(min(free, key=self._load, default=None))

    def trial(self, without: Collection[Key]) -> Key | None:
        """Return the server with the earliest end of its back-off, for a last attempt. None if all
        that are left are on trial already."""
        aside = {key: server for key, server in self._there(without).items() if not server.trying}
        return self._taken(
            min(aside, key=lambda key: (aside[key].backoff_until, aside[key].rank), default=None)
        )

    def free_in(self, now: float, without: Collection[Key] = ()) -> float | None:
        """Return the seconds until a server may be free, at least `TRIAL_POLL_S`; None if none is
        left."""
        there = self._there(without).values()
        return min((max(server.free_at - now, TRIAL_POLL_S) for server in there), default=None)

    def is_full(self, now: float, without: Collection[Key] = ()) -> bool:
        """Return whether a server is there that is full."""
        return any(now < server.full_until for server in self._there(without).values())

    @property
    def running(self) -> int:
        """Return the number of our chunks or sessions at all servers."""
        return sum(server.running for server in self.servers.values())

    def answered(self, key: Key) -> None:
        """Note that the server answered a session, or that its attempt ended without an answer."""
        self.servers[key].trying -= 1

    def left(self, key: Key) -> None:
        """Note that a chunk or session has left the server, whatever its result."""
        server = self.servers[key]
        server.running -= 1
        server.trying = min(
            server.trying, server.running
        )  # one that never answered is on trial no more
        self._forget(key)

    def well(self, key: Key) -> None:
        """Note that the server did its work: reset its failures and its back-off."""
        self.servers[key].failures, self.servers[key].backoff_until = 0, 0.0

    def seen(self, key: Key, waiting: int) -> None:
        """Note that a health check succeeded, and the number of recordings there. It does not end
        the back-off: a server that fails on every recording may still report that it is healthy."""
        server = self.servers[key]
        server.waiting = max(0, waiting - server.running)

    def full(self, key: Key, now: float, after_s: float) -> None:
        """Note that the server is healthy but full for ``after_s`` seconds."""
        self.servers[key].full_until = now + self._jittered(after_s)

    def failed(self, key: Key, now: float, retry_after: float | None = None) -> None:
        """Put the server in back-off after a failure, or for the ``retry_after`` that it sent, with
        jitter so that clients do not return all at once."""
        server = self.servers[key]
        if retry_after is not None:
            server.backoff_until = max(server.backoff_until, now + self._jittered(retry_after))
        elif now >= server.backoff_until:  # else it is the same failure, noted by another chunk
            server.failures += 1
            server.backoff_until = now + server_backoff_s(server.failures, self.dice())

    def _there(self, without: Collection[Key]) -> dict[Key, UpstreamState]:
        return {
            key: server
            for key, server in self.servers.items()
            if key not in without and not server.gone
        }

    def _taken(self, key: Key | None) -> Key | None:
        if key is not None:
            server = self.servers[key]
            self.turns += 1
            server.running, server.trying, server.used = (
                server.running + 1,
                server.trying + 1,
                self.turns,
            )
        return key

    def _forget(self, key: Key) -> None:
        if self.servers[key].gone and not self.servers[key].running:
            del self.servers[key]

    def _load(self, key: Key) -> tuple[int, int, float]:
        server = self.servers[key]
        return server.running + server.waiting, server.used, self.dice() if self.shuffled else 0.0

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + self.dice() / 10)
