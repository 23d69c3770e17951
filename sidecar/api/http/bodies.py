"""Bodies of requests and answers, as several wires read and write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response

from sidecar import errors
from sidecar.api.http.caller import caller_of
from sidecar.api.http.upload import read_form, read_json
from sidecar.audio.source import AudioSource
from sidecar.auth.identity import Scope
from sidecar.service import Service

Fields = Mapping[str, object]


def to_json(body: Mapping[str, Any]) -> bytes:
    """Strict JSON: a NaN is a fault here, not something to send."""
    return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()


def json_response(
    body: Mapping[str, Any] | bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer in JSON, from values or from what `to_json` made of them."""
    return Response(
        body if isinstance(body, bytes) else to_json(body),
        status_code=status,
        media_type="application/json",
        headers=dict(headers or {}),
    )


def media_type(request: Request) -> str:
    """The Content-Type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_fields(request: Request, service: Service) -> tuple[Fields, AudioSource | None]:
    """The fields of a request in either form, and the recording if it came along.

    Raises:
        errors.BadRequest: the body is not what it says it is.
    """
    match media_type(request):
        case "multipart/form-data":
            upload = await read_form(request, service)
            return upload.fields, upload.source
        case "application/json":
            return await read_json(request, service.settings), None
    raise errors.ContentTypeUnsupported()


async def open_local(request: Request, fields: Fields, service: Service) -> AudioSource:
    """The file that the field 'audio_path' names, for a client that may do so.

    Raises:
        errors.BadRequest: it is missing, not allowed, or no recording's.
    """
    caller = caller_of(request)
    caller.demand(Scope.AUDIO_PATH)
    if "audio_path" not in fields:
        raise errors.FieldMissing("The field 'audio_path' is missing.")
    path = fields["audio_path"]
    if not isinstance(path, str):
        raise errors.AudioPathInvalid("'audio_path' is not a string.")
    return await service.submissions.open_path(caller, path)
