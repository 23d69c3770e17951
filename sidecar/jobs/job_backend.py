"""Job backend: store and queue opened together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from sidecar import clock
from sidecar.concurrency import BackgroundTaskGroup, ThreadLimiter
from sidecar.config.settings import Settings
from sidecar.jobs import job_record
from sidecar.jobs.job_engine import JobEngine
from sidecar.jobs.job_event_log import JobEventLog, JobListener
from sidecar.jobs.job_queue import SubmissionQueue
from sidecar.jobs.job_runner import OptionsPlanner
from sidecar.jobs.job_store import JobStore, LocalJobStore
from sidecar.jobs.persistent_recordings import PersistentRecordings
from sidecar.jobs.retention import Retention
from sidecar.observability.metrics import JobMetrics, outcome_of_error
from sidecar.transcripts.transcript import Finished

if TYPE_CHECKING:
    from sidecar.audio.audio_source import AudioSource
    from sidecar.jobs.job_runner import Job
    from sidecar.jobs.recovery import JobPersistence


class ClientTimeouts(Protocol):
    """Jobs between two requests of the same client, which may ask another service next."""

    def leave(self, job: Job, digest: str, for_s: float) -> None:
        """Leave a job for ``for_s`` seconds to the same request (``digest``), in the background."""

    async def take(self, owner: str, digest: str, source: AudioSource) -> Job | None:
        """Return the job that the same request left, followed here from now on; None if there is
        none. The job has its own recording; ``source`` is closed then.

        Raises:
            errors.JournalUnreachable: the store does not answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendParts:
    """What a backend is built from. ``plan`` completes the options of a job that starts; ``disk``:
    threads that write uploads; ``service_id``: of this process."""

    settings: Settings
    engine: JobEngine
    plan: OptionsPlanner
    tally: JobMetrics
    disk: ThreadLimiter
    now: clock.Clock
    service_id: str


class JobBackend(Protocol):
    """Job store and queue. ``persistent_recordings``: recordings of durable jobs; None if there are
    none. ``shares``: whether other services have the same jobs; then ``client_timeouts``."""

    shares: bool
    client_timeouts: ClientTimeouts | None
    store: JobStore
    queue: SubmissionQueue
    persistent_recordings: PersistentRecordings | None

    @property
    def reachable(self) -> bool:
        """Return whether the store answers."""
        return True

    async def count(self) -> None:
        """Update the counts of jobs of all services, if the store answers quickly."""

    def listen(self, tell: JobListener) -> None:
        """Call ``tell`` with the events of jobs that are accepted here."""

    async def open(self, background: BackgroundTaskGroup) -> None:
        """Start the queue and the background tasks."""

    async def fetched(self) -> None:
        """Wait a moment for clients to fetch results that are lost with this process."""

    async def close(self) -> None:
        """Stop and release all resources."""


class LocalJobBackend(JobBackend):
    """`JobBackend` of a service that shares its jobs with no other, in memory or in a file."""

    shares = False
    client_timeouts = None

    def __init__(self, parts: BackendParts) -> None:
        settings, now, engine = parts.settings, parts.now, parts.engine
        self._now, self._engine = now, engine
        self.persistent_recordings: JobPersistence | None = None
        if settings.keeps_jobs:
            from sidecar.jobs.recovery import JobPersistence

            self.persistent_recordings = JobPersistence(settings, now)
        kept = self.persistent_recordings
        self.log: JobEventLog = kept.store if kept else JobEventLog(now)
        self.log.listen(partial(count_event, parts.tally))
        self.queue = engine.queue(self.log, parts.plan)
        self.results = Retention(
            self.log, settings.retention_s, settings.job_retention_mb << 20, now=now
        )
        """Jobs that have ended, until they expire."""
        self.store = LocalJobStore(self.log, self.queue, self.results)

    def listen(self, tell: JobListener) -> None:
        """Call ``tell`` with the events of all jobs."""
        self.log.listen(tell)

    async def open(self, background: BackgroundTaskGroup) -> None:
        """Start the queue, and resume what the last process left."""
        self.queue.open()
        if (kept := self.persistent_recordings) is not None:
            ended = [record for record in self.log.all() if record.over]
            used = {one.id: max(one.touched, self.log.last_read(one.id)) for one in ended}
            for record in sorted(ended, key=lambda one: used[one.id]):
                self.results.remember(record, self._now() - used[record.id])
            from sidecar.jobs.recovery import requeue_unfinished

            background.spawn("go on", requeue_unfinished(kept, self.queue))
        self._engine.open(background)

    async def fetched(self) -> None:
        """Wait a moment for clients to fetch results."""
        await self.results.all_fetched()

    async def close(self) -> None:
        """Stop and release all resources."""
        await self.queue.close()
        await self._engine.close()
        self.results.close()
        if self.persistent_recordings is not None:
            self.persistent_recordings.close()
        else:
            self.log.close()


def count_event(
    tally: JobMetrics, record: job_record.JobRecord, event: job_record.JobEvent
) -> None:
    """Count an event of a job store; ``record`` is the job after it."""
    since = event.at - record.created
    match event.change:
        case job_record.ReportedChange(Finished(transcript)):
            tally.done(transcript.duration, record.processing_s, since)
        case job_record.FailedChange(failure):
            error = failure.error()
            tally.failed(error.code, since, outcome_of_error(error))
        case job_record.CancelledChange():
            tally.cancelled(since)
        case job_record.StartedChange() if record.begun == event.at:
            tally.began(since)
        case job_record.CrashedChange():
            tally.crashed.add()
