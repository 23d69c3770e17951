"""Bodies of requests and answers, as several wires read and write them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response

from sidecar import errors
from sidecar.audio.source import AudioSource, open_path
from sidecar.auth import is_loopback
from sidecar.settings import Settings
from sidecar.transports.upload import read_form, read_json

Fields = Mapping[str, object]


def json_response(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Strict JSON: a NaN is a fault here, not something to send."""
    return Response(
        json.dumps(body, allow_nan=False, separators=(",", ":")),
        status_code=status,
        media_type="application/json",
        headers=dict(headers or {}),
    )


def media_type(request: Request) -> str:
    """The Content-Type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_local(request: Request) -> bool:
    """Whether the client is on this machine."""
    return request.client is None or is_loopback(request.client.host)


async def read_fields(request: Request, settings: Settings) -> tuple[Fields, AudioSource | None]:
    """The fields of a request in either form, and the recording if it came along.

    Raises:
        errors.BadRequest: the body is not what it says it is.
    """
    match media_type(request):
        case "multipart/form-data":
            upload = await read_form(request, settings)
            return upload.fields, upload.source
        case "application/json":
            return await read_json(request, settings), None
    raise errors.ContentTypeUnsupported()


async def open_local(request: Request, fields: Fields, settings: Settings) -> AudioSource:
    """The file that the field 'audio_path' names, for a client on this machine.

    Raises:
        errors.BadRequest: it is missing, not allowed, or no recording's.
    """
    if not is_local(request):
        raise errors.AudioPathForbidden("'audio_path' works on this machine only.")
    if "audio_path" not in fields:
        raise errors.FieldMissing("The field 'audio_path' is missing.")
    path = fields["audio_path"]
    if not isinstance(path, str):
        raise errors.AudioPathInvalid("'audio_path' is not a string.")
    return await asyncio.to_thread(open_path, path, settings.audio_roots)
