"""What owners and wires do with jobs, wherever these are kept: an asynchronous protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecar.jobs.events import Change, Edited
from sidecar.jobs.feed import Subscription
from sidecar.jobs.record import JobRecord, JobState


@dataclass(frozen=True, slots=True)
class Turn:
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
        ...

    async def by_key(self, owner: str, name: str) -> JobRecord | None:
        """Return the owner's job with this idempotency key; None if there is none."""
        ...

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
        ...

    async def subscribe(self, job_id: str, after: int = 0) -> Subscription:
        """Return the events of a job behind the number ``after``, and those that come.

        Raises:
            errors.JobNotFound: there is no such job.
        """
        ...

    async def cancel(self, job_id: str) -> JobRecord:
        """End a job and return it as it is then; a job that has ended stays as it is.

        Raises:
            errors.JobNotFound: there is no such job.
        """
        ...

    def cancel_soon(self, job_id: str) -> None:
        """Cancel a job without waiting; retried in the background until it is persisted."""
        ...

    async def delete(self, job_id: str) -> None:
        """End a job if it has not ended, and delete it with its recording. One that is not there is
        deleted already."""
        ...

    async def delete_owner(self, owner: str) -> int:
        """`delete` all jobs of an owner, private ones too; return how many there were."""
        ...

    async def edit(self, record: JobRecord, change: Edited) -> JobRecord:
        """Change the transcript of a job that has ended, and return the job after it. A step that
        changes nothing is not persisted.

        Raises:
            errors.JobNotFound: there is no such job.
            errors.TranscriptChanged: the job is no longer as in ``record``.
        """
        ...

    async def import_ended(self, record: JobRecord, changes: Sequence[Change]) -> JobRecord:
        """Add a job with all its changes, of which the last ends it, and return it as it is then;
        if that fails, there is no job."""
        ...

    async def turns(self, records: Sequence[JobRecord]) -> Mapping[str, Turn]:
        """Return the turn of each job that waits, by its id."""
        ...

    async def load(self, owner: str) -> OwnerLoad:
        """Return what an owner has now."""
        ...

    async def answer(self, record: JobRecord, render: Callable[[], bytes]) -> bytes:
        """Return what ``render`` makes of a job; a store may keep it once the job has ended."""
        ...

    async def form(self, record: JobRecord, render: Callable[[], bytes]) -> bytes:
        """Return one of several forms of a result, as ``render`` makes it in a thread."""
        ...
