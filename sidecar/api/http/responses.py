"""Responses: problem details, JSON bodies, server-sent events, incremental text.

A reader holds nothing but its own connection: what it has not read waits in its buffer or not at
all, and the job goes on at its own pace.

Pure. Each segment goes out once, as soon as it is closed; a stretch that is heard again after a
crash, or whose borders the whole transcript has a little elsewhere, is not told again.
"""

from __future__ import annotations

import asyncio
import http
import json
import logging
import re
import uuid
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from itertools import islice
from math import inf
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Mount, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from sidecar import clock, errors
from sidecar.api.http.request_headers import identity_of, revocable
from sidecar.api.http.schemas import JobError, JobProgress
from sidecar.api.http.upload import read_form, read_json
from sidecar.audio.audio_source import AudioSource
from sidecar.auth import identity
from sidecar.concurrency import running
from sidecar.jobs.job_record import JobRecord, JobState
from sidecar.jobs.job_store import QueuePosition
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Segment, join_texts

log = logging.getLogger(__name__)

STATUS: Mapping[errors.ErrorKind, int] = {
    errors.ErrorKind.MALFORMED: 400,
    errors.ErrorKind.UNPROCESSABLE: 422,
    errors.ErrorKind.UNSUPPORTED: 415,
    errors.ErrorKind.TOO_LARGE: 413,
    errors.ErrorKind.HEADERS_TOO_LARGE: 431,
    errors.ErrorKind.TIMEOUT: 408,
    errors.ErrorKind.NOT_FOUND: 404,
    errors.ErrorKind.METHOD: 405,
    errors.ErrorKind.UPGRADE: 426,
    errors.ErrorKind.FORBIDDEN: 403,
    errors.ErrorKind.UNAUTHORIZED: 401,
    errors.ErrorKind.CONFLICT: 409,
    errors.ErrorKind.PRECONDITION: 412,
    errors.ErrorKind.RANGE: 416,
    errors.ErrorKind.CANCELLED: 409,
    errors.ErrorKind.LIMITED: 429,
    errors.ErrorKind.BUSY: 503,
    errors.ErrorKind.STORAGE_FULL: 507,
    errors.ErrorKind.WONT_FIT: 507,
    errors.ErrorKind.FAILED: 500,
}
_FROM_STATUS: Mapping[int, type[errors.SidecarError]] = {
    404: errors.NotFound,
    408: errors.UploadStalled,
    413: errors.UploadTooLarge,
    415: errors.ContentTypeUnsupported,
}
"""Errors for the framework's own responses, by status; the method is a case of its own."""
ErrorRenderer = Callable[[errors.SidecarError], Response]
"""Writes an error in the language of a wire."""
ErrorDialects = Mapping[str, ErrorRenderer]
"""Error formats of paths whose clients do not know problem details; one that ends in '/' stands
for all below it."""
NO_DIALECTS: ErrorDialects = {}
UPGRADE_HEADERS = {"Upgrade": "websocket", "Connection": "Upgrade"}
"""Of a 426, as RFC 9110 wants it."""


def problem_body(error: errors.SidecarError) -> dict[str, Any]:
    """The body of a problem response."""
    status = STATUS[error.kind]
    return {
        "type": f"urn:vibevoice-asr:error:{error.code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": error.code,
        "detail": error.detail,
        "hint": error.hint,
        "request_id": uuid.uuid4().hex,
    }


def problem(error: errors.SidecarError) -> Response:
    """The response that says ``error``; the log has its id."""
    body = problem_body(error)
    log_error(error, body["request_id"])
    return Response(
        json.dumps(body),
        status_code=body["status"],
        media_type="application/problem+json",
        headers=error_headers(error),
    )


def log_error(error: errors.SidecarError, request_id: str) -> None:
    """A line in the log, as a warning where it is our fault."""
    ours = STATUS[error.kind] >= 500 and error.kind is not errors.ErrorKind.BUSY
    level = logging.WARNING if ours else logging.INFO
    log.log(level, "answered %s, request %s", error.code, request_id)


