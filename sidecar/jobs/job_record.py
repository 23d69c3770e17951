"""Job record and the events that change it. Pure.

A record is a submitted job with all its events applied in order. Replaying the events gives the
same record again, after a restart or in another service.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from sidecar import errors
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import RecordingRef
from sidecar.auth.identity import ANONYMOUS
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.transcripts.transcript import (
    Finished,
    Peaks,
    Progress,
    ResumePoint,
    Segment,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
)
from sidecar.transcripts.transcript_edits import EditHistory, EditStep


class Priority(StrEnum):
    """Priority among an owner's own jobs; between owners it makes no difference."""

    INTERACTIVE = "interactive"
    """A user waits for the result."""
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Error of a job as plain values: its code says whose fault it is to those that read it."""

    code: str
    detail: str
    hint: str
    retry_after: int | None = None

    @classmethod
    def of(cls, error: errors.SidecarError) -> Self:
        """Return ``error`` as plain values."""
        return cls(error.code, error.detail, error.hint, error.retry_after)

    def error(self) -> errors.SidecarError:
        """Return the error, to be raised."""
        return errors.from_wire(asdict(self))


@dataclass(frozen=True, slots=True)
class StartedChange:
    """An attempt starts from the resume points; ``anew``: without them, because the engine cannot
    read them. That is known only once its model is loaded: then the attempt starts once more."""

    anew: bool = False


class CountsAs(StrEnum):
    """What an attempt counts as that did not end its job."""

    NOTHING = "nothing"
    """It is not among the job's attempts."""
    ALONE = "alone"
    """Nothing, but others beside it could suffer: the disk of its recording hung, and ended the
    worker process, or the engine's memory did not suffice for all."""
    CRASH = "crash"
    """The worker process died in it, or the engine failed after it had reported progress."""
    DEATH = "death"
    """The service died in it, or the recording may have caused an error."""
    UNABLE_NODE = "unable_node"
    """It showed that the job cannot be done by this node."""


ENDS_WORKER = frozenset({CountsAs.ALONE, CountsAs.CRASH})
"""After these a job's attempts run alone: if it happens again, no other job's work is lost."""
RUN_ALONE_AFTER = ENDS_WORKER | {CountsAs.DEATH}
"""The same, where the engine is not remote: else the service or the upstream is to blame."""


@dataclass(frozen=True, slots=True)
class RequeuedChange:
    """The attempt ended without an end of the job, which is queued again."""

    counts_as: CountsAs = CountsAs.NOTHING


@dataclass(frozen=True, slots=True)
class UnschedulableChange:
    """No available node can run the job, and their reasons; None: a node can again."""

    failure: JobFailure | None = None


@dataclass(frozen=True, slots=True)
class ReportedChange:
    """Event of the engine, ``processing_s`` seconds into the attempt. With its transcript a job is
    done, whatever happens to the engine."""

    event: TranscriptionEvent
    processing_s: float = 0.0


@dataclass(frozen=True, slots=True)
class FailedChange:
    """The job ended without a transcript."""

    failure: JobFailure


@dataclass(frozen=True, slots=True)
class CancelledChange:
    """The job was cancelled."""


@dataclass(frozen=True, slots=True)
class EditedChange:
    """Edit of the transcript after the end. ``ready``: a transcript and the step's result on it, if
    computed before; not serialized."""

    step: EditStep
    ready: tuple[Transcript, Transcript] | None = field(default=None, compare=False, repr=False)


JobChange = (
    StartedChange
    | RequeuedChange
    | UnschedulableChange
    | ReportedChange
    | FailedChange
    | CancelledChange
    | EditedChange
)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Change of a job: number ``seq``, ``at`` seconds since 1970."""

    seq: int
    at: float
    change: JobChange

    @property
    def superseded_by_next(self) -> bool:
        """Return whether only the last event of its kind is stored: each
        contains those before it."""
        return isinstance(self.change, ReportedChange) and isinstance(self.change.event, Progress)

    @property
    def ends(self) -> bool:
        """Return whether the event ends a job."""
        return not isinstance(self.change, EditedChange)

    @property
    def kept_diarization(self) -> str | None:
        """Return what the event keeps of the diarization of its job; None if it keeps nothing."""
        match self.change:
            case ReportedChange(ResumePoint(state=state) as point) if point.keeps_diarization:
                return str(state["data"])
        return None

    @property
    def worn(self) -> JobEvent:
        """Return the event as it is stored once its job has ended: a resume point of attempts
        without state, an edit without its precomputed result."""
        match self.change:
            case ReportedChange(ResumePoint() as resume_point, processing_s) if (
                not resume_point.keeps_diarization
            ):
                change = ReportedChange(replace(resume_point, state={}), processing_s)
                return replace(self, change=change)
            case EditedChange(step):
                return replace(self, change=EditedChange(step))
        return self


class JobState(StrEnum):
    """State of a job; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL_STATES = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})
