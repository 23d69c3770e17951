"""Drain of unread request bodies, so that a refused client reads the response."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_S = 10.0
"""Seconds for which a client may go on sending before it reads the response. Node builds the whole
form first, which takes seconds for 200 MB. A client closes the connection once it has the
response."""
REFUSED_LINGER_S = 0.5
"""As `LINGER_S`, for a client that is not authenticated (401, 403)."""
LINGER_BYTES = 16 << 20
"""Bytes that are read without a pause. A refused body is not read whole: beyond this limit reading
is slow, and serves only to notice that the client has closed."""
LINGER_PAUSE_S = 0.25
_CLOSE = (b"connection", b"close")


class BodyDrain:
    """ASGI middleware that closes a connection with an unread request body after a drain."""

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
    """Request body, and whether some of it is unread."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self._receive = receive
        self._waits = headers.get("expect", "").lower() == "100-continue"
        """True if the client sends nothing before it gets `100 Continue`, which the first read
        sends."""
        self.unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers

    async def receive(self) -> Message:
        """Return the next message."""
        self._waits = False
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.unread = False
        return message

    async def linger(self, linger_s: float) -> None:
        """Drain the body for at most ``linger_s`` seconds."""
        read = 0
        try:
            async with asyncio.timeout(linger_s):
                while self.unread and not self._waits:
                    read += len((await self.receive()).get("body", b""))
                    if read >= LINGER_BYTES:
                        await asyncio.sleep(LINGER_PAUSE_S)
        except (TimeoutError, asyncio.CancelledError):
            pass  # only the server cancels, at its shutdown; the response is complete nevertheless


def _without_connection(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() != b"connection"]
