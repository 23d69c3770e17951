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
from sidecar.interfaces.request_options import SpeakerCounts
from sidecar.jobs.job_event_log import JobSubscription
from sidecar.jobs.job_record import EditedChange, JobRecord
from sidecar.jobs.job_store import Expiry, JobFilter, JobStore
from sidecar.jobs.persistent_recordings import PersistentRecordings, unreadable_error
from sidecar.jobs.wait_queue import QueuePosition
from sidecar.storage.encryption import DecryptionFailed, EncryptedFile
from sidecar.transcripts import transcript_edits
from sidecar.transcripts.diarized_pieces import DiarizedPieces, WordRange
from sidecar.transcripts.transcript import SpeakerEmbedding, Transcript
from sidecar.transcripts.transcript_formats import speaker_label
from sidecar.workers.audio_probe import AudioProbe

T = TypeVar("T")
UNFINISHED_JOB_RETRY_AFTER_S = 2
"""Retry-After of a request for the transcript of a job that still waits or runs."""
MAX_CONCURRENT_READS = 2
"""Reads of recordings from the disk that run at once."""
MAX_CONCURRENT_EDITS = 2
"""Edits that are computed at once; an owner has at most one of them if owners are distinguished."""
SPLIT_ATTEMPTS = 3
"""Attempts of a split by voice while others edit the transcript."""


