"""Job backend of a service that shares its jobs."""

import asyncio
import math
import time
from functools import partial

from sidecar import clock
from sidecar.cluster.claim_loop import ClaimLoop, EligibilityJudge, ineligibility
from sidecar.cluster.claims import ClaimPreferences, ClaimStore
from sidecar.cluster.front_queue import ClientTimeouts, SharedJobQueue
from sidecar.cluster.job_follower import JobFollower
from sidecar.cluster.job_rows import JobRows
from sidecar.cluster.membership import Membership
from sidecar.cluster.postgres_jobs import PostgresJobStore
from sidecar.cluster.shared_retention import RetentionLimits, SharedRetention
from sidecar.concurrency import BackgroundTaskGroup, ThreadLimiter
from sidecar.config.settings import ROLE_FRONT, ROLE_NODE, Settings
from sidecar.interfaces.engine_interface import Precision
from sidecar.jobs.job_backend import JobBackend, count_event
from sidecar.jobs.job_engine import JobEngine
from sidecar.jobs.job_event_log import JobEventLog, JobListener
from sidecar.jobs.job_runner import OptionsPlanner
from sidecar.jobs.persistent_recordings import PersistentRecordings
from sidecar.jobs.recovery import jobs_folder
from sidecar.jobs.retention import MAX_RESULTS_PER_OWNER
from sidecar.observability.metrics import JobMetrics
from sidecar.storage.encryption import journal_key
from sidecar.storage.job_journal import UPLOADS_FOLDER
from sidecar.storage.postgres_database import PostgresDatabase, call_once, migrate_postgres
from sidecar.storage.recording_storage import FolderStorage, cluster_code
from sidecar.storage.storage_selection import check_storage, create_recording_storage

MAX_CONCURRENT_OPENS = 2


class SharedJobBackend(JobBackend):
    """`JobBackend` of one of several services that share a database."""

    shares = True

    def __init__(
        self,
        settings: Settings,
        address: str,
        engine: JobEngine,
        plan: OptionsPlanner,
        tally: JobMetrics,
        disk: ThreadLimiter,
        now: clock.Clock,
        service_id: str,
    ) -> None:
        """Bring the tables up to date; this blocks on the database. ``disk``: threads that may wait
        for the storage of recordings.

        Raises:
            errors.SettingsInvalid: the database, the key or the storage cannot be used.
        """
        self._role, self._engine = settings.role, engine
        storage = create_recording_storage(settings, jobs_folder(settings) / UPLOADS_FOLDER)
        check_storage(storage)
        seal = migrate_postgres(address, journal_key(settings))
        if isinstance(storage, FolderStorage):
            storage.join(cluster_code(seal), partial(call_once, address, UPLOADS_FOLDER))
        rows = JobRows(seal)
        self.persistent_recordings = PersistentRecordings(settings, storage, seal, shared=True)
        self._database = PostgresDatabase(address)
        self._follower = JobFollower(self._database, rows, service_id, now)
        limits = RetentionLimits(
            settings.retention_s,
            MAX_RESULTS_PER_OWNER,
            settings.job_retention_mb << 20,
            settings.keep_recordings_mb << 20,
        )
        self._housekeeping = SharedRetention(self._database, storage, disk, limits)
        self._beats = PostgresDatabase(address, 1)  # a slow call must not delay a heartbeat
        self._membership = Membership(
            self._database, service_id, works=settings.role != ROLE_FRONT, beats=self._beats
        )
        self.store = PostgresJobStore(
            self._database,
            rows,
            service_id,
            self._follower,
            self._housekeeping,
            partial(engine.pace.seconds, engine.spec.resolve_precision(Precision.AUTO)),
            settings.queue_limit,
            tally,
            now,
        )
        node = None
        if settings.role != ROLE_FRONT:
            log = JobEventLog(now)
            log.listen(partial(count_event, tally))
            queue = engine.queue(log, plan)
            claims = ClaimStore(self._database, rows, service_id, self._housekeeping, tally)
            max_s = settings.max_audio_hours * 3600
            kind = storage.kind
            refused = partial(ineligibility, engine=engine, max_s=max_s, storage=kind)
            judging = EligibilityJudge(claims, refused)
            node = ClaimLoop(
                claims,
                log,
                queue,
                self.persistent_recordings.open,
                judging,
                ThreadLimiter("opening", MAX_CONCURRENT_OPENS),
                offer=partial(_offer, engine),
                places=engine.places,
                long_places=engine.long_places,
            )
        self.queue = SharedJobQueue(
            self.store,
            self._follower,
            settings.queue_limit,
            self._membership,
            node,
            self.store.begun_in_s,
        )
        self.client_timeouts = ClientTimeouts(
            self._database, seal, service_id, self.store, self.queue
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
        await asyncio.gather(self._database.open(), self._beats.open())
        background.spawn("heartbeat", self._membership.send_heartbeat())
        background.spawn("observe services", self._membership.observe())
        background.spawn("follow jobs", self._follower.run())
        background.spawn("retention", self._housekeeping.run())
        if self._role != ROLE_NODE:
            background.spawn("end jobs of lost clients", self.client_timeouts.end_in_time())
        self.queue.open()
        self._engine.open(background)

    async def fetched(self) -> None:
        """Return at once: results survive this process."""

    async def close(self) -> None:
        """Stop and release all resources."""
        await self.queue.close()
        await self._engine.close()
        await self.client_timeouts.close()
        await self._membership.leave()
        await self.store.close()
        await asyncio.gather(self._database.close(), self._beats.close())
        self.persistent_recordings.close()


def _offer(engine: JobEngine) -> ClaimPreferences:
    """Return the requested precisions that need no load now."""
    slot = engine.slot
    if not slot.loaded:
        return ClaimPreferences()
    fits = (one for one in Precision if slot.resolve(one, math.inf) is slot.precision)
    return ClaimPreferences(frozenset(one.value for one in fits), time.monotonic() - slot.loaded_at)
