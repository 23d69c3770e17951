"""Heartbeats and expiry of services that share jobs.

Each service increments its own heartbeat; the others observe by their own clocks whether it stands
still. No clock of the database or of another machine counts.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from sidecar import errors
from sidecar.concurrency import cancel_after
from sidecar.plugins.shared_jobs import postgres_database
from sidecar.plugins.shared_jobs.job_needs import NodeCapabilities

log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL_S = 1.0
"""Interval of heartbeats: short enough that the jobs of a dead service are free within seconds."""
EXPIRY_HEARTBEATS = 3
"""Observations, one each `HEARTBEAT_INTERVAL_S`, without a change of a heartbeat before its service
expires. So a heartbeat that meets a dead connection and is repeated over another is not late yet
(`postgres_settings.py` has the time limits)."""
COUNT_AGE_S, REQUESTED_COUNT_AGE_S = 0.9, 0.1
"""Age to which a count of all jobs serves all services, each second and on request: with ten
thousand waiting jobs it takes a tenth of a second."""
COUNT_TIMEOUT_S = 0.3
"""Limit for a count of jobs on request; after it the last count is returned."""
LEAVE_TIMEOUT_S = 2.0
"""Limit for the deregistration at the end; without it the service expires by itself."""


@dataclass(slots=True)
class HeartbeatObserver:
    """Observed heartbeats: the heartbeat of each service, and the number of
    observations without a change. Pure."""

    at: float = 0.0
    beats: dict[str, int] = field(default_factory=dict)
    still: dict[str, int] = field(default_factory=dict)

    def seen(self, beats: Mapping[str, int], begun: float, ended: float) -> list[str]:
        """Return the expired services after an observation from ``begun`` to ``ended`` by the
        observer's clock. A slow or late observation proves nothing: the database was slow for all
        services, or the observer itself stood still."""
        slow = ended - begun > HEARTBEAT_INTERVAL_S or begun - self.at > 3 * HEARTBEAT_INTERVAL_S
        before, self.at, self.beats = self.beats, ended, dict(beats)
        self.still = {
            one: self.still.get(one, 0) + 1
            for one, beat in beats.items()
            if not slow and before.get(one) == beat
        }
        return [one for one, count in self.still.items() if count >= EXPIRY_HEARTBEATS]


class Membership:
    """Membership of this service, as ``id``, among the others."""

    def __init__(
        self,
        database: postgres_database.PostgresDatabase,
        service_id: str,
        *,
        works: bool,
        capabilities: Callable[[], NodeCapabilities] = NodeCapabilities,
        heartbeat_database: postgres_database.PostgresDatabase | None = None,
    ) -> None:
        """``works``: whether it claims jobs; ``capabilities``: which it can do.
        ``heartbeat_database``: a connection for heartbeats only, which no slow call delays."""
        self.id, self.draining = service_id, False
        self._database, self._heartbeat_database = database, heartbeat_database or database
        self._works, self._capabilities = works, capabilities
        self._observer = HeartbeatObserver()
        self.waiting = self.running = 0
        """Jobs of all services, as of the last observation or a second before."""

    async def register(self) -> None:
        """Register this service, or send its heartbeat, with what it can do. If others had expired
        it, jobs whose clients wait here are kept.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        can = self._capabilities()
        await self._heartbeat_database.call(
            "beat_1", self.id, self._works, self.draining, [*can.words], can.longest_s
        )

    async def send_heartbeat(self) -> None:
        """Increment the heartbeat, for ever: one row, which other calls lock only briefly."""
        await postgres_database.run_periodically(self.register, HEARTBEAT_INTERVAL_S)

    async def observe(self) -> None:
        """Observe the other services and the queue, for ever."""
        await postgres_database.run_periodically(self._observe_once, HEARTBEAT_INTERVAL_S)

    async def drain(self) -> None:
        """Mark this node as draining: it claims no jobs, and none wait for it."""
        self.draining = True
        await _call_within(LEAVE_TIMEOUT_S, self.register())

    async def leave(self) -> None:
        """Deregister this service."""
        await _call_within(LEAVE_TIMEOUT_S, self.expire({self.id: None}))

    async def count(self) -> None:
        """Update `waiting` and `running`, if the database answers at once."""
        if self._database.up:
            await _call_within(COUNT_TIMEOUT_S, self.recount(REQUESTED_COUNT_AGE_S))

    async def _observe_once(self) -> None:
        # after an outage: no service could send heartbeats
        observer, self._observer = self._observer, HeartbeatObserver()
        begun = time.monotonic()
        rows = await self._database.fetch("SELECT id, beat FROM vibevoice.services")
        beats: dict[str, int] = dict(rows)
        dead = observer.seen(beats, begun, time.monotonic())
        self._observer = observer
        if dead := [one for one in dead if one != self.id]:
            log.warning("%d services have expired: other services can claim their jobs", len(dead))
            await self.expire({one: beats[one] for one in dead})
        await self.recount(COUNT_AGE_S)

    async def recount(self, age_s: float = 0.0) -> None:
        """Update `waiting` and `running` to a count that is at most ``age_s`` old.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        ((self.waiting, self.running),) = await self._database.call("count_1", age_s)

    async def expire(self, beats: Mapping[str, int | None]) -> None:
        """Deregister services whose heartbeats still have these numbers (None: any), and free their
        jobs.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        await self._database.fetch(
            "SELECT vibevoice.expire_1(%s::text[], %s::bigint[])", ([*beats], [*beats.values()])
        )


async def _call_within(most_s: float, call: Awaitable[None]) -> None:
    """Wait for a call, at most ``most_s``; a database that does not answer ends it."""
    with suppress(errors.JournalUnreachable):
        await cancel_after(most_s, call)
