"""ASGI middleware: metrics, disconnects, shutdown responses, HEAD, CORS, body drain, headers.

`RequestMetrics` is the outermost middleware, so it counts refusals of the gate too. `RouteEntry` is
the innermost, where the matched route is known. Unknown paths have no route.

RateLimit headers follow draft 11 of the IETF's httpapi group (structured fields: `q` quota, `w`
window in seconds, `r` remaining, `t` seconds until it is whole again).
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecar import errors
from sidecar.api.http import error_responses
from sidecar.api.http.request_headers import revocable
from sidecar.api.http.responses import client_disconnected
from sidecar.auth.authentication import AccessControl
from sidecar.auth.rate_limits import RateLimitState
from sidecar.limit_overrides import limit
from sidecar.observability.metrics import ProtocolMetrics

DISCONNECTED_STATUS = "gone"
"""Status of a request if its client disconnected before the response."""
_KEY = "counted"
LINGER_S = limit("body_drain", 10.0)
"""Seconds for which a client may go on sending before it reads the response: Node builds the whole
form first, which takes seconds for 200 MB, and closes at once."""
REFUSED_LINGER_S = 0.5
"""As `LINGER_S`, for a client that is not authenticated (401, 403)."""
LINGER_BYTES = 16 << 20
"""Bytes that are read without a pause; beyond, reading only notices that the client closed."""
LINGER_PAUSE_S = 0.25
IDLE_LINGER_S = 0.5
"""Pause of a client that ends the drain, unless it sends a form, which it may still be building."""
_CLOSE = (b"connection", b"close")
PREFLIGHT_MAX_AGE_S = 600
OPENAI_SDK_HEADERS = (
    *("X-Stainless-Arch", "X-Stainless-Lang", "X-Stainless-OS", "X-Stainless-Package-Version"),
    *("X-Stainless-Retry-Count", "X-Stainless-Runtime", "X-Stainless-Runtime-Version"),
    *("X-Stainless-Timeout", "OpenAI-Organization", "OpenAI-Project"),
)
"""Headers that OpenAI's SDK sends from a page."""
RATE_LIMIT_HEADERS = ("RateLimit", "RateLimit-Policy")
_POLICY = '"requests"'


class HttpMiddleware(ABC):
    """ASGI middleware of HTTP requests; WebSockets and the lifespan pass it as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """ASGI."""
        serve = self._serve if scope["type"] == "http" else self._app
        return serve(scope, receive, send)

    @abstractmethod
    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""


class RouteEntry:
    """Way to the routes: those of GET answer HEAD, too, and the one that answers is recorded."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", "head": True}  # uvicorn sends no body
        try:
            await self._app(scope, receive, send)
        finally:
            if (note := scope.get(_KEY)) is not None:
                note["route"] = getattr(scope.get("route"), "path", error_responses.NO_ROUTE)


class RequestMetrics:
    """Metrics of requests and WebSockets."""

    def __init__(self, app: ASGIApp, metrics: ProtocolMetrics) -> None:
        self._app, self._metrics = app, metrics

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """ASGI."""
        kinds = {"http": self._request, "websocket": self._socket}
        return kinds.get(scope["type"], self._app)(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        note, metrics, began = {"route": error_responses.NO_ROUTE}, self._metrics, time.monotonic()
        status, head_s = "", 0.0

        async def noting(message: Message) -> None:
            nonlocal status, head_s
            if message["type"] == "http.response.start":
                status, head_s = str(message["status"]), time.monotonic() - began
            await send(message)

        method = scope["method"] if scope["method"] in error_responses.METHODS else "other"
        metrics.answering += 1
        try:
            await self._app({**scope, _KEY: note}, receive, noting)
        except Exception as error:  # an outer layer sends it
            status = status or ("503" if error_responses.is_retryable(method, error) else "500")
            raise
        finally:
            metrics.answering -= 1
            metrics.requests.add(method, note["route"], status or DISCONNECTED_STATUS)
            if status:
                metrics.heads.see(head_s or time.monotonic() - began, note["route"])

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        note, metrics = {"route": error_responses.NO_ROUTE}, self._metrics
        code = ""

        async def hearing() -> Message:
            nonlocal code
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code = code or "client"
            return message

        async def noting(message: Message) -> None:
            nonlocal code
            if message["type"] == "websocket.close":
                code = code or str(message.get("code", 1000))
            elif message["type"] == "websocket.http.response.start":
                code = str(message["status"])
            await send(message)

        metrics.sockets_open += 1
        try:
            await self._app({**scope, _KEY: note}, hearing, noting)
        finally:
            metrics.sockets_open -= 1
            metrics.sockets.add(note["route"], code or "client")


@asynccontextmanager
async def watch_disconnect(
    request: Request, gone: Callable[[], None], cancel: Callable[[], None]
) -> AsyncGenerator[None, None]:
    """Call ``gone``, once, if the client disconnects within this context, or the request is
    cancelled. Call ``cancel``, which ends the awaited job, if the client's token is revoked. The
    request body must have been read.

    Raises:
        errors.TokenInvalid: the token was revoked, and there is no transcript.
    """

    async def listen() -> None:
        await client_disconnected(request.receive)
        gone()

    listener = asyncio.get_running_loop().create_task(listen())
    try:
        with revocable(request.scope, cancel) as revoked:
            yield
    except asyncio.CancelledError:
        if not listener.done():
            gone()
        raise
    except errors.JobCancelled:
        if revoked.is_set():
            raise errors.TokenInvalid() from None
        raise
    finally:
        listener.cancel()  # the response does not wait for its end


class TidyPaths:
    """Normalization of paths below ``prefixes``: remove doubled and trailing slashes, as clients
    join paths to a base URL. A redirect would go to whatever Host the client claims."""

    def __init__(self, app: ASGIApp, prefixes: tuple[str, ...]) -> None:
        self._app, self._prefixes = app, prefixes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """ASGI."""
        if scope["type"] in ("http", "websocket"):
            path = "/" + "/".join(filter(None, scope["path"].split("/")))
            if path != scope["path"] and path.startswith(self._prefixes):
                scope = {**scope, "path": path}
        return self._app(scope, receive, send)


class ShutdownAnswers(HttpMiddleware):
    """Response `errors.ShuttingDown`, in the format of the path, to requests that have none at
    shutdown."""

    def __init__(
        self, app: ASGIApp, dialects: error_responses.ErrorDialects = error_responses.NO_DIALECTS
    ) -> None:
        super().__init__(app)
        self._dialects = dialects

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:  # only the server cancels, and only at its shutdown
            if not begun:
                render = error_responses.error_response_at(scope, self._dialects)
                answer = render(errors.ShuttingDown())
                answer.headers["Connection"] = "close"
                await answer(scope, receive, send)


class BodyDrain(HttpMiddleware):
    """Middleware that closes a connection with an unread request body after a drain."""

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _BodyProgress(dict(scope["headers"]), receive)
        linger_s = LINGER_S

        async def answer(message: Message) -> None:
            nonlocal linger_s
            if message["type"] == "http.response.start" and message["status"] in (401, 403):
                linger_s = REFUSED_LINGER_S
            if body.unread and message["type"] == "http.response.start":
                given = message.get("headers", ())
                others = [one for one in given if one[0].lower() != b"connection"]
                message = {**message, "headers": [*others, _CLOSE]}
            elif body.unread and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.linger(linger_s)
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, body.receive, answer)


