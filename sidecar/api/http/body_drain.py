"""Drain of request bodies that are not read, so that a refused client sees its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
