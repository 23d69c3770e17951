"""The sidecar's wire: what the desktop host speaks (POST /transcribe, /reload-model, GET /health).

The named fields keep their names and types for the host's parser; whatever else is here was added
beside them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar import errors
from sidecar.api import jobs, lines, transcribe_schemas
from sidecar.api.answers import answer_body, job_response
from sidecar.api.http import hanging_up
from sidecar.api.http.bodies import json_response, media_type, open_local, read_fields, to_json
from sidecar.api.http.caller import caller_of
from sidecar.api.http.prefer import wants_async
from sidecar.api.http.schemas import PROBLEMS
from sidecar.api.http.upload import read_json
from sidecar.audio.source import AudioSource
from sidecar.interfaces.engine import TranscribeOptions
from sidecar.interfaces.options import parse_flag
from sidecar.service import Service
from sidecar.transcripts import local_voices
from sidecar.transcripts.local_voices import asked_of


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()

    @router.post(
        "/transcribe",
        summary="Who said what and when",
        response_model=transcribe_schemas.Transcription,
        responses={
            200: {"content": {lines.MEDIA_TYPE: {"schema": {"type": "string"}}}},
            202: {"model": transcribe_schemas.Job},
            **PROBLEMS,
        },
        openapi_extra={"requestBody": transcribe_schemas.TRANSCRIBE_BODY},
    )
    async def transcribe(request: Request) -> Response:
        caller = caller_of(request)
        later = wants_async(request.headers.getlist("prefer"))
        with await service.submissions.place(caller) as place:
            source, options = await _read_request(request, service, kept=later)
            job = await service.submissions.submit(caller, source, options, place, kept=later)
        if later:
            said = {"Location": f"/jobs/{job.id}", "Preference-Applied": "respond-async"}
            return await job_response(service, caller, job.record, 202, said)
        cancel = partial(service.owned.hang_up, caller, job.record)
        if lines.wanted_by(request):
            farewell = lines.failed(errors.TokenInvalid())
            return lines.Lines(lines.lines(service, job), cancel, farewell)
        async with hanging_up.noticed(request, cancel, cancel):
            transcript = await job.result()
        return json_response(
            await asyncio.to_thread(lambda: to_json(answer_body(service, job.record, transcript)))
        )

    @router.post(
        "/reload-model",
        summary="Load the engine anew at another precision",
        response_model=transcribe_schemas.Reloaded,
        responses=PROBLEMS,
        openapi_extra={"requestBody": transcribe_schemas.RELOAD_BODY},
    )
    async def reload_model(request: Request) -> Response:
        if media_type(request) != "application/json":
            raise errors.ContentTypeUnsupported(hint="Send application/json.")
        values = await read_json(request, service.settings)
        now = parse_flag("now", request.query_params.get("now"), default=False)
        precision = await service.reload(caller_of(request), _text(values, "precision"), now=now)
        return json_response(
            {"status": "success", "message": f"Model reloaded with precision: {precision}"}
        )

    jobs.add_routes(router, service)
    return router


def _text(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        raise errors.FieldMissing(f"The field '{name}' is missing.")
    if not isinstance(values[name], str):
        raise errors.FieldInvalid(f"The field '{name}' is not a string.")
    return str(values[name])


async def _read_request(
    request: Request, service: Service, *, kept: bool
) -> tuple[AudioSource, TranscribeOptions]:
    """The recording and the options, from either form of the request. What voices are like goes
    into no answer that is ``kept``."""
    fields, source = await read_fields(request, service)
    try:
        options = service.options(fields)
        asked = asked_of(fields.get(local_voices.FIELD))
        if service.offers_voices and options.diarize and not kept:
            options = replace(options, local_voices=asked)
        return source or await open_local(request, fields, service), options
    except BaseException:
        if source is not None:
            source.close()
        raise
