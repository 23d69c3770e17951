"""Jobs of the caller: looked up, followed, ended, edited. A job of another owner is not found."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from sidecar.auth.fair_semaphore import FairSemaphore
from sidecar.auth.identity import Identity
from sidecar.errors import (
    JobNotDone,
    JobNotFound,
    JournalUnreachable,
    SpeakerNotFound,
    TranscriptChanged,
)
from sidecar.jobs.events import Edited
from sidecar.jobs.feed import Subscription
from sidecar.jobs.record import ENDED, JobRecord, JobState
from sidecar.jobs.store import JobStore, Turn
from sidecar.threads import Threads
from sidecar.transcripts.history import Step
from sidecar.transcripts.people import VoicePrint
from sidecar.transcripts.transcript import Transcript
from sidecar.transcripts.transcript_formats import speaker_label

T = TypeVar("T")
EDITS = 2
"""Edits that are worked out side by side; where owners are told apart one of them has one place."""
ON_THEIR_WAY = frozenset(JobState) - ENDED


class OwnedJobs:
    """What an owner may do with its jobs. Every call takes the caller first and checks here that
    the job is the caller's, so that no wire can forget it.

    Every call that waits raises `errors.JournalUnreachable` if the database does not answer.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._editing, self._threads = FairSemaphore(EDITS), Threads("edit", EDITS)

    async def job(self, caller: Identity, job_id: str) -> JobRecord:
        """Return the caller's job with this id.

        Raises:
            errors.JobNotFound: there is none, or it is another's.
        """
        record = _own(caller, await self._store.get(job_id))
        if not record.kept:
            raise JobNotFound()
        return record

    async def jobs(
        self,
        caller: Identity,
        *,
        states: frozenset[JobState] = frozenset(),
        after: str | None = None,
        limit: int | None = None,
    ) -> Sequence[JobRecord]:
        """Return the caller's jobs that can be asked for, oldest first, as `JobStore.list`.

        Raises:
            errors.JobNotFound: no such job has the id ``after``.
        """
        return await self._store.list(caller.owner, states=states, after=after, limit=limit)

    async def on_their_way(self, caller: Identity) -> Sequence[JobRecord]:
        """Return the caller's jobs that wait or run, also those that cannot be asked for because
        their clients wait for them at some service."""
        return await self._store.list(caller.owner, states=ON_THEIR_WAY, private=True)

    async def answer(
        self, caller: Identity, record: JobRecord, render: Callable[[], bytes]
    ) -> bytes:
        """Return what ``render`` makes of a job, without blocking the event loop; of one that has
        ended the store may keep it.

        Raises:
            errors.JobNotFound: it is another's.
        """
        return await self._store.answer(_own(caller, record), render)

    async def events(self, caller: Identity, record: JobRecord, after: int = 0) -> Subscription:
        """Return the events of a job behind the number ``after``, and those that come.

        Raises:
            errors.JobNotFound: it is another's, or was deleted.
        """
        return await self._store.subscribe(_own(caller, record).id, after)

    async def turn(self, caller: Identity, record: JobRecord) -> Turn | None:
        """Return the turn of a job; None if it does not wait.

        Raises:
            errors.JobNotFound: it is another's.
        """
        return (await self.turns(caller, [record])).get(record.id)

    async def turns(self, caller: Identity, records: Sequence[JobRecord]) -> Mapping[str, Turn]:
        """Return the turns of the jobs that wait, by id. They are predictions: none while the
        database does not answer.

        Raises:
            errors.JobNotFound: one of them is another's.
        """
        with suppress(JournalUnreachable):
            return await self._store.turns([_own(caller, one) for one in records])
        return {}

    def hang_up(self, caller: Identity, record: JobRecord) -> None:
        """Cancel a job without waiting, because its client has gone; one that has ended stays as it
        is.

        Raises:
            errors.JobNotFound: it is another's.
        """
        self._store.cancel_soon(_own(caller, record).id)

    async def cancel(self, caller: Identity, record: JobRecord) -> JobRecord:
        """End a job and return it as it is then; one that has ended stays as it is.

        Raises:
            errors.JobNotFound: it is another's.
            errors.DiskFull, errors.SpoolUnwritable: it has ended, but that is not persisted.
        """
        return await self._store.cancel(_own(caller, record).id)

    async def delete(self, caller: Identity, record: JobRecord) -> None:
        """End a job if it has not ended, and delete it with its transcript; on the disk too, once
        this returns.

        Raises:
            errors.JobNotFound: it is another's.
            errors.DiskFull, errors.SpoolUnwritable: it is still on the disk, and is deleted there
                with the next write that succeeds.
        """
        await self._store.delete(_own(caller, record).id)

    async def delete_all(self, caller: Identity) -> int:
        """`delete` all of the caller's jobs, private ones too; return how many there were.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: as `delete`.
        """
        return await self._store.delete_owner(caller.owner)

    async def voice(self, caller: Identity, job_id: str, speaker: str) -> VoicePrint:
        """What a speaker of a job that has ended sounds like; ``speaker`` as a transcript says it.

        Raises:
            errors.JobNotFound, errors.JobNotDone: there is no such job of the caller's, or not yet.
            errors.SpeakerNotFound: it has no such speaker, or too little is known of the voice.
        """
        record = await self.job(caller, job_id)
        if not record.over:
            raise JobNotDone()
        for one in record.transcript.voices if record.transcript is not None else ():
            if speaker_label(one.speaker) == speaker and one.print is not None:
                return one.print
        raise SpeakerNotFound()

    async def transcript(self, caller: Identity, job_id: str) -> tuple[JobRecord, Transcript]:
        """The caller's job with this id, and what was said in it.

        Raises:
            errors.JobNotFound: there is none, or it is another's.
            errors.JobNotDone: it has not ended.
            errors.SidecarError: why there is no transcript.
        """
        record = await self.job(caller, job_id)
        if not record.over:
            raise JobNotDone()
        if record.error is not None:
            raise record.error.error()
        assert record.transcript is not None
        return record, record.transcript

    async def edit(
        self, caller: Identity, job_id: str, step: Step, revisions: Container[int] | None = None
    ) -> tuple[Transcript, JobRecord]:
        """Change a transcript, all of the step or nothing; the one before it, and the job after.
        What changes nothing is no revision.

        ``revisions``: those that it may have; any without.

        Raises:
            errors.SidecarError: as `transcript`.
            errors.TranscriptChanged: it has another revision.
            errors.EditImpossible, errors.EditsFull: it cannot be done.
            errors.DiskFull, errors.SpoolUnwritable: it is done, but that cannot be kept for now.
        """
        while True:
            record, before = await self.transcript(caller, job_id)
            if revisions is not None and record.history.revision not in revisions:
                raise TranscriptChanged(f"The transcript is of revision {record.history.revision}.")
            after = await self.in_turn(caller, record.history.after, before, step, 0.0)
            ready = before, before if after is None else after[1]
            with suppress(TranscriptChanged):  # somebody edited it meanwhile
                return before, await self._store.edit(record, Edited(step, ready))

    async def in_turn(self, caller: Identity, work: Callable[..., T], *args: Any) -> T:
        """What the work on a transcript returns or raises, in a thread at the caller's turn: it may
        take seconds of a core."""
        async with self._editing.held(caller):
            return await self._threads.run(work, *args)

    async def written(
        self, caller: Identity, record: JobRecord, render: Callable[[], bytes]
    ) -> bytes:
        """One of the forms of a result, as ``render`` makes it in a thread.

        Raises:
            errors.JobNotFound: it is another's.
        """
        return await self._store.form(_own(caller, record), render)


def _own(caller: Identity, record: JobRecord) -> JobRecord:
    """The job, if it is the caller's; another's is not there."""
    if record.owner != caller.owner:
        raise JobNotFound()
    return record
