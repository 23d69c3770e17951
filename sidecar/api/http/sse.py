"""Server-sent events (WHATWG HTML, 9.2): how they are written, and an answer made of them.

A reader holds nothing but its own connection: what it has not read waits in its buffer or not at
all, and the job goes on at its own pace.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

from fastapi import Request, Response
from starlette.types import Message, Receive, Scope, Send

from sidecar import errors
from sidecar.api.http.bodies import to_json
from sidecar.api.http.caller import lasting

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which every reader passes over."""
KEEP_ALIVE_S = 15.0
"""As the standard advises against proxies that close what is silent."""
FAREWELL_S = 5.0
"""How long a reader is given to take the last frame of a stream that is ended."""
MEDIA_TYPE = "text/event-stream"
_ID = re.compile(r"\d{1,15}", re.ASCII)


def frame(data: Mapping[str, Any], event: str | None = None, id: int | None = None) -> bytes:
    """One event with a JSON document on one line; without a name it is the default event."""
    head = f"event: {event}\n" if event is not None else ""
    number = f"id: {id}\n" if id is not None else ""
    return f"{number}{head}data: ".encode() + to_json(data) + b"\n\n"


def last_event_id(request: Request) -> int:
    """The number of the last event that the client has had (`Last-Event-ID`), 0 for none.

    Raises:
        errors.FieldInvalid: it is no number of ours.
    """
    given = request.headers.get("last-event-id", "").strip()
    if given and not _ID.fullmatch(given):
        raise errors.FieldInvalid(
            "'Last-Event-ID' is not the id of an event.",
            hint="Send the last id that was read, or leave the header out to begin anew.",
        )
    return int(given or 0)


class EventStream(Response):
    """An answer that goes on as long as there are ``frames``.

    ``closed`` is called once it is over, whatever came of it, also where the client left before the
    first frame. ``farewell`` is the last frame where the token of who asked counts no more.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        closed: Callable[[], None] = lambda: None,
        farewell: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        usual = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers=usual | dict(headers or {}))
        del self.headers["content-length"]
        self._frames = frames
        self._closed = closed
        self._farewell = farewell
        self._begun = self._sent_away = self._cut_off = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope.get("head"):  # the headers are all of the answer
            self._closed()
            await self._frames.aclose()
            await self._begin(send)
            await send(_body(b"", more=False))
            return
        spawn = asyncio.get_running_loop().create_task
        sending, leaving = spawn(self._send_all(send)), spawn(_disconnected(receive))

        def sent_away() -> None:
            self._sent_away = True
            leaving.cancel()

        try:
            with lasting(scope, sent_away):
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the service ends, and what is followed outlives it
            self._cut_off = True
            if not self._begun:
                raise
        finally:
            sending.cancel()
            leaving.cancel()
            self._closed()
            await asyncio.wait({sending, leaving})
        if not sending.cancelled():
            sending.result()
        elif (self._sent_away or self._cut_off) and self._begun:
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    last = self._farewell if self._sent_away else b""
                    await send(_body(last, more=False))

    async def _begin(self, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        self._begun = True

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._frames) as frames:
            await self._begin(send)
            async for each in frames:
                await send(_body(each, more=True))
            await send(_body(b"", more=False))


def _body(part: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": part, "more_body": more}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