def error_response_at(path: str, dialects: ErrorDialects) -> ErrorRenderer:
    """Return the error format of a path."""
    if path in dialects:
        return dialects[path]
    above = (say for begin, say in dialects.items() if begin[-1] == "/" and path.startswith(begin))
    return next(above, problem)


def error_headers(error: errors.SidecarError) -> dict[str, str]:
    """Return the headers of an error, however its body is rendered."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.kind is errors.ErrorKind.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def install_error_handlers(
    app: FastAPI, *routers: APIRouter, dialects: ErrorDialects = NO_DIALECTS
) -> None:
    """Make ``app``, which has these ``routers``, answer every error in the language of its address:
    as a problem, unless ``dialects`` has another."""
    own = [route for router in routers for route in router.routes]

    def said(
        request: Request, error: errors.SidecarError, headers: Mapping[str, str] | None = None
    ) -> Response:
        response = error_response_at(request.scope["path"], dialects)(error)
        response.headers.update(headers or {})
        return response

    @app.exception_handler(errors.SidecarError)
    async def known(request: Request, error: errors.SidecarError) -> Response:
        return said(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "body"
        if first["type"] == "missing":
            return said(request, errors.FieldMissing(f"The field '{field}' is missing."))
        wrong = f"The field '{field}' is not possible: {first['msg']}."
        return said(request, errors.FieldInvalid(wrong))

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            methods = _methods(request.scope, [*app.routes, *own])
            return said(request, errors.MethodNotAllowed(), {"Allow": ", ".join(methods)})
        if error.status_code == 404 and _takes_websockets(request, [*app.routes, *own]):
            return said(request, errors.UpgradeRequired(), UPGRADE_HEADERS)
        if (known := _FROM_STATUS.get(error.status_code)) is not None:
            return said(request, known())
        if 400 <= error.status_code < 500:
            return said(request, errors.RequestInvalid())
        return said(request, errors.SidecarError())

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        # Answered from outside of everything else, which would have seen what is left unread.
        return said(request, errors.SidecarError(), {"Connection": "close"})

    found_nothing = app.router.default

    async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
        """Starlette refuses a WebSocket where there is none by a 403 without a word."""
        if scope["type"] != "websocket":
            await found_nothing(scope, receive, send)
            return
        sockets = ", ".join(one.path for one in own if isinstance(one, WebSocketRoute))
        answer = error_response_at(scope["path"], dialects)(
            errors.NotFound(
                "There is no WebSocket at this address.", hint=f"There are some at: {sockets}."
            )
        )
        with suppress(RuntimeError, OSError):
            await WebSocket(scope, receive, send).send_denial_response(answer)

    app.router.default = nowhere


def _methods(scope: Scope, routes: Iterable[BaseRoute]) -> list[str]:
    """Return the methods of an address, by all routes that it matches; a mount has files to be
    read."""
    methods: set[str] = set()
    for route in routes:
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            methods |= route.methods or set()
        elif isinstance(route, Mount) and _is_in_mount(route, scope):
            methods.add("GET")
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def _takes_websockets(request: Request, routes: Iterable[BaseRoute]) -> bool:
    return any(
        isinstance(route, WebSocketRoute) and route.path_regex.match(request.scope["path"])
        for route in routes
    )


def _is_in_mount(mount: Mount, scope: Scope) -> bool:
    """Return whether an address is one of the mount's, which by then may have made it its own."""
    return f"{scope['path']}/".startswith(f"{mount.path}/")


Fields = Mapping[str, object]


def to_json(body: Mapping[str, Any]) -> bytes:
    """Strict JSON: a NaN is a fault here, not something to send."""
    return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()


