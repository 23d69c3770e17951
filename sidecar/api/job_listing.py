"""Listing of /v1/jobs: pages, states, cursor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar import clock, errors
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.responses import job_summary, json_response
from sidecar.api.job_schemas import JobAnswer, JobPage, integer_schema, parameter
from sidecar.auth.identity import Identity
from sidecar.interfaces.request_options import parse_integer
from sidecar.jobs.job_record import JobRecord, JobState
from sidecar.jobs.job_store import QueuePosition
from sidecar.service.facade import Service

DEFAULT_PAGE_JOBS, MAX_PAGE_JOBS = 50, 500
"""Some 400 bytes each."""


def _states(given: str) -> frozenset[JobState]:
    try:
        return frozenset(
            JobState(word.strip().lower()) for word in given.split(",") if word.strip()
        )
    except ValueError:
        raise errors.FieldInvalid(
            "'state' is none that a job can be in.", hint=f"Use some of: {', '.join(JobState)}."
        ) from None


LIST: dict[str, Any] = {
    "parameters": [
        parameter(
            "state", "query", {"type": "string", "enum": [*JobState]}, "Or several, with commas."
        ),
        parameter(
            "limit",
            "query",
            integer_schema(1, MAX_PAGE_JOBS, DEFAULT_PAGE_JOBS),
            "Jobs on a page.",
        ),
        parameter("after", "query", {"type": "string"}, "'next' of the page before."),
    ]
}


def job_body(
    service: Service,
    job: JobRecord,
    turn: QueuePosition | None,
    expires_in_s: float | None = None,
) -> dict[str, Any]:
    """Return a job as it stands, without what was said; times in seconds."""
    running = job.state is JobState.RUNNING
    remaining_s = service.remaining_s(job.progress, job.processing_s) if running else None
    return {
        **job_summary(job, turn),
        "priority": job.priority.value,
        "estimated_wait_seconds": turn and round(turn.wait_s, 1),
        "estimated_remaining_seconds": remaining_s and round(remaining_s, 1),
        "ended": job.ended and clock.format_utc(job.ended),
        "last_event": job.seq,
        "revision": job.history.revision,
        "recording": service.recordings.has(job),
        "expires_in": None if expires_in_s is None else round(expires_in_s, 1),
    }


def add_listing_routes(router: APIRouter, service: Service) -> None:
    """How jobs are."""

    @router.get("", summary="Your jobs, oldest first", response_model=JobPage, openapi_extra=LIST)
    async def listed(request: Request) -> Response:
        caller = identity_of(request)
        page, more = await _page(service, caller, request.query_params)
        turns = await service.owned.turns(caller, page)
        expires_in_s = await service.owned.expires_in_s(caller, page)
        bodies = [
            job_body(service, job, turns.get(job.id), expires_in_s.get(job.id)) for job in page
        ]
        return json_response({"jobs": bodies, "next": page[-1].id if more else None})

    @router.get("/{job_id}", summary="How far a job is", response_model=JobAnswer)
    async def state(request: Request, job_id: str) -> Response:
        caller = identity_of(request)
        job = await service.owned.read(caller, job_id)
        turn = await service.owned.turn(caller, job)
        expires_in_s = await service.owned.expires_in_s(caller, [job])
        return json_response(job_body(service, job, turn, expires_in_s.get(job.id)))


async def _page(
    service: Service, caller: Identity, query: Mapping[str, str]
) -> tuple[list[JobRecord], bool]:
    """Return the jobs of a page, and whether more follow it.

    ``query``: ``state`` (one, or several with commas; none: any), ``limit``, ``after`` (an id).

    Raises:
        errors.FieldInvalid: one of them means nothing.
    """
    states, after = _states(query.get("state", "")), query.get("after") or None
    limit = parse_integer("limit", query.get("limit"), 1, MAX_PAGE_JOBS) or DEFAULT_PAGE_JOBS
    try:
        found = await service.owned.jobs(caller, states=states, after=after, limit=limit + 1)
    except errors.JobNotFound:
        raise errors.FieldInvalid(
            "'after' is no job of yours, or one that was forgotten.",
            hint="Begin anew, without 'after'.",
        ) from None
    return [*found[:limit]], len(found) > limit
