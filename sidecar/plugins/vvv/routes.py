"""Queue protocol of the vvv server: its routes, schemas, text fragments and errors.

Its /health is the one of all protocols. If a client disconnects, its job is cancelled. No
transcript is kept for it.

A transcript is sent as fragments that the client concatenates. A sent fragment cannot be changed,
so each segment is sent once. If any was revised (speaker labels; audio that is recognized again
after a crash), the event `done` has the whole text.

Errors have the texts of the original server where it has one, plus the other fields of a problem.
"""

import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, Literal, TypeAlias

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from sidecar import errors
from sidecar.api.http import error_responses, openapi, request_headers, responses
from sidecar.api.http.upload import close_on_error, read_form
from sidecar.auth.identity import Identity
from sidecar.jobs.job_record import UNFINISHED_STATES, JobRecord, JobState
from sidecar.jobs.job_runner import Job
from sidecar.jobs.job_store import JobFilter
from sidecar.jobs.wait_queue import QueuePosition
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Segment, Transcript
from sidecar.transcripts.transcript_formats import render_result

VvvStatus: TypeAlias = Literal["queued", "processing", "streaming", "completed", "failed"]

TRANSCRIBE = "/v1/transcribe"
STATUS = "/v1/queue/status"
PATHS = (TRANSCRIBE, STATUS)
EXTENSIONS = ("wav", "mp3", "m4a", "mp4", "flac", "ogg", "opus", "webm", "wma", "aac")
ENDED_LISTED_S = 30.0
"""Time in seconds for which a finished job is listed, as in the original server."""
POSITION_INTERVAL_S = 5.0
"""Interval of position updates and keep-alives, in seconds."""
TOKEN_INVALID = "Invalid token"  # noqa: S105 - what is said of one
_MISSING = [{"type": "missing", "loc": ["body", "audio"], "msg": "Field required", "input": None}]
"""In the words of the original server's framework."""
_STATUS_AND_DETAIL: dict[type[errors.SidecarError], tuple[int, str | list[dict[str, Any]]]] = {
    errors.AudioEmpty: (400, "Empty audio file"),
    errors.UploadTooLarge: (413, "Audio file too large"),
    errors.QueueFull: (503, "Queue is full"),
    errors.UploadsFull: (503, "Queue is full"),
    errors.FileMissing: (422, _MISSING),
    errors.ContentTypeUnsupported: (422, _MISSING),
    errors.TokenMissing: (401, "Not authenticated"),
    errors.TokenInvalid: (401, TOKEN_INVALID),
}
_UNREADABLE = (errors.AudioFormatUnsupported, errors.AudioUndecodable, errors.AudioDecodeTimeout)
_STATUSES: dict[JobState, VvvStatus] = {JobState.QUEUED: "queued", JobState.DONE: "completed"}
_MISSING_PART = openapi.object_schema(
    {"detail": {"type": "array"}, "code": openapi.text(), "hint": openapi.text()},
    description="A problem whose detail is a list: the part 'audio' is missing.",
)
_PROBLEM = openapi.ProblemDetails.model_json_schema()
ERRORS = openapi.error_responses(
    {
        **openapi.content("application/json", schema=_MISSING_PART),
        **openapi.content("application/problem+json", schema=_PROBLEM),
    }
)
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "queue, then unnamed fragments of the answer, then done or error",
        "content": openapi.content("text/event-stream"),
    }
}
_HOTWORDS = openapi.text("Names and terms to expect, separated by commas.")
_FORM = openapi.object_schema({"audio": openapi.AUDIO_FILE, "hotwords": _HOTWORDS}, ["audio"])
SUBMIT: dict[str, Any] = {
    **openapi.body(openapi.content("multipart/form-data", schema=_FORM)),
    **openapi.parameters(openapi.query("hotwords", _HOTWORDS, "The same as the form field.")),
}


class VvvJobInfo(BaseModel):
    """One of your jobs."""

    job_id: str = Field(examples=["9f0c3a5e8d1b4c7f9f0c3a5e8d1b4c7f"])
    status: VvvStatus
    position: int | None = Field(description="1 for the next job; null once it runs.")
    estimated_wait_seconds: float | None