class OwnedJobs:
    """Jobs of owners. Every method takes the identity of the owner first and checks that the job
    belongs to it, so that no protocol can omit the check.

    Every method that waits raises `errors.JournalUnreachable` if the database does not answer.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._rendering = WeakValueDictionary[str, asyncio.Lock]()
        """A lock for each owner: none of another's results waits for its long ones."""

    async def job(self, identity: Identity, job_id: str) -> JobRecord:
        """Return the owner's job with this id.

        Raises:
            errors.JobNotFound: there is none, or it belongs to another owner.
        """
        record = _require_owned(identity, await self._store.get(job_id))
        if not record.kept:
            raise errors.JobNotFound()
        return record

    async def read(self, identity: Identity, job_id: str) -> JobRecord:
        """Return the owner's job; if it has ended, its retention starts anew.

        Raises:
            errors.JobNotFound: as `job`.
        """
        record = await self.job(identity, job_id)
        if record.over:
            with suppress(errors.JournalUnreachable):  # the next read renews it
                await self._store.renew(record)
        return record

    async def jobs(
        self, identity: Identity, job_filter: JobFilter | None = None
    ) -> Sequence[JobRecord]:
        """Return the owner's jobs, oldest first, as `JobStore.list`.

        Raises:
            errors.JobNotFound: no such job has the id `JobFilter.after`.
        """
        return await self._store.list(identity.owner, job_filter)

    async def events(
        self, identity: Identity, record: JobRecord, after: int = 0
    ) -> JobSubscription:
        """Return the events of a job after the number ``after``, stored and future.

        Raises:
            errors.JobNotFound: it belongs to another owner, or was deleted.
        """
        return await self._store.subscribe(_require_owned(identity, record).id, after)

    async def positions(
        self, identity: Identity, records: Sequence[JobRecord]
    ) -> Mapping[str, QueuePosition]:
        """Return the queue positions of the jobs that wait, by id. They are predictions: empty
        while the database does not answer.

        Raises:
            errors.JobNotFound: one of the jobs belongs to another owner.
        """
        with suppress(errors.JournalUnreachable):
            return await self._store.positions([_require_owned(identity, one) for one in records])
        return {}

    async def expiries(
        self, identity: Identity, records: Sequence[JobRecord]
    ) -> Mapping[str, Expiry]:
        """Return when jobs are deleted, by id, as `JobStore.expiries`; empty while the database
        does not answer.

        Raises:
            errors.JobNotFound: one of the jobs belongs to another owner.
        """
        ended = [_require_owned(identity, one) for one in records if one.over]
        with suppress(errors.JournalUnreachable):
            return await self._store.expiries(ended) if ended else {}
        return {}

    def cancel_soon(self, identity: Identity, record: JobRecord) -> None:
        """Cancel a job without waiting, because its client has disconnected; a job that has ended
        does not change.

        Raises:
            errors.JobNotFound: it belongs to another owner.
        """
        self._store.cancel_soon(_require_owned(identity, record).id)

    async def cancel(self, identity: Identity, record: JobRecord) -> JobRecord:
        """Cancel a job and return it as it is then; a job that has ended does not change.

        Raises:
            errors.JobNotFound: it belongs to another owner.
            errors.DiskFull, errors.SpoolUnwritable: it has ended, but that is not persisted.
        """
        return await self._store.cancel(_require_owned(identity, record).id)

    async def delete(
        self, identity: Identity, record: JobRecord, revisions: Container[int] | None = None
    ) -> None:
        """Cancel a job if it has not ended, and delete it with its transcript; once this returns,
        also on the disk. ``revisions``: those that the transcript may have; None: any.

        Raises:
            errors.JobNotFound: it belongs to another owner, or was deleted.
            errors.TranscriptChanged: it has another revision; nothing is deleted.
            errors.DiskFull, errors.SpoolUnwritable: it is still on the disk, and is deleted there
                with the next write that succeeds.
        """
        job_id = _require_owned(identity, record).id
        if revisions is None:
            return await self._store.delete(job_id)
        while True:
            _check_revision(record, revisions)
            try:
                return await self._store.delete(job_id, record.seq)
            except errors.TranscriptChanged:  # or an event that is no edit
                record = await self.job(identity, job_id)

    async def delete_all(self, identity: Identity) -> int:
        """`delete` all of the owner's jobs, private ones too; return how many there were.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: as `delete`.
        """
        return await self._store.delete_owner(identity.owner)

    async def embedding(self, identity: Identity, job_id: str, speaker: str) -> SpeakerEmbedding:
        """Return the embedding of a speaker of a job that has ended; ``speaker``: the label in a
        transcript.

        Raises:
            errors.JobNotFound, errors.JobNotDone: the owner has no such job, or it has not ended.
            errors.SpeakerNotFound: it has no such speaker, or the speaker has no embedding.
        """
        record = await self.job(identity, job_id)
        if not record.over:
            raise errors.JobNotDone(retry_after=UNFINISHED_JOB_RETRY_AFTER_S)
        for one in record.transcript.voices if record.transcript is not None else ():
            if speaker_label(one.speaker) == speaker and one.print is not None:
                return one.print
        raise errors.SpeakerNotFound()

    async def transcript(self, identity: Identity, job_id: str) -> tuple[JobRecord, Transcript]:
        """Return the owner's job with this id, and its transcript.

        Raises:
            errors.JobNotFound: there is none, or it belongs to another owner.
            errors.JobNotDone: it has not ended.
            errors.SidecarError: why there is no transcript.
        """
        record = await self.job(identity, job_id)
        if not record.over:
            raise errors.JobNotDone(retry_after=UNFINISHED_JOB_RETRY_AFTER_S)
        if record.error is not None:
            raise record.error.error()
        assert record.transcript is not None
        return record, record.transcript

    async def written(
        self, identity: Identity, record: JobRecord, render: Callable[[], bytes]
    ) -> bytes:
        """Return a result in one of its formats, as ``render`` makes it in a thread, one at a time
        for each owner.

        Raises:
            errors.JobNotFound: it belongs to another owner.
        """
        owner = _require_owned(identity, record).owner
        async with self._rendering.setdefault(owner, asyncio.Lock()):
            form = await asyncio.to_thread(render)
        self._store.note_fetched(record)
        return form


def _require_owned(identity: Identity, record: JobRecord) -> JobRecord:
    """Return the job if this identity owns it; raise `errors.JobNotFound` otherwise."""
    if record.owner != identity.owner:
        raise errors.JobNotFound()
    return record


class OwnedRecordings:
    """Recordings of jobs for playback by their owners; none without ``recordings``."""

    def __init__(self, recordings: PersistentRecordings | None) -> None:
        self._recordings = recordings
        self._threads = ThreadLimiter("listen", MAX_CONCURRENT_READS)

    def has(self, job: JobRecord) -> bool:
        """Return whether a job's recording is stored, as far as is known
        without a look at the storage."""
        return self._recordings is not None and self._recordings.archive.has(job)

    async def open(self, job: JobRecord) -> EncryptedFile:
        """Return the recording of a job, which `OwnedJobs.read` gave its owner.

        Raises:
            errors.RecordingNotKept: its recording is not stored.
            errors.AudioLost: the stored file was changed.
            errors.StorageUnreachable, errors.MachineBusy: it cannot be read now.
        """
        if self._recordings is None:
            raise errors.RecordingNotKept()
        return await self._threads.run(self._recordings.recording, job)

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


