"""Jobs of one owner: lookup, subscription, edits, split speaker, recordings, deletion."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from sidecar import errors
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import FairOwnerSemaphore
from sidecar.concurrency import ThreadLimiter
from sidecar.jobs.job_event_log import JobSubscription
from sidecar.jobs.job_record import EditedChange, JobRecord
from sidecar.jobs.job_store import JobFilter, JobStore
from sidecar.jobs.persistent_recordings import PersistentRecordings, unreadable_error
from sidecar.jobs.wait_queue import QueuePosition
from sidecar.storage.encryption import DecryptionFailed, EncryptedFile
from sidecar.transcripts import transcript_edits
from sidecar.transcripts.transcript import SpeakerEmbedding, Transcript
from sidecar.transcripts.transcript_formats import speaker_label
from sidecar.workers.audio_probe import AudioProbe

T = TypeVar("T")
UNFINISHED_JOB_RETRY_AFTER_S = 2
"""Retry-After of a request for the transcript of a job that still waits or runs."""


class OwnedJobs:
    """Jobs of owners. Every method takes the caller first and checks that the job belongs to it, so
    that no protocol can omit the check.

    Every method that waits raises `errors.JournalUnreachable` if the database does not answer.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._rendering = WeakValueDictionary[str, asyncio.Lock]()
        """A lock for each owner: none of another's results waits for its long ones."""

    async def job(self, caller: Identity, job_id: str) -> JobRecord:
        """Return the caller's job with this id.

        Raises:
            errors.JobNotFound: there is none, or it belongs to another owner.
        """
        record = _require_owned(caller, await self._store.get(job_id))
        if not record.kept:
            raise errors.JobNotFound()
        return record

    async def read(self, caller: Identity, job_id: str) -> JobRecord:
        """Return the caller's job; if it has ended, its retention starts anew.

        Raises:
            errors.JobNotFound: as `job`.
        """
        record = await self.job(caller, job_id)
        if record.over:
            with suppress(errors.JournalUnreachable):  # the next read renews it
                await self._store.renew(record)
        return record

    async def jobs(self, caller: Identity, only: JobFilter | None = None) -> Sequence[JobRecord]:
        """Return the caller's jobs, oldest first, as `JobStore.list`.

        Raises:
            errors.JobNotFound: no such job has the id `JobFilter.after`.
        """
        return await self._store.list(caller.owner, only)

    async def events(self, caller: Identity, record: JobRecord, after: int = 0) -> JobSubscription:
        """Return the events of a job after the number ``after``, stored and future.

        Raises:
            errors.JobNotFound: it belongs to another owner, or was deleted.
        """
        return await self._store.subscribe(_require_owned(caller, record).id, after)

    async def turns(
        self, caller: Identity, records: Sequence[JobRecord]
    ) -> Mapping[str, QueuePosition]:
        """Return the queue positions of the jobs that wait, by id. They are predictions: empty
        while the database does not answer.

        Raises:
            errors.JobNotFound: one of the jobs belongs to another owner.
        """
        with suppress(errors.JournalUnreachable):
            return await self._store.turns([_require_owned(caller, one) for one in records])
        return {}

    async def expires_in_s(
        self, caller: Identity, records: Sequence[JobRecord]
    ) -> Mapping[str, float]:
        """Return the seconds until jobs are deleted for their age, by id, as
        `JobStore.expires_in_s`; empty while the database does not answer.

        Raises:
            errors.JobNotFound: one of the jobs belongs to another owner.
        """
        ended = [_require_owned(caller, one) for one in records if one.over]
        with suppress(errors.JournalUnreachable):
            return await self._store.expires_in_s(ended) if ended else {}
        return {}

    def hang_up(self, caller: Identity, record: JobRecord) -> None:
        """Cancel a job without waiting, because its client has disconnected; a job that has ended
        does not change.

        Raises:
            errors.JobNotFound: it belongs to another owner.
        """
        self._store.cancel_soon(_require_owned(caller, record).id)

    async def cancel(self, caller: Identity, record: JobRecord) -> JobRecord:
        """Cancel a job and return it as it is then; a job that has ended does not change.

        Raises:
            errors.JobNotFound: it belongs to another owner.
            errors.DiskFull, errors.SpoolUnwritable: it has ended, but that is not persisted.
        """
        return await self._store.cancel(_require_owned(caller, record).id)

    async def delete(self, caller: Identity, record: JobRecord) -> None:
        """Cancel a job if it has not ended, and delete it with its transcript; once this returns,
        also on the disk.

        Raises:
            errors.JobNotFound: it belongs to another owner.
            errors.DiskFull, errors.SpoolUnwritable: it is still on the disk, and is deleted there
                with the next write that succeeds.
        """
        await self._store.delete(_require_owned(caller, record).id)

    async def delete_all(self, caller: Identity) -> int:
        """`delete` all of the caller's jobs, private ones too; return how many there were.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: as `delete`.
        """
        return await self._store.delete_owner(caller.owner)

    async def voice(self, caller: Identity, job_id: str, speaker: str) -> SpeakerEmbedding:
        """Return the embedding of a speaker of a job that has ended; ``speaker``: the label in a
        transcript.

        Raises:
            errors.JobNotFound, errors.JobNotDone: the caller has no such job, or it has not ended.
            errors.SpeakerNotFound: it has no such speaker, or the speaker has no embedding.
        """
        record = await self.job(caller, job_id)
        if not record.over:
            raise errors.JobNotDone(retry_after=UNFINISHED_JOB_RETRY_AFTER_S)
        for one in record.transcript.voices if record.transcript is not None else ():
            if speaker_label(one.speaker) == speaker and one.print is not None:
                return one.print
        raise errors.SpeakerNotFound()

    async def transcript(self, caller: Identity, job_id: str) -> tuple[JobRecord, Transcript]:
        """Return the caller's job with this id, and its transcript.

        Raises:
            errors.JobNotFound: there is none, or it belongs to another owner.
            errors.JobNotDone: it has not ended.
            errors.SidecarError: why there is no transcript.
        """
        record = await self.job(caller, job_id)
        if not record.over:
            raise errors.JobNotDone(retry_after=UNFINISHED_JOB_RETRY_AFTER_S)
        if record.error is not None:
            raise record.error.error()
        assert record.transcript is not None
        return record, record.transcript

    async def written(
        self, caller: Identity, record: JobRecord, render: Callable[[], bytes]
    ) -> bytes:
        """Return a result in one of its formats, as ``render`` makes it in a thread, one at a time
        for each owner.

        Raises:
            errors.JobNotFound: it belongs to another owner.
        """
        owner = _require_owned(caller, record).owner
        async with self._rendering.setdefault(owner, asyncio.Lock()):
            form = await asyncio.to_thread(render)
        self._store.note_fetched(record)
        return form


