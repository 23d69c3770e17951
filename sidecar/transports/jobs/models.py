"""This wire as schemas and examples, for OpenAPI. Nothing is validated with them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from sidecar.jobs.order import Priority
from sidecar.jobs.record import JobState
from sidecar.speech.formats import FORMATS
from sidecar.transports.http.schemas import OPTIONS, PROBLEMS, JobSummary, submission
from sidecar.transports.jobs.listing import MOST, USUAL


class Job(JobSummary):
    """A job as it stands, without what was said."""

    priority: Literal["interactive", "batch"]
    estimated_wait_seconds: float | None = Field(
        description="For about how long others go first; null once it runs."
    )
    ended: str | None = Field(examples=["2026-11-20T21:12:00Z"], description="In UTC.")
    last_event: int = Field(description="The number of its last event.")


class JobPage(BaseModel):
    """A page of the list."""

    jobs: list[Job]
    next: str | None = Field(description="What to send as 'after' for the next page.")


class Peaks(BaseModel):
    """What a picture of a recording's sound is drawn from."""

    per_second: int = Field(examples=[10])
    peaks: str = Field(description="A byte for each, 0 to 255: the loudest sample; in base64.")


def parameter(name: str, where: str, schema: dict[str, Any], said: str) -> dict[str, Any]:
    """One that may be left out."""
    return {"name": name, "in": where, "required": False, "schema": schema, "description": said}


SUBMIT: dict[str, Any] = {
    "requestBody": submission(
        OPTIONS
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

LIST: dict[str, Any] = {
    "parameters": [
        parameter(
            "state", "query", {"type": "string", "enum": [*JobState]}, "Or several, with commas."
        ),
        parameter(
            "limit",
            "query",
            {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL},
            "Jobs on a page.",
        ),
        parameter("after", "query", {"type": "string"}, "'next' of the page before."),
    ]
}

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
            "begun, progress, segment, crashed, put_back; then done, failed or cancelled, and the "
            "end. 'behind': you read too slowly; resume after the id that it names."
        ),
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The job has ended, and you have had all."},
    **PROBLEMS,
}

FORMAT: dict[str, Any] = {
    "parameters": [
        parameter(
            "format", "query", {"type": "string", "enum": [*FORMATS], "default": "json"}, "Which."
        )
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
    **PROBLEMS,
}
