"""Schemas of /v1/jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasPath, BaseModel, BeforeValidator, Field

from sidecar.api.http import openapi
from sidecar.clock import format_utc
from sidecar.interfaces.request_fields import SPEAKER_COUNT_FIELDS
from sidecar.jobs.job_record import JobState, Priority
from sidecar.transcripts.edit_serialization import operation_schemas
from sidecar.transcripts.transcript_edits import MAX_OPERATIONS
from sidecar.transcripts.transcript_formats import FORMATS


class JobProgress(openapi.RenderedBody):
    """Progress of a job in seconds of audio."""

    audio_seconds_done: openapi.RoundedSeconds = Field(validation_alias="audio_s_done")
    audio_seconds_total: openapi.RoundedSeconds | None = Field(validation_alias="audio_s_total")
    fraction: float | None


class JobError(openapi.RenderedBody):
    """Error of a job that failed or was refused."""

    code: str
    detail: str
    hint: str


class JobRecordBody(openapi.RenderedBody):
    """State of a job as its record has it, without its transcript."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    attempts: int
    created: openapi.UtcDate = Field(
        examples=["2026-11-20T21:10:00Z"], description="Time of submission, in UTC."
    )
    progress: JobProgress
    error: JobError | None = None
    refused: JobError | None = Field(
        None,
        description="Reason why no available node can run it, while it waits for one that can.",
    )
    priority: Literal["interactive", "batch"]
    ended: Annotated[str | None, BeforeValidator(lambda at: at and format_utc(at))] = Field(
        examples=["2026-11-20T21:12:00Z"], description="In UTC."
    )
    last_event: int = Field(description="Number of its last event.", validation_alias="seq")
    revision: int = Field(
        description="Number of edits of its transcript; part of the ETag.",
        validation_alias=AliasPath("history", "revision"),
    )
    name: str = Field(
        "",
        examples=["meeting.m4a"],
        description="Name of its file, as the client has it; left out if it sent none.",
    )
    channels: int = Field(
        1,
        description="Channels that are transcribed one by one; left out if it is 1.",
        validation_alias=AliasPath("audio_info", "channels"),
    )


class JobAnswer(JobRecordBody):
    """State of a job, without its transcript."""

    position: int | None = Field(description="Number of jobs before it; null once it runs.")
    duration: float | None = Field(description="Seconds of audio, if known.")
    estimated_wait_seconds: float | None = Field(
        description="Estimated seconds until it starts; null once it runs."
    )
    estimated_remaining_seconds: float | None = Field(
        description="Predicted time until it is done; null unless it runs."
    )
    recording: bool = Field(description="True if its recording is kept: see /audio.")
    expires_in: float | None = Field(
        description="Seconds until its retention ends, unless its owner reads or edits it before; "
        "null without a limit, and before its end."
    )
    space_left: float | None = Field(
        description="Share of its owner's space ('job_retention_mb') that newer results may still "
        "fill until it is deleted for them, 0 to 1; null if it never is, because it was edited, "
        "and before its end."
    )


class JobPage(BaseModel):
    """Page of the list of jobs."""

    jobs: list[JobAnswer]
    next: str | None = Field(description="Value of 'after' for the next page.")


class JobPeaks(BaseModel):
    """Peaks of a recording, for a waveform."""

    per_second: int = Field(examples=[10])
    peaks: str = Field(
        description="A byte per tenth of a second, 0 to 255: the loudest sample; in base64."
    )


def limit_parameter(most: int, default: int, description: str) -> dict[str, Any]:
    """Return the query parameter `limit`, the maximum of items in a response."""
    return openapi.query("limit", openapi.integer(1, most, default=default), description)


DEFAULT_PAGE_JOBS, MAX_PAGE_JOBS = 50, 500
"""A job has some 400 bytes."""
LIST: dict[str, Any] = openapi.parameters(
    openapi.query("state", openapi.choice(JobState), "One or more states, separated by commas."),
    limit_parameter(MAX_PAGE_JOBS, DEFAULT_PAGE_JOBS, "Jobs on a page."),
    openapi.query("after", openapi.text(), "'next' of the previous page."),
)
PRIORITY = openapi.choice(
    Priority, "'batch' runs after your other jobs.", default=Priority.INTERACTIVE.value
)
SUBMIT: dict[str, Any] = {
    **openapi.submission({**openapi.OPTIONS, "priority": PRIORITY}),
    **openapi.parameters(
        openapi.idempotency_key(
            "Key of this request: if it is sent again, the answer is the same job."
        )
    ),
}
_ETAG = openapi.text(pattern=r'^("[0-9]{1,9}"|\*)$')
DELETE: dict[str, Any] = openapi.parameters(
    openapi.query("keep", openapi.flag(False), "True: it is cancelled, and stays in the list."),
    openapi.header("If-Match", _ETAG, "Revision to delete. Default: any. 'keep' ignores it."),
)
SUBMIT_FIELDS = openapi.schema_fields(SUBMIT)
RESUME: dict[str, Any] = openapi.parameters(
    openapi.header(
        "Last-Event-ID",
        openapi.text(pattern="^[0-9]{1,15}$"),
        "Id of the last event that you received: the stream resumes after it.",
    )
)
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "refused, begun, progress, segment, crashed, put_back; then done, failed or "
            "cancelled, the edits since, and the end. 'behind': you read too slowly; "
            "resume after the id that it names."
        ),
        "content": openapi.content("text/event-stream"),
    },
    204: {"description": "The job has finished, and you have received all events."},
}
FORMAT: dict[str, Any] = openapi.parameters(
    openapi.query("format", openapi.choice(FORMATS, default="json"), "Which."),
    openapi.query(
        "renew",
        openapi.flag(True),
        "False: this is a copy for a cache; it does not extend the retention ('expires_in').",
    ),
    openapi.header(
        "If-None-Match", _ETAG, "ETag of a previous answer: 304 if the transcript is unchanged."
    ),
)
_JSON = FORMATS["json"].media_type
_TEXTS = [one.media_type.partition(";")[0] for one in FORMATS.values() if one.media_type != _JSON]
TRANSCRIPT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The transcript; as JSON, the 'segments' and 'metadata' of /transcribe",
        "content": openapi.content(_JSON, schema={"type": "object"}) | openapi.content(*_TEXTS),
    },
    304: {"description": "The transcript is unchanged since the revision that you have."},
}
RANGE: dict[str, Any] = openapi.parameters(
    openapi.header(
        "Range",
        openapi.text(pattern="^bytes=([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})$"),
        "One range; for several, the whole is sent.",
    ),
    openapi.header("If-Range", openapi.text(), "ETag of a previous answer."),
)
_BYTES = openapi.content("audio/*", schema=openapi.AUDIO_FILE)
AUDIO: dict[int | str, dict[str, Any]] = {
    200: {"description": "The recording as it was sent", "content": _BYTES},
    206: {"description": "The requested bytes", "content": _BYTES},
    416: {**openapi.PROBLEMS["4XX"], "description": "The range lies beyond the end"},
}


