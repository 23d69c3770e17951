"""The queue's wire, as a vvv server speaks it: POST /v1/transcribe, GET /v1/queue/status.

Its /health is everybody's. A client that hangs up takes its job with it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar import errors
from sidecar.api.http import sse
from sidecar.api.http.bodies import json_response, media_type
from sidecar.api.http.caller import caller_of
from sidecar.api.http.upload import read_form
from sidecar.auth.identity import Identity
from sidecar.jobs.job import Job
from sidecar.jobs.record import JobRecord, JobState
from sidecar.jobs.store import Turn
from sidecar.protocols.vvv import models
from sidecar.protocols.vvv.dialect import TOKEN_INVALID, check_name
from sidecar.protocols.vvv.fragments import Fragments
from sidecar.protocols.vvv.recent import Over, Recent, status_of
from sidecar.service import Service

TRANSCRIBE = "/v1/transcribe"
STATUS = "/v1/queue/status"
PATHS = (TRANSCRIBE, STATUS)
LOOK_S = 5.0
"""How often who waits is told of a new position, or at least that somebody is there."""


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()
    recent = Recent()

    @router.post(
        TRANSCRIBE,
        summary="Who said what and when, as it is decoded (the vvv queue's wire)",
        response_class=Response,
        responses=models.STREAM,
        openapi_extra=models.SUBMIT,
    )
    async def transcribe(request: Request) -> Response:
        caller = caller_of(request)
        job = await _submitted(request, service, caller)

        def closed() -> None:
            service.owned.hang_up(caller, job.record)
            recent.over(job)

        try:
            told = await _place(service, caller, job)
        except BaseException:  # nobody follows it yet
            closed()
            raise
        farewell = sse.frame({"error": TOKEN_INVALID}, "error")
        return sse.EventStream(frames(service, caller, job, told), closed, farewell)

    @router.get(
        STATUS,
        summary="Your jobs, and how many wait (the vvv queue's wire)",
        response_model=models.QueueStatus,
        responses=models.ERRORS,
    )
    async def status(request: Request) -> Response:
        caller = caller_of(request)
        on_their_way = await service.owned.on_their_way(caller)
        turns = await service.owned.turns(caller, on_their_way)
        ended = {job.id: job for job in recent.of(caller.owner)}
        going = [job for job in on_their_way if job.id not in ended]
        listed: list[JobRecord | Over] = [*ended.values(), *going]
        bodies = [job_info(job, turns.get(job.id)) for job in listed]
        waiting = (await service.looked()).jobs_waiting
        return json_response({"your_jobs": bodies, "total_queued": waiting})

    return router


def job_info(job: JobRecord | Over, turn: Turn | None) -> dict[str, Any]:
    """Return a line of the status."""
    return {
        "job_id": job.id,
        "status": job.status if isinstance(job, Over) else status_of(job),
        "position": turn and turn.position + 1,
        "estimated_wait_seconds": turn and round(float(turn.wait_s), 1),
    }


async def frames(
    service: Service, caller: Identity, job: Job, told: dict[str, Any] | None
) -> AsyncGenerator[bytes, None]:
    """What a client gets to read of its job, after its place if it waits. One that reads slowly is
    behind by no more than what is in the job's record, and nobody waits for it."""
    fragments = Fragments()
    if told is not None:
        yield sse.frame(told, "queue")
    async with aclosing(job.watched(LOOK_S)) as changes:
        async for change in changes:
            place = await _place(service, caller, job)
            if place is not None and told is not None and place["position"] != told["position"]:
                told = place
                yield sse.frame(place, "queue")
            elif change is None:
                yield sse.KEEP_ALIVE
            else:
                for text in fragments.more(change):
                    yield sse.frame({"text": text})
    if job.state is JobState.DONE:
        yield sse.frame({"job_id": job.id}, "done")
    else:
        assert job.error is not None
        yield sse.frame({"error": job.error.detail}, "error")


async def _place(service: Service, caller: Identity, job: Job) -> dict[str, Any] | None:
    """Return how many jobs go first; None if it does not wait."""
    turn = await service.owned.turn(caller, job.record)
    if turn is None:
        return None
    info = job_info(job.record, turn)
    del info["status"]
    return info


async def _submitted(request: Request, service: Service, caller: Identity) -> Job:
    """The job of a form with a recording."""
    with await service.submissions.place(caller) as place:
        if media_type(request) != "multipart/form-data":
            raise errors.ContentTypeUnsupported()
        upload = await read_form(request, service)
        try:
            if upload.part != "audio":
                raise errors.FileMissing()
            check_name(upload.file_name)
            in_query = request.query_params.get("hotwords", "")
            hotwords = upload.fields.get("hotwords", "").strip() or in_query
            options = service.options({"hotwords": hotwords})
        except BaseException:
            upload.source.close()
            raise
        return await service.submissions.submit(caller, upload.source, options, place, kept=False)
