"""Jobs as a resource: `/v1/jobs`. Hanging up cancels nothing here; a job is ended by DELETE."""

from __future__ import annotations

import base64
from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar import clock, errors
from sidecar.api import jobs_models
from sidecar.api.editing import add_editing, etag_of, unchanged
from sidecar.api.events import Frames, farewell
from sidecar.api.http import sse
from sidecar.api.http.bodies import json_response
from sidecar.api.http.caller import caller_of
from sidecar.api.http.idempotency import key_name
from sidecar.api.http.schemas import PROBLEMS
from sidecar.api.http.summary import job_summary
from sidecar.api.listening import add_listening
from sidecar.api.listing import Page, no_such_after, page_of
from sidecar.api.request import read_request
from sidecar.audio.peaks import PER_SECOND
from sidecar.auth.identity import Identity
from sidecar.jobs.record import JobRecord
from sidecar.jobs.store import Turn
from sidecar.service import Service
from sidecar.transcripts.transcript_formats import format_of, render

PATH = "/v1/jobs"
MEDIA_TYPES = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
    "rttm": "text/plain; charset=utf-8",
}


def job_body(service: Service, job: JobRecord, turn: Turn | None) -> dict[str, Any]:
    """Return a job as it stands, without what was said; times in seconds."""
    return {
        **job_summary(job, turn),
        "priority": job.priority.value,
        "estimated_wait_seconds": turn and round(turn.wait_s, 1),
        "ended": job.ended and clock.for_people(job.ended),
        "last_event": job.seq,
        "revision": job.history.revision,
        "recording": service.recordings.has(job),
    }


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter(prefix=PATH)
    _add_coming_and_going(router, service)
    _add_looking(router, service)
    _add_results(router, service)
    add_editing(router, service)
    add_listening(router, service)
    return router


def _add_coming_and_going(router: APIRouter, service: Service) -> None:
    """Submit a job, end it."""

    @router.post(
        "",
        summary="Submit a recording as a job",
        status_code=202,
        response_model=jobs_models.Job,
        responses=PROBLEMS,
        openapi_extra=jobs_models.SUBMIT,
    )
    async def submit(request: Request) -> Response:
        caller = caller_of(request)
        replayed = False
        with await service.submissions.place(caller, key_name(request)) as place:
            asked = await read_request(request, service)
            if asked.key is None:
                job = await service.submissions.submit(
                    caller, asked.source, asked.options, place, priority=asked.priority
                )
                record = job.record
            else:
                record, replayed = await service.submissions.submit_once(
                    caller, asked.source, asked.options, place, asked.key, priority=asked.priority
                )
        headers = {"Location": f"{PATH}/{record.id}"}
        if replayed:
            headers["Idempotent-Replayed"] = "true"
        turn = await service.owned.turn(caller, record)
        return json_response(job_body(service, record, turn), 202, headers)

    @router.delete(
        "/{job_id}",
        summary="End a job, and forget it and its transcript",
        status_code=204,
        responses=PROBLEMS,
    )
    async def delete(request: Request, job_id: str) -> Response:
        caller = caller_of(request)
        await service.owned.delete(caller, await service.owned.job(caller, job_id))
        return Response(status_code=204)


def _add_looking(router: APIRouter, service: Service) -> None:
    """How jobs are."""

    @router.get(
        "",
        summary="Your jobs, oldest first",
        response_model=jobs_models.JobPage,
        responses=PROBLEMS,
        openapi_extra=jobs_models.LIST,
    )
    async def listed(request: Request) -> Response:
        caller = caller_of(request)
        page, more = await _page(service, caller, page_of(request.query_params))
        turns = await service.owned.turns(caller, page)
        bodies = [job_body(service, job, turns.get(job.id)) for job in page]
        return json_response({"jobs": bodies, "next": page[-1].id if more else None})

    @router.get(
        "/{job_id}", summary="How far a job is", response_model=jobs_models.Job, responses=PROBLEMS
    )
    async def state(request: Request, job_id: str) -> Response:
        caller = caller_of(request)
        job = await service.owned.job(caller, job_id)
        return json_response(job_body(service, job, await service.owned.turn(caller, job)))


async def _page(service: Service, caller: Identity, asked: Page) -> tuple[list[JobRecord], bool]:
    """Return the jobs of a page, and whether more follow it."""
    try:
        found = await service.owned.jobs(
            caller, states=asked.states, after=asked.after, limit=asked.limit + 1
        )
    except errors.JobNotFound:
        raise no_such_after() from None
    return [*found[: asked.limit]], len(found) > asked.limit


def _add_results(router: APIRouter, service: Service) -> None:
    """What happens to a job, and what was said."""
    frames = Frames()

    @router.get(
        "/{job_id}/events",
        summary="What happens to a job, as server-sent events",
        response_class=Response,
        responses=jobs_models.EVENTS,
        openapi_extra=jobs_models.RESUME,
    )
    async def events(request: Request, job_id: str) -> Response:
        caller = caller_of(request)
        job, after = await service.owned.job(caller, job_id), sse.last_event_id(request)
        if after > job.seq:
            raise errors.FieldInvalid(
                f"The job has no event {after} yet; its last is {job.seq}.",
                hint="Send the last id that was read, or leave the header out to begin anew.",
            )
        if job.over and after == job.seq:
            return Response(status_code=204)  # which tells a browser to ask no more
        subscription = await service.owned.events(caller, job, after)
        stream = frames.following(job.id, subscription)
        return sse.EventStream(stream, subscription.close, farewell())

    @router.get(
        "/{job_id}/transcript",
        summary="What was said, in one of many formats",
        response_class=Response,
        responses=jobs_models.TRANSCRIPT,
        openapi_extra=jobs_models.FORMAT,
    )
    async def transcript(request: Request, job_id: str) -> Response:
        caller, fmt = caller_of(request), request.query_params.get("format", "json")
        await service.owned.job(caller, job_id)
        format_of(fmt)
        job, said = await service.owned.transcript(caller, job_id)
        headers = {"ETag": etag_of(job)}
        if unchanged(request, job):
            return Response(status_code=304, headers=headers)
        noted = service.noted(said, job.options)
        body = await service.owned.written(caller, job, lambda: render(noted, fmt, job.id).encode())
        return Response(body, media_type=MEDIA_TYPES[fmt], headers=headers)

    @router.get(
        "/{job_id}/peaks",
        summary="How loud it is, tenth of a second by tenth, as far as it was heard",
        response_model=jobs_models.Peaks,
        responses=PROBLEMS,
    )
    async def peaks(request: Request, job_id: str) -> Response:
        job = await service.owned.job(caller_of(request), job_id)
        levels = base64.b64encode(job.peaks).decode()
        return json_response({"per_second": PER_SECOND, "peaks": levels})
