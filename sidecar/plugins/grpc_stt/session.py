"""gRPC sessions: options of CreateSession, streams, results and timings."""

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
from sidecar.config.settings import Settings
from sidecar.interfaces import live_events
from sidecar.interfaces.engine_interface import AUTO, EngineSpec
from sidecar.interfaces.language_tags import LANGUAGE_NAMES, parse_language
from sidecar.interfaces.live_options import (
    EndpointingOptions,
    LiveOptions,
    SampleEncoding,
    TurnControl,
    WholeSamples,
    field_limits,
)
from sidecar.live.sessions.session import Session
from sidecar.plugins.grpc_stt import errors as codes
from sidecar.plugins.grpc_stt import stt_pb2
from sidecar.plugins.grpc_stt.settings import GrpcSettings

PROFILES = {
    "realtime": stt_pb2.DECODE_PROFILE_REALTIME,
    "accurate": stt_pb2.DECODE_PROFILE_ACCURATE,
}
API_KEY_NAMES = ("x-api-key", "api-key", "api_key")
"""Names of a key beside `authorization`: all as metadata, the last two also as attributes."""
_TRUE = frozenset({"1", "true", "yes", "on"})
HYSTERESIS = 0.15
"""Hysteresis of the threshold: speech continues down to this much below it."""
LONGEST_ID = 256
MOST_ATTRIBUTES = 64 << 10
"""Maximum characters of all attributes together: they are returned to the client."""
SEND_TIMEOUT_S = 30.0
"""Time without a read after which a client is disconnected, in seconds."""
FINAL_CHUNK_S = 1.0
"""Length of the chunks into which a long last message is split, in seconds."""


@dataclass(frozen=True, slots=True)
class GrpcSessionOptions:
    """Options of a session to be created. ``key``: the API key among the attributes."""

    request: stt_pb2.SessionRequest
    options: LiveOptions
    profile: str
    key: str

    def answer(self, token: str) -> stt_pb2.SessionResponse:
        """Return the response for the client."""
        language = "" if self.options.language == AUTO else self.options.language
        given = self.request.attributes
        attributes = {name: given[name] for name in given if name not in API_KEY_NAMES}
        attributes["decode_profile"] = self.profile
        one = self.options.turns is TurnControl.ONE
        return stt_pb2.SessionResponse(
            attributes=attributes | ({"language_code": language} if language else {}),
            vad_mode=stt_pb2.VAD_AUTO_END if one else stt_pb2.VAD_CONTINUE,
            vad_silence=self.options.endpointing.silence_s,
            vad_threshold=self.options.endpointing.threshold,
            token=token,
            token_required=bool(token),
            language_code=language,
            task=stt_pb2.TASK_TRANSLATE if self.options.translate else stt_pb2.TASK_TRANSCRIBE,
            decode_profile=PROFILES[self.profile],
        )


def api_key_in(request: stt_pb2.SessionRequest) -> str:
    """Return the API key among the attributes, or "".

    Raises:
        errors.TokenMissing: it is missing and required.
    """
    given = request.attributes
    key = next((given[name] for name in ("api_key", "api-key") if given.get(name)), "")
    required = (given.get(name, "") for name in ("api_key_required", "api-key-required"))
    if not key and any(value.strip().lower() in _TRUE for value in required):
        raise errors.TokenMissing()
    return str(key)


def session_options(
    request: stt_pb2.SessionRequest, spec: EngineSpec, settings: Settings
) -> GrpcSessionOptions:
    """Return the options of a request, limited to what ``spec`` supports; ``settings`` has the
    defaults.

    Raises:
        errors.BadRequest, errors.TokenMissing: a value is not valid.
    """
    if not request.session_id:
        raise codes.GrpcSessionIdMissing()
    if len(request.session_id) > LONGEST_ID:
        raise codes.GrpcOptionInvalid(f"session_id has more than {LONGEST_ID} characters")
    if sum(len(one) for item in request.attributes.items() for one in item) > MOST_ATTRIBUTES:
        raise codes.GrpcOptionInvalid("the attributes are too long")
    grpc_settings = GrpcSettings.of(settings)
    profile = _profile(request, grpc_settings.grpc_profile)
    translates = request.task == stt_pb2.TASK_TRANSLATE or (
        request.task == stt_pb2.TASK_UNSPECIFIED and grpc_settings.grpc_task == "translate"
    )
    options = LiveOptions(
        language=_language(request.language_code, spec, settings.language),
        turns=TurnControl.ONE if request.vad_mode == stt_pb2.VAD_AUTO_END else TurnControl.SILENCE,
        endpointing=_endpointing(request, grpc_settings),
        diarize=False,
        translate=translates and spec.translates,
        accurate=profile == "accurate",
        keep=grpc_settings.grpc_keep,
    )
    return GrpcSessionOptions(request, options, profile, api_key_in(request))


