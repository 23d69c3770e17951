"""Responses: server-sent events, other streams, incremental text, JSON bodies.

A slow client holds up only its own connection: what it has not read waits in its buffer or is
dropped, and the job goes on.

Each segment is sent once, as soon as the engine reports it. If another attempt after a crash or the
transcript revises it (its borders, speaker or words), the end of the stream says so.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, suppress
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from sidecar.api.http.request_headers import revocable
from sidecar.concurrency import running
from sidecar.jobs.job_record import JobRecord
from sidecar.transcripts.transcript import Segment, Transcript, join_texts


def to_json(body: Mapping[str, Any]) -> bytes:
    """Return strict JSON: a NaN raises, as it is a bug of the service."""
    return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()


def json_response(
    body: Mapping[str, Any] | bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response, from values or from the bytes of `to_json`."""
    return Response(
        body if isinstance(body, bytes) else to_json(body),
        status_code=status,
        media_type="application/json",
        headers=dict(headers or {}),
    )


def content_disposition(kind: str, job: JobRecord, noun: str, extension: str) -> str:
    """Return the header (RFC 6266) that names a file of a job like the job's own, if that has a
    name, with another extension; clients that know ASCII only get ``noun`` and the id.

    ``kind``: inline or attachment.
    """
    plain = f'{kind}; filename="{noun}-{job.id[:8]}.{extension}"'
    stem = PurePath(job.name).stem
    return f"{plain}; filename*=UTF-8''{quote(f'{stem}.{extension}', safe='')}" if stem else plain


NO_STORE = {"Cache-Control": "no-store"}
SSE_KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which every client ignores."""
SSE_KEEP_ALIVE_S = 15.0
"""Interval that the standard recommends, against proxies that close idle connections."""
LAST_FRAME_TIMEOUT_S = 5.0
"""Time for a client to read the last frame of a stream that the service ends."""
SSE_MEDIA_TYPE = "text/event-stream"


def sse_frame(data: Mapping[str, Any], event: str | None = None, id: int | None = None) -> bytes:
    """Return an event with a JSON document on one line; without a name it is the default event."""
    head = f"event: {event}\n" if event is not None else ""
    number = f"id: {id}\n" if id is not None else ""
    return f"{number}{head}data: ".encode() + to_json(data) + b"\n\n"


class StreamedResponse(Response):
    """Response with a body that is produced while it is sent, until the client disconnects."""

    def __init__(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status_code=status, headers=headers)
        self._begun = self._ended = False

    async def _begin(self, send: Send) -> None:
        """Send the head, unless it was sent already."""
        if not self._begun:
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            self._begun = True

    async def _send_all(self, send: Send, frames: AsyncGenerator[bytes, None]) -> None:
        """Send the body, and the head before its first bytes."""
        async with aclosing(frames) as each:
            async for frame in each:
                await self._begin(send)
                await send(_body(frame, more=True))
        await self._begin(send)
        await send(_body(b"", more=False))
        self._ended = True


class EventStreamResponse(StreamedResponse):
    """Response of server-sent events that lasts as long as there are ``frames``.

    ``closed`` is always called at its end, even if the client disconnected before the first frame.
    ``farewell`` is the last frame if the client's token is revoked.
    """

    media_type = SSE_MEDIA_TYPE

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
        self._frames, self._closed, self._farewell = frames, closed, farewell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope.get("head"):  # a HEAD response has no body
            self._closed()
            await self._frames.aclose()
            await self._begin(send)
            await send(_body(b"", more=False))
            return
        last: bytes | None = None
        try:
            if await send_until_disconnect(scope, receive, self._follow(send)):
                last = self._farewell
        except asyncio.CancelledError:  # the service shuts down, and the job outlives it
            if not self._begun:
                raise
            last = b""
        finally:
            self._closed()
        if last is not None and self._begun and not self._ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_FRAME_TIMEOUT_S):
                    await send(_body(last, more=False))

    async def _follow(self, send: Send) -> None:
        await self._begin(send)
        await self._send_all(send, self._frames)


async def send_until_disconnect(
    scope: Scope, receive: Receive, sending: Coroutine[Any, Any, None]
) -> bool:
    """Run ``sending`` until it ends, the client disconnects, or its token is revoked.

    Return True if the token was revoked. An exception of ``sending`` is raised.
    """
    async with running(sending, client_disconnected(receive)) as (sender, listener):
        with revocable(scope, listener.cancel) as revoked:
            await asyncio.wait({sender, listener}, return_when=asyncio.FIRST_COMPLETED)
    if not sender.cancelled():
        sender.result()
    return revoked.is_set()


def _body(part: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": part, "more_body": more}


async def client_disconnected(receive: Receive) -> None:
    """Wait until the client of a request disconnects; its body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class UnsentSegments:
    """Segments of one job that were not sent yet.

    An engine reports all that it recognizes, and another attempt reports a segment again with its
    index. So the number of segments that were sent says which are next; of a job that was over
    before, these are the segments of its transcript.
    """

    def __init__(self) -> None:
        self._sent: list[Segment] = []

    def more(self, job: JobRecord) -> Iterator[tuple[int, Segment]]:
        """Yield the new segments of a job, each with its index."""
        if job.transcript is not None and self._sent:
            return
        for segment in job.segments[len(self._sent) :]:
            self._sent.append(segment)
            yield len(self._sent) - 1, segment

    def revised(self, transcript: Transcript) -> list[int]:
        """Return the indexes of the segments that are not in the transcript as they were sent."""
        final = set(transcript.segments)
        return [index for index, one in enumerate(self._sent) if one not in final]


class IncrementalTextResponse:
    """Text that is sent in parts, which add up to the whole text. ``last``: its last character so
    far."""

    def __init__(self, last: str = "") -> None:
        self._last = last

    def add(self, piece: str) -> str:
        """Return the text to send for one more segment; "" if there is none."""
        text = join_texts((self._last, piece))
        added, self._last = text[len(self._last) :], text[-1:]
        return added
