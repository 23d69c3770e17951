"""Job backend of a service that shares its jobs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from functools import partial

from sidecar import clock, errors
from sidecar.cluster.claim_loop import Judging, Node
from sidecar.cluster.claims import Claims, Offer
from sidecar.cluster.eligibility import refusal
from sidecar.cluster.front_queue import ClientTimeouts, SharedQueue
from sidecar.cluster.job_follower import Follower
from sidecar.cluster.job_rows import Rows
from sidecar.cluster.membership import Membership
from sidecar.cluster.postgres_jobs import PostgresJobs
from sidecar.cluster.postgres_live_sessions import SharedSessions
from sidecar.cluster.shared_retention import Housekeeping, Limits
from sidecar.concurrency import Background, Threads
from sidecar.config.settings import ALL, FRONT, NODE, Settings
from sidecar.interfaces.engine_interface import Precision
from sidecar.jobs.job_backend import EngineSetup, Provision
from sidecar.jobs.job_log import Listener, MemoryLog
from sidecar.jobs.job_telemetry import Counted
from sidecar.jobs.recovery import KeptRecordings, jobs_folder
from sidecar.observability.metrics import JobTally
from sidecar.storage.encryption import journal_key
from sidecar.storage.job_journal import UPLOADS
from sidecar.storage.postgres_database import Database, migrate
from sidecar.storage.postgres_settings import journal_address
from sidecar.storage.storage_selection import check, storage_of

OPENING = 2
"""Recordings that are opened side by side."""


class SharedBackend:
    """The `Backend` of one of several services over a database."""

    shares = True

    def __init__(
        self,
        settings: Settings,
        address: str,
        engine: EngineSetup,
        tally: JobTally,
        disk: Threads,
        now: clock.Clock,
        service_id: str,
    ) -> None:
        """Bring the tables up to date; this waits for the database. ``disk``: threads that may wait
        for the storage of recordings.

        Raises:
            errors.SettingsInvalid: the database, the key or the storage cannot be used.
        """
        self._role, self._engine = settings.role, engine
        provision = engine.provision
        storage = storage_of(settings, jobs_folder(settings) / UPLOADS)
        check(storage)
        seal = migrate(address, journal_key(settings))
        rows = Rows(seal)
        self.keeping = KeptRecordings(settings, storage, seal, shared=True)
        """Recordings of jobs."""
        self._database = Database(address)
        self._follower = Follower(self._database, rows, service_id, now)
        limits = Limits(
            settings.job_retention,
            settings.job_retention_count,
            settings.job_retention_mb << 20,
            settings.keep_recordings_mb << 20,
        )
        self._housekeeping = Housekeeping(self._database, storage, disk, limits, rows)
        self._beats = Database(address, 1)  # no slow call of others holds up a heartbeat
        self._membership = Membership(
            self._database, service_id, works=settings.role != FRONT, beats=self._beats
        )
        self.store = PostgresJobs(
            self._database,
            rows,
            service_id,
            self._follower,
            self._housekeeping,
            partial(engine.pace.seconds, provision.spec.resolve_precision(Precision.AUTO)),
            settings.queue_limit,
            tally,
            now,
        )
        """Jobs of all services."""
        node, queue = None, None
        if settings.role != FRONT:
            log = MemoryLog(now)
            log.listen(Counted(tally))
            queue = engine.queue(log)
            claims = Claims(self._database, rows, service_id, self._housekeeping, tally)
            max_s = settings.max_audio_hours * 3600
            refused = partial(refusal, provision=provision, max_s=max_s)
            judging = Judging(claims, refused, settings.unschedulable_after)
            node = Node(
                claims,
                log,
                queue,
                self.keeping.open,
                judging,
                Threads("opening", OPENING),
                offer=_offers(provision),
                beside=provision.beside,
                places=engine.places,
            )
        self.queue = SharedQueue(
            self.store, self._follower, settings.queue_limit, self._membership, node, queue
        )
        self.client_timeouts = ClientTimeouts(
            self._database, seal, service_id, self.store, self.queue
        )
        """Jobs whose clients timed out."""
        self.sessions = SharedSessions(self._database, seal, self._membership)
        """Live sessions that other services find."""

    @property
    def reachable(self) -> bool:
        """Whether the database answered when it was last asked, a second ago at most."""
        return self._database.up

    async def count(self) -> None:
        """Bring the counts of the queue up to date, if the database answers at once."""
        await self._membership.count()

    def listen(self, tell: Listener) -> None:
        """Have ``tell`` called with the events of jobs that are accepted here, which are followed
        for that."""
        self._follower.listen(tell)
        self.queue.follows_all = True

    async def open(self, background: Background) -> None:
        """Start to work; this does not wait for the database."""
        await asyncio.gather(self._database.open(), self._beats.open())
        background.spawn("heartbeat", self._membership.beat())
        background.spawn("observe services", self._membership.observe())
        background.spawn("follow jobs", self._follower.run())
        background.spawn("retention", self._housekeeping.run())
        background.spawn("share live sessions", self.sessions.run())
        if self._role != NODE:
            background.spawn("end jobs of lost clients", self.client_timeouts.end_in_time())
        self.queue.open()
        self._engine.open(background)

    async def fetched(self) -> None:
        """Results outlive this process."""

    async def close(self) -> None:
        """Stop and leave nothing behind."""
        await self.queue.close()
        await self._engine.close()
        await self.client_timeouts.close()
        await self._membership.leave()
        await self.store.close()
        await asyncio.gather(self._database.close(), self._beats.close())
        self.keeping.close()


def shared_address(settings: Settings) -> str | None:
    """Return the address of the database in which a service shares its jobs; None if it has them
    for itself.

    Raises:
        errors.SettingsInvalid: it is only a front or a node, and shares with nobody.
    """
    address = journal_address(settings)
    if address is None and settings.role != ALL:
        raise errors.SettingsInvalid(
            f"A service that is only a {settings.role} needs jobs that others share.",
            hint="Set VIBEVOICE_JOURNAL (--journal postgresql://…), or leave the role out.",
        )
    return address


def _offers(provision: Provision) -> Callable[[], Offer]:
    """Return what tells which requested precisions need no load now."""
    slot = provision.slot

    def offer() -> Offer:
        if not slot.loaded:
            return Offer()
        fits = (one for one in Precision if slot.resolve(one, math.inf) is slot.precision)
        return Offer(frozenset(one.value for one in fits), time.monotonic() - slot.loaded_at)

    return offer
