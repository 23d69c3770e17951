"""Route of /transcribe for the desktop app, with schemas.

The fields that the app's parser reads keep their names and types; all other fields are additions.

Segments may be revised until the end, as in every stream of this service; the transcript is final.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from sidecar import errors
from sidecar.api.http import error_responses, middleware, openapi, responses, upload
from sidecar.api.http.request_headers import identity_of, wants_async
from sidecar.api.http.responses import json_response, to_json
from sidecar.api.job_routes import job_response
from sidecar.api.job_schemas import JobAnswer
from sidecar.audio.audio_source import AudioSource
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.interfaces.request_options import unknown_fields
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.jobs.retention import render_result
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Transcript
from sidecar.transcripts.transcript_formats import segment_body, transcript_body


class TranscribeWord(BaseModel):
    """A word with its times."""

    start_time: float
    end_time: float
    text: str


class TranscribeSegment(BaseModel):
    """Segment: speech of one speaker."""

    speaker: str = Field(examples=["Speaker_0"])
    name: str | None = Field(None, description="Name of the identified speaker.")
    start_time: float = Field(examples=[0.07], description="Seconds from the start.")
    end_time: float = Field(examples=[0.93])
    text: str = Field(examples=["Do you hear me?"])
    words: list[TranscribeWord] = []
    words_by: str = Field(
        default="",
        examples=["attention"],
        description=(
            "Source of word times: 'attention' (of the model), 'server' (of an upstream), "
            "'spread' (evenly over the segment, a guess)."
        ),
    )
    flags: list[str] = []


class TranscribeWarning(BaseModel):
    """Warning about this transcript."""

    code: str = Field(examples=["precision_substituted"])
    message: str


class TranscribeSpeaker(BaseModel):
    """Voice profile of a speaker."""

    speaker: str = Field(examples=["Speaker_0"])
    name: str | None = Field(
        examples=["Nell"], description="Name of the enrolled speaker; null if unknown."
    )
    person: str | None = Field(description="Id of the enrolled speaker in /v1/people.")
    likeness: float | None = Field(
        examples=[0.78],
        description="Similarity to that speaker, or to the most similar other one; at most 1.",
    )
    voice_seconds: float = Field(
        examples=[15.1], description="Seconds in which this speaker speaks alone."
    )


class TranscribeMetadata(BaseModel):
    """Metadata of the transcript."""

    model_config = ConfigDict(protected_namespaces=())

    duration: float = Field(examples=[28.277], description="Seconds of audio.")
    language: str = Field(examples=["en"])
    processing_time: float = Field(examples=[11.2], description="Seconds of engine work.")
    model_precision: str = Field(examples=["int8"], description="Precision that was used.")
    num_speakers: int = Field(examples=[2])
    engine: str = Field(examples=["moonshine"])
    model: str = Field(
        default="",
        examples=["whisper-small"],
        description="Model that transcribed it, if the engine has several.",
    )
    diarized: bool = Field(description="Speakers were told apart.")
    no_speech: bool = Field(
        description="Nobody speaks: there are no segments, and the output is not truncated."
    )
    job_id: str = Field(description="Id in the log and in /v1/jobs.")
    warnings: list[TranscribeWarning]
    words_by: str = Field(
        default="",
        examples=["attention"],
        description="Least exact source of word times of all segments; omitted if there are none.",
    )
    speakers: list[TranscribeSpeaker] = Field(
        [],
        description="Voice profiles, with the setting 'people' or with reference clips.",
    )


class TranscribeAnswer(BaseModel):
    """Result of a transcription."""

    status: Literal["success"]
    segments: list[TranscribeSegment]
    metadata: TranscribeMetadata


TRANSCRIBE_BODY = openapi.submission(openapi.OPTIONS)

TRANSCRIBE_FIELDS = openapi.schema_fields(TRANSCRIBE_BODY)


def answer_body(service: Service, job: JobRecord, transcript: Transcript) -> dict[str, Any]:
    """Return the body of a finished transcription."""
    body = transcript_body(service.noted(transcript, job.options))
    body["metadata"] |= {"processing_time": round(job.processing_s, 3), "job_id": job.id}
    return {"status": "success", **body}


MEDIA_TYPE = "application/x-ndjson"
KEEP_ALIVE = b"\n"
"""An empty line, which every client ignores."""


class NdjsonResponse(responses.EventStreamResponse):
    """Streamed response of NDJSON lines."""

    media_type = MEDIA_TYPE


def wants_ndjson(request: Request) -> bool:
    """Return whether a client accepts NDJSON (`Accept`)."""
    kinds = ",".join(request.headers.getlist("accept")).split(",")
    return any(kind.partition(";")[0].strip().lower() == MEDIA_TYPE for kind in kinds)


async def ndjson_lines(service: Service, job: Job) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a response, and an empty line as a keep-alive."""
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
        yield await render_result(
            transcript.segments,
            lambda: _line("result", answer_body(service, job.record, transcript)),
        )
    except errors.SidecarError as error:
        yield error_line(error)


def error_line(error: errors.SidecarError) -> bytes:
    """Return the last line of a failed transcription: a problem, and when to retry."""
    retry = {} if error.retry_after is None else {"retry_after": str(error.retry_after)}
    return _line("failed", error_responses.problem_body(error) | retry)


def _line(name: str, body: Mapping[str, Any]) -> bytes:
    return to_json({name: body}) + b"\n"


def build_router(service: Service) -> APIRouter:
    """Return the route of /transcribe."""
    router = APIRouter(responses=openapi.PROBLEMS)

    @router.post(
        "/transcribe",
        summary="Transcribe a recording",
        response_model=TranscribeAnswer,
        responses={
            200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
            202: {"model": JobAnswer},
        },
        openapi_extra={"requestBody": TRANSCRIBE_BODY},
    )
    async def transcribe(request: Request) -> Response:
        caller = identity_of(request)
        later = wants_async(request.headers.getlist("prefer"))
        with await service.submissions.place(caller) as place:
            source, options = await _read_request(request, service)
            job = await service.submissions.submit(caller, source, options, place, kept=later)
        if later:
            applied = {"Preference-Applied": "respond-async"}
            return await job_response(service, caller, job.record, 202, applied)
        cancel = partial(service.owned.hang_up, caller, job.record)
        if wants_ndjson(request):
            farewell = error_line(errors.TokenInvalid())
            return NdjsonResponse(ndjson_lines(service, job), cancel, farewell)
        async with middleware.watch_disconnect(request, cancel, cancel):
            transcript = await job.result()
        return json_response(
            await render_result(
                transcript.segments,
                lambda: to_json(answer_body(service, job.record, transcript)),
            )
        )

    return router


async def _read_request(
    request: Request, service: Service
) -> tuple[AudioSource, TranscribeOptions]:
    """Return the recording and the options of a request, from JSON or a form."""
    fields, source = await upload.read_fields(request, service)
    with upload.close_on_error(source):
        odd = unknown_fields(fields, TRANSCRIBE_FIELDS)
        options = replace(service.options(fields), unknown_fields=odd)
        return source or await upload.open_local(request, fields, service), options
