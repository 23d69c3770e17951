"""Live segments of speech at Microsoft's streaming servers: a WebSocket for each segment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from sidecar import errors
from sidecar.audio import Block
from sidecar.engines.vibevoice.streamed_segment import (
    ChunkText,
    StreamedSegment,
    recognize_windows,
)
from sidecar.interfaces.recognition import RecognitionHypothesis, SegmentRequest
from sidecar.plugins.upstream.chunk_requests import ChunkRequests
from sidecar.plugins.upstream.errors import (
    UpstreamError,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from sidecar.plugins.upstream.streaming_dialect import (
    STREAM_END,
    stream_begin,
    stream_text,
)
from sidecar.plugins.upstream.upstream_client import UpstreamClient
from sidecar.plugins.upstream.upstream_dialect import AudioWindows

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

CANCEL_POLL_S = 0.05
"""Poll interval for cancellation."""


class LiveStreams:
    """Live segments at the streaming servers among the upstreams.

    A server ends its session with the audio, so that each segment has one of its own.
    """

    def __init__(self, requests: ChunkRequests) -> None:
        """Raises:
        UpstreamUnreachable: no server has answered that may be a streaming server.
        errors.ModelLoadFailed: none is one.
        """
        dialects = [one.dialect for one in requests.upstreams]
        windows = [one.windows for one in dialects if one is not None and one.windows is not None]
        if not windows and None in dialects:
            raise UpstreamUnreachable
        if not windows:
            raise errors.ModelLoadFailed(
                "None of the upstreams takes live audio.",
                hint="Name a streaming server of VibeVoice-ASR (docs/upstream.md), or another "
                "engine for live audio: VIBEVOICE_LIVE_ENGINE=auto.",
            )
        self.windows: AudioWindows = windows[0]
        """Windows of all servers that are used: of several kinds, those of the first."""
        self._requests = requests

    def recognize(self, request: SegmentRequest, *, last: bool) -> RecognitionHypothesis | None:
        """Recognize the windows of a segment that are complete; ``last``: all of its audio."""
        try:
            return recognize_windows(self.windows, self._text, request, last=last)
        finally:
            if last:
                request.session.kept = None

    def _text(self, request: SegmentRequest, segment: StreamedSegment, window: Block) -> ChunkText:
        """Send the audio of a window that is new, and wait for its text.

        Raises:
            UpstreamError: a server failed, or took too long; the next window goes to a new session.
        """
        stream = request.session.kept
        if not (isinstance(stream, _SegmentStream) and stream.segment is segment):
            stream = _SegmentStream(segment, self._requests, self.windows)
            request.session.kept = stream
        text = self._requests.run(stream.text(window, request.options.prompt_lines))
        try:
            return ChunkText(_result(text, request))
        except BaseException:
            request.session.kept = None
            raise


def _result(future: Future[str], request: SegmentRequest) -> str:
    """Wait for a text.

    Raises:
        UpstreamTimeout: it is not wanted any more.
    """
    while True:
        with suppress(FutureTimeoutError):
            return future.result(CANCEL_POLL_S)
        if future.done():
            return future.result()
        if request.cancelled():
            future.cancel()
            raise UpstreamTimeout


class _SegmentStream:
    """Session of a server for one segment; it ends with this object."""

    def __init__(
        self, segment: StreamedSegment, requests: ChunkRequests, windows: AudioWindows
    ) -> None:
        self.segment = segment
        self._requests, self._windows = requests, windows
        self._upstream: UpstreamClient | None = None
        self._socket: ClientConnection | None = None
        self._ended = False

    async def text(self, window: Block, context: str) -> str:
        """Return the text of the next window; the server keeps what two windows share."""
        new = window[self._windows.window_samples - self._windows.chunk_samples :]
        if self._upstream is None:
            self._upstream, new = self._choose_upstream(), window
        upstream = self._upstream
        try:
            with _stream_errors():
                async with asyncio.timeout(upstream.timeout_s(len(window) / self._windows.rate)):
                    if self._socket is None:
                        self._socket = await upstream.open_stream(self._requests.certificates)
                        await self._socket.send(stream_begin(context))
                    if not self._ended:
                        await self._socket.send(new.astype("<f4").tobytes())
                    if len(window) < self._windows.window_samples and not self._ended:
                        self._ended = True
                        await self._socket.send(STREAM_END)
                    text = stream_text(await self._socket.recv())
        except UpstreamError as error:
            raise self._requests.failed(upstream, error) from None
        upstream.load.succeeded()
        return text

    def _choose_upstream(self) -> UpstreamClient:
        """Return the streaming server that is used least of those that are not in back-off.

        Raises:
            UpstreamUnreachable: none is a streaming server any more, as far as is known.
        """
        now, windows = time.monotonic(), self._windows
        able = [
            one
            for one in self._requests.upstreams
            if one.dialect and one.dialect.windows == windows
        ]
        if not able:
            raise UpstreamUnreachable
        upstream = min(able, key=lambda one: (max(0.0, one.load.wait_s(now)), one.load.running))
        upstream.load.running += 1
        return upstream

    def __del__(self) -> None:
        if self._upstream is not None:
            self._requests.run(_close(self._socket, self._upstream))


async def _close(socket: ClientConnection | None, upstream: UpstreamClient) -> None:
    upstream.load.running -= 1
    if socket is not None:
        await socket.close()


@contextmanager
def _stream_errors() -> Iterator[None]:
    """Turn errors of a WebSocket into those of an upstream."""
    try:
        yield
    except TimeoutError:
        raise UpstreamTimeout from None
    except ConnectionClosed:
        raise UpstreamFailed("The upstream went away in the middle.") from None
    except InvalidHandshake as error:
        raise UpstreamFailed(f"The upstream takes no live audio: {error}.") from None
    except OSError:
        raise UpstreamUnreachable from None
