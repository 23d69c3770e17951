"""Errors in HTTP's language: RFC 9457 problem details, one table from Kind to status."""

from __future__ import annotations

import http
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Scope

from sidecar import errors
from sidecar.errors import Kind

log = logging.getLogger(__name__)

STATUS: Mapping[Kind, int] = {
    Kind.MALFORMED: 400,
    Kind.UNPROCESSABLE: 422,
    Kind.UNSUPPORTED: 415,
    Kind.TOO_LARGE: 413,
    Kind.HEADERS_TOO_LARGE: 431,
    Kind.TIMEOUT: 408,
    Kind.NOT_FOUND: 404,
    Kind.METHOD: 405,
    Kind.FORBIDDEN: 403,
    Kind.UNAUTHORIZED: 401,
    Kind.CONFLICT: 409,
    Kind.PRECONDITION: 412,
    Kind.RANGE: 416,
    Kind.CANCELLED: 409,
    Kind.LIMITED: 429,
    Kind.BUSY: 503,
    Kind.STORAGE_FULL: 507,
    Kind.WONT_FIT: 507,
    Kind.FAILED: 500,
}
_FROM_STATUS: Mapping[int, type[errors.SidecarError]] = {
    404: errors.NotFound,
    408: errors.UploadStalled,
    413: errors.UploadTooLarge,
    415: errors.ContentTypeUnsupported,
}
"""What the framework says no with, in our words; the method is a case of its own."""
Say = Callable[[errors.SidecarError], Response]
"""Writes an error in the language of a wire."""
Dialects = Mapping[str, Say]
"""How to say no at addresses whose clients do not know problems; one that ends in '/' stands for
all below it."""
_NO_DIALECTS: Dialects = {}


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
    note(error, body["request_id"])
    return Response(
        json.dumps(body),
        status_code=body["status"],
        media_type="application/problem+json",
        headers=headers_of(error),
    )


def note(error: errors.SidecarError, request_id: str) -> None:
    """A line in the log, as a warning where it is our fault."""
    ours = STATUS[error.kind] >= 500 and error.kind is not Kind.BUSY
    level = logging.WARNING if ours else logging.INFO
    log.log(level, "answered %s, request %s", error.code, request_id)


def say_at(path: str, dialects: Dialects) -> Say:
    """How errors are said at an address."""
    if path in dialects:
        return dialects[path]
    above = (say for begin, say in dialects.items() if begin[-1] == "/" and path.startswith(begin))
    return next(above, problem)


def headers_of(error: errors.SidecarError) -> dict[str, str]:
    """What an error says in headers, however its body is written."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.kind is Kind.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def install(app: FastAPI, *routers: APIRouter, dialects: Dialects = _NO_DIALECTS) -> None:
    """Make ``app``, which has these ``routers``, answer every error in the language of its address:
    as a problem, unless ``dialects`` has another."""
    own = [route for router in routers for route in router.routes]

    def said(
        request: Request, error: errors.SidecarError, headers: Mapping[str, str] | None = None
    ) -> Response:
        response = say_at(request.scope["path"], dialects)(error)
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
        if (known := _FROM_STATUS.get(error.status_code)) is not None:
            return said(request, known())
        if 400 <= error.status_code < 500:
            return said(request, errors.RequestInvalid())
        return said(request, errors.SidecarError())

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        # Answered from outside of everything else, which would have seen what is left unread.
        return said(request, errors.SidecarError(), {"Connection": "close"})


def _methods(scope: Scope, routes: Iterable[BaseRoute]) -> list[str]:
    """What an address takes, by all the routes that it matches; a mount has files to be read."""
    methods: set[str] = set()
    for route in routes:
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            methods |= route.methods or set()
        elif isinstance(route, Mount) and _lies_in(route, scope):
            methods.add("GET")
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def _lies_in(mount: Mount, scope: Scope) -> bool:
    """Whether an address is one of the mount's, which by then may have made it its own."""
    return f"{scope['path']}/".startswith(f"{mount.path}/")