def json_response(
    body: Mapping[str, Any] | bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer in JSON, from values or from what `to_json` made of them."""
    return Response(
        body if isinstance(body, bytes) else to_json(body),
        status_code=status,
        media_type="application/json",
        headers=dict(headers or {}),
    )


def media_type(request: Request) -> str:
    """The Content-Type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_fields(request: Request, service: Service) -> tuple[Fields, AudioSource | None]:
    """The fields of a request in either form, and the recording if it came along.

    Raises:
        errors.BadRequest: the body is not what it says it is.
    """
    match media_type(request):
        case "multipart/form-data":
            upload = await read_form(request, service)
            return upload.fields, upload.source
        case "application/json":
            return await read_json(request), None
    raise errors.ContentTypeUnsupported()


async def open_local(request: Request, fields: Fields, service: Service) -> AudioSource:
    """The file that the field 'audio_path' names, for a client that may do so.

    Raises:
        errors.BadRequest: it is missing, not allowed, or no recording's.
    """
    caller = identity_of(request)
    caller.demand(identity.Scope.AUDIO_PATH)
    if "audio_path" not in fields:
        raise errors.FieldMissing("The field 'audio_path' is missing.")
    path = fields["audio_path"]
    if not isinstance(path, str):
        raise errors.AudioPathInvalid("'audio_path' is not a string.")
    return await service.submissions.open_path(caller, path)


def job_summary(job: JobRecord, turn: QueuePosition | None) -> dict[str, Any]:
    """Return a job's body in a list; times in seconds, dates in UTC."""
    done = job.state is JobState.DONE and job.transcript is not None
    duration = job.transcript.duration if done and job.transcript else job.facts.total_s
    body: dict[str, Any] = {
        "id": job.id,
        "state": job.state.value,
        "position": turn and turn.position,
        "attempts": job.attempts,
        "created": clock.format_utc(job.created),
        "duration": duration and round(duration, 3),
        "progress": JobProgress.render(job.progress),
    }
    if job.error is not None:
        body["error"] = JobError.render(job.error)
    if job.refused is not None:
        body["refused"] = JobError.render(job.refused)
    return body


SSE_KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which every reader passes over."""
SSE_KEEP_ALIVE_S = 15.0
"""As the standard advises against proxies that close what is silent."""
LAST_FRAME_TIMEOUT_S = 5.0
"""Time for a client to read the last frame of a stream that is ended."""
SSE_MEDIA_TYPE = "text/event-stream"
_ID = re.compile(r"\d{1,15}", re.ASCII)


def sse_frame(data: Mapping[str, Any], event: str | None = None, id: int | None = None) -> bytes:
    """One event with a JSON document on one line; without a name it is the default event."""
    head = f"event: {event}\n" if event is not None else ""
    number = f"id: {id}\n" if id is not None else ""
    return f"{number}{head}data: ".encode() + to_json(data) + b"\n\n"


def last_event_id(request: Request) -> int:
    """The number of the last event that the client has had (`Last-Event-ID`), 0 for none.

    Raises:
        errors.FieldInvalid: it is no number of ours.
    """
    given = request.headers.get("last-event-id", "").strip()
    if given and not _ID.fullmatch(given):
        raise errors.FieldInvalid(
            "'Last-Event-ID' is not the id of an event.",
            hint=(
                "Send the last id that you received, or omit the header to start from the "
                "first event."
            ),
        )
    return int(given or 0)


class StreamedResponse(Response):
    """An answer whose body is made while it is sent, until its client hangs up."""

    def __init__(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status_code=status, headers=headers)
        self._begun = self._ended = False

    async def _begin(self, send: Send) -> None:
        """Send the head, unless it was sent."""
        if not self._begun:
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            self._begun = True

    async def _send_all(self, send: Send, frames: AsyncGenerator[bytes, None]) -> None:
        """Send the body, and before its first bytes the head."""
        async with aclosing(frames) as each:
            async for frame in each:
                await self._begin(send)
                await send(_body(frame, more=True))
        await self._begin(send)
        await send(_body(b"", more=False))
        self._ended = True


class EventStreamResponse(StreamedResponse):
    """An answer that goes on as long as there are ``frames``.

    ``closed`` is called once it is over, whatever came of it, also where the client left before the
    first frame. ``farewell`` is the last frame where the token of who asked counts no more.
    """

    media_type = SSE_MEDIA_TYPE

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        closed: Callable[[], None] = lambda: None,
        farewell: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        usual = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers=usual | dict(headers or {}))
        del self.headers["content-length"]
        self._frames, self._closed, self._farewell = frames, closed, farewell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope.get("head"):  # the headers are all of the answer
            self._closed()
            await self._frames.aclose()
            await self._begin(send)
            await send(_body(b"", more=False))
            return
        last: bytes | None = None
        try:
            if await send_until_disconnect(scope, receive, self._follow(send)):
                last = self._farewell
        except asyncio.CancelledError:  # the service ends, and what is followed outlives it
            if not self._begun:
                raise
            last = b""
        finally:
            self._closed()
        if last is not None and self._begun and not self._ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_FRAME_TIMEOUT_S):
                    await send(_body(last, more=False))

    async def _follow(self, send: Send) -> None:
        await self._begin(send)
        await self._send_all(send, self._frames)


async def send_until_disconnect(
    scope: Scope, receive: Receive, sending: Coroutine[Any, Any, None]
) -> bool:
    """Run ``sending`` until it ends, the client hangs up, or the client's token is revoked.

    Return True if the token was revoked. Whatever ``sending`` raises is raised.
    """
    revoked = False
    async with running(sending, _disconnected(receive)) as (sender, listener):

        def sent_away() -> None:
            nonlocal revoked
            revoked = True
            listener.cancel()

        with revocable(scope, sent_away):
            await asyncio.wait({sender, listener}, return_when=asyncio.FIRST_COMPLETED)
    if not sender.cancelled():
        sender.result()
    return revoked


def _body(part: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": part, "more_body": more}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class UnsentSegments:
    """Segments of one job that are not sent yet."""

    def __init__(self) -> None:
        self._said: list[Segment] = []
        self._before: list[tuple[float, float]] = []
        """Times of the segments of a failed attempt; apart, in order."""
        self._next = 0
        self._attempt = 0

    def more(self, job: JobRecord) -> Iterator[tuple[int, Segment]]:
        """The segments that are new in a job, each with its index there."""
        again = job.attempts != self._attempt or len(job.segments) < self._next
        if again or job.transcript is not None:
            self._attempt, self._next, self._before = job.attempts, 0, covered_spans(self._said)
        for index in range(self._next, len(job.segments)):
            self._next = index + 1
            segment = job.segments[index]
            if not self._was_said(segment):
                self._said.append(segment)
                yield index, segment

    def _was_said(self, segment: Segment) -> bool:
        """Return whether most of its time was sent before; an attempt begins anew, and at its end
        some borders may lie a little elsewhere."""
        first = max(0, bisect_right(self._before, (segment.start, inf)) - 1)
        overlap = 0.0
        for start, end in islice(self._before, first, None):
            if start >= segment.end:
                break
            overlap += max(0.0, min(segment.end, end) - max(segment.start, start))
        return bool(self._before) and overlap >= (segment.end - segment.start) / 2


class IncrementalTextResponse:
    """A text that goes out in pieces, which in a row are the whole of it."""

    def __init__(self) -> None:
        self._last = ""
        """Last character of the text so far."""

    def add(self, piece: str) -> str:
        """Return the text to send for one more segment; "" if there is none."""
        text = join_texts((self._last, piece))
        said, self._last = text[len(self._last) :], text[-1:]
        return said


def covered_spans(segments: Iterable[Segment]) -> list[tuple[float, float]]:
    """The time that segments take, as stretches that do not touch, in order."""
    found: list[tuple[float, float]] = []
    for start, end in sorted((one.start, one.end) for one in segments):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found
