"""Routes of /transcribe and /jobs for the desktop host.

The named fields keep their names and types for the host's parser; whatever else is here was added
beside them.

What was said may be revised until the end, as in every stream of ours; the transcript has the last
word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar import errors
from sidecar.api import transcribe_schemas
from sidecar.api.http import middleware, responses
from sidecar.api.http.request_headers import identity_of, wants_async
from sidecar.api.http.responses import json_response, to_json
from sidecar.api.http.schemas import PROBLEMS
from sidecar.api.http.upload import read_json
from sidecar.audio.audio_source import AudioSource
from sidecar.auth.identity import Identity
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.interfaces.request_options import parse_flag, unknown_fields
from sidecar.jobs.job_record import JobRecord, JobState
from sidecar.jobs.job_runner import Job
from sidecar.jobs.job_store import QueuePosition
from sidecar.service.facade import Service
from sidecar.transcripts import speaker_embeddings
from sidecar.transcripts.speaker_embeddings import LOCAL_VOICES_FIELD, embeddings_request_of
from sidecar.transcripts.transcript import Transcript
from sidecar.transcripts.transcript_formats import segment_body, transcript_body


def answer_body(service: Service, job: JobRecord, transcript: Transcript) -> dict[str, Any]:
    """The answer to a transcription."""
    body = transcript_body(service.noted(transcript, job.options))
    body["metadata"] |= {"processing_time": round(job.processing_s, 3), "job_id": job.id}
    if (voices := transcript.local_voices) is not None:
        body[LOCAL_VOICES_FIELD] = asdict(voices)
    return {"status": "success", **body}


def job_rendering(
    service: Service, job: JobRecord, turn: QueuePosition | None
) -> Callable[[], bytes]:
    """Return the function that renders the body of a job as it stands now, with its result once
    there is one; it may be called in a thread."""
    summary, segments = responses.job_summary(job, turn), job.segments
    transcript = job.transcript if job.state is JobState.DONE else None

    def render() -> bytes:
        body = summary | {"segments": [segment_body(segment) for segment in segments]}
        if transcript is not None:
            body["result"] = answer_body(service, job, transcript)
        return to_json(body)

    return render


async def job_response(
    service: Service,
    caller: Identity,
    job: JobRecord,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer about one job."""
    turn = await service.owned.turn(caller, job)
    body = await service.owned.answer(caller, job, job_rendering(service, job, turn))
    return json_response(body, status, headers)


def add_routes(router: APIRouter, service: Service) -> None:
    """The routes of jobs that can be asked for."""

    @router.get(
        "/jobs",
        summary="The jobs that can be asked for",
        response_model=transcribe_schemas.TranscribeJobList,
    )
    async def jobs(request: Request) -> Response:
        caller = identity_of(request)
        own = await service.owned.jobs(caller)
        turns = await service.owned.turns(caller, own)
        return json_response(
            {"jobs": [responses.job_summary(job, turns.get(job.id)) for job in own]}
        )

    @router.get(
        "/jobs/{job_id}",
        summary="How far a job is, and its result",
        response_model=transcribe_schemas.TranscribeJob,
        responses=PROBLEMS,
    )
    async def job_state(request: Request, job_id: str) -> Response:
        caller = identity_of(request)
        return await job_response(service, caller, await service.owned.read(caller, job_id))

    @router.delete(
        "/jobs/{job_id}",
        summary="Cancel a job",
        response_model=transcribe_schemas.TranscribeJob,
        responses=PROBLEMS,
    )
    async def cancel_job(request: Request, job_id: str) -> Response:
        caller = identity_of(request)
        job = await service.owned.job(caller, job_id)
        return await job_response(service, caller, await service.owned.cancel(caller, job))


MEDIA_TYPE = "application/x-ndjson"
KEEP_ALIVE = b"\n"
"""An empty line, which every reader passes over."""


class NdjsonResponse(responses.EventStreamResponse):
    """As that, of lines."""

    media_type = MEDIA_TYPE


def wants_ndjson(request: Request) -> bool:
    """Return whether a client asks for its answer line by line (`Accept`)."""
    kinds = ",".join(request.headers.getlist("accept")).split(",")
    return any(kind.partition(";")[0].strip().lower() == MEDIA_TYPE for kind in kinds)


async def ndjson_lines(service: Service, job: Job) -> AsyncGenerator[bytes, None]:
    """Yield the lines of an answer, with an empty line if nothing comes for a while."""
    unsaid = responses.UnsentSegments()
    try:
        async with aclosing(job.watched(responses.SSE_KEEP_ALIVE_S)) as changes:
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
        yield error_line(error)


def error_line(error: errors.SidecarError) -> bytes:
    """The last line where there is no transcript: a problem, and when to try again."""
    retry = {name.lower(): value for name, value in responses.error_headers(error).items()}.get(
        "retry-after"
    )
    return _line(
        "failed", responses.problem_body(error) | ({"retry_after": retry} if retry else {})
    )


def _line(name: str, body: Mapping[str, Any]) -> bytes:
    return to_json({name: body}) + b"\n"


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()

    @router.post(
        "/transcribe",
        summary="Who said what and when",
        response_model=transcribe_schemas.TranscribeAnswer,
        responses={
            200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
            202: {"model": transcribe_schemas.TranscribeJob},
            **PROBLEMS,
        },
        openapi_extra={"requestBody": transcribe_schemas.TRANSCRIBE_BODY},
    )
    async def transcribe(request: Request) -> Response:
        caller = identity_of(request)
        later = wants_async(request.headers.getlist("prefer"))
        with await service.submissions.place(caller) as place:
            source, options = await _read_request(request, service, kept=later)
            job = await service.submissions.submit(caller, source, options, place, kept=later)
        if later:
            headers = {"Location": f"/jobs/{job.id}", "Preference-Applied": "respond-async"}
            return await job_response(service, caller, job.record, 202, headers)
        cancel = partial(service.owned.hang_up, caller, job.record)
        if wants_ndjson(request):
            farewell = error_line(errors.TokenInvalid())
            return NdjsonResponse(ndjson_lines(service, job), cancel, farewell)
        async with middleware.watch_disconnect(request, cancel, cancel):
            transcript = await job.result()
        return json_response(
            await asyncio.to_thread(lambda: to_json(answer_body(service, job.record, transcript)))
        )

    @router.post(
        "/reload-model",
        summary="Load the engine anew at another precision",
        response_model=transcribe_schemas.ReloadAnswer,
        responses=PROBLEMS,
        openapi_extra={"requestBody": transcribe_schemas.RELOAD_BODY},
    )
    async def reload_model(request: Request) -> Response:
        if responses.media_type(request) != "application/json":
            raise errors.ContentTypeUnsupported(hint="Send application/json.")
        values = await read_json(request)
        now = parse_flag("now", request.query_params.get("now"), default=False)
        precision = await service.reload(identity_of(request), _text(values, "precision"), now=now)
        return json_response(
            {"status": "success", "message": f"Model reloaded with precision: {precision}"}
        )

    add_routes(router, service)
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
    fields, source = await responses.read_fields(request, service)
    try:
        odd = unknown_fields(fields, transcribe_schemas.TRANSCRIBE_FIELDS)
        options = replace(service.options(fields), unknown_fields=odd)
        embeddings = embeddings_request_of(fields.get(speaker_embeddings.LOCAL_VOICES_FIELD))
        if service.offers_voices and options.diarize and not kept:
            options = replace(options, local_voices=embeddings)
        return source or await responses.open_local(request, fields, service), options
    except BaseException:
        if source is not None:
            source.close()
        raise