class VvvQueueStatus(BaseModel):
    """Your jobs, and the length of the queue."""

    your_jobs: list[VvvJobInfo]
    total_queued: int


def segment_text(segment: Segment) -> str:
    """Return the JSON of a segment as the model writes it; a segment without speech has no
    speaker."""
    body: dict[str, object] = {"Start": round(segment.start, 2), "End": round(segment.end, 2)}
    if segment.is_speech:
        body["Speaker"] = segment.speaker or 0
    body["Content"] = segment.text
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class VvvFragments:
    """Text fragments of a job that are still to be sent, and its end."""

    def __init__(self) -> None:
        self._unsent = responses.UnsentSegments()
        self._begun = False

    def more(self, job: JobRecord) -> Iterator[str]:
        """Yield a fragment for each new segment of a job, and one for the end of the list."""
        for _, segment in self._unsent.more(job):
            yield ("," if self._begun else "[") + segment_text(segment)
            self._begun = True
        if job.transcript is not None:
            yield "]" if self._begun else "[]"

    def done(self, job_id: str, transcript: Transcript) -> bytes:
        """Return the last frame: with the text of all fragments as they are in the end, if any was
        revised."""
        body = {"job_id": job_id}
        if self._unsent.revised(transcript):
            body["revised"] = f"[{','.join(map(segment_text, transcript.segments))}]"
        return responses.sse_frame(body, "done")


class VvvFileNameUnsupported(errors.AudioFormatUnsupported):
    """Error: the file name has no extension, or an unsupported one."""


def error_response(error: errors.SidecarError) -> Response:
    """Return the response of an error."""
    default = error_responses.STATUS[error.kind], error.detail
    status, detail = _STATUS_AND_DETAIL.get(type(error), default)
    if isinstance(error, VvvFileNameUnsupported):
        status = 400
    elif isinstance(error, _UNREADABLE):
        status, detail = 422, f"Cannot read audio: {error.detail}"
    # a problem's detail is text; a list comes from the original server's framework
    media_type = f"application/{'problem+' if isinstance(detail, str) else ''}json"
    return error_responses.problem_of_protocol(error, status, media_type, {"detail": detail})


def check_file_name(name: str) -> None:
    """Refuse a file name that the original server would refuse by its extension. The format itself
    is detected from the content, as everywhere.

    Raises:
        VvvFileNameUnsupported: the name is empty, or its extension is missing or unknown.
    """
    if not name:
        raise VvvFileNameUnsupported("The audio file has no filename.")
    if name.rpartition(".")[2].lower() not in EXTENSIONS or "." not in name:
        known = ", ".join(f".{each}" for each in EXTENSIONS)
        raise VvvFileNameUnsupported(f"Unsupported audio format. Supported extensions: {known}")


def status_of(job: JobRecord) -> VvvStatus:
    """Return the status of a job in this protocol."""
    if job.state is JobState.RUNNING:
        return "streaming" if job.segments else "processing"
    return _STATUSES.get(job.state, "failed")


class VvvRecentJobs:
    """Recently finished jobs, in the order in which they ended."""

    def __init__(self) -> None:
        self._jobs: dict[str, tuple[float, str, VvvJobInfo]] = {}
        """Latest time, owner and entry of each job."""

    def add(self, job: Job) -> None:
        """Record a job that has ended, or whose client disconnected, which cancels it."""
        entry = job_info(job.record, None)
        if not job.ended:
            entry.status = "failed"
        self._drop_expired()
        self._jobs[job.id] = time.monotonic() + ENDED_LISTED_S, job.record.owner, entry

    def of(self, owner: str) -> dict[str, VvvJobInfo]:
        """Return the entries of the recent jobs of one owner, by id."""
        self._drop_expired()
        return {name: entry for name, (_, of, entry) in self._jobs.items() if of == owner}

    def _drop_expired(self) -> None:
        now = time.monotonic()
        self._jobs = {name: job for name, job in self._jobs.items() if job[0] > now}


