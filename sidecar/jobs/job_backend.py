"""Job backend: store and queue opened together, engine provisioning for each job.

`gpu_memory.memory_admission` decides by snapshots of the memory, which the engine host takes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from functools import partial
from typing import TYPE_CHECKING, Protocol

from sidecar import clock
from sidecar.concurrency import BackgroundTaskGroup
from sidecar.config.settings import Settings
from sidecar.gpu_memory.memory_admission import MemoryState
from sidecar.gpu_memory.memory_plan import JobForecast
from sidecar.interfaces.engine_interface import EngineSpec, Precision, TranscribeOptions
from sidecar.jobs.duration_prediction import DurationFile, DurationPredictor, estimate_remaining_s
from sidecar.jobs.job_event_log import JobEventLog, JobListener
from sidecar.jobs.job_queue import DispatchOptions, JobQueue, SubmissionQueue
from sidecar.jobs.job_runner import Job, OptionsPlanner
from sidecar.jobs.job_store import JobStore, LocalJobStore
from sidecar.jobs.job_telemetry import count_event
from sidecar.jobs.persistent_recordings import PersistentRecordings
from sidecar.jobs.retention import Retention
from sidecar.jobs.scheduler import JobBatching
from sidecar.observability.logs import default_data_folder
from sidecar.observability.metrics import JobMetrics
from sidecar.transcripts.transcript import Progress
from sidecar.workers.engine_host import EngineHost

if TYPE_CHECKING:
    from sidecar.jobs.recovery import JobPersistence


class EngineProvisioning:
    """Options and memory plan of each job of the engine of a host (``lodging``)."""

    def __init__(self, settings: Settings, lodging: EngineHost[EngineSpec]) -> None:
        self._settings = settings
        self._lodging = lodging
        self._admission = lodging.admission
        self.spec, self.slot = lodging.spec, lodging.slot
        self.batching = JobBatching(settings, lodging)

    def admitted(self, options: TranscribeOptions, audio_s: float | None) -> TranscribeOptions:
        """Return the options with a precision that fits; refuse a job that does
        not fit, before any work."""
        if self._admission is None:
            return options
        now = self._lodging.memory_now()
        precision = self._suited(options, audio_s, now)
        self._admission.planned(precision, audio_s, options, now)
        if options.precision is Precision.AUTO and precision is not self.slot.precision:
            return dataclasses.replace(options, precision=precision)
        return options

    def plan(self, job: Job, precision: Precision) -> TranscribeOptions:
        """Return the job's options with the plan for the memory that is free when it begins."""
        if self._admission is None:
            return job.options
        now, audio_s = self._lodging.memory_now(), job.facts.total_s
        options = self._admission.planned(precision, audio_s, job.options, now)
        self._lodging.expect_peak(self._admission.peak_bytes(precision, audio_s, options))
        return options

    def guess(self, job: Job, precision: Precision) -> float | None:
        """Return a job's seconds of work by its memory plan; None if unknown."""
        if self._admission is None:
            return None
        now = self._lodging.memory_now()
        return self._admission.estimate(precision, job.facts.total_s, job.options, now)[0].seconds

    def forecast(self, audio_s: float | None, options: TranscribeOptions) -> JobForecast:
        """Return whether a recording of ``audio_s`` seconds fits, and how long it takes, by the
        memory that is free now.

        If its duration is unknown, a usual one is assumed.
        """
        if self._admission is None:
            precision = self.spec.resolve_precision(options.precision)
            return JobForecast.small(
                self.spec, precision, audio_s, self._settings.max_audio_hours * 3600
            )
        now = self._lodging.memory_now()
        precision = self._suited(options, audio_s, now)
        return JobForecast.planned(
            audio_s, *self._admission.estimate(precision, audio_s, options, now)
        )

    def _suited(
        self, options: TranscribeOptions, audio_s: float | None, now: MemoryState
    ) -> Precision:
        """Return the precision of a job that arrives now: the requested one, or one that fits."""
        assert self._admission is not None
        precision = self.slot.resolve(options.precision, math.inf)
        if options.precision is Precision.AUTO:
            return self._admission.fitting_precision(precision, audio_s, options, now)
        return precision


class LocalQueueSetup:
    """Queue that runs jobs in this process, and its duration predictor.

    ``provision``: provisioning of each job; ``plan``: planner of the options at its begin;
    ``places``: jobs that run at once; ``model``: the name of the weights, by which durations are
    stored.
    """

    def __init__(
        self,
        settings: Settings,
        provision: EngineProvisioning,
        plan: OptionsPlanner,
        places: int,
        model: str,
    ) -> None:
        self.provision, self.places = provision, places
        self._limit = settings.queue_limit
        self._terms = DispatchOptions(
            plan, settings.max_audio_hours * 3600, provision.batching.company
        )
        self._file = DurationFile(default_data_folder(settings.data_dir))
        self.pace = DurationPredictor(provision.spec.name, model, self._file.read())

    def queue(self, log: JobEventLog) -> JobQueue:
        """Return a queue that writes to a log."""
        return JobQueue(
            self.provision.slot,
            log,
            self._terms,
            limit=self._limit,
            places=self.places,
            guess=self.provision.guess,
            pace=self.pace,
        )

    def remaining_s(self, progress: Progress, elapsed_s: float, resumed_s: float) -> float | None:
        """Predict the seconds until a job ends that has this progress, and whose attempt has run
        for ``elapsed_s`` since ``resumed_s`` of the audio."""
        slot = self.provision.slot
        known = self.pace.knows(slot.precision)
        work_s = self.pace.seconds(slot.precision, progress.audio_s_total) if known else None
        resumed = progress.fraction_at(resumed_s) or 0.0
        return estimate_remaining_s(work_s, elapsed_s, progress.fraction, resumed)

    def open(self, background: BackgroundTaskGroup) -> None:
        """Persist the durations at intervals."""
        background.spawn("remember the pace", self._file.run(self.pace))

    async def close(self) -> None:
        """Persist the durations."""
        await asyncio.to_thread(self._file.write, self.pace.known)


class JobBackend(Protocol):
    """Job store and queue. ``persistent_recordings``: recordings of durable jobs; None if there are
    none. ``shares``: whether other services have the same jobs."""

    shares: bool
    store: JobStore
    queue: SubmissionQueue
    persistent_recordings: PersistentRecordings | None

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

    def __init__(
        self,
        settings: Settings,
        engine: LocalQueueSetup,
        tally: JobMetrics,
        now: clock.Clock,
    ) -> None:
        self._now, self._engine = now, engine
        self.persistent_recordings: JobPersistence | None = None
        if settings.keeps_jobs:
            from sidecar.jobs.recovery import JobPersistence

            self.persistent_recordings = JobPersistence(settings, now)
        kept = self.persistent_recordings
        self.log: JobEventLog = kept.store if kept else JobEventLog(now)
        self.log.listen(partial(count_event, tally))
        self.queue = engine.queue(self.log)
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