UNFINISHED_STATES = frozenset(JobState) - TERMINAL_STATES


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Idempotency key of a request: the same request again returns the existing job.

    ``digest``: of all request data, to detect another request with the same key.
    """

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class JobRecord:
    """Job: one recording that becomes a transcript.

    ``owner``: by `auth.identity`. ``audio``: reference of its recording, as long as it exists.
    ``kept``: whether its result is fetched later; otherwise it is private: its result is for the
    client that waits, and it is not listed. ``name``: of its file as the client has it, '' if
    unknown. ``created``, ``begun`` (its first attempt, whatever its
    result) and ``ended``: seconds since 1970. ``attempts``: those that count, including the one
    that runs. ``alone``: whether it runs beside no other, as the engine or the service died in it;
    ``ends_worker``: also at a remote engine, whose worker process ended in it.
    ``key``: its idempotency key, unique for its owner. ``durable``: whether it survives the
    process. ``seq``: number of the last event. ``resume_points``: none after its end.
    ``resumed_s``: seconds of audio that were done when its attempt, ``processing_s`` long so far,
    began. ``peaks``: loudness of each tenth of a second. ``crashes`` and ``interruptions``: how
    often the worker process or the service died in it since its last progress; ``passed``: how many
    services could not do it.
    ``refused``: why no node can run it, as long as none can. ``transcript`` and
    ``segments``: as they are after all edits (``history``).
    """

    id: str
    owner: str
    created: float
    audio: RecordingRef
    options: TranscribeOptions
    audio_info: AudioInfo
    progress: Progress
    kept: bool = True
    priority: Priority = Priority.INTERACTIVE
    key: IdempotencyKey | None = None
    durable: bool = False
    name: str = ""
    state: JobState = JobState.QUEUED
    attempts: int = 0
    alone: bool = False
    ends_worker: bool = False
    crashes: int = 0
    interruptions: int = 0
    passed: int = 0
    refused: JobFailure | None = None
    resume_points: tuple[ResumePoint, ...] = ()
    segments: tuple[Segment, ...] = ()
    peaks: bytes = b""
    transcript: Transcript | None = None
    error: JobFailure | None = None
    processing_s: float = 0.0
    resumed_s: float = 0.0
    begun: float | None = None
    ended: float | None = None
    seq: int = 0
    history: EditHistory = field(default_factory=EditHistory)

    @classmethod
    def submitted(
        cls,
        at: float,
        audio: RecordingRef,
        audio_info: AudioInfo,
        options: TranscribeOptions,
        *,
        owner: str = ANONYMOUS.owner,
        kept: bool = True,
        priority: Priority = Priority.INTERACTIVE,
        key: IdempotencyKey | None = None,
        durable: bool = False,
        name: str = "",
        job_id: str | None = None,
    ) -> Self:
        """Return a new job, submitted ``at`` this time; without ``job_id`` with a new id."""
        progress = Progress(0.0, audio_info.total_s)
        about = audio, options, audio_info, progress, kept, priority, key, durable, name
        return cls(job_id or uuid.uuid4().hex, owner, at, *about)

    @property
    def over(self) -> bool:
        """Return whether the job has ended: afterwards only its transcript changes."""
        return self.state in TERMINAL_STATES

    @property
    def touched(self) -> float:
        """Return the time of the last change of a job that has ended."""
        return self.history.changed or self.ended or self.created


Fields = dict[str, Any]
"""Fields of a `JobRecord` with their new values."""


def apply_event(record: JobRecord, event: JobEvent) -> JobRecord:
    """Return the record after ``event``; ``record`` itself if the event changes nothing.

    An end is final: after it only edits of the transcript apply, and before it none do. An event
    that was applied already changes nothing, nor does a report of an engine about a job that waits.
    """
    if event.seq <= record.seq:
        return record
    fields = _edited_fields(record, event) if record.over else _changed_fields(record, event)
    return record if fields is None else replace(record, seq=event.seq, **fields)


def _changed_fields(record: JobRecord, event: JobEvent) -> Fields | None:
    """Return what an event changes of a job that has not ended; None if it has no effect."""
    running = record.state is JobState.RUNNING
    match event.change:
        case StartedChange(anew):
            resume_points = () if anew else record.resume_points
            fields = _fields_at_resume_points(resume_points, record.audio_info.total_s)
            first = event.at if record.begun is None else record.begun
            return fields | {
                "state": JobState.RUNNING,
                "attempts": record.attempts + (not running),
                "resumed_s": fields["progress"].audio_s_done,
                "refused": None,
                "begun": first,
            }
        case RequeuedChange(counts_as) if running:
            fields = _fields_at_resume_points(record.resume_points, record.audio_info.total_s)
            uncounted = counts_as in (CountsAs.NOTHING, CountsAs.ALONE)
            return fields | {
                "state": JobState.QUEUED,
                "attempts": record.attempts - uncounted,
                "crashes": record.crashes + (counts_as is CountsAs.CRASH),
                "interruptions": record.interruptions + (counts_as is CountsAs.DEATH),
                "passed": record.passed + (counts_as is CountsAs.UNABLE_NODE),
                "alone": record.alone or counts_as in RUN_ALONE_AFTER,
                "ends_worker": record.ends_worker or counts_as in ENDS_WORKER,
            }
        case UnschedulableChange(failure) if not running and failure != record.refused:
            return {"refused": failure}
        case ReportedChange(report, processing_s) if running:
            return {**_reported_fields(record, report, event.at), "processing_s": processing_s}
        case FailedChange(failure):
            return {**_fields_at_end(JobState.FAILED, event.at), "error": failure}
        case CancelledChange():
            failure = JobFailure.of(errors.JobCancelled())
            return {**_fields_at_end(JobState.CANCELLED, event.at), "error": failure}
    return None


def _edited_fields(record: JobRecord, event: JobEvent) -> Fields | None:
    """Return what an event changes of a job that has ended; None if it has no effect."""
    before = record.transcript
    if not isinstance(event.change, EditedChange) or before is None:
        return None
    was, will_be = event.change.ready or (None, None)
    try:
        after = record.history.after(
            before, event.change.step, event.at, will_be if was is before else None
        )
    except (errors.EditImpossible, errors.EditsFull):
        return None
    if after is None:
        return None
    history, transcript = after
    return {"history": history, "transcript": transcript, "segments": transcript.segments}


def _fields_at_resume_points(
    resume_points: tuple[ResumePoint, ...], total_s: float | None
) -> Fields:
    """Return the fields as an attempt begins, with these resume points only."""
    progress = Progress(resume_points[-1].audio_s if resume_points else 0.0, total_s)
    segments = tuple(segment for one in resume_points for segment in one.segments)
    return {"resume_points": resume_points, "segments": segments, "progress": progress}


def _fields_at_end(state: JobState, at: float) -> Fields:
    return {"state": state, "ended": at, "resume_points": (), "refused": None}


def _reported_fields(record: JobRecord, report: TranscriptionEvent, at: float) -> Fields:
    match report:
        case Progress():
            return {"progress": report}
        case SegmentReady(index, segment):
            segments = (*record.segments[:index], segment, *record.segments[index + 1 :])
            return {"segments": segments}
        case Peaks(first, levels) if 0 <= first <= len(record.peaks):
            # a new attempt overwrites the levels
            return {"peaks": record.peaks[:first] + levels}
        case ResumePoint() if not report.keeps_diarization:
            resume_points = (*record.resume_points, report)
            return {"resume_points": resume_points, "crashes": 0, "interruptions": 0, "passed": 0}
        case Finished(transcript):
            progress = Progress(transcript.duration, transcript.duration)
            segments = tuple(transcript.segments)
            done = {"transcript": transcript, "segments": segments, "progress": progress}
            return {**_fields_at_end(JobState.DONE, at), **done}
        case Peaks() | ResumePoint():
            return {}
