"""Routes of /v1/audio/transcriptions (with its event stream), /translations, /speech, /v1/models.

OpenAI's clients can use them unchanged. If a client disconnects, its job is cancelled. Clients of
whisper.cpp's server (POST /inference) send the same form, without a model.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar import clock
from sidecar.api.http import middleware, model_list, responses, upload
from sidecar.api.http.error_responses import log_error
from sidecar.api.http.request_headers import idempotency_key_of, identity_of, request_digest
from sidecar.errors import MachineBusy, SidecarError, StorageUnreachable, TokenInvalid
from sidecar.jobs.job_record import IdempotencyKey, JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.jobs.reservations import Reservation
from sidecar.plugins.openai import common as openai_common
from sidecar.plugins.openai import messages, retries, speech
from sidecar.plugins.openai.request import OpenAIRequest, OpenAIResponseFormat, read_request
from sidecar.plugins.openai.retries import OpenAIKeptJob
from sidecar.plugins.openai.settings import OpenAISettings
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Transcript
from sidecar.transcripts.transcript_formats import render_result

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
INFERENCE = "/inference"
MODELS = "/v1/models"
PATHS = ("/v1/audio/", INFERENCE, MODELS, f"{MODELS}/")
"""Paths whose errors have OpenAI's format."""
WRONG_PATHS = ("/audio/", "/models", "/models/", "/realtime", "/v1/v1/")
"""Paths of clients whose base URL does not end with `/v1`, or that add another."""
PREFIXES = ("/v1/audio/", MODELS, "/v1/realtime", INFERENCE)
"""Paths where a duplicate slash is ignored."""

log = logging.getLogger(__name__)
DONE = b"data: [DONE]\n\n"


def build_router(service: Service) -> APIRouter:
    """Build the routes of this protocol."""
    router = speech.build_router(service)
    created, strict = int(clock.wall_time()), OpenAISettings.of(service.settings).openai_strict
    wire = _OpenAITranscriptions(service)

    def add(path: str, summary: str, body: dict[str, Any], **how: Any) -> None:
        @router.post(path, summary=summary, responses=messages.TRANSCRIPTION, openapi_extra=body)
        async def transcribe(request: Request) -> Response:
            return await wire.answer(request, **how)

    add(TRANSCRIPTIONS, "Transcribe a recording (OpenAI's API)", messages.TRANSCRIBE)
    add(
        TRANSLATIONS,
        "Translate a recording into English (OpenAI's API)",
        messages.TRANSLATE,
        translate=True,
    )
    add(
        INFERENCE,
        "Transcribe a recording (whisper.cpp's server)",
        messages.INFER,
        whisper_cpp=True,
    )

    @router.get(MODELS, response_model=messages.OpenAIModelList)
    async def listed(request: Request) -> Response:
        """List the names of the loaded model (OpenAI's API)."""
        spec = service.spec
        names = openai_common.listed_models(spec, strict=strict)
        models = [messages.OpenAIModel.of(spec, name, created, strict=strict) for name in names]
        try:
            models_fields = await model_list.models_field(service, identity_of(request))
        except (MachineBusy, StorageUnreachable) as error:  # the names do not depend on the disk
            log_error(error, None)
            models_fields = {}
        body = messages.OpenAIModelList(object="list", data=models, **models_fields)
        return responses.json_response(body.model_dump(exclude_unset=True), headers=_request_id())

    @router.get(f"{MODELS}/{{model:path}}", response_model=messages.OpenAIModel)
    async def model(model: str) -> Response:
        """A model (OpenAI's API)."""
        body = messages.OpenAIModel.of(service.spec, model, created, strict=strict)
        return responses.json_response(body.model_dump(), headers=_request_id())

    return router


@dataclass(frozen=True, slots=True)
class _OpenAIStartedJob:
    """Job of a request. ``digest``: of the request, if its client may send it again."""

    job: Job | OpenAIKeptJob
    digest: str
    replayed: bool = False


