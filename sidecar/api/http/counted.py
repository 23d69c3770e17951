"""Every request and WebSocket is counted by what really came of it, whichever wire answers.

`Counted` stands before everything, refusals of the gate included; `Route` behind everything else,
where it is known which address of ours it was. An address that is none of ours has no name.
"""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecar.observability.tally import WireTally

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NONE = "(none)"
"""The route of what was refused before anybody looked for one, or found none."""
GONE = "gone"
"""The status of a request whose client hung up before it had an answer."""
_KEY = "counted"


class Route:
    """Notes the route that answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            await self._app(scope, receive, send)
        finally:
            if (note := scope.get(_KEY)) is not None:
                note["route"] = getattr(scope.get("route"), "path", NONE)


class Counted:
    """Counts them."""

    def __init__(self, app: ASGIApp, tally: WireTally) -> None:
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
        note, tally, began = {"route": NONE}, self._tally, time.monotonic()
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
            tally.requests.add(method, note["route"], status or GONE)
            if status:
                tally.heads.see(head_s or time.monotonic() - began, note["route"])

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        note, tally = {"route": NONE}, self._tally
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
