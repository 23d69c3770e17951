"""ASGI middleware: metrics, disconnects, body drain, paths, shutdown answers, HEAD, /docs.

`RequestMetrics` stands before everything, refusals of the gate included; `RouteRecorder` behind
everything else, where it is known which address of ours it was. An address that is none of ours has
no name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecar import clock, errors
from sidecar.api.http.request_headers import revocable
from sidecar.api.http.responses import ErrorDialects, error_response_at
from sidecar.observability.metrics import ProtocolMetrics
from sidecar.observability.tracing import CURRENT_ARRIVAL, RequestArrival

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "(none)"
"""The route of what was refused before anybody looked for one, or found none."""
DISCONNECTED_STATUS = "gone"
"""The status of a request whose client hung up before it had an answer."""
_KEY = "counted"


class RouteRecorder:
    """Notes the route that answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            await self._app(scope, receive, send)
        finally:
            if (note := scope.get(_KEY)) is not None:
                note["route"] = getattr(scope.get("route"), "path", NO_ROUTE)


class RequestMetrics:
    """Counts them."""

    def __init__(self, app: ASGIApp, tally: ProtocolMetrics) -> None:
        self._app, self._tally = app, tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            await self._request(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        note, tally, began = {"route": NO_ROUTE}, self._tally, time.monotonic()
        status, head_s = "", 0.0

        async def noting(message: Message) -> None:
            nonlocal status, head_s
            if message["type"] == "http.response.start":
                status, head_s = str(message["status"]), time.monotonic() - began
            await send(message)

        method = scope["method"] if scope["method"] in METHODS else "other"
        tally.answering += 1
        try:
            await self._app({**scope, _KEY: note}, receive, noting)
        except Exception:
            status = status or "500"  # which is said from further out
            raise
        finally:
            tally.answering -= 1
            tally.requests.add(method, note["route"], status or DISCONNECTED_STATUS)
            if status:
                tally.heads.see(head_s or time.monotonic() - began, note["route"])

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        note, tally = {"route": NO_ROUTE}, self._tally
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

        tally.sockets_open += 1
        try:
            await self._app({**scope, _KEY: note}, hearing, noting)
        finally:
            tally.sockets_open -= 1
            tally.sockets.add(note["route"], code or "client")


class ArrivalRecorder:
    """Notes it of every request and connection, and when they are over."""

    def __init__(self, app: ASGIApp, now: clock.Clock = clock.wall_time) -> None:
        self._app, self._now = app, now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        arrival = RequestArrival(
            self._now(), headers.get("traceparent", ""), headers.get("tracestate", "")
        )
        CURRENT_ARRIVAL.set(arrival)
        try:
            await self._app(scope, receive, send)
        finally:
            arrival.answer(self._now())


@asynccontextmanager
async def watch_disconnect(
    request: Request, gone: Callable[[], None], cancel: Callable[[], None]
) -> AsyncGenerator[None, None]:
    """While this lasts, ``gone`` is called once the client of a request, whose body has been read,
    goes away, or nobody is answered any more; and ``cancel``, which ends the job that is waited
    for, once its token counts no more.

    Raises:
        errors.TokenInvalid: it does not, and there is no transcript.
    """
    sent_away = False

    def end() -> None:
        nonlocal sent_away
        sent_away = True
        cancel()

    async def listen() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone()

    listening = asyncio.get_running_loop().create_task(listen())
    try:
        with revocable(request.scope, end):
            yield
    except asyncio.CancelledError:
        gone()
        raise
    except errors.JobCancelled:
        if sent_away:
            raise errors.TokenInvalid() from None
        raise
    finally:
        listening.cancel()


LINGER_S = 10.0
"""So long a client may go on sending until it looks for an answer: Node makes all of a form first,
and takes seconds for 200 MB. It closes by itself once it has the answer."""
REFUSED_LINGER_S = 0.5
"""As `LINGER_S`, of a client that is not known (401, 403)."""
LINGER_BYTES = 16 << 20
"""Bytes that are read at once. What is refused is not swallowed: later ones hardly are, and only to
see that the client has gone."""
LINGER_PAUSE_S = 0.25
_CLOSE = (b"connection", b"close")


class BodyDrain:
    """Closes connections whose request's body was not read to its end, and not too rudely."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _BodyProgress(Headers(scope=scope), receive)
        linger_s = LINGER_S

        async def answer(message: Message) -> None:
            nonlocal linger_s
            if message["type"] == "http.response.start" and message["status"] in (401, 403):
                linger_s = REFUSED_LINGER_S
            if body.unread and message["type"] == "http.response.start":
                headers = [*_without_connection(message.get("headers", ())), _CLOSE]
                message = {**message, "headers": headers}
            elif body.unread and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.linger(linger_s)
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, body.receive, answer)


class _BodyProgress:
    """A request's body, and how much of it has been read."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self._receive = receive
        self._waits = headers.get("expect", "").lower() == "100-continue"
        """True if the client sends nothing before it is told to, which the first read does."""
        self.unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers

    async def receive(self) -> Message:
        """Return the next message."""
        self._waits = False
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.unread = False
        return message

    async def linger(self, linger_s: float) -> None:
        """Read on for so many seconds at most."""
        read = 0
        try:
            async with asyncio.timeout(linger_s):
                while self.unread and not self._waits:
                    read += len((await self.receive()).get("body", b""))
                    if read >= LINGER_BYTES:
                        await asyncio.sleep(LINGER_PAUSE_S)
        except (TimeoutError, asyncio.CancelledError):
            pass  # nobody but the server cancels, at its end: the answer is complete all the same


def _without_connection(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() != b"connection"]


class TidyPaths:
    """Takes a doubled slash, and one at the end, out of addresses below ``prefixes``: clients put
    them together from a base URL. A redirect would go to whatever Host the client claims."""

    def __init__(self, app: ASGIApp, prefixes: tuple[str, ...]) -> None:
        self._app, self._prefixes = app, prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] in ("http", "websocket"):
            path = "/" + "/".join(filter(None, scope["path"].split("/")))
            if path != scope["path"] and path.startswith(self._prefixes):
                scope = {**scope, "path": path}
        await self._app(scope, receive, send)


class ShutdownAnswers:
    """Answers `errors.ShuttingDown`, in the language of the address, where nothing was answered."""

    def __init__(self, app: ASGIApp, dialects: ErrorDialects | None = None) -> None:
        self._app, self._dialects = app, dialects or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:  # nobody but the server cancels, and only at its end
            if not begun:
                answer = error_response_at(scope["path"], self._dialects)(errors.ShuttingDown())
                answer.headers["Connection"] = "close"
                await answer(scope, receive, send)


class HeadRequests:
    """Lets every address that takes GET take HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def headers_only(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET", "head": True}, receive, headers_only)


PAGE = "/docs"
ASSETS = "/docs/assets"
NOT_FRAMED = {"Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY"}
"""No other page puts this one into a frame and has its visitors click there."""


def install_docs_page(app: FastAPI) -> None:
    """Serve the page and what it needs."""
    package = find_spec("fastapi_offline")
    if package is None or package.origin is None:
        return
    app.mount(ASSETS, StaticFiles(directory=Path(package.origin).parent / "static"))

    @app.get(PAGE, include_in_schema=False)
    async def page() -> HTMLResponse:
        answer = get_swagger_ui_html(
            openapi_url=app.openapi_url or "",
            title=app.title,
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url="data:,",
        )
        answer.headers.update(NOT_FRAMED)
        return answer
