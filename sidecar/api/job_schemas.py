"""Schemas of /v1/jobs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from sidecar.api.http import schemas
from sidecar.jobs.job_record import JobState
from sidecar.jobs.scheduler import Priority
from sidecar.transcripts.edit_serialization import MAX_OPERATIONS, operation_schemas
from sidecar.transcripts.transcript_formats import FORMATS


class JobAnswer(schemas.JobSummary):
    """State of a job, without its transcript."""

    priority: Literal["interactive", "batch"]
    estimated_wait_seconds: float | None = Field(
        description="Estimated seconds until it starts; null once it runs."
    )
    estimated_remaining_seconds: float | None = Field(
        description="Predicted time until it is done; null unless it runs."
    )
    ended: str | None = Field(examples=["2026-11-20T21:12:00Z"], description="In UTC.")
    last_event: int = Field(description="Number of its last event.")
    revision: int = Field(description="Number of edits of its transcript; part of the ETag.")
    recording: bool = Field(description="True if its recording is kept: see /audio.")
    expires_in: float | None = Field(
        description=(
            "Seconds until its retention ends, unless its owner reads or edits it before; null "
            "without a limit, and before its end."
        )
    )


class JobPage(BaseModel):
    """A page of the list."""

    jobs: list[JobAnswer]
    next: str | None = Field(description="Value of 'after' for the next page.")


class JobPeaks(BaseModel):
    """Peaks of a recording, for a waveform."""

    per_second: int = Field(examples=[10])
    peaks: str = Field(
        description="A byte per tenth of a second, 0 to 255: the loudest sample; in base64."
    )


def limit_parameter(most: int, default: int, said: str) -> dict[str, Any]:
    """Return the parameter that says how many are sent at most."""
    return schemas.parameter("limit", "query", schemas.integer(1, most, default=default), said)


DEFAULT_PAGE_JOBS, MAX_PAGE_JOBS = 50, 500
"""Some 400 bytes each."""
LIST: dict[str, Any] = {
    "parameters": [
        schemas.parameter(
            "state", "query", schemas.choice(JobState), "One or more states, separated by commas."
        ),
        limit_parameter(MAX_PAGE_JOBS, DEFAULT_PAGE_JOBS, "Jobs on a page."),
        schemas.parameter("after", "query", schemas.text(), "'next' of the previous page."),
    ]
}
_PRIORITY = schemas.choice(
    Priority,
    "'batch' runs after your other jobs.",
    default=Priority.INTERACTIVE.value,
)
SUBMIT: dict[str, Any] = {
    "requestBody": schemas.submission(schemas.OPTIONS | {"priority": _PRIORITY}),
    "parameters": [
        schemas.parameter(
            "Idempotency-Key",
            "header",
            schemas.text(minLength=1, maxLength=255, pattern="^[!#-~]+$"),
            "Key of this request: if it is sent again, the answer is the same job.",
        )
    ],
}
SUBMIT_FIELDS = schemas.schema_fields(SUBMIT["requestBody"])
RESUME: dict[str, Any] = {
    "parameters": [
        schemas.parameter(
            "Last-Event-ID",
            "header",
            schemas.text(pattern="^[0-9]{1,15}$"),
            "Id of the last event that you received: the stream resumes after it.",
        )
    ]
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "refused, begun, progress, segment, crashed, put_back; then done, failed or "
            "cancelled, the edits since, and the end. 'behind': you read too slowly; "
            "resume after the id that it names."
        ),
        "content": schemas.content("text/event-stream"),
    },
    204: {"description": "The job has finished, and you have received all events."},
}
_ETAG = schemas.text(pattern=r'^("[0-9]{1,9}"|\*)$')
FORMAT: dict[str, Any] = {
    "parameters": [
        schemas.parameter("format", "query", schemas.choice(FORMATS, default="json"), "Which."),
        schemas.parameter(
            "renew",
            "query",
            schemas.flag(True),
            "False: this is a copy for a cache; it does not extend the retention ('expires_in').",
        ),
        schemas.parameter(
            "If-None-Match",
            "header",
            _ETAG,
            "ETag of a previous answer: 304 if the transcript is unchanged.",
        ),
    ]
}
_TEXTS = ("text/plain", "application/x-subrip", "text/vtt", "text/tab-separated-values")
TRANSCRIPT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The transcript; as JSON, the 'segments' and 'metadata' of /transcribe",
        "content": {
            **schemas.content("application/json", schema={"type": "object"}),
            **schemas.content(*_TEXTS),
        },
    },
    304: {"description": "The transcript is unchanged since the revision that you have."},
}
RANGE: dict[str, Any] = {
    "parameters": [
        schemas.parameter(
            "Range",
            "header",
            schemas.text(pattern="^bytes=([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})$"),
            "One range; for several, the whole is sent.",
        ),
        schemas.parameter("If-Range", "header", schemas.text(), "ETag of a previous answer."),
    ]
}
_BYTES = schemas.content("audio/*", schema=schemas.AUDIO_FILE)
AUDIO: dict[int | str, dict[str, Any]] = {
    200: {"description": "The recording as it was sent", "content": _BYTES},
    206: {"description": "The requested bytes", "content": _BYTES},
    416: {**schemas.PROBLEMS["4XX"], "description": "The range lies beyond the end"},
}


class JobSpeaker(BaseModel):
    """A speaker of a transcript."""

    speaker: str = Field(examples=["Speaker_0"])
    name: str | None = Field(examples=["Nell"])


class JobChangedSegment(BaseModel):
    """Changed segment."""

    index: int
    segment: dict[str, Any] = Field(description="Segment of the transcript.")


class JobRevision(BaseModel):
    """Revision of a transcript."""

    revision: int
    undo: int = Field(description="Steps that can be undone.")
    redo: int = Field(description="Steps that can be redone.")


class JobSpeakerGroup(BaseModel):
    """Segments of one speaker that belong to another."""

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
    parts: list[JobSplitSpeaker] | None = Field(
        None, description="Speakers that were split by voice."
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
    "requestBody": schemas.request_body(
        schemas.object_schema(
            {"operations": _OPERATIONS}, ["operations"], additionalProperties=False
        ),
        example={"operations": [{"op": "rename", "speaker": "Speaker_0", "name": "Nell"}]},
    ),
    "parameters": [
        schemas.parameter("If-Match", "header", _ETAG, "Revision to edit. Default: any.")
    ],
}

DEFAULT_HISTORY_ENTRIES, MAX_HISTORY_ENTRIES = 100, 1000
"""Of one answer: 100 bytes to 64 KiB each."""
HISTORY: dict[str, Any] = {
    "parameters": [
        limit_parameter(MAX_HISTORY_ENTRIES, DEFAULT_HISTORY_ENTRIES, "Number of latest entries.")
    ]
}
