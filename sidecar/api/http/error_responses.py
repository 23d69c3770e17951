"""Error responses: HTTP status of each kind of error, problem details (RFC 9457), dialects."""

from __future__ import annotations

import http
import ipaddress
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from sidecar import errors

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
    408: errors.UploadStalled,
    413: errors.UploadTooLarge,
    415: errors.ContentTypeUnsupported,
}
"""Errors for the framework's own responses, by status; 404 and 405 are handled separately."""
ErrorRenderer = Callable[[errors.SidecarError], Response]
"""Renderer of an error in the format of a protocol."""
ErrorDialects = Mapping[str, ErrorRenderer]
"""Error formats of paths, for clients that do not know problem details. A path that ends in '/'
covers all below it."""
NO_DIALECTS: ErrorDialects = {}
UPGRADE_HEADERS = {"Upgrade": "websocket", "Connection": "Upgrade"}
"""Headers of a 426, as RFC 9110 requires."""


def problem_body(error: errors.SidecarError) -> dict[str, Any]:
    """Return the body of a problem response."""
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
    """Return the problem response of ``error`` and log its request id."""
    body = problem_body(error)
    log_error(error, body["request_id"])
    return Response(
        json.dumps(body),
        status_code=body["status"],
        media_type="application/problem+json",
        headers=error_headers(error),
    )


@dataclass(slots=True)
class AnsweredRequest:
    """Parts of a request or handshake that its log line needs. Tasks that are born in a request
    keep these, and not its whole scope."""

    client: str
    """Address of the client, as the server or a proxy has it."""
    method: str
    path: str
    root_path: str
    routes: Sequence[BaseRoute]
    route: str | None = None
    """`None` before routing."""

    @classmethod
    def of(cls, scope: Scope) -> AnsweredRequest:
        """Return the parts of an ASGI scope."""
        routes = getattr(getattr(scope.get("app"), "state", None), "own_routes", ())
        client = (scope.get("client") or ("",))[0]
        return cls(client, _method(scope), scope["path"], scope.get("root_path", ""), routes)


CURRENT_REQUEST: ContextVar[AnsweredRequest | None] = ContextVar("CURRENT_REQUEST", default=None)
"""Request or handshake being answered."""
WEBSOCKET = "WebSocket"
"""Stands for the method of a handshake."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "(none)"
"""Route of a request that was refused before routing, or that no route matched."""
_REFUSALS = frozenset(
    {errors.ErrorKind.UNAUTHORIZED, errors.ErrorKind.FORBIDDEN, errors.ErrorKind.LIMITED}
)
"""Kinds of errors whose log line names the client's address, for programs that ban addresses."""


def log_error(error: errors.SidecarError, request_id: str | None) -> None:
    """Log an error: a warning if it is a fault of the service; with address and route if a client
    was refused. ``request_id``: `None` if the client gets none."""
    ours = STATUS[error.kind] >= 500 and error.kind is not errors.ErrorKind.BUSY
    level = logging.WARNING if ours else logging.INFO
    one = CURRENT_REQUEST.get() if error.kind in _REFUSALS else None
    whom = "" if one is None else f" to {_address(one.client)}, {one.method} {_route(one)}"
    request = "" if request_id is None else f", request {request_id}"
    log.log(level, "answered %s%s%s", error.code, whom, request)


def _address(client: str) -> str:
    """Return the client's address; a proxy may pass on anything in its place."""
    try:
        host, _, _ = client.partition("%")  # a scope id is free text
        return str(ipaddress.ip_address(host))
    except ValueError:
        return "an unknown address"


def _method(scope: Scope) -> str:
    if scope["type"] == "websocket":
        return WEBSOCKET
    return scope["method"] if scope["method"] in METHODS else "other"


def _route(request: AnsweredRequest) -> str:
    """Return the route of a request, without what the client wrote into the path. The gate refuses
    before routing, so it is looked up for that."""
    if request.route is None:
        wire = "websocket" if request.method == WEBSOCKET else "http"
        seen = {
            "type": wire,
            "method": request.method,
            "path": request.path,
            "root_path": request.root_path,
        }
        found = (
            one.path
            for one in request.routes
            if isinstance(one, (Route, WebSocketRoute, Mount))
            and one.matches(seen)[0] is not Match.NONE
        )
        request.route = next(found, NO_ROUTE)
    return request.route


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
    app: FastAPI,
    *routers: APIRouter,
    dialects: ErrorDialects = NO_DIALECTS,
    nothing_there: Callable[[], errors.SidecarError] = errors.NotFound,
) -> None:
    """Make ``app``, which has these ``routers``, answer every error in the format of its path: as a
    problem, unless ``dialects`` has another format. ``nothing_there``: the error of a path without
    a route."""
    own = app.state.own_routes = [route for router in routers for route in router.routes]

    def said(
        request: Request, error: errors.SidecarError, headers: Mapping[str, str] | None = None
    ) -> Response:
        answered, route = CURRENT_REQUEST.get(), request.scope.get("route")
        if answered is not None and route is not None:
            answered.route = route.path
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
        if error.status_code == 404:
            return said(request, nothing_there())
        if (known := _FROM_STATUS.get(error.status_code)) is not None:
            return said(request, known())
        if 400 <= error.status_code < 500:
            return said(request, errors.RequestInvalid())
        return said(request, errors.SidecarError())

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        # This response is sent outside of `BodyDrain`, which would have drained an unread body.
        return said(request, errors.SidecarError(), {"Connection": "close"})

    found_nothing = app.router.default

    async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a WebSocket at an unknown path with an error; Starlette sends a 403 without a
        body."""
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
    """Return the methods of a path, of all routes that match it; a mount allows GET."""
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
    """Return whether a path is in a mount, which may have changed the scope already."""
    return f"{scope['path']}/".startswith(f"{mount.path}/")
