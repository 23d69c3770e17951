"""Responses: server-sent events, other streams, incremental text, JSON bodies.

A slow client holds up only its own connection: what it has not read waits in its buffer or is
dropped, and the job goes on.

Each segment is sent once, as soon as the engine reports it, and at the end all that the final
transcript has besides. A segment is not sent again if another attempt recognizes it anew after a
crash, or if the final transcript revises it: its borders, speaker or words.
"""

import asyncio
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from sidecar.api.http.request_headers import revocable
from sidecar.concurrency import running
from sidecar.jobs.job_record import JobRecord
from sidecar.transcripts.transcript import Segment, join_texts
from sidecar.transcripts.word_timing import split_atoms


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


class ReportedSegments:
    """Segments that were reported, and which of a later transcription are not among them. Pure.

    Another attempt and the final transcript contain the reported segments again, perhaps with other
    speakers, borders or words. Beside them they may contain speech that was not reported, such as
    that of a second speaker at the same time. Each reported word stands for one of a later segment.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = sorted(segments, key=lambda segment: segment.start)
        self._starts = [segment.start for segment in self._segments]
        self._longest_s = max((one.end - one.start for one in self._segments), default=0.0)
        self._words: dict[int, Counter[str]] = {}
        """Words of a segment that stand for none of a later one yet."""
        self._found: set[int] = set()

    def contain(self, segment: Segment) -> bool:
        """Return whether a segment of another attempt was reported, as far as can be told before
        its end."""
        if self._has_same(segment) or self._has_words(segment):
            return True
        overlaps = [seconds for _, _, seconds in self._overlaps(segment)]
        return bool(overlaps) and sum(overlaps) >= (segment.end - segment.start) / 2

    def missing_from(self, segments: Sequence[Segment]) -> list[int]:
        """Return the indexes of the segments of a final transcript that were not reported.

        A segment was reported if there is one with its text at its time, if half of its words were
        reported at its time, or if half of its time was, with words that are not found again: that
        is a revision. Speech of the same speaker is looked for first, and what fits best, so that a
        second speaker at the same time does not take the place of the first.
        """
        missing = [at for at, one in enumerate(segments) if not self._has_same(one)]
        missing = [at for at in missing if not self._has_words(segments[at])]
        best = {at: max(self._overlaps(segments[at]), default=(0.0, 0, 0.0)) for at in missing}
        missing.sort(key=lambda at: best[at][:2], reverse=True)
        missing = [at for at in missing if not self._has_revised(segments[at], same_speaker=True)]
        return sorted(at for at in missing if not self._has_revised(segments[at]))

    def _near(self, segment: Segment) -> Iterator[int]:
        """Yield the reported segments that overlap with a segment."""
        for at in range(
            bisect_left(self._starts, segment.start - self._longest_s), len(self._segments)
        ):
            one = self._segments[at]
            if one.start >= max(segment.end, segment.start + 1e-6):
                return
            if one.end > segment.start or one.start == segment.start:
                yield at

    def _has_same(self, segment: Segment) -> bool:
        for at in self._near(segment):
            if at not in self._found and self._segments[at].text == segment.text:
                self._found.add(at)
                self._words[at] = Counter()
                return True
        return False

    def _has_words(self, segment: Segment) -> bool:
        words = _text_words(segment.text)
        missing, found = words.copy(), {}
        for at in self._near(segment):
            left = self._words.setdefault(at, _text_words(self._segments[at].text))
            if common := left & missing:
                found[at] = common
                missing -= common
        if not words or 2 * missing.total() > words.total():
            return False
        for at, common in found.items():
            self._words[at] -= common
            self._found.add(at)
        return True

    def _has_revised(self, segment: Segment, *, same_speaker: bool = False) -> bool:
        """Return whether it is a revision, of those segments that fit best and cover half of its
        time."""
        missing_s, revised = (segment.end - segment.start) / 2, []
        for _, at, overlap_s in sorted(self._overlaps(segment), reverse=True):
            if same_speaker and self._segments[at].speaker != segment.speaker:
                continue
            revised.append(at)
            missing_s -= overlap_s
            if missing_s <= 0:
                self._found.update(revised)
                return True
        return False

    def _overlaps(self, segment: Segment) -> Iterator[tuple[float, int, float]]:
        """Yield the segments near it that were not found again: the intersection of the times over
        their union, the index, and the intersection in seconds."""
        for at in self._near(segment):
            if at not in self._found:
                one = self._segments[at]
                overlap_s = min(segment.end, one.end) - max(segment.start, one.start)
                union_s = max(segment.end, one.end) - min(segment.start, one.start)
                yield overlap_s / max(union_s, 1e-6), at, overlap_s


def _text_words(text: str) -> Counter[str]:
    """Return how often each word is in a text, without marks and capitals."""
    plain = ("".join(filter(str.isalnum, atom.casefold())) for atom in split_atoms(text))
    return Counter(filter(None, plain))


class UnsentSegments:
    """Segments of one job that were not sent yet."""

    def __init__(self) -> None:
        self._said: list[Segment] = []
        self._before = ReportedSegments(())
        """Segments that were sent of failed attempts."""
        self._next = 0
        self._attempt = 0

    def more(self, job: JobRecord) -> Iterator[tuple[int, Segment]]:
        """Yield the new segments of a job, each with its index there."""
        again = job.attempts != self._attempt or len(job.segments) < self._next
        if again or job.transcript is not None:
            self._attempt, self._next = job.attempts, 0
            self._before = ReportedSegments(self._said)
        if job.transcript is not None:
            new = self._before.missing_from(job.segments)
        else:
            indexes = range(self._next, len(job.segments))
            new = [at for at in indexes if not self._before.contain(job.segments[at])]
        self._next = len(job.segments)
        for index in new:
            self._said.append(job.segments[index])
            yield index, job.segments[index]


class IncrementalTextResponse:
    """Text that is sent in parts, which add up to the whole text."""

    def __init__(self) -> None:
        self._last = ""
        """Last character of the text so far."""

    def add(self, piece: str) -> str:
        """Return the text to send for one more segment; "" if there is none."""
        text = join_texts((self._last, piece))
        added, self._last = text[len(self._last) :], text[-1:]
        return added
