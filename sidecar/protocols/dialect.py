"""Errors in OpenAI's shape, and what its SDKs go by: the status, `x-should-retry`, `Retry-After`.

The statuses are those of problems, but for a full house: 429, which is how those SDKs are told to
come back. They would send anything from 500 on again by themselves, and 408, 409 and 429; so what
would only fail once more says that it is not to be sent again.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from fastapi import Response

from sidecar import errors
from sidecar.api.http.bodies import to_json
from sidecar.api.http.problems import STATUS, headers_of, note

REQUEST_ID = "x-request-id"
_FULL = (errors.QueueFull, errors.UploadsFull)
_TRIED_TWICE = (errors.EngineCrashed,)
"""By us, already."""
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_PARAMS: dict[type[errors.SidecarError], str] = {
    errors.SoundInvalid: "audio",
    errors.BadAudio: "file",
    errors.FileMissing: "file",
    errors.MultipleFiles: "file",
    errors.UploadTooLarge: "file",
    errors.ModelNotFound: "model",
    errors.LanguageInvalid: "language",
    errors.LanguageUnsupported: "language",
    errors.PrecisionUnknown: "precision",
    errors.LogprobsUnavailable: "include",
    errors.WordsUnavailable: "timestamp_granularities",
    errors.ItemUnknown: "item_id",
    errors.CallUnknown: "item.call_id",
    errors.ToolsUnavailable: "tools",
    errors.VoiceUnknown: "voice",
    errors.VoicesUnavailable: "known_speaker_references",
}
_NAMED = re.compile(r"'([a-z_.]+)(?:\[[a-z_]*\])?'")


def say(error: errors.SidecarError) -> Response:
    """The response that says ``error``; the log has its id."""
    request_id = uuid.uuid4().hex
    note(error, request_id)
    return Response(
        to_json(error_body(error)),
        status_code=status_of(error),
        media_type="application/json",
        headers={
            **headers_of(error),
            REQUEST_ID: request_id,
            "x-should-retry": "true" if again(error) else "false",
        },
    )


def error_body(error: errors.SidecarError) -> dict[str, Any]:
    """An error as OpenAI's clients read it, alone or in a stream."""
    status = status_of(error)
    usual = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": f"{error.detail} {error.hint}",
            "type": _TYPES.get(status, usual),
            "param": param_of(error),
            "code": error.code,
        }
    }


def status_of(error: errors.SidecarError) -> int:
    """The status of an error on this wire."""
    return 429 if isinstance(error, _FULL) else STATUS[error.kind]


def again(error: errors.SidecarError) -> bool:
    """Whether the same request may go well a little later."""
    if isinstance(error, errors.UploadStalled):
        return True
    return error.retry_after is not None and not isinstance(error, _TRIED_TWICE)


def param_of(error: errors.SidecarError) -> str | None:
    """The parameter that is to blame; of a field its refusal has the name, in quotes."""
    if isinstance(error, errors.FieldInvalid | errors.FieldMissing):
        named = _NAMED.search(error.detail)
        return named[1] if named else None
    return next((name for kind, name in _PARAMS.items() if isinstance(error, kind)), None)
