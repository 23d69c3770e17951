"""What an answer means for a connection whose request was not read to its end.

The connection cannot go on: what follows on it is the rest of a body that nobody wants. So the
answer says `Connection: close`, and goes out first. Then some of the rest is read, because a client
that still writes while its connection closes would see a reset instead of the answer; and then it
is closed, however much is still to come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_S = 0.5
LINGER_BYTES = 16 << 20
_CLOSE = (b"connection", b"close")


class Lingering:
    """Closes connections whose request's body was not read to its end, and not too rudely."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(Headers(scope=scope), receive)

        async def answer(message: Message) -> None:
            if body.unread and message["type"] == "http.response.start":
                headers = [*_without_connection(message.get("headers", ())), _CLOSE]
                message = {**message, "headers": headers}
            elif body.unread and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.linger()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, body.receive, answer)


class _Body:
    """A request's body, and how much of it has been read."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self._receive = receive
        self._waits = headers.get("expect", "").lower() == "100-continue"
        """Whether the client sends nothing before it is told to, which the first read does."""
        self.unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers

    async def receive(self) -> Message:
        """What came next."""
        self._waits = False
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.unread = False
        return message

    async def linger(self) -> None:
        """Read on for a moment."""
        read = 0
        try:
            async with asyncio.timeout(LINGER_S):
                while self.unread and not self._waits and read < LINGER_BYTES:
                    read += len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass


def _without_connection(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() != b"connection"]
