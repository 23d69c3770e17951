"""gRPC sessions: those without a stream yet, streams, results and timings."""

import asyncio
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from sidecar import errors
from sidecar.audio import SAMPLE_RATE
from sidecar.auth.identity import Identity
from sidecar.concurrency import running
from sidecar.interfaces import live_events
from sidecar.interfaces.engine_interface import AUTO
from sidecar.interfaces.language_tags import LANGUAGE_NAMES
from sidecar.interfaces.live_options import LiveOptions, SampleEncoding, TurnControl, WholeSamples
from sidecar.live.sessions.session import Session
from sidecar.plugins.grpc_stt import errors as codes
from sidecar.plugins.grpc_stt import stt_pb2
from sidecar.transcripts.transcript import join_texts

UNUSED_S = 30.0
"""Seconds for which a created session waits for its stream."""
SEND_TIMEOUT_S = 30.0
"""Time without a read after which a client is disconnected, in seconds."""
FINAL_CHUNK_S = 1.0
"""Length of the chunks into which a long last message is split, in seconds."""


@dataclass(eq=False, slots=True)
class GrpcSession:
    """Created session, its caller, and the token that its chunks need ("" means none).

    ``token_requested``: False if the token is for streams without credentials, unasked.
    """

    session: Session
    identity: Identity
    token: str = field(repr=False, default="")
    token_requested: bool = False
    timeout: asyncio.TimerHandle | None = None

    def admits(self, token: str) -> bool:
        """Return whether the token is right, compared in constant time."""
        return not self.token or hmac.compare_digest(token.encode(), self.token.encode())


class GrpcPendingSessions:
    """Sessions that wait for their stream; ``drop_session`` ends one that waited too long
    (``unused_s``)."""

    def __init__(self, drop_session: Callable[[Session], None], unused_s: float) -> None:
        self.unused_s = unused_s
        self._drop_session = drop_session
        self._pending: dict[tuple[str, str], GrpcSession] = {}

    def add(self, grpc_session: GrpcSession) -> None:
        """Add a session and start its timeout."""
        self._pending[grpc_session.identity.owner, grpc_session.session.id] = grpc_session
        later = asyncio.get_running_loop().call_later
        grpc_session.timeout = later(self.unused_s, self._expire, grpc_session)

    def of(self, session_id: str, owner: str | None = None) -> list[GrpcSession]:
        """Return the pending sessions with an id: of one owner, or of all."""
        if owner is not None:
            grpc_session = self._pending.get((owner, session_id))
            return [grpc_session] if grpc_session else []
        return [
            grpc_session for (_, each), grpc_session in self._pending.items() if each == session_id
        ]

    def take(self, grpc_session: GrpcSession) -> bool:
        """Remove a session; return False if it was not pending."""
        if grpc_session.timeout is not None:
            grpc_session.timeout.cancel()
        return (
            self._pending.pop((grpc_session.identity.owner, grpc_session.session.id), None)
            is grpc_session
        )

    def close(self) -> None:
        """Drop all pending sessions."""
        for grpc_session in list(self._pending.values()):
            self._expire(grpc_session)

    def _expire(self, grpc_session: GrpcSession) -> None:
        if self.take(grpc_session):
            self._drop_session(grpc_session.session)


@dataclass(slots=True)
class GrpcTimings:
    """Sums over all finals of a stream, in seconds."""

    buffer_s: float = 0.0
    """Time for which the client waited because the audio buffer was full."""
    queue_s: float = 0.0
    """Time for which speech waited for the engine."""
    work_s: float = 0.0
    """Time that the engine took."""
    emit_s: float = 0.0
    """Time that the client took to read finals."""
    finals: int = 0
    dropped: int = 0
    """Utterances that were not recognized because of overload."""
    skipped: int = 0
    """Chunks that name another session."""
    recognized_s: float | None = None
    """Seconds of the audio before which no word is missing, if some could not be recognized."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the timings as trailing metadata."""
        parts, done_s = (self.buffer_s, self.queue_s, self.work_s, self.emit_s), self.recognized_s
        names = ("buffer-wait", "queue-wait", "inference", "response-emit", "total")
        return (
            *(
                (f"stt-decode-{name}-sec", f"{seconds:.6f}")
                for name, seconds in zip(names, (*parts, sum(parts)), strict=True)
            ),
            ("stt-decode-count", str(self.finals)),
            *((("dropped-utterances", str(self.dropped)),) if self.dropped else ()),
            *((("skipped-chunks", str(self.skipped)),) if self.skipped else ()),
            *((("recognized-sec", f"{done_s:.3f}"),) if done_s is not None else ()),
        )


