"""Errors in HTTP's language: RFC 9457 problem details, one table from Kind to status."""

from __future__ import annotations

import http
import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Scope

from sidecar import errors
from sidecar.errors import Kind

STATUS: Mapping[Kind, int] = {
    Kind.MALFORMED: 400,
    Kind.UNPROCESSABLE: 422,
    Kind.UNSUPPORTED: 415,
    Kind.TOO_LARGE: 413,
    Kind.TIMEOUT: 408,
    Kind.NOT_FOUND: 404,
    Kind.METHOD: 405,
    Kind.FORBIDDEN: 403,
    Kind.UNAUTHORIZED: 401,
    Kind.CONFLICT: 409,
    Kind.CANCELLED: 409,
    Kind.BUSY: 503,
    Kind.STORAGE_FULL: 507,
    Kind.WONT_FIT: 507,
    Kind.FAILED: 500,
}
_UNREAD_BODY = (errors.UploadTooLarge, errors.UploadStalled, errors.JsonTooLarge)
"""After these the rest of the request lies unread, so the connection cannot go on."""


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


def problem(error: errors.SidecarError, headers: Mapping[str, str] | None = None) -> Response:
    """The response that says ``error``."""
    extra = dict(headers or {})
    if error.retry_after is not None:
        extra["Retry-After"] = str(error.retry_after)
    if error.kind is Kind.UNAUTHORIZED:
        extra["WWW-Authenticate"] = "Bearer"
    if isinstance(error, _UNREAD_BODY):
        extra["Connection"] = "close"
    return Response(
        json.dumps(problem_body(error)),
        status_code=STATUS[error.kind],
        media_type="application/problem+json",
        headers=extra,
    )


def install(app: FastAPI, *routers: APIRouter) -> None:
    """Make ``app``, which has these ``routers``, answer every error as a problem."""

    @app.exception_handler(errors.SidecarError)
    async def known(request: Request, error: errors.SidecarError) -> Response:
        return problem(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "body"
        if first["type"] == "missing":
            return problem(errors.FieldMissing(f"The field '{field}' is missing."))
        return problem(errors.FieldInvalid(f"The field '{field}' is not possible: {first['msg']}."))

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        match error.status_code:
            case 404:
                return problem(errors.NotFound())
            case 405:
                methods = _methods(request.scope, routers)
                return problem(errors.MethodNotAllowed(), {"Allow": ", ".join(methods)})
        return problem(errors.SidecarError(str(error.detail)))

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        return problem(errors.SidecarError())


def _methods(scope: Scope, routers: Iterable[APIRouter]) -> list[str]:
    """What an address takes, by all the routes that it matches."""
    routes = [route for router in routers for route in router.routes if isinstance(route, Route)]
    fitting = [route for route in routes if route.matches(scope)[0] is not Match.NONE]
    return sorted({method for route in fitting for method in route.methods or ()})
