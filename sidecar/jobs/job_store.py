"""Job store protocol, and the store of one process."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol

from sidecar import errors
from sidecar.auth.rate_limits import HOUR_S
from sidecar.bounded_dict import BoundedDict
from sidecar.errors import JobNotFound, TranscriptChanged
from sidecar.jobs import reservations
from sidecar.jobs.faults import Fault, fault_of
from sidecar.jobs.job_event_log import JobEventLog, JobSubscription
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import (
    CancelledChange,
    EditedChange,
    JobChange,
    JobEvent,
    JobRecord,
    JobState,
)
from sidecar.jobs.retention import Retention
from sidecar.jobs.wait_queue import QueuePosition


@dataclass(frozen=True, slots=True)
class OwnerLoad:
    """Unfinished jobs of an owner. ``jobs``: waiting and running. ``waiting_audio_s``: recordings
    of unknown duration count `reservations.UNKNOWN_AUDIO_CHARGE_S`, and so does each shorter one
    (``least_s``) if one of the owner's last recordings was far longer than its header said."""

    jobs: int
    waiting: int
    waiting_audio_s: float
    least_s: float = 0.0


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Choice among an owner's jobs.

    ``states``: only those in one of these (none given: in any). ``after``: only those after the job
    with this id. ``limit``: at most this many. ``private``: also those that cannot be read by id
    (`JobRecord.kept`).
    """

    states: frozenset[JobState] = frozenset()
    after: str | None = None
    limit: int | None = None
    private: bool = False


class JobStore(Protocol):
    """Jobs of all owners. Every method may be repeated.

    All but `cancel_soon` raise:
        errors.JournalUnreachable: the database does not answer.
        errors.DiskFull, errors.SpoolUnwritable: the change is done, but not persisted yet.
    """

    async def get(self, job_id: str) -> JobRecord:
        """Return a job.

        Raises:
            errors.JobNotFound: there is no such job.
        """

    async def by_key(self, owner: str, name: str) -> JobRecord | None:
        """Return the owner's job with this idempotency key; None if there is none."""

    async def list(self, owner: str, only: JobFilter | None = None) -> Sequence[JobRecord]:
        """Return the owner's jobs, oldest first; ``only``: None for all that can be read by id.

        Raises:
            errors.JobNotFound: the owner has no such job with the id `JobFilter.after`.
        """

    async def subscribe(self, job_id: str, after: int = 0) -> JobSubscription:
        """Return the events of a job after the number ``after``, stored and future.

        Raises:
            errors.JobNotFound: there is no such job.
        """

    async def cancel(self, job_id: str) -> JobRecord:
        """Cancel a job and return it as it is then; a job that has ended does not change.

        Raises:
            errors.JobNotFound: there is no such job.
        """

    def cancel_soon(self, job_id: str) -> None:
        """Cancel a job without waiting; retried in the background until it is persisted."""

    async def delete(self, job_id: str) -> None:
        """Cancel a job if it has not ended, and delete it with its recording. An
        unknown id does nothing."""

    async def delete_owner(self, owner: str) -> int:
        """`delete` all jobs of an owner, private ones too; return how many there were."""

    async def edit(self, record: JobRecord, change: EditedChange) -> JobRecord:
        """Edit the transcript of a job that has ended, and return the job after it. A step without
        effect is not persisted.

        Raises:
            errors.JobNotFound: there is no such job.
            errors.TranscriptChanged: the job has changed since ``record``.
        """

    async def import_ended(self, record: JobRecord, changes: Sequence[JobChange]) -> JobRecord:
        """Add a job with all its changes, of which the last ends it, and return it as it is then;
        if that fails, there is no job."""

    async def turns(self, records: Sequence[JobRecord]) -> Mapping[str, QueuePosition]:
        """Return the queue positions of the jobs that wait, by id."""

    async def renew(self, record: JobRecord) -> None:
        """Restart the retention of a job that has ended, because its owner reads it."""

    async def expires_in_s(self, records: Sequence[JobRecord]) -> Mapping[str, float]:
        """Return the seconds until each job is deleted for its age, by id. A job that is not is
        left out: it has not ended, or there is no limit."""

    async def load(self, owner: str) -> OwnerLoad:
        """Return the present load of an owner."""

    def note_fetched(self, record: JobRecord) -> None:
        """Note that a client has the result of a job."""


SAVE_PAUSES_S = 0.25, 0.5, 1.0
"""Pauses between tries to persist a job that is imported: its words may be nowhere else."""


async def persist_import(call: Callable[[], Awaitable[object]]) -> None:
    """Persist a job that is imported; retried for a moment if the node or the storage is at fault.

    Raises:
        errors.SidecarError: it cannot be persisted.
    """
    for pause_s in SAVE_PAUSES_S:
        try:
            await call()
            return
        except errors.SidecarError as error:
            if fault_of(error) is Fault.RECORDING:
                raise
        await asyncio.sleep(pause_s)
    await call()


MAX_OUTLASTED = 1000
"""Owners that are remembered because a recording was far longer than its header said."""


