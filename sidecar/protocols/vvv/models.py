"""This wire as schemas and examples, for OpenAPI. Nothing is validated with them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from sidecar.api.http.schemas import Problem


class JobInfo(BaseModel):
    """One of your jobs."""

    job_id: str = Field(examples=["9f0c3a5e8d1b4c7f9f0c3a5e8d1b4c7f"])
    status: Literal["queued", "processing", "streaming", "completed", "failed"]
    position: int | None = Field(description="1 for the next; null once it runs.")
    estimated_wait_seconds: float | None


class QueueStatus(BaseModel):
    """Your jobs, and how many wait in all."""

    your_jobs: list[JobInfo]
    total_queued: int


class MissingPart(BaseModel):
    """A problem whose detail is a list: the part 'audio' is missing."""

    detail: list[dict[str, Any]]
    code: str = Field(examples=["file_missing"])
    hint: str


_EITHER = {
    "application/json": {"schema": MissingPart.model_json_schema()},
    "application/problem+json": {"schema": Problem.model_json_schema()},
}
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "What was wrong with the request", "content": _EITHER},
    "5XX": {"description": "What went wrong here", "content": _EITHER},
}

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "queue, then fragments of the answer without a name, then done or error",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    **ERRORS,
}

_HOTWORDS = {"type": "string", "description": "Names and terms that may be said, with commas."}
SUBMIT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["audio"],
                    "properties": {
                        "audio": {"type": "string", "format": "binary"},
                        "hotwords": _HOTWORDS,
                    },
                }
            }
        },
    },
    "parameters": [
        {
            "name": "hotwords",
            "in": "query",
            "required": False,
            "schema": _HOTWORDS,
            "description": "The same, for those who do not send it in the form.",
        }
    ],
}
