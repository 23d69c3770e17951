"""Routes of /v1/transcribe and /v1/queue/status.

Its /health is everybody's. A client that hangs up takes its job with it.

Nothing of what was said is kept for it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar import errors
from sidecar.api.http import responses
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.upload import read_form
from sidecar.auth.identity import Identity
from sidecar.jobs.job_record import JobRecord, JobState
from sidecar.jobs.job_runner import Job
from sidecar.jobs.job_store import QueuePosition
from sidecar.protocols.vvv import messages
from sidecar.service.facade import Service

ENDED_LISTED_S = 30.0
"""As the original lists them."""


def status_of(job: JobRecord) -> messages.VvvStatus:
    """A job's state in this wire's words."""
    match job.state:
        case JobState.QUEUED:
            return "queued"
        case JobState.RUNNING:
            return "streaming" if job.segments else "processing"
        case JobState.DONE:
            return "completed"
    return "failed"


@dataclass(frozen=True, slots=True)
class VvvEndedJob:
    """A job that has ended."""

    id: str
    owner: str
    status: messages.VvvStatus
    until: float


class VvvRecentJobs:
    """Finished jobs, in that order."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._jobs: dict[str, VvvEndedJob] = {}

    def over(self, job: Job) -> None:
        """Note a job that has ended, or that its client has left, which ends it."""
        self._forget_old()
        until = self._now() + ENDED_LISTED_S
        status: messages.VvvStatus = status_of(job.record) if job.ended else "failed"
        self._jobs[job.id] = VvvEndedJob(job.id, job.record.owner, status, until)

    def of(self, owner: str) -> Iterator[VvvEndedJob]:
        """Return those of one owner."""
        self._forget_old()
        return (job for job in self._jobs.values() if job.owner == owner)

    def _forget_old(self) -> None:
        now = self._now()
        self._jobs = {name: job for name, job in self._jobs.items() if job.until > now}


TRANSCRIBE = "/v1/transcribe"
STATUS = "/v1/queue/status"
PATHS = (TRANSCRIBE, STATUS)
POSITION_INTERVAL_S = 5.0
"""Interval of position updates and keep-alives."""


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()
    recent = VvvRecentJobs()

    @router.post(
        TRANSCRIBE,
        summary="Transcribe a recording, streamed (the vvv queue's wire)",
        response_class=Response,
        responses=messages.STREAM,
        openapi_extra=messages.SUBMIT,
    )
    async def transcribe(request: Request) -> Response:
        caller = identity_of(request)
        job = await _submitted(request, service, caller)

        def closed() -> None:
            service.owned.hang_up(caller, job.record)
            recent.over(job)

        try:
            told = await _queue_position(service, caller, job) or _started_at_once(job)
        except BaseException:  # nobody follows it yet
            closed()
            raise
        farewell = responses.sse_frame({"error": messages.TOKEN_INVALID}, "error")
        return responses.EventStreamResponse(
            event_frames(service, caller, job, told), closed, farewell
        )

    @router.get(
        STATUS,
        summary="List your jobs and the length of the queue (the vvv queue's wire)",
        response_model=messages.VvvQueueStatus,
        responses=messages.ERRORS,
    )
    async def status(request: Request) -> Response:
        caller = identity_of(request)
        on_their_way = await service.owned.on_their_way(caller)
        turns = await service.owned.turns(caller, on_their_way)
        ended = {job.id: job for job in recent.of(caller.owner)}
        going = [job for job in on_their_way if job.id not in ended]
        listed: list[JobRecord | VvvEndedJob] = [*ended.values(), *going]
        jobs = [job_info(job, turns.get(job.id)) for job in listed]
        waiting = (await service.looked()).jobs_waiting
        body = messages.VvvQueueStatus(your_jobs=jobs, total_queued=waiting)
        return responses.json_response(body.model_dump())

    return router


def job_info(job: JobRecord | VvvEndedJob, turn: QueuePosition | None) -> messages.VvvJobInfo:
    """Return a line of the status."""
    return messages.VvvJobInfo(
        job_id=job.id,
        status=job.status if isinstance(job, VvvEndedJob) else status_of(job),
        position=turn.position + 1 if turn else None,
        estimated_wait_seconds=round(float(turn.wait_s), 1) if turn else None,
    )


async def event_frames(
    service: Service, caller: Identity, job: Job, told: dict[str, Any]
) -> AsyncGenerator[bytes, None]:
    """Yield the frames of a job, first the position at which it was submitted. A client that reads
    slowly is behind by no more than what is in the job's record, and nobody waits for it."""
    fragments = messages.VvvFragments()
    yield responses.sse_frame(told, "queue")
    async with aclosing(job.watched(POSITION_INTERVAL_S)) as changes:
        async for change in changes:
            place = await _queue_position(service, caller, job)
            if place is not None and place["position"] != told["position"]:
                told = place
                yield responses.sse_frame(place, "queue")
            elif change is None:
                yield responses.SSE_KEEP_ALIVE
            else:
                for text in fragments.more(change):
                    yield responses.sse_frame({"text": text})
    if job.state is JobState.DONE:
        yield responses.sse_frame({"job_id": job.id}, "done")
    else:
        assert job.error is not None
        yield responses.sse_frame({"error": job.error.detail}, "error")


async def _queue_position(service: Service, caller: Identity, job: Job) -> dict[str, Any] | None:
    """Return how many jobs go first; None if it does not wait."""
    turn = await service.owned.turn(caller, job.record)
    return job_info(job.record, turn).model_dump(exclude={"status"}) if turn else None


def _started_at_once(job: Job) -> dict[str, Any]:
    """Return the position of a job that a node claimed before anybody could ask for it, so that
    the first frame of every stream names the job."""
    return {"job_id": job.id, "position": 1, "estimated_wait_seconds": 0.0}


async def _submitted(request: Request, service: Service, caller: Identity) -> Job:
    """The job of a form with a recording."""
    with await service.submissions.place(caller) as place:
        if responses.media_type(request) != "multipart/form-data":
            raise errors.ContentTypeUnsupported()
        upload = await read_form(request, service)
        try:
            if upload.part != "audio":
                raise errors.FileMissing()
            messages.check_file_name(upload.file_name)
            in_query = request.query_params.get("hotwords", "")
            hotwords = upload.fields.get("hotwords", "").strip() or in_query
            options = service.options({"hotwords": hotwords})
        except BaseException:
            upload.source.close()
            raise
        return await service.submissions.submit(caller, upload.source, options, place, kept=False)
