"""Schemas of jobs, and of /v1/jobs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from sidecar import clock
from sidecar.api.http import openapi
from sidecar.api.http.openapi import RenderedBody, RoundedSeconds
from sidecar.jobs.job_record import JobRecord, JobState
from sidecar.jobs.job_store import QueuePosition
from sidecar.jobs.scheduler import Priority
from sidecar.transcripts.edit_serialization import MAX_OPERATIONS, operation_schemas
from sidecar.transcripts.transcript_formats import FORMATS


class JobProgress(RenderedBody):
    """How far a job is."""

    audio_seconds_done: RoundedSeconds = Field(validation_alias="audio_s_done")
    audio_seconds_total: RoundedSeconds | None = Field(validation_alias="audio_s_total")
    fraction: float | None


class JobError(RenderedBody):
    """Why a job failed, or is refused."""

    code: str
    detail: str
    hint: str


class JobSummary(BaseModel):
    """A job as it stands, without what was said."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    position: int | None = Field(description="How many jobs go first; null once it runs.")
    attempts: int
    created: str = Field(examples=["2026-11-20T21:10:00Z"], description="When it was sent, in UTC.")
    duration: float | None = Field(description="Seconds of audio, where they are known.")
    progress: JobProgress
    error: JobError | None = None
    refused: JobError | None = Field(
        None, description="Why no node that is there can do it, while it waits for one that can."
    )


def job_summary(job: JobRecord, turn: QueuePosition | None) -> dict[str, Any]:
    """Return a job's body in a list; times in seconds, dates in UTC."""
    done = job.state is JobState.DONE and job.transcript is not None
    duration = job.transcript.duration if done and job.transcript else job.facts.total_s
    body: dict[str, Any] = {
        "id": job.id,
        "state": job.state.value,
        "position": turn and turn.position,
        "attempts": job.attempts,
        "created": clock.format_utc(job.created),
        "duration": duration and round(duration, 3),
        "progress": JobProgress.render(job.progress),
    }
    if job.error is not None:
        body["error"] = JobError.render(job.error)
    if job.refused is not None:
        body["refused"] = JobError.render(job.refused)
    return body


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


def limit_parameter(most: int, default: int, said: str) -> dict[str, Any]:
    """Return the parameter that says how many are sent at most."""
    return openapi.parameter("limit", "query", openapi.integer(1, most, default=default), said)


DEFAULT_PAGE_JOBS, MAX_PAGE_JOBS = 50, 500
"""Some 400 bytes each."""
LIST: dict[str, Any] = {
    "parameters": [
        openapi.parameter("state", "query", openapi.choice(JobState), "Or several, with commas."),
        limit_parameter(MAX_PAGE_JOBS, DEFAULT_PAGE_JOBS, "Jobs on a page."),
        openapi.parameter("after", "query", openapi.text(), "'next' of the page before."),
    ]
}
_PRIORITY = openapi.choice(
    Priority,
    "Of your own jobs, those of a batch go last.",
    default=Priority.INTERACTIVE.value,
)
SUBMIT: dict[str, Any] = {
    "requestBody": openapi.submission(openapi.OPTIONS | {"priority": _PRIORITY}),
    "parameters": [
        openapi.parameter(
            "Idempotency-Key",
            "header",
            openapi.text(minLength=1, maxLength=255, pattern="^[!#-~]+$"),
            "A name of your own for this request: sent again, it gives the same job.",
        )
    ],
}
SUBMIT_FIELDS = openapi.schema_fields(SUBMIT["requestBody"])
RESUME: dict[str, Any] = {
    "parameters": [
        openapi.parameter(
            "Last-Event-ID",
            "header",
            openapi.text(pattern="^[0-9]{1,15}$"),
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
        "content": openapi.content("text/event-stream"),
    },
    204: {"description": "The job has ended, and you have had all."},
}
_ETAG = openapi.text(pattern=r'^("[0-9]{1,9}"|\*)$')
FORMAT: dict[str, Any] = {
    "parameters": [
        openapi.parameter("format", "query", openapi.choice(FORMATS, default="json"), "Which."),
        openapi.parameter(
            "renew",
            "query",
            openapi.flag(True),
            "False: a copy is made that nobody reads; its time ('expires_in') does not begin anew.",
        ),
        openapi.parameter(
            "If-None-Match", "header", _ETAG, "An ETag of before: 304 if that is what there is."
        ),
    ]
}
_TEXTS = ("text/plain", "application/x-subrip", "text/vtt", "text/tab-separated-values")
TRANSCRIPT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "What was said; as JSON, the 'segments' and 'metadata' of /transcribe",
        "content": {
            **openapi.content("application/json", schema={"type": "object"}),
            **openapi.content(*_TEXTS),
        },
    },
    304: {"description": "Nothing was edited since the revision that you have."},
}
RANGE: dict[str, Any] = {
    "parameters": [
        openapi.parameter(
            "Range",
            "header",
            openapi.text(pattern="^bytes=([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})$"),
            "One stretch of it; of several the whole is sent.",
        ),
        openapi.parameter("If-Range", "header", openapi.text(), "An ETag of before."),
    ]
}
_BYTES = openapi.content("audio/*", schema=openapi.AUDIO_FILE)
AUDIO: dict[int | str, dict[str, Any]] = {
    200: {"description": "The recording as it was sent", "content": _BYTES},
    206: {"description": "The bytes that were asked for", "content": _BYTES},
    416: {**openapi.PROBLEMS["4XX"], "description": "It has no such bytes"},
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
    "requestBody": openapi.request_body(
        openapi.object_schema(
            {"operations": _OPERATIONS}, ["operations"], additionalProperties=False
        ),
        example={"operations": [{"op": "rename", "speaker": "Speaker_0", "name": "Nell"}]},
    ),
    "parameters": [
        openapi.parameter("If-Match", "header", _ETAG, "The revision that is edited; any without.")
    ],
}

DEFAULT_HISTORY_ENTRIES, MAX_HISTORY_ENTRIES = 100, 1000
"""Of one answer: 100 bytes to 64 KiB each."""
HISTORY: dict[str, Any] = {
    "parameters": [
        limit_parameter(
            MAX_HISTORY_ENTRIES, DEFAULT_HISTORY_ENTRIES, "So many of the last entries."
        )
    ]
}