def build_router(service: Service) -> APIRouter:
    """Build the routes of this protocol."""
    router = openapi.Routes(responses=ERRORS)
    recent = VvvRecentJobs()

    @router.post(TRANSCRIBE, responses=STREAM, openapi_extra=SUBMIT)
    async def transcribe(request: Request) -> Response:
        """Transcribe a recording, streamed (the vvv queue's wire)."""
        identity = request_headers.identity_of(request)
        job = await _submit(request, service, identity)

        def close() -> None:
            service.owned.cancel_soon(identity, job.record)
            recent.add(job)

        try:
            position = await _queue_position(service, identity, job)
            # A node may have claimed it at once; the first frame of every stream names the job.
            position = position or {"job_id": job.id, "position": 1, "estimated_wait_seconds": 0.0}
        except BaseException:  # no client follows the job yet
            close()
            raise
        last_frame = responses.sse_frame({"error": TOKEN_INVALID}, "error")
        return responses.EventStreamResponse(
            event_frames(service, identity, job, position), close, last_frame
        )

    @router.get(STATUS, response_model=VvvQueueStatus)
    async def status(request: Request) -> Response:
        """List your jobs and the length of the queue (the vvv queue's wire)."""
        identity = request_headers.identity_of(request)
        job_filter = JobFilter(UNFINISHED_STATES, private=True)  # also those with waiting clients
        unfinished = await service.owned.jobs(identity, job_filter)
        positions = await service.owned.positions(identity, unfinished)
        ended = recent.of(identity.owner)
        others = [job for job in unfinished if job.id not in ended]
        jobs = [*ended.values(), *(job_info(job, positions.get(job.id)) for job in others)]
        await service.backend.count()
        queued = service.queue.depth
        body = VvvQueueStatus(your_jobs=jobs, total_queued=queued)
        return responses.json_response(body.model_dump())

    return router


def job_info(job: JobRecord, position: QueuePosition | None) -> VvvJobInfo:
    """Return a job's entry in the status."""
    return VvvJobInfo(
        job_id=job.id,
        status=status_of(job),
        position=position.position + 1 if position else None,
        estimated_wait_seconds=round(float(position.wait_s), 1) if position else None,
    )


async def event_frames(
    service: Service, identity: Identity, job: Job, position: dict[str, Any]
) -> AsyncGenerator[bytes, None]:
    """Yield the frames of a job, first its queue position at submission.

    If a client reads slowly, at most the job's record is buffered for it, and nothing waits for it.
    """
    fragments = VvvFragments()
    yield responses.sse_frame(position, "queue")
    async with aclosing(job.watched(POSITION_INTERVAL_S)) as changes:
        async for change in changes:
            new_position = await _queue_position(service, identity, job)
            if new_position is not None and new_position["position"] != position["position"]:
                position = new_position
                yield responses.sse_frame(position, "queue")
            elif change is None:
                yield responses.SSE_KEEP_ALIVE
            else:
                for text in fragments.more(change):
                    yield responses.sse_frame({"text": text})
    try:
        transcript = await job.result()
        yield await render_result(transcript.segments, lambda: fragments.done(job.id, transcript))
    except errors.SidecarError as error:
        yield responses.sse_frame({"error": error.detail}, "error")


async def _queue_position(service: Service, identity: Identity, job: Job) -> dict[str, Any] | None:
    """Return the queue position of a job; `None` if it does not wait."""
    position = (await service.owned.positions(identity, [job.record])).get(job.record.id)
    return job_info(job.record, position).model_dump(exclude={"status"}) if position else None


async def _submit(request: Request, service: Service, identity: Identity) -> Job:
    """Submit the recording of a form and return its job."""
    with await service.submissions.reserve_position(identity) as reservation:
        if request_headers.media_type(request) != "multipart/form-data":
            raise errors.ContentTypeUnsupported()
        upload = await read_form(request, service)
        with close_on_error(upload.source):
            if upload.part != "audio":
                raise errors.FileMissing()
            check_file_name(upload.source.name)
            in_query = request.query_params.get("hotwords", "")
            hotwords = upload.fields.get("hotwords", "").strip() or in_query
            options = service.options({"hotwords": hotwords})
        return await service.submissions.submit(
            identity, upload.source, options, reservation, kept=False
        )
