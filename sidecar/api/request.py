"""What a request for a job says: its recording, its options, how urgent it is, and its key."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fastapi import Request

from sidecar.api.http.bodies import open_local, read_fields
from sidecar.api.http.idempotency import digest, key_name
from sidecar.audio.source import AudioSource
from sidecar.interfaces.engine import TranscribeOptions
from sidecar.interfaces.options import parse_choice
from sidecar.jobs.record import RequestKey
from sidecar.jobs.scheduler import Priority
from sidecar.service import Service


@dataclass(frozen=True, slots=True)
class JobRequest:
    """All of it; ``source`` is open, and whoever has this sees to its end."""

    source: AudioSource
    options: TranscribeOptions
    priority: Priority
    key: RequestKey | None


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
            key = RequestKey(name, await asyncio.to_thread(digest, fields, fd))
        return JobRequest(source, options, priority, key)
    except BaseException:
        if source is not None:
            source.close()
        raise
