"""Job store protocol, and the store of one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from sidecar.errors import JobNotFound, SidecarError, TranscriptChanged
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
from sidecar.jobs.owner_quotas import charged_audio_s
from sidecar.jobs.retention import Retention


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """The place of a waiting job. ``position``: how many jobs go first; ``wait_s``: predicted."""

    position: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class OwnerLoad:
    """The jobs of an owner that have not ended. ``jobs``: waiting and running; ``waiting_audio_s``:
    recordings of unknown length count `allowance.UNSAID_S`."""

    jobs: int
    waiting: int
    waiting_audio_s: float


class JobStore(Protocol):
    """Jobs of all owners. Every call may be repeated.

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

    async def list(
        self,
        owner: str,
        *,
        states: frozenset[JobState] = frozenset(),
        after: str | None = None,
        limit: int | None = None,
        private: bool = False,
    ) -> Sequence[JobRecord]:
        """Return the owner's jobs in some ``states`` (none given: in any), oldest first.

        ``after``: only those behind the job with this id. ``limit``: at most so many. ``private``:
        also those that cannot be asked for (`JobRecord.kept`).

        Raises:
            errors.JobNotFound: no such job has the id ``after``.
        """

    async def subscribe(self, job_id: str, after: int = 0) -> JobSubscription:
        """Return the events of a job behind the number ``after``, and those that come.

        Raises:
            errors.JobNotFound: there is no such job.
        """

    async def cancel(self, job_id: str) -> JobRecord:
        """End a job and return it as it is then; a job that has ended stays as it is.

        Raises:
            errors.JobNotFound: there is no such job.
        """

    def cancel_soon(self, job_id: str) -> None:
        """Cancel a job without waiting; retried in the background until it is persisted."""

    async def delete(self, job_id: str) -> None:
        """End a job if it has not ended, and delete it with its recording. One that is not there is
        deleted already."""

    async def delete_owner(self, owner: str) -> int:
        """`delete` all jobs of an owner, private ones too; return how many there were."""

    async def edit(self, record: JobRecord, change: EditedChange) -> JobRecord:
        """Change the transcript of a job that has ended, and return the job after it. A step that
        changes nothing is not persisted.

        Raises:
            errors.JobNotFound: there is no such job.
            errors.TranscriptChanged: the job is no longer as in ``record``.
        """

    async def import_ended(self, record: JobRecord, changes: Sequence[JobChange]) -> JobRecord:
        """Add a job with all its changes, of which the last ends it, and return it as it is then;
        if that fails, there is no job."""

    async def turns(self, records: Sequence[JobRecord]) -> Mapping[str, QueuePosition]:
        """Return the turn of each job that waits, by its id."""

    async def renew(self, record: JobRecord) -> None:
        """Have the retention of a job that has ended begin anew, because its owner reads it."""

    async def expires_in_s(self, records: Sequence[JobRecord]) -> Mapping[str, float]:
        """Return in how many seconds each job is deleted for its age, by its id; a job that is not
        (it has not ended, or there is no limit) is left out."""

    async def load(self, owner: str) -> OwnerLoad:
        """Return what an owner has now."""

    async def answer(self, record: JobRecord, render: Callable[[], bytes]) -> bytes:
        """Return what ``render`` makes of a job; a store may keep it once the job has ended."""

    async def form(self, record: JobRecord, render: Callable[[], bytes]) -> bytes:
        """Return one of several forms of a result, as ``render`` makes it in a thread."""


class LocalJobStore:
    """The `JobStore` of a service that has its jobs for itself."""

    def __init__(self, log: JobEventLog, queue: JobQueue, results: Retention) -> None:
        self._log, self._queue, self._results = log, queue, results

    async def get(self, job_id: str) -> JobRecord:
        """As `JobStore.get`."""
        return self._log.get(job_id)

    async def by_key(self, owner: str, name: str) -> JobRecord | None:
        """As `JobStore.by_key`."""
        return self._log.by_key(owner, name)

    async def list(
        self,
        owner: str,
        *,
        states: frozenset[JobState] = frozenset(),
        after: str | None = None,
        limit: int | None = None,
        private: bool = False,
    ) -> Sequence[JobRecord]:
        """As `JobStore.list`."""
        own: Sequence[JobRecord] = self._all_of(owner)
        own = [one for one in own if one.kept or private]
        if after is not None:
            own = _records_after(own, after)
        found = (one for one in own if not states or one.state in states)
        return [*islice(found, limit)]

    async def subscribe(self, job_id: str, after: int = 0) -> JobSubscription:
        """As `JobStore.subscribe`."""
        return self._log.subscribe(job_id, after)

    async def cancel(self, job_id: str) -> JobRecord:
        """As `JobStore.cancel`."""
        record = self._cancelled(self._log.get(job_id))
        await self._persisted(record)
        return record

    def cancel_soon(self, job_id: str) -> None:
        """As `JobStore.cancel_soon`; it has ended when this returns."""
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
        """As `JobStore.delete_owner`; what was deleted before is persisted, too."""
        own = self._all_of(owner)
        for record in own:
            with suppress(JobNotFound):  # the end of another made room for that one
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
            await self._persisted(record)
        except BaseException:
            self._log.forget(record.id)
            raise
        return ended

    async def turns(self, records: Sequence[JobRecord]) -> Mapping[str, QueuePosition]:
        """As `JobStore.turns`."""
        found = ((record.id, self._turn(record.id)) for record in records)
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
        audio_s = sum(charged_audio_s(job.facts.total_s) for job in waiting)
        return OwnerLoad(len(self._queue.of(owner)), len(waiting), audio_s)

    async def answer(self, record: JobRecord, render: Callable[[], bytes]) -> bytes:
        """As `JobStore.answer`; of a job that has ended it is rendered once."""
        if record.over:
            with suppress(SidecarError):  # it is as it is; the next start says otherwise
                await self._persisted(record)
        return await self._results.answer(record, render)

    async def form(self, record: JobRecord, render: Callable[[], bytes]) -> bytes:
        """As `JobStore.form`."""
        return await self._results.written(record, render)

    def _all_of(self, owner: str) -> Sequence[JobRecord]:
        return [one for one in self._log.all() if one.owner == owner]

    def _turn(self, job_id: str) -> QueuePosition | None:
        live = self._queue.live(job_id)
        if live is None or (position := self._queue.position(live)) is None:
            return None
        return QueuePosition(position, self._queue.wait_s(live) or 0.0)

    def _cancelled(self, record: JobRecord) -> JobRecord:
        """End a job and return it as it is then; a private one may be forgotten by that."""
        if record.over:
            return record
        ended = [record]

        def heard(after: JobRecord, event: JobEvent) -> None:
            ended.append(after)

        self._log.listen(heard, record.id)
        live = self._queue.live(record.id)
        if live is not None:
            self._queue.cancel(live)
        else:  # it was kept over a start, and its recording is still being opened
            self._log.append(record.id, CancelledChange())
        return ended[-1]

    def _forget(self, record: JobRecord) -> None:
        self._cancelled(record)
        self._log.forget(record.id)

    async def _persisted(self, record: JobRecord) -> None:
        if record.durable:
            await self._log.written(record.id)


def _records_after(records: Sequence[JobRecord], job_id: str) -> Sequence[JobRecord]:
    """Return the records behind the one with this id, which has to be among them."""
    for at, record in enumerate(records, 1):
        if record.id == job_id:
            return records[at:]
    raise JobNotFound()
