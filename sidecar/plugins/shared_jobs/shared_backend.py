"""Job backend of a service that shares its jobs."""

import asyncio
import math
import time
from collections.abc import Callable
from functools import partial

from sidecar import errors
from sidecar.concurrency import BackgroundTaskGroup, ThreadLimiter
from sidecar.interfaces.engine_interface import Precision
from sidecar.jobs.job_engine import JobEngine
from sidecar.jobs.job_event_log import JobEventLog, JobListener
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.job_store import BackendParts, JobBackend
from sidecar.jobs.local_jobs import count_event
from sidecar.jobs.persistent_recordings import PersistentRecordings, opener_in_threads
from sidecar.jobs.recovery import jobs_folder
from sidecar.plugins.shared_jobs.claim_loop import ClaimLoop
from sidecar.plugins.shared_jobs.claims import ClaimPreferences, ClaimStore
from sidecar.plugins.shared_jobs.front_queue import SharedJobQueue
from sidecar.plugins.shared_jobs.job_follower import JobFollower
from sidecar.plugins.shared_jobs.job_needs import LONG, STORAGE, NodeCapabilities
from sidecar.plugins.shared_jobs.job_rows import JobRows
from sidecar.plugins.shared_jobs.membership import Membership
from sidecar.plugins.shared_jobs.postgres_database import (
    PostgresDatabase,
    call_once,
    migrate_postgres,
)
from sidecar.plugins.shared_jobs.postgres_jobs import PostgresJobStore
from sidecar.plugins.shared_jobs.shared_retention import RetentionLimits, SharedRetention
from sidecar.plugins.shared_jobs.storage_selection import check_storage, create_recording_storage
from sidecar.storage.encryption import journal_key
from sidecar.storage.job_journal import UPLOADS_FOLDER
from sidecar.storage.recording_storage import FolderStorage, store_code
from sidecar.workers.engine_lease import EngineState

MAX_CONCURRENT_DELETIONS = 4
"""Deletions in the storage that wait at once: one that hangs keeps no upload waiting."""
DEFAULT_RETENTION_MB = 1024
"""Space of an owner's results in the database: some 900 hours (300 with
the times of all words), or 16,000 short ones."""


class SharedJobBackend(JobBackend):
    """`JobBackend` of one of several services that share a database."""

    shares = True

    def __init__(self, parts: BackendParts, address: str) -> None:
        """Bring the tables of the database at ``address`` up to date; this blocks on the database.

        Raises:
            errors.SettingsInvalid: the database, the key or the storage cannot be used.
            errors.FolderTaken: the recordings in the folder are of another store.
        """
        settings, engine, now = parts.settings, parts.engine, parts.now
        service_id, metrics = parts.service_id, parts.metrics
        self._engine = engine
        storage = create_recording_storage(settings, jobs_folder(settings) / UPLOADS_FOLDER)
        check_storage(storage)
        cipher = migrate_postgres(address, journal_key(settings))
        code = store_code(cipher)
        if isinstance(storage, FolderStorage):
            storage.join(code, partial(call_once, address, UPLOADS_FOLDER))
        rows = JobRows(cipher)
        self._database = PostgresDatabase(address)
        self._follower = JobFollower(self._database, rows, service_id, now)
        limits = RetentionLimits(
            settings.retention_s,
            (settings.job_retention_mb or DEFAULT_RETENTION_MB) << 20,
            settings.keep_recordings_mb << 20,
        )
        deletions = ThreadLimiter("deletions", MAX_CONCURRENT_DELETIONS)
        self._retention = SharedRetention(
            self._database, storage, code, deletions, limits, metrics, now
        )
        discard = self._retention.discard
        self.persistent_recordings = PersistentRecordings(
            settings, storage, cipher, shared=True, discard=discard
        )
        capabilities = partial(_capabilities, engine, storage.kind, settings.max_audio_hours * 3600)
        # a slow call must not delay a heartbeat
        self._heartbeat_database = PostgresDatabase(address, 1)
        self._membership = Membership(
            self._database,
            service_id,
            works=not settings.is_front,
            capabilities=capabilities,
            heartbeat_database=self._heartbeat_database,
        )
        self.store = PostgresJobStore(
            self._database,
            rows,
            service_id,
            self._follower,
            self._retention,
            engine.work_s,
            settings.queue_limit,
            metrics,
            now,
        )
        node = None
        if not settings.is_front:
            log = JobEventLog(now)
            log.listen(partial(count_event, metrics))
            queue = engine.queue(log, parts.plan)
            claims = ClaimStore(
                self._database, rows, service_id, self._retention, metrics, engine.refusal_of
            )
            node = ClaimLoop(
                claims,
                log,
                queue,
                opener_in_threads(self.persistent_recordings.open),
                partial(_admit, engine),
                partial(_preferences, engine, capabilities),
            )
        self.queue = SharedJobQueue(
            self.store,
            self._follower,
            settings.queue_limit,
            self._membership,
            node,
            self.store.begun_in_s,
        )

    @property
    def reachable(self) -> bool:
        """Return whether the database answered the last call, at most a second ago."""
        return self._database.up

    async def count(self) -> None:
        """Update the counts of the queue, if the database answers at once."""
        await self._membership.count()

    def listen(self, tell: JobListener) -> None:
        """Call ``tell`` with the events of jobs that are accepted here; from now on
        all of them are followed."""
        self._follower.listen(tell)
        self.queue.follows_all = True

    async def open(self, background: BackgroundTaskGroup) -> None:
        """Start the queue and the background tasks; this does not wait for the database."""
        await asyncio.gather(self._database.open(), self._heartbeat_database.open())
        background.spawn("heartbeat", self._membership.send_heartbeat())
        background.spawn("observe services", self._membership.observe())
        background.spawn("follow jobs", self._follower.run())
        background.spawn("retention", self._retention.run())
        self.queue.open()
        self._engine.open(background)

    async def fetched(self) -> None:
        """Return at once: results survive this process."""

    async def close(self) -> None:
        """Stop and release all resources."""
        await self.queue.close()
        await self._engine.close()
        await self._membership.leave()
        await self.store.close()
        await asyncio.gather(self._database.close(), self._heartbeat_database.close())


def _capabilities(engine: JobEngine, storage: str, longest_s: float) -> NodeCapabilities:
    return NodeCapabilities((*engine.capabilities, f"{STORAGE}{storage}", LONG), longest_s)


def _admit(engine: JobEngine, record: JobRecord) -> None:
    """Raise an error if a job cannot run now."""
    if engine.engine.state is EngineState.STUCK:
        raise errors.EngineStuck()
    engine.admit(record.options, record.audio_info.total_s)


def _preferences(
    engine: JobEngine, capabilities: Callable[[], NodeCapabilities]
) -> ClaimPreferences:
    """Return what the node can do, and the requested precisions that need no load now."""
    loaded = engine.engine
    if not loaded.loaded:
        return ClaimPreferences(capabilities())
    fits = (one for one in Precision if loaded.resolve(one, math.inf) is loaded.precision)
    return ClaimPreferences(
        capabilities(),
        frozenset(one.value for one in fits),
        time.monotonic() - loaded.loader.loaded_at,
    )
