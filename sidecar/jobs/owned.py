"""The jobs of whoever asks: looked up, followed, ended. A job of another owner is not found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container
from typing import Any, Protocol, TypeVar

from sidecar.access.fair_semaphore import FairSemaphore
from sidecar.access.identity import Identity
from sidecar.errors import (
    JobNotDone,
    JobNotFound,
    SidecarError,
    SpeakerNotFound,
    TranscriptChanged,
)
from sidecar.jobs.events import Cancelled, Edited
from sidecar.jobs.feed import Subscription
from sidecar.jobs.log import JobLog
from sidecar.jobs.record import JobRecord
from sidecar.jobs.retention import Retention
from sidecar.speech.formats import speaker_label
from sidecar.speech.history import Step
from sidecar.speech.people import VoicePrint
from sidecar.speech.transcript import Transcript
from sidecar.threads import Threads

T = TypeVar("T")
EDITS = 2
"""Edits that are worked out side by side; where owners are told apart one of them has one place."""


class Line(Protocol):
    """Who waits and runs: the queue of this service, or of all that share its jobs, each with jobs
    of its own kind."""

    def live(self, job_id: str) -> Any | None:
        """The job with this id, if it waits or runs."""
        ...

    def position(self, job: Any) -> int | None:
        """How many go first; None when it waits no more."""
        ...

    def wait_s(self, job: Any) -> float | None:
        """For about how many seconds others go first; None when it waits no more."""
        ...

    def cancel(self, job: Any) -> None:
        """End a job, waiting or running."""
        ...


class OwnedJobs:
    """What an owner may do with its jobs. Who asks comes first, and is asked here, so that no wire
    can forget to."""

    def __init__(self, store: JobLog, queue: Line, results: Retention) -> None:
        self._store = store
        self._queue = queue
        self._results = results
        self._editing, self._threads = FairSemaphore(EDITS), Threads("edit", EDITS)

    def job(self, caller: Identity, job_id: str) -> JobRecord:
        """The caller's job with this id.

        Raises:
            errors.JobNotFound: there is none, or it is another's.
        """
        record = _own(caller, self._store.get(job_id))
        if not record.kept:
            raise JobNotFound()
        return record

    def jobs(self, caller: Identity) -> list[JobRecord]:
        """All jobs of the caller that can be asked for, oldest first."""
        return [one for one in self._store.all() if one.kept and one.owner == caller.owner]

    def on_their_way(self, caller: Identity) -> list[JobRecord]:
        """Those of the caller that wait or run, with those whose clients wait for them at some
        service and which nobody can ask for."""
        return [one for one in self._store.all() if one.owner == caller.owner and not one.over]

    async def answer(
        self, caller: Identity, record: JobRecord, render: Callable[[], bytes]
    ) -> bytes:
        """What ``render`` makes of a job, without keeping anybody waiting; of one that has ended it
        is made once.

        Raises:
            errors.JobNotFound: it is another's.
        """
        if _own(caller, record).over and record.durable:
            with contextlib.suppress(SidecarError):  # it is as it is; the next start says otherwise
                await self._store.written(record.id)
        return await self._results.answer(record, render)

    def events(self, caller: Identity, record: JobRecord, after: int = 0) -> Subscription:
        """What happened to a job behind the event ``after``, and then what comes, as it comes.

        Raises:
            errors.JobNotFound: it is another's, or was forgotten.
        """
        return self._store.subscribe(_own(caller, record).id, after)

    def position(self, caller: Identity, record: JobRecord) -> int | None:
        """How many jobs go before this one; None when it does not wait.

        Raises:
            errors.JobNotFound: it is another's.
        """
        live = self._queue.live(_own(caller, record).id)
        return self._queue.position(live) if live is not None else None

    def wait_s(self, caller: Identity, record: JobRecord) -> float | None:
        """For about how many seconds others go before this one; None when it does not wait.

        Raises:
            errors.JobNotFound: it is another's.
        """
        live = self._queue.live(_own(caller, record).id)
        return self._queue.wait_s(live) if live is not None else None

    def cancel(self, caller: Identity, record: JobRecord) -> None:
        """End a job; one that has ended stays as it is.

        Raises:
            errors.JobNotFound: it is another's.
        """
        live = self._queue.live(_own(caller, record).id)
        if live is not None:
            self._queue.cancel(live)
        elif record.durable and not self._store.get(record.id).over:
            # It was kept over a start, and its recording is still being opened.
            self._store.append(record.id, Cancelled())

    async def end(self, caller: Identity, record: JobRecord) -> None:
        """`cancel`, and wait until the next start would not go on with it either.

        Raises:
            errors.JobNotFound: it is another's.
            errors.DiskFull, errors.SpoolUnwritable: it has ended, but that cannot be kept.
        """
        self.cancel(caller, record)
        await self._settled(record)

    async def delete(self, caller: Identity, record: JobRecord) -> None:
        """End a job if it has not ended, and forget it and its transcript; on the disk too, once
        this returns.

        Raises:
            errors.JobNotFound: it is another's.
            errors.DiskFull, errors.SpoolUnwritable: it is still on the disk, and goes from there
                with the next that can be written.
        """
        self.cancel(caller, record)
        self._results.forget(record.id)
        await self._settled(record)

    async def delete_all(self, caller: Identity) -> int:
        """`delete` of each of the caller's, with those whose clients wait for the answer; how many.
        What was asked for before is done, too, once this returns.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: as `delete`.
        """
        own = [one for one in self._store.all() if one.owner == caller.owner]
        for record in own:
            with contextlib.suppress(JobNotFound):  # the end of another made room for that one
                self.cancel(caller, record)
            self._results.forget(record.id)
        for record in own:
            await self._settled(record)
        await self._store.written()
        return len(own)

    def voice(self, caller: Identity, job_id: str, speaker: str) -> VoicePrint:
        """What a speaker of a job that has ended sounds like; ``speaker`` as a transcript says it.

        Raises:
            errors.JobNotFound, errors.JobNotDone: there is no such job of the caller's, or not yet.
            errors.SpeakerNotFound: it has no such speaker, or too little is known of the voice.
        """
        record = self.job(caller, job_id)
        if not record.over:
            raise JobNotDone()
        for one in record.transcript.voices if record.transcript is not None else ():
            if speaker_label(one.speaker) == speaker and one.print is not None:
                return one.print
        raise SpeakerNotFound()

    def transcript(self, caller: Identity, job_id: str) -> tuple[JobRecord, Transcript]:
        """The caller's job with this id, and what was said in it.

        Raises:
            errors.JobNotFound: there is none, or it is another's.
            errors.JobNotDone: it has not ended.
            errors.SidecarError: why there is no transcript.
        """
        record = self.job(caller, job_id)
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
            record, before = self.transcript(caller, job_id)
            if revisions is not None and record.history.revision not in revisions:
                raise TranscriptChanged(f"The transcript is of revision {record.history.revision}.")
            after = await self.in_turn(caller, record.history.after, before, step, 0.0)
            edited, now = self.transcript(caller, job_id)
            if now is before:  # nobody edited it meanwhile
                break
        if after is not None:
            edited = self._store.append(record.id, Edited(step, (before, after[1])))
        await self._settled(edited)
        return before, edited

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
        return await self._results.written(_own(caller, record), render)

    async def _settled(self, record: JobRecord) -> None:
        if record.durable:
            await self._store.written(record.id)


def _own(caller: Identity, record: JobRecord) -> JobRecord:
    """The job, if it is the caller's; another's is not there."""
    if record.owner != caller.owner:
        raise JobNotFound()
    return record