class LocalJobStore:
    """`JobStore` of a service that shares its jobs with no other."""

    def __init__(self, log: JobEventLog, queue: JobQueue, results: Retention) -> None:
        self._log, self._queue, self._results = log, queue, results
        self._outlasted = BoundedDict[str, float](MAX_OUTLASTED)
        """Owners, and when one of their recordings was far longer than its header said."""
        log.listen(self._compare_length)

    async def get(self, job_id: str) -> JobRecord:
        """As `JobStore.get`."""
        return self._log.get(job_id)

    async def by_key(self, owner: str, name: str) -> JobRecord | None:
        """As `JobStore.by_key`."""
        return self._log.by_key(owner, name)

    async def list(self, owner: str, only: JobFilter | None = None) -> Sequence[JobRecord]:
        """As `JobStore.list`."""
        only = only or JobFilter()
        own = [one for one in self._all_of(owner) if one.kept or only.private]
        if only.after is not None:
            ids = [one.id for one in own]
            if only.after not in ids:
                raise JobNotFound()
            own = own[ids.index(only.after) + 1 :]
        found = (one for one in own if not only.states or one.state in only.states)
        return [*islice(found, only.limit)]

    async def subscribe(self, job_id: str, after: int = 0) -> JobSubscription:
        """As `JobStore.subscribe`."""
        return self._log.subscribe(job_id, after)

    async def cancel(self, job_id: str) -> JobRecord:
        """As `JobStore.cancel`."""
        record = self._cancelled(self._log.get(job_id))
        await self._persisted(record)
        return record

    def cancel_soon(self, job_id: str) -> None:
        """As `JobStore.cancel_soon`; the job has ended when this returns."""
        with suppress(JobNotFound):
            self._cancelled(self._log.get(job_id))

    async def delete(self, job_id: str) -> None:
        """As `JobStore.delete`."""
        try:
            record = self._log.get(job_id)
        except JobNotFound:
            await self._log.written(job_id)  # its deletion may not be persisted yet
        else:
            self._forget(record)
            await self._persisted(record)

    async def delete_owner(self, owner: str) -> int:
        """As `JobStore.delete_owner`; earlier deletions are persisted, too."""
        own = self._all_of(owner)
        for record in own:
            with suppress(JobNotFound):  # the retention may have deleted it when another job ended
                self._forget(record)
        for record in own:
            await self._persisted(record)
        await self._log.written()
        return len(own)

    async def edit(self, record: JobRecord, change: EditedChange) -> JobRecord:
        """As `JobStore.edit`."""
        if self._log.get(record.id).seq != record.seq:
            raise TranscriptChanged()
        edited = self._log.append(record.id, change)
        await self._persisted(edited)
        return edited

    async def import_ended(self, record: JobRecord, changes: Sequence[JobChange]) -> JobRecord:
        """As `JobStore.import_ended`."""
        self._log.add(record)
        ended = record
        try:
            for change in changes:
                ended = self._log.append(record.id, change)
            await persist_import(partial(self._persisted, record))
        except BaseException:
            self._log.forget(record.id)
            raise
        return ended

    async def turns(self, records: Sequence[JobRecord]) -> Mapping[str, QueuePosition]:
        """As `JobStore.turns`."""
        found = ((record.id, self._queue.turn(record.id)) for record in records)
        return {job_id: turn for job_id, turn in found if turn is not None}

    async def renew(self, record: JobRecord) -> None:
        """As `JobStore.renew`."""
        self._results.renew(record.id)

    async def expires_in_s(self, records: Sequence[JobRecord]) -> Mapping[str, float]:
        """As `JobStore.expires_in_s`."""
        found = ((one.id, self._results.expires_in_s(one.id)) for one in records)
        return {job_id: in_s for job_id, in_s in found if in_s is not None}

    async def load(self, owner: str) -> OwnerLoad:
        """As `JobStore.load`."""
        waiting = self._queue.of(owner, running=False)
        late = time.monotonic() - self._outlasted.get(owner, -math.inf) < HOUR_S
        least_s = reservations.UNKNOWN_AUDIO_CHARGE_S if late else 0.0
        audio_s = sum(reservations.charged_audio_s(job.facts.total_s, least_s) for job in waiting)
        return OwnerLoad(len(self._queue.of(owner)), len(waiting), audio_s, least_s)

    def note_fetched(self, record: JobRecord) -> None:
        """As `JobStore.note_fetched`."""
        self._results.note_fetched(record.id)

    def _compare_length(self, record: JobRecord, event: JobEvent) -> None:
        if reservations.outlasts_header(record):
            self._outlasted[record.owner] = time.monotonic()

    def _all_of(self, owner: str) -> Sequence[JobRecord]:
        return [one for one in self._log.all() if one.owner == owner]

    def _cancelled(self, record: JobRecord) -> JobRecord:
        """Cancel a job and return it as it is then; a private one may be deleted by that."""
        if record.over:
            return record
        ended = [record]

        def heard(after: JobRecord, event: JobEvent) -> None:
            ended.append(after)

        self._log.listen(heard, record.id)
        live = self._queue.live(record.id)
        if live is not None:
            self._queue.cancel(live)
        else:  # it was recovered, and its recording is still being opened
            self._log.append(record.id, CancelledChange())
        return ended[-1]

    def _forget(self, record: JobRecord) -> None:
        self._cancelled(record)
        self._log.forget(record.id)

    async def _persisted(self, record: JobRecord) -> None:
        if record.durable:
            await self._log.written(record.id)