def _require_owned(caller: Identity, record: JobRecord) -> JobRecord:
    """Return the job if the caller owns it; raise `errors.JobNotFound` otherwise."""
    if record.owner != caller.owner:
        raise errors.JobNotFound()
    return record


MAX_CONCURRENT_READS = 2
"""Reads of recordings from the disk that run at once."""


class OwnedRecordings:
    """Recordings of jobs for playback by their owners; none without a ``keeping``."""

    def __init__(self, owned: OwnedJobs, keeping: PersistentRecordings | None) -> None:
        self._owned, self._keeping = owned, keeping
        self._threads = ThreadLimiter("listen", MAX_CONCURRENT_READS)

    def has(self, job: JobRecord) -> bool:
        """Return whether a job's recording is stored, as far as is known
        without a look at the storage."""
        return self._keeping is not None and self._keeping.shelf.has(job)

    async def open(self, caller: Identity, job_id: str) -> EncryptedFile:
        """Return the recording of the caller's job.

        Raises:
            errors.JobNotFound: there is no such job, or it belongs to another owner.
            errors.RecordingNotKept: its recording is not stored.
            errors.AudioLost: the stored file was changed.
            errors.StorageUnreachable, errors.MachineBusy: it cannot be read now.
        """
        job = await self._owned.read(caller, job_id)
        if self._keeping is None:
            raise errors.RecordingNotKept()
        return await self._threads.run(self._keeping.recording, job)

    async def read(self, file: EncryptedFile, at: int, most: int) -> bytes:
        """Return at most ``most`` bytes of a recording from the offset ``at``.

        Raises:
            errors.AudioLost: the stored file was changed.
            errors.RecordingNotKept: it was deleted.
            errors.StorageUnreachable, errors.MachineBusy: it cannot be read now.
        """
        try:
            return await self._threads.run(file.read, at, most)
        except FileNotFoundError:  # deleted a moment ago
            raise errors.RecordingNotKept() from None
        except (OSError, DecryptionFailed) as error:
            raise unreadable_error(error) from None

    async def pieces(
        self, file: EncryptedFile, begin: int, end: int
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a recording from ``begin`` to before ``end``.

        Raises:
            errors.AudioLost: the stored file was changed.
            errors.StorageUnreachable, errors.MachineBusy: it cannot be read now.
        """
        while begin < end:
            piece = await self.read(file, begin, end - begin)
            begin += len(piece)
            yield piece


MAX_CONCURRENT_EDITS = 2
"""Edits that are computed at once; an owner has at most one of them if owners are distinguished."""


@dataclass(frozen=True, slots=True)
class SpeakerSplit:
    """Split of a speaker by voice: the segments of each resulting speaker, the original first.
    ``likeness``: the cosine between the two most similar of them."""

    speaker: int
    segments: tuple[tuple[int, tuple[int, ...]], ...]
    likeness: float


SPLIT_ATTEMPTS = 3
"""Attempts of a split by voice while others edit the transcript."""


class TranscriptEditor:
    """Editor of the caller's transcripts; embeddings are compared in the audio probe's process."""

    def __init__(self, jobs: OwnedJobs, store: JobStore, intake: AudioProbe) -> None:
        self._jobs, self._store, self._intake = jobs, store, intake
        self._editing = FairOwnerSemaphore(MAX_CONCURRENT_EDITS)
        self._threads = ThreadLimiter("edit", MAX_CONCURRENT_EDITS)

    async def edit(
        self,
        caller: Identity,
        job_id: str,
        wished: transcript_edits.EditStepRequest,
        revisions: Container[int] | None = None,
    ) -> tuple[Transcript, JobRecord, tuple[SpeakerSplit, ...]]:
        """Apply a step of edits to a transcript, all of it or nothing. Return the transcript before
        it, the job after it, and the splits by voice. A step without effect makes no revision.

        ``revisions``: those that the transcript may have; None: any.

        Raises:
            errors.SidecarError: as `OwnedJobs.transcript`.
            errors.TranscriptChanged: it has another revision.
            errors.EditImpossible, errors.EditsFull: the step cannot be applied.
            errors.VoicesNotKept: a speaker cannot be split by voice.
            errors.DiskFull, errors.SpoolUnwritable: it is applied, but cannot be persisted for now.
        """
        for attempt in itertools.count(1):
            record, before = await self._jobs.transcript(caller, job_id)
            if revisions is not None and record.history.revision not in revisions:
                raise errors.TranscriptChanged(
                    f"The transcript is of revision {record.history.revision}."
                )
            step, parts = await self._resolved(caller, before, wished)
            after = await self._in_turn(caller, record.history.after, before, step, 0.0)
            ready = before, before if after is None else after[1]
            try:
                return before, await self._store.edit(record, EditedChange(step, ready)), parts
            except errors.TranscriptChanged:  # another edit came first
                if parts and attempt == SPLIT_ATTEMPTS:
                    raise
        raise AssertionError("the loop has no end")

    async def _in_turn(self, caller: Identity, work: Callable[..., T], *args: Any) -> T:
        """Return the result of ``work`` on a transcript, computed in a thread when it is the
        caller's turn: it may take seconds of a core."""
        async with self._editing.held(caller):
            return await self._threads.run(work, *args)

    async def _resolved(
        self, caller: Identity, transcript: Transcript, wished: transcript_edits.EditStepRequest
    ) -> tuple[transcript_edits.EditStep, tuple[SpeakerSplit, ...]]:
        """Return the step, and the speaker splits that it makes; each operation acts on the result
        of those before it."""
        if isinstance(wished, transcript_edits.UndoStep | transcript_edits.RedoStep):
            return wished, ()
        step: list[transcript_edits.EditOperation] = []
        parts: list[SpeakerSplit] = []
        for number, wish in enumerate(wished):
            if not isinstance(wish, transcript_edits.SplitSpeakerRequest):
                step.append(wish)
                continue
            now = await self._in_turn(
                caller, transcript_edits.apply_operations, transcript, tuple(step)
            )
            try:
                splits, part = await self._parted(caller, now, wish)
            except errors.EditImpossible as error:
                raise errors.EditImpossible(f"Operation {number}: {error.detail}") from None
            step += splits
            parts.append(part)
        return tuple(step), tuple(parts)

    async def _parted(
        self, caller: Identity, now: Transcript, wish: transcript_edits.SplitSpeakerRequest
    ) -> tuple[list[transcript_edits.SplitSegments], SpeakerSplit]:
        places = transcript_edits.segments_of_speaker(now, wish.speaker)
        if not now.prints:
            raise errors.VoicesNotKept()
        found = await self._intake.parted(caller, [now.prints[at] for at in places], wish.into)
        if found is None:
            raise errors.EditImpossible(
                f"the segments of {speaker_label(wish.speaker)} cannot be split by voice "
                f"into {wish.into or 2} speakers: too few of them are long enough."
            )
        groups, likeness = found
        of = [
            tuple(at for at, group in zip(places, groups, strict=True) if group == one)
            for one in range(max(groups) + 1)
        ]
        splits = [transcript_edits.SplitSegments(segments) for segments in of[1:]]
        after = transcript_edits.apply_operations(now, splits)
        whose = tuple((after.segments[one[0]].speaker or 0, one) for one in of)
        return splits, SpeakerSplit(wish.speaker, whose, likeness)