class _BodyProgress:
    """Request body, and whether some of it is unread."""

    def __init__(self, headers: Mapping[bytes, bytes], receive: Receive) -> None:
        self._receive = receive
        self._waits = headers.get(b"expect", b"").lower() == b"100-continue"
        """True if the client sends nothing before `100 Continue`, which the first read sends."""
        self.unread = (
            headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        )
        self._is_form = headers.get(b"content-type", b"").lower().startswith(b"multipart/")

    async def receive(self) -> Message:
        """Return the next message."""
        self._waits = False
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.unread = False
        return message

    async def linger(self, linger_s: float) -> None:
        """Drain the body for at most ``linger_s`` seconds."""
        read, now = 0, asyncio.get_running_loop().time
        end = now() + linger_s
        try:
            async with asyncio.timeout(linger_s) as patience:
                while self.unread and not self._waits:
                    if not self._is_form:
                        patience.reschedule(min(end, now() + IDLE_LINGER_S))
                    read += len((await self.receive()).get("body", b""))
                    if read >= LINGER_BYTES:
                        await asyncio.sleep(LINGER_PAUSE_S)
        except (TimeoutError, asyncio.CancelledError):
            pass  # only the server cancels, at its shutdown; the response is complete nevertheless


def send_with_rate_limit(send: Send, state: RateLimitState) -> Send:
    """Return ``send`` with the headers `RateLimit-Policy` and `RateLimit` added to the response."""
    rate = state.rate
    headers = [
        (b"ratelimit-policy", f"{_POLICY};q={rate.amount:.0f};w={rate.window_s:.0f}".encode()),
        (b"ratelimit", f"{_POLICY};r={state.left};t={state.full_in_s}".encode()),
    ]

    async def say(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return say


class AccessCors(CORSMiddleware):
    """CORS by the rules of `AccessControl`."""

    def __init__(self, app: ASGIApp, access: AccessControl) -> None:
        super().__init__(
            app,
            allow_methods=("GET", "HEAD", "POST", "PATCH", "DELETE"),
            allow_headers=(
                *("Authorization", "Content-Type", "Prefer", "Idempotency-Key", "Last-Event-ID"),
                *("If-Match", "If-None-Match", "Range"),
                *OPENAI_SDK_HEADERS,
            ),
            expose_headers=(
                *("Location", "Preference-Applied", "Retry-After", "Idempotent-Replayed", "ETag"),
                *("X-Request-Id", "X-Should-Retry", "Warning", "WWW-Authenticate", "Allow"),
                *("Accept-Ranges", "Content-Disposition", "Content-Range"),
                *RATE_LIMIT_HEADERS,
            ),
            allow_private_network=True,
            max_age=PREFLIGHT_MAX_AGE_S,
        )
        self._access = access

    def is_allowed_origin(self, origin: str) -> bool:
        """Return whether the access control lets pages of ``origin`` read responses."""
        return self._access.admits_origin(origin)
