"""Error responses: HTTP status of each kind of error, problem details (RFC 9457), dialects."""

import http
import ipaddress
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route, Router, WebSocketRoute
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
ErrorDialects = Mapping[str, ErrorRenderer]
"""Error formats of paths, for clients that do not know problem details. A path that ends in '/'
covers all below it; one after a method ('DELETE /x/') counts before one without."""
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
    return problem_of_protocol(error, STATUS[error.kind], "application/problem+json", {})


def problem_of_protocol(
    error: errors.SidecarError, status: int, media_type: str, fields: Mapping[str, Any]
) -> Response:
    """Return the response of an error with the status and the other ``fields`` of a protocol beside
    those of a problem, and log its request id."""
    body = problem_body(error) | {"title": http.HTTPStatus(status).phrase, "status": status}
    log_error(error, body["request_id"])
    text = json.dumps({**body, **fields}, separators=(",", ":"))
    headers = error_headers(error)
    return Response(text, status_code=status, media_type=media_type, headers=headers)


CURRENT_REQUEST: ContextVar[dict[str, Any] | None] = ContextVar("CURRENT_REQUEST", default=None)
"""The parts of the scope of the request being answered that its log line needs."""
LOGGED_PARTS = ("type", "method", "path", "root_path", "client", "app")
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
    whom = ""
    if one is not None:
        client = address_in_log((one.get("client") or ("",))[0])
        method = WEBSOCKET if one["type"] == "websocket" else one["method"]
        method = method if method in (WEBSOCKET, *METHODS) else "other"
        whom = f" to {client}, {method} {_route(one)}"
    request = "" if request_id is None else f", request {request_id}"
    log.log(level, "answered %s%s%s", error.code, whom, request)


def address_in_log(client: str) -> str:
    """Return the client's address; a proxy may pass on anything in its place."""
    try:
        host, _, _ = client.partition("%")  # a scope id is free text
        return str(ipaddress.ip_address(host))
    except ValueError:
        return "an unknown address"


def _route(request: dict[str, Any]) -> str:
    """Return the route of a request, without what the client wrote into the path. The gate refuses
    before routing, so it is looked up for that."""
    if "route" not in request:
        routes = getattr(getattr(request.get("app"), "state", None), "own_routes", ())
        found = (
            one.path
            for one in routes
            if isinstance(one, (Route, WebSocketRoute, Mount))
            and one.matches(request)[0] is not Match.NONE
        )
        request["route"] = next(found, NO_ROUTE)
    return str(request["route"])


def error_response_at(scope: Scope, dialects: ErrorDialects) -> ErrorRenderer:
    """Return the error format of a request."""
    for path in (f"{scope.get('method')} {scope['path']}", scope["path"]):
        for begin, say in dialects.items():
            if path == begin or (begin[-1] == "/" and path.startswith(begin)):
                return say
    return problem


def error_headers(error: errors.SidecarError) -> dict[str, str]:
    """Return the headers of an error, however its body is rendered."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.kind is errors.ErrorKind.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def is_retryable(method: str, error: Exception) -> bool:
    """Return whether a request failed for lack of resources, and may be repeated: anything but a
    read may have had its effect before."""
    return method in ("GET", "HEAD") and errors.lacks_resources(error)


def install_error_handlers(
    app: Starlette,
    *routers: Router,
    dialects: ErrorDialects = NO_DIALECTS,
    not_found_error: Callable[[], errors.SidecarError] = errors.NotFound,
) -> None:
    """Make ``app``, which has these ``routers``, answer every error in the format of its path: as a
    problem, unless ``dialects`` has another format. ``not_found_error``: the error of a path
    without a route."""
    own = app.state.own_routes = [route for router in routers for route in router.routes]

    async def respond(
        request: Request, error: errors.SidecarError, headers: Mapping[str, str] | None = None
    ) -> Response:
        answered, route = CURRENT_REQUEST.get(), request.scope.get("route")
        if answered is not None and route is not None:
            answered["route"] = route.path
        response = error_response_at(request.scope, dialects)(error)
        response.headers.update(headers or {})
        return response

    async def routing(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            methods = ", ".join(_methods(request.scope, [*app.routes, *own]))
            allow = methods or (error.headers or {}).get("Allow", "")  # a mount says it by itself
            return await respond(request, errors.MethodNotAllowed(), {"Allow": allow})
        if error.status_code == 404 and _takes_websockets(request, [*app.routes, *own]):
            return await respond(request, errors.UpgradeRequired(), UPGRADE_HEADERS)
        other = errors.RequestInvalid if error.status_code < 500 else errors.SidecarError
        refused = _FROM_STATUS.get(error.status_code, other)
        return await respond(request, not_found_error() if error.status_code == 404 else refused())

    async def unknown(request: Request, error: Exception) -> Response:
        # This response is sent outside of `BodyDrain`, which would have drained an unread body.
        known = errors.SidecarError()
        if is_retryable(request.method, error):
            detail = "This machine lacks descriptors, threads or memory for now."
            known = errors.MachineBusy(detail, hint="Try again.")
        return await respond(request, known, {"Connection": "close"})

    handlers: Mapping[Any, Any] = {
        errors.SidecarError: respond,
        HTTPException: routing,
        Exception: unknown,
    }
    app.exception_handlers.update(handlers)
    found_nothing = app.router.default

    async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a WebSocket at an unknown path with an error; Starlette sends a 403 without a
        body."""
        if scope["type"] != "websocket":
            await found_nothing(scope, receive, send)
            return
        sockets = ", ".join(one.path for one in own if isinstance(one, WebSocketRoute))
        answer = error_response_at(scope, dialects)(
            errors.NotFound(
                "There is no WebSocket at this address.", hint=f"There are some at: {sockets}."
            )
        )
        with suppress(RuntimeError, OSError):
            await WebSocket(scope, receive, send).send_denial_response(answer)

    app.router.default = nowhere


def _methods(scope: Scope, routes: Iterable[BaseRoute]) -> list[str]:
    """Return the methods of a path, of all routes that match it."""
    methods: set[str] = set()
    for route in routes:
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def _takes_websockets(request: Request, routes: Iterable[BaseRoute]) -> bool:
    return any(
        isinstance(route, WebSocketRoute) and route.path_regex.match(request.scope["path"])
        for route in routes
    )