class _OpenAITranscriptions:
    """Transcriptions of one service, with the requests that wait for its full queue."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._turns = retries.OpenAIQueueTurns(service.submissions, service.queue)

    async def answer(
        self, request: Request, *, translate: bool = False, whisper_cpp: bool = False
    ) -> Response:
        """Return the response to a request; ``whisper_cpp``: as in `read_request`."""
        service, identity, arrived = self._service, identity_of(request), _now()
        key = idempotency_key_of(request)
        reservation = await self._turns.reserve(request, identity, key)
        with reservation or nullcontext():
            openai_request = await read_request(
                request, service, translate=translate, whisper_cpp=whisper_cpp
            )
            started = await self._start_job(request, openai_request, reservation, key)
        job = started.job
        headers = {
            openai_common.REQUEST_ID: job.record.id,
            **openai_common.warning_headers(openai_request.warnings),
        }
        if started.replayed:
            headers["Idempotent-Replayed"] = "true"

        def cancel() -> None:
            service.owned.cancel_soon(identity, job.record)

        def on_disconnect() -> None:
            if isinstance(job, OpenAIKeptJob) or job.ended:
                return
            if retries.timed_out(request, _now() - arrived):
                service.queue.leave(job, started.digest)
            else:
                cancel()

        def transcript_of(record: JobRecord) -> Transcript:
            if record.error is not None:
                raise record.error.error()
            assert record.transcript is not None
            return service.noted(record.transcript, record.options).with_notice(
                *openai_request.answer.notices
            )

        if openai_request.answer.stream:
            frames = event_frames(job, openai_request.answer.format, transcript_of)
            closed = cancel if isinstance(job, Job) else lambda: None
            return responses.EventStreamResponse(frames, closed, token_revoked_frame(), headers)
        async with middleware.watch_disconnect(request, on_disconnect, cancel):
            async for _ in job.watched(responses.SSE_KEEP_ALIVE_S):
                pass
            transcript, temperature = transcript_of(job.record), job.record.options.temperature
        body, kind = await render_result(
            transcript.segments,
            lambda: messages.transcription_answer(transcript, openai_request.answer, temperature),
            subtitles=openai_request.answer.format
            in (OpenAIResponseFormat.SRT, OpenAIResponseFormat.VTT),
        )
        return Response(body, media_type=kind, headers=headers)

    async def _start_job(
        self,
        request: Request,
        openai_request: OpenAIRequest,
        reservation: Reservation | None,
        key: str | None,
    ) -> _OpenAIStartedJob:
        """Return the job of a request: a new one, or the one of an earlier try."""
        identity, submissions = identity_of(request), self._service.submissions
        source, options, digest = openai_request.source, openai_request.options, ""
        with upload.close_on_error(source):
            if key is not None or retries.retry_count(request) is not None:
                digest = await asyncio.to_thread(request_digest, openai_request.fields, source.fd)
            if key is not None:
                record, replayed = await submissions.submit_once(
                    identity, source, options, reservation, IdempotencyKey(key, digest)
                )
                job = OpenAIKeptJob(self._service, identity, record)
                return _OpenAIStartedJob(job, digest, replayed)
            if digest:
                left = await self._service.queue.take(identity.owner, digest, source)
                if left is not None:
                    log.info("job %s is the answer to a retry of its request", left.id)
                    return _OpenAIStartedJob(left, digest)
            return _OpenAIStartedJob(
                await submissions.submit(identity, source, options, reservation, kept=False), digest
            )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _request_id() -> dict[str, str]:
    return {openai_common.REQUEST_ID: uuid.uuid4().hex}


async def event_frames(
    job: Job | OpenAIKeptJob,
    response_format: OpenAIResponseFormat,
    transcript_of: Callable[[JobRecord], Transcript],
) -> AsyncGenerator[bytes, None]:
    """Yield the event stream, with a comment as keep-alive while no event comes.

    ``transcript_of`` returns the transcript of a finished job, with its warnings, or raises the
    job's error.
    """
    job_events = messages.OpenAIJobEvents(diarized=response_format is OpenAIResponseFormat.DIARIZED)
    try:
        async with aclosing(job.watched(responses.SSE_KEEP_ALIVE_S)) as changes:
            async for record in changes:
                if record is None:
                    yield responses.SSE_KEEP_ALIVE
                    continue
                for event in job_events.more(record):
                    yield responses.sse_frame(event)
                if record.over:
                    for event in job_events.end(transcript_of(record)):
                        yield responses.sse_frame(event)
    except SidecarError as error:
        yield responses.sse_frame(openai_common.error_body(error))
    yield DONE


def token_revoked_frame() -> bytes:
    """Return the last frame for a client whose token was revoked."""
    return responses.sse_frame(openai_common.error_body(TokenInvalid())) + DONE