@dataclass(frozen=True, slots=True)
class SpeakerSplit:
    """Split of a speaker by voice: the segments of each resulting speaker, the original first.
    ``likeness``: the cosine between the two most similar of them."""

    speaker: int
    segments: tuple[tuple[int, tuple[int, ...]], ...]
    likeness: float


@dataclass(frozen=True, slots=True)
class EditsNotCarried:
    """Edits that the speakers of another diarization do not have: ``names`` of speakers, and the
    ``reassignments`` of segments to speakers since the last one, by hand or by voice."""

    names: tuple[str, ...]
    reassignments: int


def _check_revision(record: JobRecord, revisions: Container[int] | None) -> None:
    if revisions is not None and record.history.revision not in revisions:
        raise errors.TranscriptChanged(f"The transcript is of revision {record.history.revision}.")


def _since_diarization(
    history: transcript_edits.EditHistory,
) -> tuple[Sequence[WordRange] | None, int]:
    """Return the word ranges of the segments after the last diarization by an edit, None if there
    was none, and the reassignments of segments since."""
    reassigned = 0
    for operation in history.effective:
        match operation:
            case transcript_edits.DiarizeAgain(result):
                return DiarizedPieces.from_bytes(result).word_ranges, reassigned
            case (
                transcript_edits.MergeSpeakers()
                | transcript_edits.MoveSegments()
                | transcript_edits.SplitSegments()
            ):
                reassigned += 1
    return None, reassigned


