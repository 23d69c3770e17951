"""Routes of /v1/jobs: submission, listing, event stream."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, nullcontext
from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar.api import job_edit_and_recording_routes, job_schemas
from sidecar.api.http import responses
from sidecar.api.http.openapi import CHECKS, PROBLEMS, Routes
from sidecar.api.http.request_headers import (
    LAST_EVENT_HINT,
    idempotency_key_of,
    identity_of,
    last_event_id,
    request_digest,
)
from sidecar.api.http.upload import close_on_error, open_local, read_fields
from sidecar.api.job_schemas import JobError, JobProgress, JobRecordBody
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.loudness import PEAKS_PER_SECOND
from sidecar.auth.identity import Identity
from sidecar.bounded_dict import BoundedDict
from sidecar.errors import FieldInvalid, JobCancelled, JobNotFound, TokenInvalid
from sidecar.interfaces import request_options
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs import job_record
from sidecar.jobs.job_event_log import MAX_EVENT_BATCH, JobSubscription, SubscriberTooSlow
from sidecar.jobs.job_store import Expiry, JobFilter
from sidecar.jobs.wait_queue import QueuePosition
from sidecar.limit_overrides import limit
from sidecar.service.facade import Service
from sidecar.transcripts.edit_serialization import edit_step_to_json
from sidecar.transcripts.transcript import Finished, Peaks, Progress, ResumePoint, SegmentReady
from sidecar.transcripts.transcript_formats import (
    FORMATS,
    file_extension,
    formatter_of,
    render_transcript,
    segment_body,
)

PATH = "/v1/jobs"


async def read_request(
    request: Request, service: Service
) -> tuple[AudioSource, TranscribeOptions, job_record.Priority, job_record.IdempotencyKey | None]:
    """Return a submission, from JSON or a form. Its recording is open, and its holder closes it.

    Raises:
        errors.BadRequest: it does not match its Content-Type, or a field is invalid.
    """
    name = idempotency_key_of(request)
    fields, source = await read_fields(request, service)
    with close_on_error(source):
        options = service.options(fields, job_schemas.SUBMIT_FIELDS)
        priority = request_options.parse_choice(
            "priority", fields.get("priority"), job_record.Priority.INTERACTIVE
        )
        key = None
        if name is not None:
            fd = None if source is None else source.fd
            digest = await asyncio.to_thread(request_digest, fields, fd)
            key = job_record.IdempotencyKey(name, digest)
        source = source or await open_local(request, fields, service)
        return source, options, priority, key


def job_body(
    service: Service,
    job: job_record.JobRecord,
    queue_position: QueuePosition | None,
    expiry: Expiry | None,
) -> dict[str, Any]:
    """Return the state of a job, without its transcript; times in seconds, dates in UTC."""
    done = job.state is job_record.JobState.DONE and job.transcript is not None
    duration = job.transcript.duration if done and job.transcript else job.audio_info.total_s
    running = job.state is job_record.JobState.RUNNING
    so_far = job.progress, job.processing_s, job.resumed_s, job.audio_info.channels
    remaining_s = service.job_engine.remaining_s(*so_far) if running else None
    return JobRecordBody.render(job) | {
        "position": queue_position and queue_position.position,
        "duration": duration and round(duration, 3),
        "estimated_wait_seconds": queue_position and round(queue_position.wait_s, 1),
        "estimated_remaining_seconds": remaining_s and round(remaining_s, 1),
        "recording": service.recordings.has(job),
        "expires_in": expiry and expiry.in_s and round(expiry.in_s, 1),
        "space_left": expiry and expiry.space_left and round(expiry.space_left, 4),
    }


async def job_response(
    service: Service,
    identity: Identity,
    job: job_record.JobRecord,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the response with one job; one that was accepted (202) has its address."""
    queue_position = (await service.owned.positions(identity, [job])).get(job.id)
    expiry = (await service.owned.expiries(identity, [job])).get(job.id)
    address = {"Location": f"{PATH}/{job.id}"} if status == 202 else {}
    body = job_body(service, job, queue_position, expiry)
    return responses.json_response(body, status, {**address, **(headers or {})})