def _endpointing(
    request: stt_pb2.SessionRequest, grpc_settings: GrpcSettings
) -> EndpointingOptions:
    threshold = grpc_settings.grpc_threshold
    if request.HasField("vad_threshold_override"):
        threshold = request.vad_threshold_override
    elif request.vad_threshold != 0:
        threshold = request.vad_threshold
    if threshold < 0:
        raise codes.GrpcThresholdInvalid()
    limits = field_limits(EndpointingOptions)
    if threshold not in limits["threshold"]:
        raise codes.GrpcThresholdInvalid("vad_threshold must lie between 0 and 1")
    silence_s = grpc_settings.grpc_silence if request.vad_silence <= 0 else request.vad_silence
    if silence_s not in limits["silence_s"]:
        raise codes.GrpcOptionInvalid(f"vad_silence must be {limits['silence_s']} s")
    return EndpointingOptions(
        threshold=threshold,
        neg_threshold=max(0.0, threshold - HYSTERESIS),
        sure_threshold=max(EndpointingOptions().sure_threshold, threshold),
        silence_s=silence_s,
    )


def _profile(request: stt_pb2.SessionRequest, default: str) -> str:
    for name, number in PROFILES.items():
        if request.decode_profile == number:
            return name
    given = request.attributes
    named = given.get("decode_profiles") or given.get("decode_profile") or ""
    return named if named in PROFILES else default


def _language(code: str, spec: EngineSpec, default: str) -> str:
    """Return the language for the engine. If it does not support the language, it detects it, as
    this protocol specifies."""
    if not code.strip():
        return default if spec.speaks(default) else AUTO
    try:
        tag = parse_language(code.strip().lower())
    except errors.LanguageInvalid:
        return AUTO
    return tag if spec.speaks(tag) else AUTO


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

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the timings as trailing metadata."""
        parts = (self.buffer_s, self.queue_s, self.work_s, self.emit_s)
        names = ("buffer-wait", "queue-wait", "inference", "response-emit", "total")
        return (
            *(
                (f"stt-decode-{name}-sec", f"{seconds:.6f}")
                for name, seconds in zip(names, (*parts, sum(parts)), strict=True)
            ),
            ("stt-decode-count", str(self.finals)),
            *((("dropped-utterances", str(self.dropped)),) if self.dropped else ()),
        )


class GrpcStream:
    """Stream of a created session. ``stopping``: returns whether the service shuts down."""

    def __init__(
        self,
        context: Any,
        grpc_session: GrpcSession,
        timings: GrpcTimings,
        stopping: Callable[[], bool],
    ) -> None:
        self._context, self._grpc_session, self._session = (
            context,
            grpc_session,
            grpc_session.session,
        )
        self._timings, self._stopping = timings, stopping
        self._results = GrpcResults(grpc_session.session.options)
        self._rate, self._samples = SAMPLE_RATE, WholeSamples()
        self._audio_ended = False
        """True if the client has ended its audio."""

    async def run(
        self, first_chunk: stt_pb2.AudioChunk | None, revoked: asyncio.Future[None]
    ) -> None:
        """Run the stream to its end; ``first_chunk``: `None` if the client sent none.

        Raises:
            errors.SidecarError: the stream failed, or ``revoked`` has an error.
        """
        async with running(self._read(first_chunk), self._send_results()) as (reading, sending):
            waited: set[asyncio.Future[None]] = {reading, sending, revoked}
            while not sending.done():
                done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {sending}:
                    task.result()
            sending.result()
        one_is_said = self._session.options.turns is TurnControl.ONE and self._results.finals > 0
        cut_off = not (self._audio_ended or one_is_said)
        if cut_off and self._stopping():
            raise errors.ShuttingDown()

    async def _read(self, first_chunk: stt_pb2.AudioChunk | None) -> None:
        """Read audio up to the last chunk or the client's end."""
        chunk = first_chunk
        try:
            while chunk is not None:
                if not chunk.session_id or chunk.session_id == self._session.id:
                    await self._send_chunk(chunk)
                    if chunk.is_final:
                        break
                chunk = await read_chunk(self._context)
            await asyncio.sleep(0)  # a disconnect first looks like a normal end
            self._audio_ended = True
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
        for at in range(0, len(raw), chunk_bytes) or (0,):
            await self._session.send(raw[at : at + chunk_bytes], SampleEncoding.PCM16, self._rate)
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
                text, self._texts = " ".join(self._texts), []
                return self._final(text, self._start or 0.0, end)
        return None

    def _partial(self, partial: live_events.Partial) -> stt_pb2.STTResult | None:
        text = " ".join((*self._texts, partial.text)).strip()
        if not partial.text or text == self._last_partial:
            return None
        self._last_partial = text
        stable = " ".join((*self._texts, partial.stable)).strip()
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
