"""Least-connections load balancer with back-off, for upstreams. Pure.

The caller supplies the clock and the random numbers, so that every decision follows from its
arguments. An upstream is known by its index in the settings.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from sidecar import errors
from sidecar.concurrency import backoff_s
from sidecar.plugins.upstream.errors import UpstreamLost, UpstreamUnreachable
from sidecar.plugins.upstream.upstream_dialect import ChunkFailure, FailureStep

TRIAL_POLL_S = 0.05
"""Poll interval while an upstream is on trial."""


@dataclass(frozen=True, slots=True)
class FailoverLimits:
    """Timeouts and limits by which an upstream is given up, in seconds if not said otherwise."""

    min_backoff_s: float = 0.5
    max_backoff_s: float = 60.0
    """Back-off of a failed server, doubled with each failure. It is short at first because a trial
    starts with a health check and not with a recording."""
    health_poll_s: float = 5.0
    """Interval of health checks of all upstreams, while there is work and more than one."""
    probe_timeout_s: float = 3.0
    """Timeout of a health check, and of a connection."""
    lost_after_polls: int = 3
    """Missed health checks after which a server that answers them at once is lost."""
    broken_servers: int = 3
    """Servers that may break over one chunk: one bad recording must not take all of them down."""
    unreachable_wait_s: float = 8.0
    """A chunk waits this long if no server can be reached: a server may be restarting."""
    extra_timeout_s: float = 60.0
    """Added to the timeout of a chunk: a server may have to load its model first."""
    stream_silence_timeout_s: float = 60.0
    """Maximum pause within a streamed answer."""


DEFAULT_LIMITS = FailoverLimits()


@dataclass(slots=True)
class ChunkAttempts:
    """Attempts of one chunk: their deadline, and the error if all fail.

    ``until``: deadline if a server was reached (``reached``) but is busy or broken. ``begun``:
    start of the wait for a reachable server. ``tried``: the servers that got a request.
    """

    begun: float
    until: float
    limits: FailoverLimits = DEFAULT_LIMITS
    broken: int = 0
    reached: bool = False
    tried: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    first_broken: errors.SidecarError | None = None
    last: errors.SidecarError | None = None

    def after(self, index: int, failure: ChunkFailure) -> FailureStep:
        """Return the next step after server ``index`` had this failure; NEVER means to give up with
        `error`."""
        self.last = failure.error
        self.reached = self.reached or failure.sent
        if failure.step is FailureStep.ELSEWHERE:
            self.refused.add(index)
        if failure.step is FailureStep.AGAIN and failure.sent:
            self.broken += 1
            self.first_broken = self.first_broken or failure.error
            if self.broken >= self.limits.broken_servers:
                return FailureStep.NEVER
        return failure.step

    def waits(self, now: float, free_in_s: float | None) -> bool:
        """Return whether to wait for a server that may be free in ``free_in_s`` seconds."""
        return free_in_s is not None and not self.over(now + free_in_s)

    def over(self, now: float) -> bool:
        """Return whether its time is up; after that no server is tried twice."""
        unreachable_until = self.begun + self.limits.unreachable_wait_s
        return now >= (self.until if self.reached else min(self.until, unreachable_until))

    @property
    def error(self) -> errors.SidecarError:
        """Return the error of a chunk that is given up."""
        error = self.last or UpstreamUnreachable()
        if self.first_broken is not None and isinstance(error, UpstreamUnreachable):
            detail = f"{self.first_broken.detail} Then: {error.detail}"  # it may have ended it
            return UpstreamLost(detail, retry_after=error.retry_after)
        return error


@dataclass(slots=True)
class UpstreamState:
    """State of one upstream.

    ``running``: our chunks there; ``waiting``: other work that the server reports. ``failures``:
    failures in a row. ``used``: number of its last turn.
    """

    running: int = 0
    waiting: int = 0
    failures: int = 0
    backoff_until: float = 0.0
    used: int = 0

    def open_at(self, now: float) -> bool:
        """Return whether it may be used: not in back-off, and after a failure by one at a time."""
        return now >= self.backoff_until and not (self.failures and self.running)


class UpstreamBalancer:
    """Load balancer with the state of ``count`` upstreams. ``dice`` returns numbers from 0 to 1."""

    def __init__(
        self, count: int, dice: Callable[[], float], limits: FailoverLimits = DEFAULT_LIMITS
    ) -> None:
        self.upstreams = [UpstreamState() for _ in range(count)]
        self._dice, self._limits = dice, limits
        self._turns = 0

    def choose(self, now: float, attempts: ChunkAttempts) -> tuple[int | None, float | None]:
        """Return the server to try next, or the seconds until the next check; neither means give
        up.

        If a server's back-off lasts longer than the deadline, it is tried once all the same,
        because it may be back.
        """
        tried, over = attempts.refused | attempts.tried, attempts.over(now)
        index = self.take(now, tried if over else attempts.refused, healthy=over)
        if index is not None:
            return index, None
        wait_s = self.free_in(now, attempts.refused)
        if attempts.waits(now, wait_s):
            return None, wait_s
        return None if over else self.trial(tried), None

    def take(
        self, now: float, without: Collection[int] = (), *, healthy: bool = False
    ) -> int | None:
        """Return the least loaded server, of equals the one unused for longest; None if none is
        open. ``healthy``: skip servers on trial. Call `release` at the end."""
        free = [
            index
            for index in self._others(without)
            if self.upstreams[index].open_at(now)
            and not (healthy and self.upstreams[index].failures)
        ]
        return self._taken(min(free, key=self._load, default=None))

    def trial(self, without: Collection[int]) -> int | None:
        """Return the server with the earliest end of its back-off, for a last attempt. None if all
        that are left are on trial already."""
        idle = [index for index in self._others(without) if not self.upstreams[index].running]
        first = min(idle, key=lambda index: self.upstreams[index].backoff_until, default=None)
        return self._taken(first)

    def free_in(self, now: float, without: Collection[int] = ()) -> float | None:
        """Return the seconds until a server may be free, at least `TRIAL_POLL_S`; None if none is
        left."""
        waits = (self.upstreams[index].backoff_until - now for index in self._others(without))
        return min((max(wait_s, TRIAL_POLL_S) for wait_s in waits), default=None)

    def release(self, index: int) -> None:
        """Note that a chunk has left the server, whatever its result."""
        self.upstreams[index].running -= 1

    def succeeded(self, index: int) -> None:
        """Note that the server did its work: reset its failures and its back-off."""
        self.upstreams[index].failures, self.upstreams[index].backoff_until = 0, 0.0

    def note_health(self, index: int, waiting: int) -> None:
        """Note that a health check succeeded, and the number of recordings there. It does not end
        the back-off: a server that fails on every recording may still report that it is healthy."""
        server = self.upstreams[index]
        server.waiting = max(0, waiting - server.running)

    def failed(self, index: int, now: float, retry_after: float | None = None) -> None:
        """Put the server in back-off after a failure, or for the ``retry_after`` that it sent, with
        jitter so that clients do not return all at once."""
        server = self.upstreams[index]
        if retry_after is not None:
            until = now + retry_after * (1 + self._dice() / 10)
            server.backoff_until = max(server.backoff_until, until)
        elif now >= server.backoff_until:  # else it is the same failure, noted by another chunk
            server.failures += 1
            limits = self._limits
            after_s = backoff_s(server.failures - 1, limits.min_backoff_s, limits.max_backoff_s)
            server.backoff_until = now + after_s * (0.5 + self._dice() / 2)

    def _others(self, without: Collection[int]) -> list[int]:
        return [index for index in range(len(self.upstreams)) if index not in without]

    def _taken(self, index: int | None) -> int | None:
        if index is not None:
            self._turns += 1
            self.upstreams[index].running += 1
            self.upstreams[index].used = self._turns
        return index

    def _load(self, index: int) -> tuple[int, int]:
        server = self.upstreams[index]
        return server.running + server.waiting, server.used
