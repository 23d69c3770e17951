"""Schemas of /v1/jobs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from sidecar.api.http import schemas
from sidecar.api.http.schemas import PROBLEMS, JobSummary
from sidecar.jobs.scheduler import Priority
from sidecar.transcripts.edit_serialization import MAX_OPERATIONS, operation_schemas
from sidecar.transcripts.transcript_formats import FORMATS


class JobAnswer(JobSummary):
    """A job as it stands, without what was said."""

    priority: Literal["interactive", "batch"]
    estimated_wait_seconds: float | None = Field(
        description="For about how long others go first; null once it runs."
    )
    estimated_remaining_seconds: float | None = Field(
        description="Predicted time until it is done; null unless it runs."
    )
    ended: str | None = Field(examples=["2026-11-20T21:12:00Z"], description="In UTC.")
    last_event: int = Field(description="The number of its last event.")
    revision: int = Field(description="How often its transcript was edited; the ETag of that.")
    recording: bool = Field(description="Whether its recording is kept: /audio gives it out.")
    expires_in: float | None = Field(
        description="Seconds until it is deleted for its age, unless its owner reads or edits it "
        "before; null without a limit, and before its end."
    )


class JobPage(BaseModel):
    """A page of the list."""

    jobs: list[JobAnswer]
    next: str | None = Field(description="What to send as 'after' for the next page.")


class JobPeaks(BaseModel):
    """Loudness of a recording, for a drawing."""

    per_second: int = Field(examples=[10])
    peaks: str = Field(description="A byte for each, 0 to 255: the loudest sample; in base64.")


def integer_schema(least: int, most: int, default: int) -> dict[str, Any]:
    """Return the schema of a number with a default."""
    return {"type": "integer", "minimum": least, "maximum": most, "default": default}


def parameter(name: str, where: str, schema: dict[str, Any], said: str) -> dict[str, Any]:
    """Return an optional parameter."""
    return {"name": name, "in": where, "required": False, "schema": schema, "description": said}


SUBMIT: dict[str, Any] = {
    "requestBody": schemas.submission(
        schemas.OPTIONS
        | {
            "priority": {
                "type": "string",
                "enum": [*Priority],
                "default": Priority.INTERACTIVE.value,
                "description": "Of your own jobs, those of a batch go last.",
            }
        }
    ),
    "parameters": [
        parameter(
            "Idempotency-Key",
            "header",
            {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-~]+$"},
            "A name of your own for this request: sent again, it gives the same job.",
        )
    ],
}

SUBMIT_FIELDS = schemas.schema_fields(SUBMIT["requestBody"])

RESUME: dict[str, Any] = {
    "parameters": [
        parameter(
            "Last-Event-ID",
            "header",
            {"type": "string", "pattern": "^[0-9]{1,15}$"},
            "The last id that was read: what comes after it is sent.",
        )
    ]
}

EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "refused, begun, progress, segment, crashed, put_back; then done, failed or cancelled, "
            "what was edited since, and the end. 'behind': you read too slowly; resume after the "
            "id that it names."
        ),
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The job has ended, and you have had all."},
}

_ETAG: dict[str, Any] = {"type": "string", "pattern": r'^("[0-9]{1,9}"|\*)$'}

FORMAT: dict[str, Any] = {
    "parameters": [
        parameter(
            "format", "query", {"type": "string", "enum": [*FORMATS], "default": "json"}, "Which."
        ),
        parameter(
            "renew",
            "query",
            {"type": "boolean", "default": True},
            "False: a copy is made that nobody reads; its time ('expires_in') does not begin anew.",
        ),
        parameter(
            "If-None-Match", "header", _ETAG, "An ETag of before: 304 if that is what there is."
        ),
    ]
}

_TEXT = {"schema": {"type": "string"}}
TRANSCRIPT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "What was said; as JSON, the 'segments' and 'metadata' of /transcribe",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/plain": _TEXT,
            "application/x-subrip": _TEXT,
            "text/vtt": _TEXT,
            "text/tab-separated-values": _TEXT,
        },
    },
    304: {"description": "Nothing was edited since the revision that you have."},
}

RANGE: dict[str, Any] = {
    "parameters": [
        parameter(
            "Range",
            "header",
            {"type": "string", "pattern": "^bytes=([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})$"},
            "One stretch of it; of several the whole is sent.",
        ),
        parameter("If-Range", "header", {"type": "string"}, "An ETag of before."),
    ]
}
_BYTES = {"audio/*": {"schema": {"type": "string", "format": "binary"}}}
AUDIO: dict[int | str, dict[str, Any]] = {
    200: {"description": "The recording as it was sent", "content": _BYTES},
    206: {"description": "The bytes that were asked for", "content": _BYTES},
    416: {**PROBLEMS["4XX"], "description": "It has no such bytes"},
}


class JobSpeaker(BaseModel):
    """A speaker of a transcript."""

    speaker: str = Field(examples=["Speaker_0"])
    name: str | None = Field(examples=["Nell"])


class JobChangedSegment(BaseModel):
    """A segment that is not as it was."""

    index: int
    segment: dict[str, Any] = Field(description="As the transcript has it.")


class JobRevision(BaseModel):
    """How a transcript stands."""

    revision: int
    undo: int = Field(description="Steps that can be undone.")
    redo: int = Field(description="Steps that can be done again.")


class JobSpeakerGroup(BaseModel):
    """Segments of one speaker that are another's."""

    speaker: str = Field(examples=["Speaker_1"])
    segments: list[int] = Field(description="Their places, from 0.")


class JobSplitSpeaker(BaseModel):
    """A speaker that was split by voice."""

    speaker: str = Field(examples=["Speaker_0"])
    likeness: float = Field(
        description="The cosine between the two groups that are most alike; from 0.55 on they may "
        "well be one person."
    )
    groups: list[JobSpeakerGroup] = Field(
        description="Who it turned out to be, the speaker itself first."
    )


class JobEditAnswer(JobRevision):
    """Result of an edit."""

    speakers: list[JobSpeaker]
    segments: list[JobChangedSegment]
    parts: list[JobSplitSpeaker] | None = Field(
        None, description="Who was split by voice, if anybody was."
    )


class JobEditHistoryEntry(BaseModel):
    """Operations that were done together."""

    at: str = Field(examples=["2026-11-20T21:12:00Z"], description="In UTC.")
    operations: list[dict[str, Any]]
    undone: bool


class JobEditHistory(JobRevision):
    """Edits of a transcript."""

    first: int = Field(description="How many entries came before these.")
    entries: list[JobEditHistoryEntry]


_OPERATIONS: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_OPERATIONS,
    "description": "All of them are done, in order, or none.",
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
        parameter("If-Match", "header", _ETAG, "The revision that is edited; any without.")
    ],
}

DEFAULT_HISTORY_ENTRIES, MAX_HISTORY_ENTRIES = 100, 1000
"""Of one answer: 100 bytes to 64 KiB each."""
HISTORY: dict[str, Any] = {
    "parameters": [
        parameter(
            "limit",
            "query",
            integer_schema(1, MAX_HISTORY_ENTRIES, DEFAULT_HISTORY_ENTRIES),
            "So many of the last entries.",
        )
    ]
}
