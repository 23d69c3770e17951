"""An answer as lines of JSON: segments as they are known, then the transcript, or what went wrong.

What was said may be revised until the end, as in every stream of ours; the transcript has the last
word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import Request

from sidecar import errors
from sidecar.api.answers import answer_body
from sidecar.api.http import sse
from sidecar.api.http.bodies import to_json
from sidecar.api.http.problems import headers_of, problem_body
from sidecar.api.http.unsaid import Unsaid
from sidecar.jobs.job import Job
from sidecar.service import Service
from sidecar.transcripts.transcript_formats import segment_body

MEDIA_TYPE = "application/x-ndjson"
KEEP_ALIVE = b"\n"
"""An empty line, which every reader passes over."""


class Lines(sse.EventStream):
    """As that, of lines."""

    media_type = MEDIA_TYPE


def wanted_by(request: Request) -> bool:
    """Whether a client asks for its answer line by line (`Accept`)."""
    kinds = ",".join(request.headers.getlist("accept")).split(",")
    return any(kind.partition(";")[0].strip().lower() == MEDIA_TYPE for kind in kinds)


async def lines(service: Service, job: Job) -> AsyncGenerator[bytes, None]:
    """What a client gets to read, with an empty line where nothing comes for a while."""
    unsaid = Unsaid()
    try:
        async with aclosing(job.watched(sse.KEEP_ALIVE_S)) as changes:
            async for record in changes:
                if record is None:
                    yield KEEP_ALIVE
                    continue
                for _, segment in unsaid.more(record):
                    yield _line("segment", segment_body(segment))
        transcript = await job.result()
        yield await asyncio.to_thread(
            lambda: _line("result", answer_body(service, job.record, transcript))
        )
    except errors.SidecarError as error:
        yield failed(error)


def failed(error: errors.SidecarError) -> bytes:
    """The last line where there is no transcript: a problem, and when to try again."""
    retry = {name.lower(): value for name, value in headers_of(error).items()}.get("retry-after")
    return _line("failed", problem_body(error) | ({"retry_after": retry} if retry else {}))


def _line(name: str, body: Mapping[str, Any]) -> bytes:
    return to_json({name: body}) + b"\n"