class TranscriptEditor:
    """Editor of an owner's transcripts; embeddings are compared in the audio probe's process."""

    def __init__(self, jobs: OwnedJobs, store: JobStore, probe: AudioProbe) -> None:
        self._jobs, self._store, self._probe = jobs, store, probe
        self._editing = FairOwnerSemaphore(MAX_CONCURRENT_EDITS)
        self._threads = ThreadLimiter("edit", MAX_CONCURRENT_EDITS)

    async def edit(
        self,
        identity: Identity,
        job_id: str,
        request: transcript_edits.EditStepRequest,
        revisions: Container[int] | None = None,
    ) -> tuple[Transcript, JobRecord, tuple[SpeakerSplit, ...]]:
        """Apply a step of edits to a transcript, all of it or nothing. Return the transcript before
        it, the job after it, and the splits by voice. A step without effect makes no revision.

        ``revisions``: those that the transcript may have; None: the request names none. Operations
        need them once the history has a diarization, since which indexes and numbers they mean is
        not known otherwise.

        Raises:
            errors.SidecarError: as `OwnedJobs.transcript`.
            errors.TranscriptChanged: it has another revision, or was diarized again.
            errors.EditImpossible, errors.EditsFull: the step cannot be applied.
            errors.VoicesNotKept: a speaker cannot be split by voice.
            errors.DiskFull, errors.SpoolUnwritable: it is applied, but cannot be persisted for now.
        """
        for attempt in itertools.count(1):
            record, before = await self._jobs.transcript(identity, job_id)
            _check_revision(record, revisions)
            if revisions is None and isinstance(request, tuple) and record.history.diarized_again:
                raise errors.TranscriptChanged(
                    "The transcript was diarized again, so its segments and speakers may have "
                    "other numbers; an edit needs 'If-Match' now."
                )
            step, splits = await self._resolve_request(identity, before, request)
            try:
                return before, await self._edited(identity, record, before, step), splits
            except errors.TranscriptChanged:  # another edit came first
                if splits and attempt == SPLIT_ATTEMPTS:
                    raise
        raise AssertionError("the loop has no end")

    async def diarize(
        self,
        identity: Identity,
        job_id: str,
        counts: SpeakerCounts,
        revisions: Container[int] | None = None,
    ) -> tuple[Transcript, JobRecord, EditsNotCarried]:
        """Diarize a transcript again, as one step that can be undone. Edits of text stay, and names
        go with their speakers. Return the transcript before it, the job after it, and the edits
        that the new speakers do not have.

        Raises:
            errors.SidecarError: as `OwnedJobs.transcript`.
            errors.TranscriptChanged, errors.EditsFull, errors.DiskFull, errors.SpoolUnwritable: as
                `edit`.
            errors.DiarizationNotKept: there is nothing to diarize it from.
            errors.EngineFailed, errors.MachineBusy: no process could do it.
        """
        count: dict[str, int | None] = {}
        if counts.num_speakers is not None:
            count = {"least": counts.num_speakers, "most": counts.num_speakers}
        elif counts.min_speakers is not None or counts.max_speakers is not None:
            count = {"least": counts.min_speakers or 1, "most": counts.max_speakers}
        for attempt in itertools.count(1):
            record, before = await self._jobs.transcript(identity, job_id)
            _check_revision(record, revisions)
            kept = await self._store.kept_diarization(record)
            if kept is None:
                why = f"Nothing was kept of this job's diarization by the engine '{before.engine}'."
                if not before.diarized:
                    why = "The job was transcribed without diarization."
                raise errors.DiarizationNotKept(why)
            word_ranges, reassigned = await self._in_turn(
                identity, _since_diarization, record.history
            )
            result, names = await self._probe.diarized(identity, kept, before, word_ranges, count)
            step = (transcript_edits.DiarizeAgain(result, *counts),)
            try:
                job = await self._edited(identity, record, before, step)
                return before, job, EditsNotCarried(tuple(names), reassigned)
            except errors.TranscriptChanged:  # another edit came first
                if attempt == SPLIT_ATTEMPTS:
                    raise
        raise AssertionError("the loop has no end")

    async def _edited(
        self,
        identity: Identity,
        record: JobRecord,
        before: Transcript,
        step: transcript_edits.EditStep,
    ) -> JobRecord:
        """Return the job after a step on its transcript; raises as `JobStore.edit`."""
        after = await self._in_turn(identity, record.history.after, before, step, 0.0)
        ready = before, before if after is None else after[1]
        return await self._store.edit(record, EditedChange(step, ready))

    async def _in_turn(self, identity: Identity, work: Callable[..., T], *args: Any) -> T:
        """Return the result of ``work`` on a transcript, computed in a thread when it is the
        owner's turn: it may take seconds of a core."""
        async with self._editing.held(identity):
            return await self._threads.run(work, *args)

    async def _resolve_request(
        self, identity: Identity, transcript: Transcript, request: transcript_edits.EditStepRequest
    ) -> tuple[transcript_edits.EditStep, tuple[SpeakerSplit, ...]]:
        """Return the step, and the speaker splits that it makes; each operation acts on the result
        of those before it."""
        if isinstance(request, transcript_edits.UndoStep | transcript_edits.RedoStep):
            return request, ()
        step: list[transcript_edits.EditOperation] = []
        splits: list[SpeakerSplit] = []
        for number, operation in enumerate(request):
            if not isinstance(operation, transcript_edits.SplitSpeakerRequest):
                step.append(operation)
                continue
            edited_transcript = await self._in_turn(
                identity, transcript_edits.apply_operations, transcript, tuple(step)
            )
            try:
                operations, split = await self._split_speaker(
                    identity, edited_transcript, operation
                )
            except errors.EditImpossible as error:
                raise errors.EditImpossible(f"Operation {number}: {error.detail}") from None
            step += operations
            splits.append(split)
        return tuple(step), tuple(splits)

    async def _split_speaker(
        self,
        identity: Identity,
        transcript: Transcript,
        request: transcript_edits.SplitSpeakerRequest,
    ) -> tuple[list[transcript_edits.SplitSegments], SpeakerSplit]:
        indices = transcript_edits.segments_of_speaker(transcript, request.speaker)
        if not transcript.prints:
            raise errors.VoicesNotKept()
        found = await self._probe.parted(
            identity, [transcript.prints[at] for at in indices], request.into
        )
        if found is None:
            raise errors.EditImpossible(
                f"the segments of {speaker_label(request.speaker)} cannot be split by voice "
                f"into {request.into or 2} speakers: too few of them are long enough."
            )
        groups, likeness = found
        of = [
            tuple(at for at, group in zip(indices, groups, strict=True) if group == one)
            for one in range(max(groups) + 1)
        ]
        operations = [transcript_edits.SplitSegments(segments) for segments in of[1:]]
        after = transcript_edits.apply_operations(transcript, operations)
        whose = tuple((after.segments[one[0]].speaker or 0, one) for one in of)
        return operations, SpeakerSplit(request.speaker, whose, likeness)
