"""Routes of /v1/audio/transcriptions (with its event stream), /translations, /speech, /v1/models.

OpenAI's clients can use them unchanged. If a client disconnects, its job is cancelled. Clients of
whisper.cpp's server (POST /inference) send the same form, without a model.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, nullcontext
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from sidecar import clock
from sidecar.api.http import middleware, responses, upload
from sidecar.api.http.request_headers import idempotency_key_of, identity_of, request_digest
from sidecar.auth.identity import Identity
from sidecar.errors import SidecarError, TokenInvalid
from sidecar.jobs.job_record import IdempotencyKey, JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.jobs.reservations import QueueReservation
from sidecar.jobs.retention import render_result
from sidecar.protocols import openai_common
from sidecar.protocols.openai import messages, retries, speech
from sidecar.protocols.openai.request import OpenAIRequest, OpenAIResponseFormat, read_request
from sidecar.protocols.openai.retries import OpenAIFollowedJob
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Transcript

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
INFERENCE = "/inference"
MODELS = "/v1/models"
PATHS = ("/v1/audio/", INFERENCE, MODELS, f"{MODELS}/")
"""Paths whose errors have OpenAI's format."""
PREFIXES = ("/v1/audio/", MODELS, "/v1/realtime", INFERENCE)
"""Paths where a duplicate slash is ignored."""


def build_router(service: Service, now: clock.Clock = clock.wall_time) -> APIRouter:
    """Build the routes of this protocol."""
    router = speech.build_router(service)
    left = service.client_timeouts
    abandoned: retries.OpenAIRetries = (
        retries.OpenAILocalRetries(lambda: service.health().jobs_waiting > 0)
        if left is None
        else retries.OpenAISharedRetries(left)
    )
    turns = retries.OpenAIQueueTurns(service.submissions, abandoned)
    created, strict = int(now()), service.settings.openai_strict

    @router.post(
        TRANSCRIPTIONS,
        summary="Transcribe a recording (OpenAI's API)",
        response_class=Response,
        responses=messages.TRANSCRIPTION,
        openapi_extra=messages.TRANSCRIBE,
    )
    async def transcribe(request: Request) -> Response:
        return await _answered(request, service, abandoned, turns, translate=False)

    @router.post(
        TRANSLATIONS,
        summary="Translate a recording into English (OpenAI's API)",
        response_class=Response,
        responses=messages.TRANSCRIPTION,
        openapi_extra=messages.TRANSLATE,
    )
    async def translate(request: Request) -> Response:
        return await _answered(request, service, abandoned, turns, translate=True)

    @router.post(
        INFERENCE,
        summary="Transcribe a recording (whisper.cpp's server)",
        response_class=Response,
        responses=messages.TRANSCRIPTION,
        openapi_extra=messages.INFER,
    )
    async def infer(request: Request) -> Response:
        usual = service.spec.name
        return await _answered(request, service, abandoned, turns, translate=False, usual=usual)

    @router.get(
        MODELS,
        summary="List the names of the loaded model (OpenAI's API)",
        response_model=messages.OpenAIModelList,
    )
    async def listed() -> Response:
        spec = service.spec
        names = openai_common.listed_models(spec, strict=strict)
        models = [messages.OpenAIModel.of(spec, name, created, strict=strict) for name in names]
        body = messages.OpenAIModelList(object="list", data=models)
        return responses.json_response(body.model_dump(), headers=_request_id())

    @router.get(
        f"{MODELS}/{{model:path}}",  # names can have slashes: Systran/faster-whisper-large-v3
        summary="A model (OpenAI's API)",
        response_model=messages.OpenAIModel,
    )
    async def model(model: str) -> Response:
        body = messages.OpenAIModel.of(service.spec, model, created, strict=strict)
        return responses.json_response(body.model_dump(), headers=_request_id())

    return router


@dataclass(frozen=True, slots=True)
class _OpenAIStartedJob:
    """Job of a request. ``live``: the job, if a disconnect cancels it. ``sent``: the request, if
    its client may send it again."""

    running: retries.OpenAIFollowedJob
    live: Job | None = None
    sent: retries.OpenAISentRequest | None = None
    replayed: bool = False


