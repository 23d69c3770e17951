"""Schemas, text fragments and errors of the vvv server.

As far as it has any texts; the rest of a problem is beside them.

In fragments that follow each other with nothing in between.

What was sent stays sent, so each segment goes out once, as soon as it is closed. What is revised
after that (who said it; a stretch that is heard again after a crash) is not told on this wire.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Literal, TypeAlias

from fastapi import Response
from pydantic import BaseModel, Field

from sidecar import errors
from sidecar.api.http import schemas
from sidecar.api.http.responses import UnsentSegments, error_headers, problem_body, to_json
from sidecar.jobs.job_record import JobRecord
from sidecar.transcripts.transcript import Segment

VvvStatus: TypeAlias = Literal["queued", "processing", "streaming", "completed", "failed"]


class VvvJobInfo(BaseModel):
    """One of your jobs."""

    job_id: str = Field(examples=["9f0c3a5e8d1b4c7f9f0c3a5e8d1b4c7f"])
    status: VvvStatus
    position: int | None = Field(description="1 for the next job; null once it runs.")
    estimated_wait_seconds: float | None


class VvvQueueStatus(BaseModel):
    """Your jobs, and the length of the queue."""

    your_jobs: list[VvvJobInfo]
    total_queued: int


class VvvMissingPart(BaseModel):
    """A problem whose detail is a list: the part 'audio' is missing."""

    detail: list[dict[str, Any]]
    code: str = Field(examples=["file_missing"])
    hint: str


_PROBLEM = schemas.ProblemDetails.model_json_schema()
ERRORS = schemas.error_responses(
    {
        **schemas.content("application/json", schema=VvvMissingPart.model_json_schema()),
        **schemas.content("application/problem+json", schema=_PROBLEM),
    }
)

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "queue, then unnamed fragments of the answer, then done or error",
        "content": schemas.content("text/event-stream"),
    },
    **ERRORS,
}
_HOTWORDS = schemas.text("Names and terms to expect, separated by commas.")
_FORM = schemas.object_schema({"audio": schemas.AUDIO_FILE, "hotwords": _HOTWORDS}, ["audio"])
SUBMIT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": schemas.content("multipart/form-data", schema=_FORM),
    },
    "parameters": [
        schemas.parameter("hotwords", "query", _HOTWORDS, "The same as the form field.")
    ],
}


def segment_text(segment: Segment) -> str:
    """One segment as the model writes it; what nobody says has no speaker."""
    body: dict[str, object] = {"Start": round(segment.start, 2), "End": round(segment.end, 2)}
    if segment.is_speech:
        body["Speaker"] = segment.speaker or 0
    body["Content"] = segment.text
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class VvvFragments:
    """Text fragments of one job that are not sent yet."""

    def __init__(self) -> None:
        self._unsaid = UnsentSegments()
        self._begun = False

    def more(self, job: JobRecord) -> Iterator[str]:
        """A fragment for each segment that is new in a job, and one for the end of the list."""
        for _, segment in self._unsaid.more(job):
            yield ("," if self._begun else "[") + segment_text(segment)
            self._begun = True
        if job.transcript is not None:
            yield "]" if self._begun else "[]"


EXTENSIONS = ("wav", "mp3", "m4a", "mp4", "flac", "ogg", "opus", "webm", "wma", "aac")

TOKEN_INVALID = "Invalid token"  # noqa: S105 - what is said of one
_MISSING = [{"type": "missing", "loc": ["body", "audio"], "msg": "Field required", "input": None}]
"""As the framework of the original says it."""
_SAID: dict[type[errors.SidecarError], tuple[int, str | list[dict[str, Any]]]] = {
    errors.AudioEmpty: (400, "Empty audio file"),
    errors.UploadTooLarge: (413, "Audio file too large"),
    errors.QueueFull: (503, "Queue is full"),
    errors.UploadsFull: (503, "Queue is full"),
    errors.FileMissing: (422, _MISSING),
    errors.ContentTypeUnsupported: (422, _MISSING),
    errors.TokenMissing: (401, "Not authenticated"),
    errors.TokenInvalid: (401, TOKEN_INVALID),
}
_UNREADABLE = (
    errors.AudioFormatUnsupported,
    errors.AudioUndecodable,
    errors.AudioDecodeTimeout,
)


class VvvFileNameUnsupported(errors.AudioFormatUnsupported):
    """The name of the file says nothing of its type, or another type than any of these."""


def error_response(error: errors.SidecarError) -> Response:
    """The response that says ``error``."""
    body = problem_body(error)
    status, detail = _SAID.get(type(error), (body["status"], error.detail))
    if isinstance(error, VvvFileNameUnsupported):
        status = 400
    elif isinstance(error, _UNREADABLE):
        status, detail = 422, f"Cannot read audio: {error.detail}"
    body |= {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Response(
        to_json(body),
        status_code=status,
        # a problem's detail is text; a list is the framework's of the original
        media_type=f"application/{'problem+' if isinstance(detail, str) else ''}json",
        headers=error_headers(error),
    )


def check_file_name(name: str) -> None:
    """Refuse a file whose name the original would: it goes by the extension. What is in it is found
    out by looking, here as everywhere.

    Raises:
        FileNameUnsupported: it has no name, or one without an extension that is known.
    """
    if not name:
        raise VvvFileNameUnsupported("The audio file has no filename.")
    if name.rpartition(".")[2].lower() not in EXTENSIONS or "." not in name:
        known = ", ".join(f".{each}" for each in EXTENSIONS)
        raise VvvFileNameUnsupported(f"Unsupported audio format. Supported extensions: {known}")
