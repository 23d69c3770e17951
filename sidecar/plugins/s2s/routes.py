"""Speech-to-speech protocol of the VibeVoice demo: /stream, /status and /config.

Binary messages are audio, 16-bit mono at the rates of the greeting. Text messages are JSON; both
sides ignore unknown ones. A turn consists of 'processing', its audio, 'metrics', one 'transcript',
and 'ready'. The page writes both sides of a transcript, so both are always sent. No message makes
the page drop audio, so audio is not sent far ahead (`conversation.audio_pacing`).

The secondary port also has the demo's `/` and `/health`. On the main port these paths are the
service's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from starlette.websockets import WebSocket

from sidecar import errors
from sidecar.api.http import request_headers, websocket_connections
from sidecar.api.http.error_responses import problem
from sidecar.api.http.openapi import Routes
from sidecar.api.http.responses import json_response
from sidecar.interfaces.engine_interface import SynthesisOptions
from sidecar.interfaces.live_options import WholeSamples
from sidecar.plugins.conversation import audio_pacing
from sidecar.plugins.conversation import conversation_events as events
from sidecar.plugins.conversation.conversation_loop import ConversationLoop
from sidecar.plugins.conversation.conversation_registry import ConversationRegistry
from sidecar.plugins.conversation.settings import ConversationSettings
from sidecar.service.facade import Service

PATH = "/stream"
IN_RATE, OUT_RATE = 16_000, 24_000
MAX_TYPED_CHARACTERS = 65_536


class S2SMetrics(BaseModel):
    """Latencies of the last reply, in milliseconds."""

    vad_ms: float = Field(description="From the end of speech to the end-of-turn decision.")
    asr_ms: float = Field(description="Duration of the final recognition.")
    llm_ms: float = Field(description="To the first token of the reply.")
    tts_first_chunk_ms: float = Field(description="To the first audio of the reply.")
    total_ms: float = Field(
        description="From the end of the user's speech to the first audio of the reply."
    )

    @classmethod
    def of(cls, latency: events.ReplyLatency) -> S2SMetrics:
        """Return the latencies of a reply."""
        return cls(
            vad_ms=_ms(latency.endpoint),
            asr_ms=_ms(latency.recognized),
            llm_ms=_ms(latency.thought),
            tts_first_chunk_ms=_ms(latency.voiced),
            total_ms=_ms(latency.total),
        )


class S2SStatus(BaseModel):
    """Status of conversations."""

    state: str = Field(examples=["idle"])
    initialized: bool
    total_requests: int = Field(description="Replies since the service started.")
    last_metrics: S2SMetrics


class S2SConfiguration(BaseModel):
    """Engines of the service."""

    asr_model: str = Field(examples=["moonshine"])
    llm_model: str = Field(examples=["repeat"])
    tts_model: str = Field(examples=["espeak"], description="'none' if answers are text only.")
    input_sample_rate: int
    output_sample_rate: int


def build_router(service: Service) -> APIRouter:
    """Build the routes of this protocol."""
    router = Routes()

    @router.websocket(PATH)
    async def stream(websocket: WebSocket) -> None:
        await DIALECT.serve(websocket, partial(serve_conversation, service))

    @router.get("/status", response_model=S2SStatus)
    async def status() -> Response:
        """State of conversations."""
        registry = ConversationRegistry.of(service)
        body = S2SStatus(
            state=registry.phase.value,
            initialized=service.live.spec is not None,
            total_requests=registry.replies,
            last_metrics=S2SMetrics.of(registry.last or events.ReplyLatency(0)),
        )
        return json_response(body.model_dump())

    @router.get("/config", response_model=S2SConfiguration)
    async def config() -> Response:
        """Engines of conversations."""
        asr, tts = service.live.spec, service.tts
        body = S2SConfiguration(
            asr_model=asr.name if asr is not None else "none",
            llm_model=ConversationRegistry.of(service).llm_name,
            tts_model=tts.spec.name if tts is not None else "none",
            input_sample_rate=IN_RATE,
            output_sample_rate=OUT_RATE,
        )
        return json_response(body.model_dump())

    return router


def page_origins(page: int) -> frozenset[str]:
    """Return the origins of the demo's page, if it is served on this machine at port ``page``."""
    return frozenset(f"http://{name}:{page}" for name in ("localhost", "127.0.0.1", "[::1]"))


def build_secondary_port_router(service: Service) -> APIRouter:
    """Build the routes that only the secondary port has."""
    router = Routes()

    @router.get("/")
    async def root() -> Response:
        return json_response({"message": "S2S Pipeline API", "status": "running"})

    @router.get("/health")
    async def health() -> Response:
        body = {
            "status": "ok",
            "pipeline_state": ConversationRegistry.of(service).phase.value,
            "initialized": service.live.spec is not None,
        }
        return json_response(body)

    return router


def ending_of(error: errors.SidecarError) -> websocket_connections.ConnectionEnding:
    """Return the last message and the close code for ``error``."""
    return websocket_connections.ConnectionEnding(
        websocket_connections.close_code(error), error.code, s2s_error_message(error)
    )


DIALECT = websocket_connections.WebSocketDialect((), ending_of, refusal=problem)


