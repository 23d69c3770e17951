"""Least-connections load balancer with back-off, for the chunks that go to upstreams. Pure.

The caller supplies the clock and the random numbers, so that every decision follows from its
arguments. A server is known by its index in the settings.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field

from sidecar import errors
from sidecar.concurrency import backoff_s
from sidecar.plugins.upstream.errors import (
    UpstreamBusy,
    UpstreamError,
    UpstreamLost,
    UpstreamRefused,
    UpstreamUnreachable,
)

TRIAL_POLL_S = 0.05
"""Poll interval while an upstream is on trial."""


@dataclass(frozen=True, slots=True)
class FailoverLimits:
    """Timeouts and limits by which an upstream is given up, in seconds if not said otherwise."""

    min_backoff_s: float = 0.5
    max_backoff_s: float = 60.0
    """Back-off of a failed server, doubled with each failure. It is short at first because a trial
    starts with a health check and not with a recording."""
    probe_timeout_s: float = 3.0
    """Timeout of a health check, and of a connection."""
    broken_servers: int = 3
    """Servers that may break over one chunk: one bad recording must not take all of them down."""
    unreachable_wait_s: float = 8.0
    """A chunk waits this long if no server can be reached: a server may be restarting."""
    extra_timeout_s: float = 60.0
    """Added to the timeout of a chunk: a server may have to load its model first."""
    stream_silence_timeout_s: float = 60.0
    """Maximum pause within an answer."""


DEFAULT_LIMITS = FailoverLimits()


@dataclass(slots=True)
class ServerLoad:
    """Load of one server, and its back-off.

    ``running``: our chunks there; ``waiting``: other work that the server reports. ``failures``:
    failures in a row. ``rest_until``: end of the rest that it asked for. ``used``: number of its
    last turn.
    """

    running: int = 0
    waiting: int = 0
    failures: int = 0
    backoff_until: float = 0.0
    rest_until: float = 0.0
    used: int = 0

    def wait_s(self, now: float) -> float:
        """Return the seconds until it may be used: after its back-off and its rest, and after a
        failure by one chunk at a time."""
        on_trial = TRIAL_POLL_S if self.failures and self.running else 0.0
        return max(self.backoff_until - now, self.rest_until - now, on_trial)

    def succeeded(self) -> None:
        """Note that the server did its work: reset its failures and its back-off."""
        self.failures, self.backoff_until = 0, 0.0

    def failed(
        self,
        error: UpstreamError,
        now: float,
        dice: Callable[[], float],
        limits: FailoverLimits = DEFAULT_LIMITS,
    ) -> None:
        """Put the server in back-off after an error, or let it rest if it asked for that. ``dice``
        returns numbers from 0 to 1, so that clients do not return all at once."""
        if isinstance(error, UpstreamBusy):
            self.rest_until = max(self.rest_until, now + error.rest_s * (1 + dice() / 10))
        elif not isinstance(error, UpstreamRefused) and now >= self.backoff_until:
            # else it is the same failure, noted by another chunk
            after_s = backoff_s(self.failures, limits.min_backoff_s, limits.max_backoff_s)
            self.failures += 1
            self.backoff_until = now + after_s * (0.5 + dice() / 2)


@dataclass(slots=True)
class ChunkAttempts:
    """Attempts of one chunk: their deadline, and the error if all fail.

    ``until``: deadline if a server was reached (``reached``) but is busy or broken. ``begun``:
    start of the wait for a reachable server. ``tried``: the servers that got a request;
    ``refused``: those that do not take the chunk; ``met``: the last error of each, the latest last.
    """

    begun: float
    until: float
    limits: FailoverLimits = DEFAULT_LIMITS
    broken: int = 0
    reached: bool = False
    tried: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    met: dict[int, errors.SidecarError] = field(default_factory=dict)
    first_broken: errors.SidecarError | None = None

    def failed(self, index: int, error: UpstreamError) -> None:
        """Note what became of the attempt at a server.

        Raises:
            errors.SidecarError: too many servers broke over it.
        """
        self._meet(index, error)
        if isinstance(error, UpstreamRefused):
            self.refused.add(index)
        elif not isinstance(error, UpstreamUnreachable):
            self.reached = True
            if not isinstance(error, UpstreamBusy):
                self.broken += 1
                self.first_broken = self.first_broken or error
                if self.broken >= self.limits.broken_servers:
                    raise error

    def refuse(self, index: int, error: errors.SidecarError) -> None:
        """Note that a server does not take the chunk."""
        self._meet(index, error)
        self.refused.add(index)

    def _meet(self, index: int, error: errors.SidecarError) -> None:
        self.met.pop(index, None)
        self.met[index] = error

    def choose(self, servers: Sequence[ServerLoad], now: float) -> tuple[int | None, float]:
        """Return the least loaded server, of equals the one unused for longest, with the chunk
        counted as ``running`` there; or None and the seconds until one may be free. Once the time
        is up, each that was not tried is tried once all the same, because it may be back.

        Raises:
            errors.SidecarError: none is left.
        """

        def rank(index: int) -> tuple[float, int, int]:
            server = servers[index]
            return max(0.0, server.wait_s(now)), server.running + server.waiting, server.used

        left = set(range(len(servers))) - self.refused
        index = min(left, key=rank, default=None)
        wait_s = 0.0 if index is None else rank(index)[0]
        unreachable_until = self.begun + self.limits.unreachable_wait_s
        until = self.until if self.reached else min(self.until, unreachable_until)
        if now + wait_s >= until:
            index, wait_s = min(left - self.tried, key=rank, default=None), 0.0
        if index is None:
            raise self.error
        if wait_s:
            return None, wait_s
        self.tried.add(index)
        servers[index].running += 1
        servers[index].used = max(one.used for one in servers) + 1
        return index, 0.0

    @property
    def error(self) -> errors.SidecarError:
        """Return the error of a chunk that is given up: the last that is not the recording's, if a
        server met one, since that server might do it; for as long as the first of the others, too,
        asked for."""
        met = [*self.met.values()]
        passing = [one for one in met if one.fault is not errors.Fault.RECORDING]
        error = [UpstreamUnreachable(), *met, *passing][-1]
        if error.retry_after is not None:  # that of the first that may take it
            others = (one.retry_after for at, one in self.met.items() if at not in self.refused)
            own_s, error = error.retry_after, copy(error)
            error.retry_after = min([own_s, *(one for one in others if one is not None)])
        if self.first_broken is not None and isinstance(error, UpstreamUnreachable):
            detail = f"{self.first_broken.detail} Then: {error.detail}"  # it may have ended it
            return UpstreamLost(detail, retry_after=error.retry_after)
        return error
