"""Job store and job backend, of this process (`jobs.local_jobs`) or shared by several services."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecar import clock, errors
from sidecar.concurrency import BackgroundTaskGroup
from sidecar.config.settings import Settings
from sidecar.jobs.faults import passes
from sidecar.jobs.job_engine import JobEngine
from sidecar.jobs.job_event_log import JobListener, JobSubscription
from sidecar.jobs.job_queue import SubmissionQueue
from sidecar.jobs.job_record import EditedChange, JobChange, JobRecord, JobState
from sidecar.jobs.job_runner import OptionsPlanner
from sidecar.jobs.persistent_recordings import PersistentRecordings
from sidecar.jobs.wait_queue import QueuePosition
from sidecar.observability.metrics import JobMetrics

SAVE_PAUSES_S: Iterable[float] = 0.25, 0.5, 1.0
"""Pauses between tries to persist a job that is imported: its words may be nowhere else."""


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


@dataclass(frozen=True, slots=True)
class Expiry:
    """When an ended job is deleted, unless its owner reads or edits it before: after ``in_s``
    seconds (None: not for its age), or once newer results fill ``space_left``, a share of the
    owner's space (None: never for that, since it was edited)."""

    in_s: float | None = None
    space_left: float | None = None


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

    async def list(self, owner: str, job_filter: JobFilter | None = None) -> Sequence[JobRecord]:
        """Return the owner's jobs, oldest first; ``job_filter``: None for all that can be read by
        id.

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

    async def delete(self, job_id: str, seq: int | None = None) -> None:
        """Cancel a job if it has not ended, and delete it with its recording. An unknown id does
        nothing. ``seq``: only if that is the number of its last event.

        Raises:
            errors.TranscriptChanged: the job has another last event.
        """

    async def delete_owner(self, owner: str) -> int:
        """`delete` all jobs of an owner, private ones too; return how many there were."""

    async def edit(self, record: JobRecord, change: EditedChange) -> JobRecord:
        """Edit the transcript of a job that has ended, and return the job after it. A step without
        effect is not persisted.

        Raises:
            errors.EditsFull: the edited transcripts of its owner fill the owner's space.
            errors.JobNotFound: there is no such job.
            errors.TranscriptChanged: the job has changed since ``record``.
        """

    async def kept_diarization(self, record: JobRecord) -> str | None:
        """Return what the engine kept of a job's diarization
        (`diarization.kept_diarization`, base64); None if it kept nothing.

        Raises:
            errors.JobNotFound: there is no such job.
        """

    async def import_ended(self, record: JobRecord, changes: Sequence[JobChange]) -> JobRecord:
        """Add a job with all its changes, of which the last ends it, and return it as it is then;
        if that fails, there is no job.

        Raises:
            JobIdTaken: there is a job with its id, or was a moment ago.
        """

    async def positions(self, records: Sequence[JobRecord]) -> Mapping[str, QueuePosition]:
        """Return the queue positions of the jobs that wait, by id."""

    async def renew(self, record: JobRecord) -> None:
        """Restart the retention of a job that has ended, because its owner reads it."""

    async def expiries(self, records: Sequence[JobRecord]) -> Mapping[str, Expiry]:
        """Return when jobs of one owner are deleted, by id; those that have not ended are left
        out."""

    async def load(self, owner: str) -> OwnerLoad:
        """Return the present load of an owner."""

    def note_fetched(self, record: JobRecord) -> None:
        """Note that a client has the result of a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendParts:
    """What a backend is built from. ``plan`` completes the options of a job that starts;
    ``service_id``: of this process."""

    settings: Settings
    engine: JobEngine
    plan: OptionsPlanner
    metrics: JobMetrics
    now: clock.Clock
    service_id: str


class JobBackend(Protocol):
    """Job store and queue. ``persistent_recordings``: recordings of durable jobs; None if there are
    none. ``shares``: whether other services have the same jobs."""

    shares: bool
    store: JobStore
    queue: SubmissionQueue
    persistent_recordings: PersistentRecordings | None

    @property
    def reachable(self) -> bool:
        """Return whether the store answers."""
        return True

    async def count(self) -> None:
        """Update the counts of jobs of all services, if the store answers quickly."""

    def listen(self, listener: JobListener) -> None:
        """Call ``listener`` with the events of jobs that are accepted here."""

    async def open(self, background: BackgroundTaskGroup) -> None:
        """Start the queue and the background tasks."""

    async def fetched(self) -> None:
        """Wait a moment for clients to fetch results that are lost with this process."""

    async def close(self) -> None:
        """Stop and release all resources."""


async def persist_import(call: Callable[[], Awaitable[object]], pauses_s: Iterable[float]) -> None:
    """Persist a job that is imported; retried after each of the pauses if the node or the storage
    is at fault.

    Raises:
        errors.SidecarError: it cannot be persisted.
    """
    for pause_s in pauses_s:
        try:
            await call()
            return
        except errors.SidecarError as error:
            if not passes(error):
                raise
        await asyncio.sleep(pause_s)
    await call()