async def _answered(
    request: Request,
    service: Service,
    abandoned: retries.OpenAIRetries,
    turns: retries.OpenAIQueueTurns,
    *,
    translate: bool,
    usual: str = "",
) -> Response:
    caller, arrived = identity_of(request), _now()
    key = idempotency_key_of(request)
    place = await turns.place(request, caller, key)
    again = bool(retries.retry_count(request))
    with place or nullcontext(), abandoned.coming(caller.owner) if again else nullcontext():
        asked = await read_request(request, service, translate=translate, usual=usual)
        begun = await _begun(request, service, caller, abandoned, asked, place, key)
    running = begun.running
    headers = {
        openai_common.REQUEST_ID: running.record.id,
        **openai_common.warning_headers(asked.warnings),
    }
    if begun.replayed:
        headers["Idempotent-Replayed"] = "true"

    def cancel() -> None:
        service.owned.hang_up(caller, running.record)

    left = False

    def gone() -> None:
        nonlocal left
        if left or begun.live is None or begun.live.ended:
            return
        if begun.sent is not None and retries.timed_out(request, _now() - arrived):
            left = True
            abandoned.leave(begun.sent, begun.live, cancel)
        else:
            cancel()

    def noted(record: JobRecord) -> Transcript:
        if record.error is not None:
            raise record.error.error()
        assert record.transcript is not None
        return service.noted(record.transcript, record.options).with_notice(*asked.answer.notices)

    if asked.answer.stream:
        sent = event_frames(running, asked.answer.format, noted)
        closed = cancel if begun.live else _nothing
        return responses.EventStreamResponse(sent, closed, token_revoked_frame(), headers)
    async with middleware.watch_disconnect(request, gone, cancel):
        async for _ in running.watched(responses.SSE_KEEP_ALIVE_S):
            pass
        transcript, temperature = noted(running.record), running.record.options.temperature
    body, kind = await render_result(
        transcript.segments,
        lambda: messages.transcription_answer(transcript, asked.answer, temperature),
        subtitles=asked.answer.format in (OpenAIResponseFormat.SRT, OpenAIResponseFormat.VTT),
    )
    return Response(body, media_type=kind, headers=headers)


async def _begun(
    request: Request,
    service: Service,
    caller: Identity,
    abandoned: retries.OpenAIRetries,
    asked: OpenAIRequest,
    place: QueueReservation | None,
    key: str | None,
) -> _OpenAIStartedJob:
    """Return the job of a request: a new one, or the one of an earlier try."""
    if key is not None:
        with upload.close_on_error(asked.source):
            said = await asyncio.to_thread(request_digest, asked.fields, asked.source.fd)
        record, replayed = await service.submissions.submit_once(
            caller, asked.source, asked.options, place, IdempotencyKey(key, said)
        )
        return _OpenAIStartedJob(retries.OpenAIKeptJob(service, caller, record), replayed=replayed)
    sent = None
    with upload.close_on_error(asked.source):
        if (count := retries.retry_count(request)) is not None:
            sent = await abandoned.sent(caller.owner, asked.fields, asked.source)
        if sent is not None and count and (job := await abandoned.take(sent, asked.source)):
            return _OpenAIStartedJob(job, job, sent)  # from an earlier try of this request
    job = await service.submissions.submit(caller, asked.source, asked.options, place, kept=False)
    return _OpenAIStartedJob(job, job, sent)


def _nothing() -> None:
    """Do nothing: the job continues without the client, which may retry with the same key."""


def _now() -> float:
    return asyncio.get_running_loop().time()


def _request_id() -> dict[str, str]:
    return {openai_common.REQUEST_ID: uuid.uuid4().hex}


DONE = b"data: [DONE]\n\n"
AnnotateTranscript = Callable[[JobRecord], Transcript]
"""Function that returns the transcript of a finished job, with its warnings; it raises the job's
error."""


async def event_frames(
    running: OpenAIFollowedJob, fmt: OpenAIResponseFormat, noted: AnnotateTranscript
) -> AsyncGenerator[bytes, None]:
    """Yield the event stream, with a comment as keep-alive while no event comes."""
    told = messages.OpenAIJobEvents(diarized=fmt is OpenAIResponseFormat.DIARIZED)
    try:
        async with aclosing(running.watched(responses.SSE_KEEP_ALIVE_S)) as changes:
            async for record in changes:
                if record is None:
                    yield responses.SSE_KEEP_ALIVE
                    continue
                for event in told.more(record):
                    yield responses.sse_frame(event)
                if record.over:
                    for event in told.end(noted(record)):
                        yield responses.sse_frame(event)
    except SidecarError as error:
        yield responses.sse_frame(openai_common.error_body(error))
    yield DONE


def token_revoked_frame() -> bytes:
    """Return the last frame for a client whose token was revoked."""
    return responses.sse_frame(openai_common.error_body(TokenInvalid())) + DONE