async def serve_conversation(
    service: Service, socket: websocket_connections.WebSocketConnection
) -> None:
    """Serve a conversation until the connection ends.

    Raises:
        WebSocketGone: the client disconnected.
        errors.SidecarError: the conversation failed.
    """
    settings, registry = service.settings, ConversationRegistry.of(service)
    voice = ConversationSettings.of(settings).talk_voice
    synthesis = SynthesisOptions(voice, settings.language, rate=OUT_RATE)
    async with registry.open(socket.identity, registry.options(), synthesis) as conversation:
        rates = {"input_sample_rate": IN_RATE, "output_sample_rate": OUT_RATE}
        await socket.send(_status("ready", **rates))
        await socket.run_until_first_ends(
            socket.read(partial(_receive, socket, conversation, WholeSamples())),
            _send_events(socket, conversation),
            conversation.run(),
            conclude=partial(service.live.conclude, conversation.session),
        )


async def _receive(
    socket: websocket_connections.WebSocketConnection,
    conversation: ConversationLoop,
    samples: WholeSamples,
    message: websocket_connections.Message,
) -> None:
    """Handle a message. Audio has its own limits."""
    if isinstance(message, bytes) and message:
        try:
            await conversation.hear(samples.add(message), rate=IN_RATE)
        except (errors.SoundInvalid, errors.ChunkTooLong) as refused:
            await socket.send(s2s_error_message(refused))
        except errors.SessionOver:
            pass  # shutting down: `_send_events` sends the rest and the reason
        return
    socket.count()
    if isinstance(message, bytes):
        return
    try:
        match request_headers.parse_json_message(message):
            case {"type": "text", "text": str(text)} if len(text) > MAX_TYPED_CHARACTERS:
                detail = f"'text' has more than {MAX_TYPED_CHARACTERS} characters."
                await socket.send(s2s_error_message(errors.FieldInvalid(detail)))
            case {"type": "text", "text": str(text)}:
                conversation.request(events.TextTyped, text)
            case {"type": "reset"}:
                conversation.request(events.ConversationReset)
    except ValueError:
        error = errors.RequestInvalid("The message is not JSON.")
        await socket.send(s2s_error_message(error))


async def _send_events(
    socket: websocket_connections.WebSocketConnection, conversation: ConversationLoop
) -> None:
    """Send the output of the conversation."""
    dialect = S2SDialect()
    try:
        async for output in conversation.outgoing():
            await socket.send(*dialect.of(output))
    except errors.SidecarError:
        await socket.send(*dialect.unanswered())
        raise


class S2SDialect:
    """Messages of the protocol for one connection."""

    def __init__(self) -> None:
        self._user_text = ""
        self._tokens = 0
        self._latency = events.ReplyLatency(0)
        self._processing = False

    def of(self, output: events.ConversationOutput) -> Iterator[websocket_connections.Message]:
        """Yield the messages for an output of the conversation."""
        match output:
            case audio_pacing.ReplyAudioFrame():
                yield output.pcm
            case events.UserTurnStopped():
                yield from self._begun()
            case events.UserTurnFinal(backchannel=None):
                # two finals precede an answer if the user speaks, and then types
                self._user_text = f"{self._user_text} {output.text}".strip()
                yield from self._begun()
            case events.UserTurnDropped():
                yield from self._ready()
            case events.ReplyStarted():
                self._tokens, self._latency = 0, events.ReplyLatency(output.turn)
                yield from self._begun()
            case events.ReplyTextDelta():
                self._tokens += 1
            case events.ReplyLatency():
                self._latency = output
            case events.ReplyEnded():
                yield from self._ended(output)
            case events.ConversationError():
                yield s2s_error_message(output.error)
            case events.ConversationNotice(notice):
                yield _message("notice", message=notice.message, code=notice.code)
            case events.ConversationStarted():
                self._user_text = ""
                yield _status("reset")

    def _begun(self) -> Iterator[str]:
        if not self._processing:
            self._processing = True
            yield _status("processing")

    def _ready(self) -> Iterator[str]:
        if self._processing:
            self._processing = False
            yield _status("ready")

    def _ended(self, reply: events.ReplyEnded) -> Iterator[str]:
        metrics = S2SMetrics.of(self._latency)
        yield _message(
            "metrics",
            vad_latency_ms=metrics.vad_ms,
            asr_latency_ms=metrics.asr_ms,
            llm_latency_ms=metrics.llm_ms,
            tts_first_chunk_ms=metrics.tts_first_chunk_ms,
            total_latency_ms=metrics.total_ms,
            tokens_generated=self._tokens,
            audio_duration_ms=_ms(reply.made_s),
        )
        yield _message(
            "transcript",
            user=self._user_text,
            assistant=reply.text,
            llm_ms=metrics.llm_ms,
            tts_first_ms=metrics.tts_first_chunk_ms,
            interrupted=reply.ending is events.ReplyEnding.INTERRUPTED,
        )
        self._user_text = ""
        yield from self._ready()

    def unanswered(self) -> Iterator[str]:
        """Yield the message of the user's words that get no answer any more."""
        if self._user_text:
            yield _message("transcript", user=self._user_text, assistant="", interrupted=True)


def s2s_error_message(error: errors.SidecarError) -> str:
    """Return the message of an error: its text, which the page shows as it is, its code, and the
    time until a retry, if one can succeed."""
    retry = {} if error.retry_after is None else {"retry_after": error.retry_after}
    return _message("error", message=f"{error.detail} ({error.code})", code=error.code, **retry)


def _status(state: str, **fields: Any) -> str:
    return _message("status", state=state, **fields)


def _message(type: str, **fields: Any) -> str:
    return json.dumps({"type": type, **fields}, ensure_ascii=False)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)