SSE_RETRY_MS = limit("sse_retry_ms", 1000)
"""Milliseconds until a browser reconnects by itself."""


PredictRemaining = Callable[[Progress, float, float], float | None]
"""Prediction of the seconds until a job is done, from its progress, the seconds of its attempt so
far, and the seconds of audio that were done when the attempt began."""


def event_body(
    job_id: str, event: job_record.JobEvent, remaining_s: PredictRemaining, resumed_s: float
) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the data of an event, or `None` if it is not for clients."""
    match event.change:
        case job_record.StartedChange():
            return "begun", {}
        case job_record.RequeuedChange(job_record.CountsAs.CRASH):
            return "crashed", {}
        case job_record.RequeuedChange():
            return "put_back", {}
        case job_record.UnschedulableChange(refused):
            return "refused", {"error": refused and JobError.render(refused)}
        case job_record.FailedChange(failure):
            return "failed", {"error": JobError.render(failure)}
        case job_record.CancelledChange():
            return "cancelled", {"error": JobError.render(job_record.JobFailure.of(JobCancelled()))}
        case job_record.ReportedChange(Progress() as progress, processing_s):
            left_s = remaining_s(progress, processing_s, resumed_s)
            estimate = {"estimated_remaining_seconds": left_s and round(left_s, 1)}
            return "progress", JobProgress.render(progress) | estimate
        case job_record.ReportedChange(SegmentReady(index, segment)):
            return "segment", {"index": index, "segment": segment_body(segment)}
        case job_record.ReportedChange(ResumePoint() | Peaks()):  # internal; /peaks has the peaks
            return None
        case job_record.ReportedChange(Finished(transcript), processing_s):
            return "done", {
                "duration": round(transcript.duration, 3),
                "processing_time": round(processing_s, 3),
                "segments": len(transcript.segments),
                "transcript": f"/v1/jobs/{job_id}/transcript",
            }
        case job_record.EditedChange(step):
            return "edited", {"operations": edit_step_to_json(step)}
    raise AssertionError(event)


def token_revoked_frame() -> bytes:
    """Return the last frame of a stream after the client's token was revoked."""
    return responses.sse_frame(
        {"error": JobError.render(job_record.JobFailure.of(TokenInvalid()))}, "unauthorized"
    )


class _Resumption:
    """Seconds of audio that were done when the attempt of a job began, by its events.

    ``job``: the job as it was when the stream was opened, if the stream lacks its first events.
    For the events up to then its last attempt counts: some of its resume points may be later than
    an event of these.
    """

    def __init__(self, job: job_record.JobRecord | None) -> None:
        self._job = job
        self._resume_point_s = job.resume_points[-1].audio_s if job and job.resume_points else 0.0
        self._resumed_s = job.resumed_s if job else 0.0

    def after(self, event: job_record.JobEvent) -> float:
        """Return them as of ``event``, which follows the last one."""
        match event.change:
            case job_record.ReportedChange(ResumePoint(audio_s=audio_s) as resume_point):
                if not resume_point.keeps_diarization:
                    self._resume_point_s = audio_s
            case job_record.StartedChange(anew):
                self._resumed_s = self._resume_point_s = 0.0 if anew else self._resume_point_s
        if self._job and event.seq <= self._job.seq:
            self._resumed_s = self._job.resumed_s
        return self._resumed_s


