"""Heartbeats and expiry of services that share jobs.

Each service counts its own beat up; the others see by their own clocks whether it stands still. No
clock of the database or of another machine counts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from sidecar import errors
from sidecar.storage import postgres_database
from sidecar.storage.postgres_settings import EXPIRY_HEARTBEATS, HEARTBEAT_INTERVAL_S

log = logging.getLogger(__name__)

COUNT_TIMEOUT_S = 0.3
"""Limit for counting jobs for somebody who looks; then the count of the last look is told."""
LEAVE_TIMEOUT_S = 2.0
"""Limit for saying goodbye at the end; without it the service expires by itself."""
_COUNT = """
    SELECT count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'running')
    FROM vibevoice.jobs WHERE ended IS NULL"""


@dataclass(slots=True)
class HeartbeatObserver:
    """Observed heartbeats: the beat of each service, and how many looks it stood still. Pure."""

    at: float = 0.0
    beats: dict[str, int] = field(default_factory=dict)
    still: dict[str, int] = field(default_factory=dict)

    def seen(self, beats: Mapping[str, int], begun: float, ended: float) -> list[str]:
        """Return who is dead after a look that took from ``begun`` to ``ended`` by the observer's
        clock. A look that the database kept waiting, or that came late, shows nothing: nobody
        could beat, or the observer itself stood still."""
        slow = ended - begun > HEARTBEAT_INTERVAL_S or begun - self.at > 3 * HEARTBEAT_INTERVAL_S
        before, self.at, self.beats = self.beats, ended, dict(beats)
        self.still = {
            one: self.still.get(one, 0) + 1
            for one, beat in beats.items()
            if not slow and before.get(one) == beat
        }
        return [one for one, looks in self.still.items() if looks >= EXPIRY_HEARTBEATS]


class Membership:
    """Membership of this service, as ``id``, among the others."""

    def __init__(
        self,
        database: postgres_database.PostgresDatabase,
        service_id: str,
        *,
        works: bool,
        beats: postgres_database.PostgresDatabase | None = None,
        places: int = 0,
        begins: bool = False,
    ) -> None:
        """``works``: whether it claims jobs. ``beats``: a connection for heartbeats alone, which no
        slow call holds up. ``places``: jobs at once that this service is given as they come;
        ``begins``: whether it begins with such a job at once and alone."""
        self.id, self.draining = service_id, False
        self._database, self._beats = database, beats or database
        self._works, self._places, self._begins = works, places, begins
        self._looks = HeartbeatObserver()
        self.waiting = self.running = 0
        """Jobs of all services, as of the last look or a second before."""

    async def register(self) -> None:
        """Be one of the services from now on. If others took this one for dead, jobs whose clients
        wait here are kept.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        places = self._places if self._database.hears else 0  # it would miss what it is given
        values = self._works, self.draining, places, self._begins
        await self._beats.call("beat_1", self.id, *values)

    async def send_heartbeat(self) -> None:
        """Count the heartbeat up, for ever: one row, which nobody else's work locks for long."""
        await postgres_database.run_periodically(self.register, HEARTBEAT_INTERVAL_S)

    async def observe(self) -> None:
        """Look at the others and at the queue, for ever."""
        await postgres_database.run_periodically(self._look, HEARTBEAT_INTERVAL_S)

    async def drain(self) -> None:
        """Have jobs not wait for this node any more, nor claim any."""
        self.draining = True
        await _call_within(LEAVE_TIMEOUT_S, self.register())

    async def leave(self) -> None:
        """Be none of the services any more."""
        await _call_within(LEAVE_TIMEOUT_S, self._expire({self.id: None}))

    async def count(self) -> None:
        """Bring `waiting` and `running` up to date, if the database answers at once."""
        if self._database.up:
            await _call_within(COUNT_TIMEOUT_S, self._count())

    async def _look(self) -> None:
        looks, self._looks = self._looks, HeartbeatObserver()  # after an outage nobody could beat
        begun = time.monotonic()
        rows = await self._database.fetch("SELECT id, beat FROM vibevoice.services")
        beats: dict[str, int] = dict(rows)
        dead = looks.seen(beats, begun, time.monotonic())
        self._looks = looks
        if dead := [one for one in dead if one != self.id]:
            log.warning("%d services have expired: other services can claim their jobs", len(dead))
            await self._expire({one: beats[one] for one in dead})
        await self._count()

    async def _count(self) -> None:
        ((self.waiting, self.running),) = await self._database.fetch(_COUNT)

    async def _expire(self, beats: Mapping[str, int | None]) -> None:
        await self._database.fetch(
            "SELECT vibevoice.expire_1(%s::text[], %s::bigint[])", ([*beats], [*beats.values()])
        )


async def _call_within(most_s: float, call: Awaitable[None]) -> None:
    """Wait for a call at most so long; if the database is away, not even that."""
    with suppress(errors.JournalUnreachable):
        await postgres_database.cancel_after(most_s, call)
