"""Jobs of one process: their store, and what opens it with the queue and the retention."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from sidecar.auth.rate_limits import HOUR_S
from sidecar.bounded_dict import BoundedDict
from sidecar.concurrency import BackgroundTaskGroup
from sidecar.errors import JobNotFound, SidecarError, TranscriptChanged
from sidecar.jobs import job_record, reservations
from sidecar.jobs.faults import passes
from sidecar.jobs.job_event_log import JobEventLog, JobListener, JobSubscription
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import (
    CancelledChange,
    EditedChange,
    JobChange,
    JobEvent,
    JobRecord,
    JobState,
)
from sidecar.jobs.job_store import (
    SAVE_PAUSES_S,
    BackendParts,
    Expiry,
    JobBackend,
    JobFilter,
    OwnerLoad,
    persist_import,
)
from sidecar.jobs.retention import Retention, default_space_bytes
from sidecar.jobs.wait_queue import QueuePosition
from sidecar.observability.health import outcome_of_error
from sidecar.observability.metrics import JobMetrics
from sidecar.transcripts.transcript import Finished

if TYPE_CHECKING:
    from sidecar.jobs.recovery import JobPersistence


log = logging.getLogger(__name__)

END_PERSIST_TIMEOUT_S = 5.0
"""Time for the disk to take the end of a job before its result is answered from memory."""
MAX_OUTLASTED = 1000
"""Owners that are remembered because a recording was far longer than its header said."""


class LocalJobStore:
    """`JobStore` of a service that shares its jobs with no other."""

    save_pauses_s = SAVE_PAUSES_S

    def __init__(
        self,
        event_log: JobEventLog,
        queue: JobQueue,
        retention: Retention,
        end_persist_timeout_s: float = END_PERSIST_TIMEOUT_S,
    ) -> None:
        """``end_persist_timeout_s``: seconds for the disk to take the end of a job."""
        self._event_log, self._queue, self._retention = event_log, queue, retention
        self._end_persist_timeout_s = end_persist_timeout_s
        self._outlasted = BoundedDict[str, float](MAX_OUTLASTED)
        """Owners, and when one of their recordings was far longer than its header said."""
        self._ends = dict[str, asyncio.Task[None]]()
        """Durable jobs whose ends are being persisted."""
        event_log.listen(self._on_event)

    async def get(self, job_id: str) -> JobRecord:
        """As `JobStore.get`; an end is answered once it is persisted, if that works and is soon."""
        await self._end_settled(job_id)
        return self._event_log.get(job_id)

    async def by_key(self, owner: str, name: str) -> JobRecord | None:
        """As `JobStore.by_key`."""
        return self._event_log.by_key(owner, name)

    async def list(self, owner: str, job_filter: JobFilter | None = None) -> Sequence[JobRecord]:
        """As `JobStore.list`."""
        job_filter = job_filter or JobFilter()
        own = [one for one in self._all_of(owner) if one.kept or job_filter.private]
        if job_filter.after is not None:
            ids = [one.id for one in own]
            if job_filter.after not in ids:
                raise JobNotFound()
            own = own[ids.index(job_filter.after) + 1 :]
        found = (one for one in own if not job_filter.states or one.state in job_filter.states)
        return [*islice(found, job_filter.limit)]

    async def subscribe(self, job_id: str, after: int = 0) -> JobSubscription:
        """As `JobStore.subscribe`; an end is told as `get` answers it."""
        subscription = self._event_log.subscribe(job_id, after)
        subscription.end_settled = partial(self._end_settled, job_id)
        return subscription

    async def cancel(self, job_id: str) -> JobRecord:
        """As `JobStore.cancel`."""
        record = self._cancel(self._event_log.get(job_id))
        await self._persisted(record)
        return record

    def cancel_soon(self, job_id: str) -> None:
        """As `JobStore.cancel_soon`; the job has ended when this returns."""
        with suppress(JobNotFound):
            self._cancel(self._event_log.get(job_id))

    async def delete(self, job_id: str, seq: int | None = None) -> None:
        """As `JobStore.delete`."""
        try:
            record = self._event_log.get(job_id)
        except JobNotFound:
            await self._event_log.written(job_id)  # its deletion may not be persisted yet
        else:
            if seq not in (None, record.seq):
                raise TranscriptChanged()
            self._delete(record)
            await self._persisted(record)

    async def delete_owner(self, owner: str) -> int:
        """As `JobStore.delete_owner`; earlier deletions are persisted, too."""
        own = self._all_of(owner)
        for record in own:
            with suppress(JobNotFound):  # the retention may have deleted it when another job ended
                self._delete(record)
        for record in own:
            await self._persisted(record)
        await self._event_log.written()
        return len(own)

    async def edit(self, record: JobRecord, change: EditedChange) -> JobRecord:
        """As `JobStore.edit`."""
        if self._event_log.get(record.id).seq != record.seq:
            raise TranscriptChanged()
        self._retention.check_edit(record.owner)
        edited = self._event_log.append(record.id, change)
        await self._persisted(edited)
        return edited

    async def kept_diarization(self, record: JobRecord) -> str | None:
        """As `JobStore.kept_diarization`."""
        kept = (event.kept_diarization for event in reversed(self._event_log.events(record.id)))
        return next((one for one in kept if one is not None), None)

    async def import_ended(self, record: JobRecord, changes: Sequence[JobChange]) -> JobRecord:
        """As `JobStore.import_ended`. If a full disk, for example, does not take the job, that is
        raised, but the job stays in memory, as its words may be nowhere else, and is persisted once
        the disk takes it."""
        self._event_log.add(record)
        ended = record
        try:
            for change in changes:
                ended = self._event_log.append(record.id, change)
            await persist_import(partial(self._persisted, record), self.save_pauses_s)
        except Exception as error:  # if the service ends meanwhile, its end persists the job
            if passes(error):
                log.warning("job %s is in memory until it can be persisted: %s", record.id, error)
            else:
                self._event_log.delete(record.id)
            raise
        return ended

    async def positions(self, records: Sequence[JobRecord]) -> Mapping[str, QueuePosition]:
        """As `JobStore.positions`."""
        found = ((record.id, self._queue.position(record.id)) for record in records)
        return {job_id: position for job_id, position in found if position is not None}

    async def renew(self, record: JobRecord) -> None:
        """As `JobStore.renew`."""
        self._retention.renew(record.id)

    async def expiries(self, records: Sequence[JobRecord]) -> Mapping[str, Expiry]:
        """As `JobStore.expiries`."""
        return self._retention.expiries(records)

    async def load(self, owner: str) -> OwnerLoad:
        """As `JobStore.load`."""
        jobs = self._queue.of(owner)
        waiting = [one.audio_info for one in jobs if one.state is JobState.QUEUED]
        late = time.monotonic() - self._outlasted.get(owner, -math.inf) < HOUR_S
        least_s = reservations.UNKNOWN_AUDIO_CHARGE_S if late else 0.0
        audio_s = sum(
            reservations.charged_audio_s(one.work_s, least_s, one.channels) for one in waiting
        )
        return OwnerLoad(len(jobs), len(waiting), audio_s, least_s)

    def note_fetched(self, record: JobRecord) -> None:
        """As `JobStore.note_fetched`."""
        self._retention.note_fetched(record.id)

    def _on_event(self, record: JobRecord, event: JobEvent) -> None:
        if reservations.outlasts_header(record):
            self._outlasted[record.owner] = time.monotonic()
        if record.durable and record.over and event.ends:
            self._ends[record.id] = asyncio.get_running_loop().create_task(
                self._end_persisted(record)
            )

    async def _end_settled(self, job_id: str) -> None:
        if (end := self._ends.get(job_id)) is not None:
            await asyncio.wait({end})

    async def _end_persisted(self, record: JobRecord) -> None:
        with suppress(SidecarError, TimeoutError):  # the writer tries on
            async with asyncio.timeout(self._end_persist_timeout_s):
                await self._persisted(record)
        self._ends.pop(record.id, None)

    def _all_of(self, owner: str) -> Sequence[JobRecord]:
        return [one for one in self._event_log.all() if one.owner == owner]

    def _cancel(self, record: JobRecord) -> JobRecord:
        """Cancel a job and return it as it is then; a private one may be deleted by that."""
        if record.over:
            return record
        if (live := self._queue.live(record.id)) is not None:
            self._queue.cancel(live)
            return live.record
        # the service ends, and leaves it to the next start
        return self._event_log.append(record.id, CancelledChange())

    def _delete(self, record: JobRecord) -> None:
        self._cancel(record)
        self._event_log.delete(record.id)

    async def _persisted(self, record: JobRecord) -> None:
        if record.durable:
            await self._event_log.written(record.id)


class LocalJobBackend(JobBackend):
    """`JobBackend` of a service that shares its jobs with no other, in memory or in a file."""

    shares = False

    def __init__(self, parts: BackendParts) -> None:
        settings, now, engine = parts.settings, parts.now, parts.engine
        self._now, self._engine = now, engine
        self.persistent_recordings: JobPersistence | None = None
        self.event_log, folder = JobEventLog(now), None
        if settings.keeps_jobs:
            from sidecar.jobs.recovery import JobPersistence, jobs_folder

            self.persistent_recordings = JobPersistence(settings, now)
            self.event_log, folder = self.persistent_recordings.event_log, jobs_folder(settings)
        self.event_log.listen(partial(count_event, parts.metrics))
        self.queue = engine.queue(self.event_log, parts.plan)
        space_bytes = (settings.job_retention_mb or 0) << 20 or default_space_bytes(folder)
        self.retention = Retention(
            self.event_log, settings.retention_s, space_bytes, parts.metrics, now=now
        )
        """Jobs that have ended, until they expire."""
        self.store = LocalJobStore(self.event_log, self.queue, self.retention)

    def listen(self, listener: JobListener) -> None:
        """Call ``listener`` with the events of all jobs."""
        self.event_log.listen(listener)

    async def open(self, background: BackgroundTaskGroup) -> None:
        """Start the queue, and resume what the last process left."""
        self.queue.open()
        if (persistence := self.persistent_recordings) is not None:
            ended = [record for record in self.event_log.all() if record.over]
            used = {one.id: max(one.touched, self.event_log.last_read(one.id)) for one in ended}
            for record in sorted(ended, key=lambda one: used[one.id]):
                self.retention.remember(record, used[record.id])
            from sidecar.jobs.recovery import requeue_unfinished

            requeue_unfinished(persistence, self.queue)
        self._engine.open(background)

    async def fetched(self) -> None:
        """Wait a moment for clients to fetch results."""
        await self.retention.all_fetched()

    async def close(self) -> None:
        """Stop and release all resources."""
        await self.queue.close()
        await self._engine.close()
        self.retention.close()
        self.event_log.close()


def count_event(metrics: JobMetrics, record: JobRecord, event: JobEvent) -> None:
    """Count an event of a job store; ``record`` is the job after it."""
    since = event.at - record.created
    match event.change:
        case job_record.ReportedChange(Finished(transcript)):
            metrics.done(transcript.duration, record.processing_s, since)
        case job_record.FailedChange(failure):
            error = failure.error()
            metrics.failed(error.code, since, outcome_of_error(error))
        case CancelledChange():
            metrics.cancelled(since)
        case job_record.StartedChange() if record.begun == event.at:
            metrics.began(since)
        case job_record.RequeuedChange(job_record.CountsAs.CRASH):
            metrics.crashed.add()
