"""Errors as this wire's clients know them: the original's statuses, and its texts as `detail`.

As far as it has any texts; the rest of a problem is beside them.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import Response

from sidecar import errors
from sidecar.api.http.bodies import to_json
from sidecar.api.http.problems import headers_of, problem_body

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


class FileNameUnsupported(errors.AudioFormatUnsupported):
    """The name of the file says nothing of its type, or another type than any of these."""


def say(error: errors.SidecarError) -> Response:
    """The response that says ``error``."""
    body = problem_body(error)
    status, detail = _SAID.get(type(error), (body["status"], error.detail))
    if isinstance(error, FileNameUnsupported):
        status = 400
    elif isinstance(error, _UNREADABLE):
        status, detail = 422, f"Cannot read audio: {error.detail}"
    body |= {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Response(
        to_json(body),
        status_code=status,
        # a problem's detail is text; a list is the framework's of the original
        media_type=f"application/{'problem+' if isinstance(detail, str) else ''}json",
        headers=headers_of(error),
    )


def check_name(name: str) -> None:
    """Refuse a file whose name the original would: it goes by the extension. What is in it is found
    out by looking, here as everywhere.

    Raises:
        FileNameUnsupported: it has no name, or one without an extension that is known.
    """
    if not name:
        raise FileNameUnsupported("The audio file has no filename.")
    if name.rpartition(".")[2].lower() not in EXTENSIONS or "." not in name:
        known = ", ".join(f".{each}" for each in EXTENSIONS)
        raise FileNameUnsupported(f"Unsupported audio format. Supported extensions: {known}")