class JobSpeaker(BaseModel):
    """A speaker of a transcript."""

    speaker: str = Field(examples=["Speaker_0"])
    name: str | None = Field(examples=["Nell"])


class JobChangedSegment(BaseModel):
    """Changed segment."""

    index: int
    segment: dict[str, Any] = Field(description="Segment of the transcript.")


class JobRevision(openapi.RenderedBody):
    """Revision of a transcript."""

    revision: int
    undo: int = Field(description="Steps that can be undone.", validation_alias="applied")
    redo: int = Field(description="Steps that can be redone.", validation_alias="undone")


class JobSpeakerGroup(BaseModel):
    """Segments that a split assigned to one speaker."""

    speaker: str = Field(examples=["Speaker_1"])
    segments: list[int] = Field(description="Their indices, from 0.")


class JobSplitSpeaker(BaseModel):
    """A speaker that was split by voice."""

    speaker: str = Field(examples=["Speaker_0"])
    likeness: float = Field(
        description="Cosine of the two most similar groups; from 0.55 on they may be one person."
    )
    groups: list[JobSpeakerGroup] = Field(description="Resulting speakers, the original first.")


class JobEditAnswer(JobRevision):
    """Result of an edit."""

    speakers: list[JobSpeaker]
    segments: list[JobChangedSegment]
    segment_count: int = Field(
        description="Segments of the transcript now; 'diarize' and its undo change their number."
    )
    parts: list[JobSplitSpeaker] | None = Field(
        None, description="Speakers that were split by voice."
    )


class JobNotCarried(BaseModel):
    """Edits that the new speakers do not have."""

    names: list[str] = Field(description="Names that no speaker has now.")
    reassignments: int = Field(
        description="Operations since the last diarization that gave segments to speakers."
    )


class TranscribeWarning(BaseModel):
    """Warning about this transcript."""

    code: str = Field(examples=["precision_substituted"])
    message: str


class JobDiarizeAnswer(JobEditAnswer):
    """Result of another diarization."""

    not_carried: JobNotCarried
    warnings: list[TranscribeWarning] = Field(
        description="`speaker_count_differs`, if the number of speakers is not the requested one."
    )


class JobEditHistoryEntry(BaseModel):
    """Operations of one edit."""

    at: str = Field(examples=["2026-11-20T21:12:00Z"], description="In UTC.")
    operations: list[dict[str, Any]]
    undone: bool


class JobEditHistory(JobRevision):
    """Edits of a transcript."""

    first: int = Field(description="Number of entries before these.")
    entries: list[JobEditHistoryEntry]


_OPERATIONS: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_OPERATIONS,
    "description": "Operations, applied in order, all or none.",
    "items": {"oneOf": operation_schemas()},
}
EDIT: dict[str, Any] = {
    **openapi.request_body(
        openapi.object_schema(
            {"operations": _OPERATIONS}, ["operations"], additionalProperties=False
        ),
        example={"operations": [{"op": "rename", "speaker": "Speaker_0", "name": "Nell"}]},
    ),
    **openapi.parameters(
        openapi.header(
            "If-Match", _ETAG, "Revision to edit. Default: any; required after a diarization."
        )
    ),
}
DIARIZE: dict[str, Any] = {
    **openapi.request_body(
        openapi.object_schema(
            {name: openapi.OPTIONS[name] for name in SPEAKER_COUNT_FIELDS},
            additionalProperties=False,
        ),
        example={"num_speakers": 3},
    ),
    **openapi.parameters(openapi.header("If-Match", _ETAG, "Revision to diarize. Default: any.")),
}

DEFAULT_HISTORY_ENTRIES, MAX_HISTORY_ENTRIES = 100, 1000
"""Entries per response; an entry has 100 bytes to 64 KiB."""
HISTORY: dict[str, Any] = openapi.parameters(
    limit_parameter(MAX_HISTORY_ENTRIES, DEFAULT_HISTORY_ENTRIES, "Number of latest entries.")
)
