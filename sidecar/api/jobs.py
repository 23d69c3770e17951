"""`/jobs`: what became of requests with `Prefer: respond-async`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from sidecar.api import transcribe_schemas
from sidecar.api.answers import job_response
from sidecar.api.http.bodies import json_response
from sidecar.api.http.caller import caller_of
from sidecar.api.http.schemas import PROBLEMS
from sidecar.api.http.summary import job_summary
from sidecar.service import Service


def add_routes(router: APIRouter, service: Service) -> None:
    """The routes of jobs that can be asked for."""

    @router.get(
        "/jobs", summary="The jobs that can be asked for", response_model=transcribe_schemas.JobList
    )
    async def jobs(request: Request) -> Response:
        caller = caller_of(request)
        own = await service.owned.jobs(caller)
        turns = await service.owned.turns(caller, own)
        return json_response({"jobs": [job_summary(job, turns.get(job.id)) for job in own]})

    @router.get(
        "/jobs/{job_id}",
        summary="How far a job is, and its result",
        response_model=transcribe_schemas.Job,
        responses=PROBLEMS,
    )
    async def job_state(request: Request, job_id: str) -> Response:
        caller = caller_of(request)
        return await job_response(service, caller, await service.owned.job(caller, job_id))

    @router.delete(
        "/jobs/{job_id}",
        summary="Cancel a job",
        response_model=transcribe_schemas.Job,
        responses=PROBLEMS,
    )
    async def cancel_job(request: Request, job_id: str) -> Response:
        caller = caller_of(request)
        job = await service.owned.job(caller, job_id)
        return await job_response(service, caller, await service.owned.cancel(caller, job))
