"""The sidecar's wire: what the desktop host speaks (POST /transcribe, /reload-model, GET /health).

The named fields keep their names and types for the host's parser; whatever else is here was added
beside them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar import __version__, errors
from sidecar.announcement import CONTRACT
from sidecar.audio.source import AudioSource
from sidecar.engine import TranscribeOptions
from sidecar.formats import segment_body, transcript_body
from sidecar.job import Job, JobState
from sidecar.options import parse_flag
from sidecar.service import Service
from sidecar.transcript import Transcript
from sidecar.transports import sidecar_models as models
from sidecar.transports.bodies import json_response, media_type, open_local, read_fields
from sidecar.transports.upload import read_json


def answer_body(service: Service, job: Job, transcript: Transcript) -> dict[str, Any]:
    """The answer to a transcription."""
    body = transcript_body(service.noted(transcript, job.options))
    body["metadata"] |= {"processing_time": round(job.processing_s, 3), "job_id": job.id}
    return {"status": "success", **body}


def job_body(service: Service, job: Job) -> dict[str, Any]:
    """A job as it stands, with its result once there is one."""
    body: dict[str, Any] = {
        "id": job.id,
        "state": job.state.value,
        "position": service.position(job),
        "attempts": job.attempts,
        "progress": {
            "audio_seconds_done": round(job.progress.audio_s_done, 3),
            "audio_seconds_total": job.progress.audio_s_total
            and round(job.progress.audio_s_total, 3),
            "fraction": job.progress.fraction,
        },
        "segments": [segment_body(segment) for segment in job.segments],
    }
    if job.state is JobState.DONE and job.transcript is not None:
        body["result"] = answer_body(service, job, job.transcript)
    if job.error is not None:
        body["error"] = {
            "code": job.error.code,
            "detail": job.error.detail,
            "hint": job.error.hint,
        }
    return body


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()

    @router.get("/", summary="Who answers here", response_model=models.Root)
    async def root() -> Response:
        return json_response(
            {"service": "vibevoice-asr", "version": __version__, "status": "running"}
        )

    @router.get("/health", summary="How the service is", response_model=models.Health)
    async def health() -> Response:
        now = service.health()
        return json_response(
            {
                "status": "ok" if now.loading is None else "loading",
                "model_loaded": now.model_loaded,
                "gpu_available": now.gpu is not None,
                "vram_used_mb": now.gpu.used_mb if now.gpu else None,
                "vram_total_mb": now.gpu.total_mb if now.gpu else None,
                "contract": CONTRACT,
                "version": now.version,
                "pid": os.getpid(),
                "instance": now.instance,
                "engine": now.engine,
                "precision": now.precision,
                "engine_state": now.state.value,
                "load_percent": None if now.loading is None else round(100 * now.loading),
                "worker_pid": now.worker_pid,
                "jobs_waiting": now.jobs_waiting,
            }
        )

    @router.post(
        "/transcribe",
        summary="Who said what and when",
        response_model=models.Transcription,
        responses={202: {"model": models.Job}, **models.PROBLEMS},
        openapi_extra={"requestBody": models.TRANSCRIBE_BODY},
    )
    async def transcribe(request: Request) -> Response:
        service.check_room()
        source, options = await _read_request(request, service)
        job = await service.submit(source, options)
        location = {"Location": f"/jobs/{job.id}"}
        if "respond-async" in request.headers.get("prefer", ""):
            return json_response(job_body(service, job), 202, location)
        async with _cancelled_on_hang_up(request, service, job):
            transcript = await job.result()
        return json_response(answer_body(service, job, transcript), 200, location)

    @router.post(
        "/reload-model",
        summary="Load the engine anew at another precision",
        response_model=models.Reloaded,
        responses=models.PROBLEMS,
        openapi_extra={"requestBody": models.RELOAD_BODY},
    )
    async def reload_model(request: Request) -> Response:
        if media_type(request) != "application/json":
            raise errors.ContentTypeUnsupported(hint="Send application/json.")
        values = await read_json(request, service.settings)
        now = parse_flag("now", request.query_params.get("now"), default=False)
        precision = await service.reload(_text(values, "precision"), now=now)
        return json_response(
            {"status": "success", "message": f"Model reloaded with precision: {precision}"}
        )

    @router.get("/jobs", summary="The jobs that are remembered", response_model=models.JobList)
    async def jobs() -> Response:
        return json_response({"jobs": [job_body(service, job) for job in service.jobs()]})

    @router.get(
        "/jobs/{job_id}",
        summary="How far a job is, and its result",
        response_model=models.Job,
        responses=models.PROBLEMS,
    )
    async def job_state(job_id: str) -> Response:
        return json_response(job_body(service, service.job(job_id)))

    @router.delete(
        "/jobs/{job_id}",
        summary="Cancel a job",
        response_model=models.Job,
        responses=models.PROBLEMS,
    )
    async def cancel_job(job_id: str) -> Response:
        job = service.job(job_id)
        service.cancel(job)
        return json_response(job_body(service, job))

    return router


def _text(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        raise errors.FieldMissing(f"The field '{name}' is missing.")
    if not isinstance(values[name], str):
        raise errors.FieldInvalid(f"The field '{name}' is not a string.")
    return str(values[name])


async def _read_request(
    request: Request, service: Service
) -> tuple[AudioSource, TranscribeOptions]:
    """The recording and the options, from either form of the request."""
    fields, source = await read_fields(request, service.settings)
    try:
        options = service.options(fields)
        return source or await open_local(request, fields, service.settings), options
    except BaseException:
        if source is not None:
            source.close()
        raise


@asynccontextmanager
async def _cancelled_on_hang_up(
    request: Request, service: Service, job: Job
) -> AsyncGenerator[None, None]:
    """While this lasts, a client that goes away takes its job with it."""

    async def listen() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        service.cancel(job)

    listening = asyncio.get_running_loop().create_task(listen())
    try:
        yield
    except asyncio.CancelledError:
        service.cancel(job)
        raise
    finally:
        listening.cancel()