class JobEventFrames:
    """Rendered events of jobs, each rendered once for all its subscribers."""

    def __init__(self, remaining_s: PredictRemaining) -> None:
        self._remaining_s = remaining_s
        self._written = BoundedDict[tuple[str, int], bytes](MAX_EVENT_BATCH)
        """Latest frames, for slightly later subscribers."""

    def of(self, job_id: str, event: job_record.JobEvent, resumed_s: float = 0.0) -> bytes:
        """Return the frame of an event; b"" if it is not for clients. ``resumed_s``: seconds of
        audio that were done when the attempt began."""
        frame = self._written.get((job_id, event.seq))
        if frame is None:
            named = event_body(job_id, event, self._remaining_s, resumed_s)
            frame = responses.sse_frame(named[1], named[0], event.seq) if named else b""
            self._written[job_id, event.seq] = frame
        return frame

    async def following(
        self, job_id: str, subscription: JobSubscription, job: job_record.JobRecord | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield all events of a subscription, until the job has ended. For a client that is too
        slow the last frame says after which event to resume. ``job``: the job as it was
        when the stream was opened, if the subscription lacks its first events."""
        resumption = _Resumption(job)
        yield b"retry: %d\n\n" % SSE_RETRY_MS
        try:
            async with aclosing(subscription.batches(responses.SSE_KEEP_ALIVE_S)) as batches:
                async for events in batches:
                    if not events:
                        yield responses.SSE_KEEP_ALIVE
                    elif frames := b"".join(
                        self.of(job_id, event, resumption.after(event)) for event in events
                    ):
                        yield frames
        except SubscriberTooSlow as behind:
            yield responses.sse_frame({"resume_after": behind.seq}, "behind")


def build_router(service: Service) -> APIRouter:
    """Return the routes of /v1/jobs."""
    router = Routes(prefix=PATH, responses=PROBLEMS, dependencies=CHECKS)
    _add_submission_routes(router, service)
    _add_listing_routes(router, service)
    _add_result_routes(router, service)
    job_edit_and_recording_routes.add_edit_routes(router, service)
    job_edit_and_recording_routes.add_recording_routes(router, service)
    return router


def _add_submission_routes(router: APIRouter, service: Service) -> None:
    """Add the routes that submit and delete jobs."""

    @router.post(
        "", status_code=202, response_model=job_schemas.JobAnswer, openapi_extra=job_schemas.SUBMIT
    )
    async def submit(request: Request) -> Response:
        """Submit a recording as a job."""
        identity = identity_of(request)
        reserved = await service.submissions.reserve_unless_known(
            identity, idempotency_key_of(request)
        )
        with reserved or nullcontext() as reservation:
            source, options, priority, key = await read_request(request, service)
            submissions, replayed = service.submissions, False
            if key is None:
                job = await submissions.submit(
                    identity, source, options, reservation, priority=priority
                )
                record = job.record
            else:
                record, replayed = await submissions.submit_once(
                    identity, source, options, reservation, key, priority=priority
                )
        headers = {"Idempotent-Replayed": "true"} if replayed else {}
        return await job_response(service, identity, record, 202, headers)

    @router.delete(
        "/{job_id}",
        status_code=204,
        responses={200: {"model": job_schemas.JobAnswer, "description": "With 'keep': the job"}},
        openapi_extra=job_schemas.DELETE,
    )
    async def delete(request: Request, job_id: str) -> Response:
        """Cancel a job and delete it with its transcript."""
        identity = identity_of(request)
        job = await service.owned.job(identity, job_id)
        revisions = job_edit_and_recording_routes.parse_revisions(request, "If-Match")
        if request_options.parse_flag("keep", request.query_params.get("keep"), default=False):
            return await job_response(service, identity, await service.owned.cancel(identity, job))
        await service.owned.delete(identity, job, revisions)
        return Response(status_code=204)


def _add_listing_routes(router: APIRouter, service: Service) -> None:
    """Add the routes that list jobs and report their state."""

    @router.get("", response_model=job_schemas.JobPage, openapi_extra=job_schemas.LIST)
    async def listed(request: Request) -> Response:
        """List your jobs, oldest first."""
        identity = identity_of(request)
        page, more = await _page(service, identity, request.query_params)
        positions = await service.owned.positions(identity, page)
        expiries = await service.owned.expiries(identity, page)
        bodies = [
            job_body(service, job, positions.get(job.id), expiries.get(job.id)) for job in page
        ]
        return responses.json_response({"jobs": bodies, "next": page[-1].id if more else None})

    @router.get("/{job_id}", response_model=job_schemas.JobAnswer)
    async def state(request: Request, job_id: str) -> Response:
        """Progress of a job."""
        identity = identity_of(request)
        return await job_response(service, identity, await service.owned.read(identity, job_id))


async def _page(
    service: Service, identity: Identity, query: Mapping[str, str]
) -> tuple[list[job_record.JobRecord], bool]:
    """Return the jobs of a page, and whether more follow it.

    ``query``: ``state`` (one, or several with commas; none: any), ``limit``, ``after`` (an id).

    Raises:
        errors.FieldInvalid: one of them is invalid.
    """
    states, after = _states(query.get("state", "")), query.get("after") or None
    limit = request_options.parse_integer("limit", query.get("limit"), 1, job_schemas.MAX_PAGE_JOBS)
    limit = limit or job_schemas.DEFAULT_PAGE_JOBS
    try:
        found = await service.owned.jobs(identity, JobFilter(states, after, limit + 1))
    except JobNotFound:
        raise FieldInvalid(
            "'after' is not the id of a job of yours, or that job was deleted.",
            hint="Start from the first page, without 'after'.",
        ) from None
    return [*found[:limit]], len(found) > limit


def _states(given: str) -> frozenset[job_record.JobState]:
    named = [word.strip() for word in given.split(",") if word.strip()]
    if unknown := [word for word in named if word.lower() not in set(job_record.JobState)]:
        raise FieldInvalid(
            f"'state' has '{unknown[0][:40]}', which is not a state of a job.",
            hint=f"Use one or more of: {', '.join(job_record.JobState)}.",
        )
    return frozenset(job_record.JobState(word.lower()) for word in named)


def _add_result_routes(router: APIRouter, service: Service) -> None:
    """Add the routes of events and transcripts."""
    frames = JobEventFrames(remaining_s=service.job_engine.remaining_s)

    @router.get("/{job_id}/events", responses=job_schemas.EVENTS, openapi_extra=job_schemas.RESUME)
    async def events(request: Request, job_id: str) -> Response:
        """Events of a job, as server-sent events."""
        identity = identity_of(request)
        job, after = await service.owned.read(identity, job_id), last_event_id(request)
        if after > job.seq:
            raise FieldInvalid(
                f"The job has no event {after} yet; its last is {job.seq}.", hint=LAST_EVENT_HINT
            )
        if job.over and after == job.seq:
            return Response(status_code=204)  # stops the reconnects of a browser
        subscription = await service.owned.events(identity, job, after)
        stream = frames.following(job.id, subscription, job if after else None)
        return responses.EventStreamResponse(stream, subscription.close, token_revoked_frame())

    @router.get(
        "/{job_id}/transcript", responses=job_schemas.TRANSCRIPT, openapi_extra=job_schemas.FORMAT
    )
    async def transcript(request: Request, job_id: str) -> Response:
        """Transcript of a job, in one of several formats."""
        identity, fmt = identity_of(request), request.query_params.get("format", "json")
        if "renew" in request.query_params:  # an unknown job is reported before an invalid 'renew'
            await service.owned.job(identity, job_id)
        if request_options.parse_flag("renew", request.query_params.get("renew"), default=True):
            await service.owned.read(identity, job_id)
        formatter_of(fmt)
        job, finished = await service.owned.transcript(identity, job_id)
        headers = {"ETag": job_edit_and_recording_routes.etag_of(job)}
        revisions = job_edit_and_recording_routes.parse_revisions(request, "If-None-Match")
        if revisions is not None and job.history.revision in revisions:
            return Response(status_code=304, headers=headers)
        noted = service.noted(finished, job.options, edited=job.history.revision > 0)
        body = await service.owned.written(
            identity, job, lambda: render_transcript(noted, fmt, job.id).encode()
        )
        headers["Content-Disposition"] = responses.content_disposition(
            "inline", job, "transcript", file_extension(fmt)
        )
        return Response(body, media_type=FORMATS[fmt].media_type, headers=headers)

    @router.get("/{job_id}/peaks", response_model=job_schemas.JobPeaks)
    async def peaks(request: Request, job_id: str) -> Response:
        """Peaks of the audio per tenth of a second, as far as it was transcribed."""
        job = await service.owned.read(identity_of(request), job_id)
        levels = base64.b64encode(job.peaks).decode()
        return responses.json_response({"per_second": PEAKS_PER_SECOND, "peaks": levels})
