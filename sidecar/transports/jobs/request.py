"""What a request for a job says: its recording, its options, how urgent it is, and its key."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass

from fastapi import Request

from sidecar import errors
from sidecar.audio.ref import digest_of
from sidecar.audio.source import AudioSource
from sidecar.jobs.order import Priority
from sidecar.jobs.record import RequestKey
from sidecar.service import Service
from sidecar.speech.engine import TranscribeOptions
from sidecar.speech.options import parse_choice
from sidecar.transports.http.bodies import Fields, open_local, read_fields

KEY = "idempotency-key"
_KEY = re.compile(r'"?(?P<name>[\x21\x23-\x7e]{1,255})"?', re.ASCII)
"""A structured string by the draft (draft-ietf-httpapi-idempotency-key-header); most clients send
it without the quotes."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """All of it; ``source`` is open, and whoever has this sees to its end."""

    source: AudioSource
    options: TranscribeOptions
    priority: Priority
    key: RequestKey | None


def key_name(request: Request) -> str | None:
    """What the client calls this request, None if it has no name.

    Raises:
        errors.FieldInvalid: it is no name.
    """
    given = request.headers.getlist(KEY)
    if not given:
        return None
    said = _KEY.fullmatch(given[0].strip())
    if said is None or len(given) > 1:
        raise errors.FieldInvalid(
            "'Idempotency-Key' is not a key.",
            hint="Send one, of 1 to 255 ASCII characters without spaces, such as a UUID.",
        )
    return said["name"]


async def read_request(request: Request, service: Service) -> JobRequest:
    """Read the body, in either of its forms.

    Raises:
        errors.BadRequest: it is not what it says it is, or means nothing.
    """
    name = key_name(request)
    fields, source = await read_fields(request, service)
    uploaded = source is not None
    try:
        options = service.options(fields)
        priority = parse_choice("priority", fields.get("priority"), Priority.INTERACTIVE)
        source = source or await open_local(request, fields, service)
        key = None
        if name is not None:
            fd = source.fd if uploaded else None
            key = RequestKey(name, await asyncio.to_thread(_digest, fields, fd))
        return JobRequest(source, options, priority, key)
    except BaseException:
        if source is not None:
            source.close()
        raise


def _digest(fields: Fields, upload: int | None) -> str:
    """Of all that was sent: two requests with the same are one. A file that was named counts by its
    name."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    if upload is not None:
        digest.update(digest_of(upload).encode())
    return digest.hexdigest()