class GrpcStream:
    """Stream of a created session."""

    def __init__(self, context: Any, grpc_session: GrpcSession, timings: GrpcTimings) -> None:
        self._context, self._grpc_session, self._session = (
            context,
            grpc_session,
            grpc_session.session,
        )
        self._timings = timings
        self._results = GrpcResults(grpc_session.session.options)
        self._rate, self._samples = SAMPLE_RATE, WholeSamples()

    async def run(self, first_chunk: stt_pb2.AudioChunk | None) -> None:
        """Run the stream to its end; ``first_chunk``: `None` if the client sent none.

        Raises:
            errors.SidecarError: the stream failed, or the service ended it.
        """
        try:
            async with running(self._read(first_chunk), self._send_results()) as (reading, sending):
                await asyncio.wait({reading, sending}, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    reading.result()
                await sending
        finally:
            self._timings.recognized_s = self._session.missing_from_s

    async def _read(self, first_chunk: stt_pb2.AudioChunk | None) -> None:
        """Read audio up to the last chunk or the client's end."""
        chunk = first_chunk
        try:
            while chunk is not None:
                if chunk.session_id not in ("", self._session.id):
                    self._timings.skipped += 1
                else:
                    await self._send_chunk(chunk)
                    if chunk.is_final:
                        break
                chunk = await read_chunk(self._context)
            await asyncio.sleep(0)  # a disconnect first looks like a normal end
            self._session.finish()
        except errors.SidecarError as error:
            wrong = isinstance(error, (codes.GrpcSessionTokenInvalid, errors.ChunkTooLong))
            if not wrong and (self._session.over or self._session.finishing):
                return  # `_send_results` reports the session's last events
            raise

    async def _send_chunk(self, chunk: stt_pb2.AudioChunk) -> None:
        if not self._grpc_session.admits(chunk.session_token):
            raise codes.GrpcSessionTokenInvalid()
        if chunk.sample_rate > 0:
            self._rate = chunk.sample_rate
        raw, width = chunk.pcm16, SampleEncoding.PCM16.width
        longest = round(self._session.bounds.chunk_s * self._rate) * width
        if not chunk.is_final and len(raw) > longest:
            raise errors.ChunkTooLong(f"chunk bytes {len(raw)} exceeds max {longest}")
        raw = self._samples.add(raw)
        chunk_bytes = (
            max(1, round(min(FINAL_CHUNK_S, self._session.bounds.chunk_s) * self._rate)) * width
        )
        began = time.monotonic()
        with self._session.executing():
            for at in range(0, len(raw), chunk_bytes) or (0,):
                piece = raw[at : at + chunk_bytes]
                await self._session.send(piece, SampleEncoding.PCM16, self._rate)
        self._timings.buffer_s += time.monotonic() - began

    async def _send_results(self) -> None:
        """Send results until the session ends."""
        async for numbered in self._session.events():
            event = numbered.event
            if isinstance(event, live_events.NoticeRaised):
                self._timings.dropped += event.notice.code == live_events.UTTERANCE_DROPPED
            if isinstance(event, live_events.Final):
                self._timings.queue_s += event.wait_s
                self._timings.work_s += event.work_s
                self._timings.finals += 1
            result = self._results.of(event)
            if result is not None:
                began = time.monotonic()
                await self.write_result(result)
                if result.is_final:
                    took = time.monotonic() - began
                    self._timings.emit_s += took
                    self._session.event_metrics.live_metrics.emitted.see(took)

    async def write_result(self, result: Any) -> None:
        """Send a result.

        Raises:
            errors.SessionIdle: the client does not read it.
        """
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._context.write(result)
        except TimeoutError:
            raise errors.SessionIdle("The client does not read the results.") from None


async def read_chunk(context: Any) -> stt_pb2.AudioChunk | None:
    """Return the next chunk; `None` if the client has ended.

    Raises:
        errors.FieldInvalid: the message is not a chunk.
    """
    chunk = await context.read()
    if chunk is grpc.aio.EOF:
        return None
    if chunk is None:
        raise codes.GrpcOptionInvalid("the message cannot be read")
    assert isinstance(chunk, stt_pb2.AudioChunk)
    return chunk


class GrpcResults:
    """Results of one stream.

    Clients append finals and show a partial after them, so each segment is sent once as final. A
    session that ends after one utterance has one final, with all segments of it.
    """

    def __init__(self, options: LiveOptions) -> None:
        self._one_turn = options.turns is TurnControl.ONE
        self._requested_language = "" if options.language == AUTO else options.language
        self._language = self._requested_language
        self._texts: list[str] = []
        self._start: float | None = None
        self._last_partial = ""
        self.finals = 0

    def of(self, event: live_events.LiveEvent) -> stt_pb2.STTResult | None:
        """Return the result to send for an event; `None` if there is none."""
        match event:
            case live_events.Partial():
                return self._partial(event)
            case live_events.Final(segment=segment, language=language):
                if language not in ("", AUTO):
                    self._language = language
                if not (text := segment.text.strip()):
                    return None
                if self._one_turn:
                    self._start = segment.start if self._start is None else self._start
                    self._texts.append(text)
                    return None
                return self._final(text, segment.start, segment.end)
            case live_events.TurnEnded(end=end) if self._one_turn and self._texts:
                text, self._texts = join_texts(self._texts), []
                return self._final(text, self._start or 0.0, end)
        return None

    def _partial(self, partial: live_events.Partial) -> stt_pb2.STTResult | None:
        text = join_texts((*self._texts, partial.text))
        if not partial.text or text == self._last_partial:
            return None
        self._last_partial = text
        stable = join_texts((*self._texts, partial.stable))
        result = self._result(
            text, partial.start if self._start is None else self._start, partial.end
        )
        result.committed_text = stable if text.startswith(stable) else ""
        result.unstable_text = text[len(result.committed_text) :].strip()
        return result

    def _final(self, text: str, start: float, end: float) -> stt_pb2.STTResult:
        self.finals += 1
        self._last_partial, self._start = "", None
        result = self._result(text, start, end)
        result.is_final, result.committed_text = True, text
        return result

    def _result(self, text: str, start: float, end: float) -> stt_pb2.STTResult:
        code = self._language.split("-")[0].lower()
        return stt_pb2.STTResult(
            text=text,
            start_sec=start,
            end_sec=end,
            language_code=code,
            language=LANGUAGE_NAMES.get(code, "").title(),
            probability=1.0 if self._requested_language else 0.0,
        )
