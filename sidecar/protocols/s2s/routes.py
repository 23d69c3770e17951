"""Routes /stream, /status, /config, /v1/talk; conversation over one connection.

Binary messages are audio, 16-bit mono at the rates of the greeting. Text messages are JSON; both
sides ignore unknown ones.

The secondary port also has the demo's `/` and `/health`. On the main port these paths are the
service's own.
"""

from __future__ import annotations

import dataclasses
import time
from functools import partial

from fastapi import APIRouter, Response
from starlette.websockets import WebSocket

from sidecar import errors
from sidecar.api.http import request_headers, websocket_connections
from sidecar.api.http.openapi import PROBLEMS
from sidecar.api.http.responses import json_response
from sidecar.conversation import audio_pacing, conversation_events
from sidecar.conversation.assistant_turn import ReplyLatency
from sidecar.conversation.chat_completions import Llm
from sidecar.conversation.conversation_loop import ConversationLoop
from sidecar.conversation.conversation_transcript import ConversationTranscript
from sidecar.interfaces.engine_interface import SynthesisOptions
from sidecar.live.sessions.session import NOT_SAVED_CODE
from sidecar.protocols.s2s import messages
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Notice
from sidecar.transcripts.transcript_formats import render_transcript, transcript_body
from sidecar.tts.tts_engine_selection import NO_TTS_ENGINE_HINT

PATH = "/stream"


def build_router(service: Service) -> APIRouter:
    """Build the routes of this protocol."""
    router = APIRouter()

    @router.websocket(PATH)
    async def stream(websocket: WebSocket) -> None:
        await DIALECT.serve(websocket, partial(serve_conversation, service))

    @router.get("/status", summary="State of conversations", response_model=messages.S2SStatus)
    async def status() -> Response:
        talks = service.conversations
        body = messages.S2SStatus(
            state=talks.phase.value,
            initialized=service.live.spec is not None,
            total_requests=talks.replies,
            last_metrics=messages.S2SMetrics.of(talks.last or ReplyLatency(0)),
        )
        return json_response(body.model_dump())

    @router.get(
        "/config", summary="Engines of conversations", response_model=messages.S2SConfiguration
    )
    async def config() -> Response:
        asr, tts = service.live.spec, service.fleet.tts_spec
        body = messages.S2SConfiguration(
            asr_model=asr.name if asr is not None else "none",
            llm_model=service.conversations.llm,
            tts_model=tts.name if tts is not None else "none",
            input_sample_rate=messages.IN_RATE,
            output_sample_rate=messages.OUT_RATE,
        )
        return json_response(body.model_dump())

    @router.get(
        "/v1/talk",
        summary="Engines of conversations, and those to choose from",
        response_model=messages.S2SEngines,
        responses=PROBLEMS,
    )
    async def parts() -> Response:
        asr, tts, talks = service.live.spec, service.fleet.tts_spec, service.conversations
        models, voices = list(await talks.models()), list(await talks.voices())
        voice = service.settings.talk_voice or next(iter(voices), "")
        body = messages.S2SEngines(
            hears=messages.S2SEngine(name=asr.name, title=asr.title) if asr else None,
            thinks=messages.S2SLlm(name=talks.llm, models=models),
            speaks=messages.S2STts(name=tts.name, title=tts.title, voices=voices, voice=voice)
            if tts
            else None,
            remedy="" if tts else NO_TTS_ENGINE_HINT,
        )
        return json_response(body.model_dump())

    return router


def ending_of(error: errors.SidecarError) -> websocket_connections.ConnectionEnding:
    """Return the last message and the close code for ``error``."""
    return websocket_connections.ConnectionEnding(
        websocket_connections.close_code(error), error.code, messages.s2s_error_message(error)
    )


DIALECT = websocket_connections.WebSocketDialect(("vibevoice-talk",), ending_of)
"""Its subprotocol is the one that pages offer beside a token; a client need not offer any."""


def page_origins(page: int) -> frozenset[str]:
    """Return the origins of the demo's page, if it is served on this machine at port ``page``."""
    return frozenset(f"http://{name}:{page}" for name in ("localhost", "127.0.0.1", "[::1]"))


def build_secondary_port_router(service: Service) -> APIRouter:
    """Build the routes that only the secondary port has."""
    router = APIRouter()

    @router.get("/")
    async def root() -> Response:
        return json_response({"message": "S2S Pipeline API", "status": "running"})

    @router.get("/health")
    async def health() -> Response:
        body = {
            "status": "ok",
            "pipeline_state": service.conversations.phase.value,
            "initialized": service.live.spec is not None,
        }
        return json_response(body)

    return router


async def serve_conversation(
    service: Service, socket: websocket_connections.WebSocketConnection
) -> None:
    """Serve a conversation until the connection ends.

    Raises:
        WebSocketGone: the client disconnected.
        errors.SidecarError: the conversation failed.
    """
    settings, options = service.settings, service.conversations.options()
    manner = SynthesisOptions(settings.talk_voice, settings.language, rate=messages.OUT_RATE)
    async with service.conversations.open(socket.caller, options, manner) as talk:
        connection = _S2SConnection(service, socket, talk, manner)
        rates = {"input_sample_rate": messages.IN_RATE, "output_sample_rate": messages.OUT_RATE}
        await socket.send(messages.status_message("ready", **rates))
        await socket.run_until_first_ends(
            socket.read(connection.at_once), connection.hear(), talk.run(), connection.tell()
        )
    if not connection.over:
        raise errors.ShuttingDown()  # nothing else ends a conversation without an error


class _S2SConnection:
    """Connection of a conversation, with its tasks. ``manner``: the initial synthesis options."""

    def __init__(
        self,
        service: Service,
        socket: websocket_connections.WebSocketConnection,
        talk: ConversationLoop,
        manner: SynthesisOptions,
    ) -> None:
        self._service, self._socket, self._talk = service, socket, talk
        self._manner, self._model = manner, ""
        self._rate = messages.IN_RATE
        self._words: messages.S2SDialect | messages.S2SNativeDialect = messages.S2SDialect()
        self._account = ConversationTranscript(time.monotonic())
        self._keep = False
        self._unkept: Notice | None = None
        self.over = False
        """True if the client has ended the conversation and was sent everything."""

    async def at_once(self, message: websocket_connections.Message) -> bool:
        """Handle a message ahead of queued audio; return False for audio, which is queued."""
        if isinstance(message, bytes) and message:  # audio has its own limits
            return False
        self._socket.count()
        if isinstance(message, bytes):
            return True
        order = None
        try:
            order = messages.parse_command(request_headers.parse_json_message(message))
            await self._ordered(order)
        except ValueError:
            await self._warn(errors.RequestInvalid("The message is not JSON."))
        except (errors.FieldInvalid, errors.ModelNotFound, errors.VoiceUnknown) as error:
            await self._warn(error, ours_known=isinstance(order, messages.S2SBegin))
        return True

    async def hear(self) -> None:
        """Process the queued audio in order."""
        async for raw in self._socket.inbound:
            try:
                await self._talk.hear(raw, rate=self._rate)
            except (errors.SoundInvalid, errors.ChunkTooLong) as error:
                await self._warn(error)
            except errors.SessionOver:
                continue  # shutting down: `tell` sends the rest and the reason

    async def tell(self) -> None:
        """Send the output until the client ends the conversation."""
        async for out in self._talk.outgoing():
            if isinstance(out, conversation_events.ConversationEnded):
                ended = await self._ended()
                if self._unkept is not None:
                    await self._socket.send(
                        *self._words.of(conversation_events.ConversationNotice(self._unkept))
                    )
                await self._socket.send(ended)
                self.over = True
                return
            self._noted(out)
            await self._socket.send(*self._words.of(out))

    async def _ordered(self, order: messages.S2SCommand | None) -> None:
        match order:
            case messages.S2SBegin():
                await self._begin(order)
            case messages.S2SChange(voice=voice, model=model):
                await self._use(voice, model, await self._check(voice, model))
            case messages.S2SPlayed(turn=turn, seconds=seconds, cleared=True):
                self._talk.wish(conversation_events.PlaybackTruncated, turn, seconds)
            case messages.S2SPlayed(turn=turn, seconds=seconds):
                self._talk.played(turn, seconds)
            case messages.S2SInterrupt(turn=turn, seconds=seconds):
                if turn is not None:
                    self._talk.wish(conversation_events.PlaybackTruncated, turn, seconds)
                self._talk.wish(conversation_events.ResponseCancelled)
            case messages.S2SText(text=text):
                self._talk.wish(conversation_events.TextTyped, text)
            case messages.S2SReset():
                self._socket.inbound.clear()
                self._talk.wish(conversation_events.ConversationReset)
            case messages.S2SEnd(keep=keep):
                self._keep = keep
                self._talk.end()

    async def _begin(self, begin: messages.S2SBegin) -> None:
        """Switch to native messages and to the client's player. If the requested model or voice
        does not exist, nothing changes."""
        thinker = await self._check(begin.voice, begin.model)
        self._rate = begin.rate
        self._manner = dataclasses.replace(self._manner, rate=begin.rate)
        self._talk.pacer.client = audio_pacing.PlaybackClient(
            clears=begin.clears, holds=begin.holds
        )
        self._words = messages.S2SNativeDialect()
        await self._use(begin.voice, begin.model, thinker)

    async def _check(self, voice: str | None, model: str | None) -> Llm:
        """Return the LLM that is asked for. A voice is refused only if the voices are known: this
        waits for no synthesis. Else the first reply says that there is no such voice.

        Raises:
            errors.ModelNotFound, errors.VoiceUnknown: there is none of that name.
        """
        conversations = self._service.conversations
        thinker = await conversations.thinker(self._model if model is None else model)
        if voice:
            conversations.check_voice(voice)
        return thinker

    async def _use(self, voice: str | None, model: str | None, thinker: Llm) -> None:
        self._model = self._model if model is None else model
        if voice is not None:
            usual = voice or self._service.settings.talk_voice
            self._manner = dataclasses.replace(self._manner, voice=usual)
        self._talk.stages.thinker = thinker
        self._talk.stages.manner = self._manner
        speaks = self._service.fleet.tts_spec
        said = {
            "model": thinker.name,
            "voice": self._manner.voice,
            "speaks": speaks.name if speaks is not None else None,
            "rate": self._rate,
            "synthetic": speaks is not None,
        }
        await self._socket.send(messages.json_message("began", **said))

    async def _warn(self, error: errors.SidecarError, *, ours_known: bool = False) -> None:
        """Send an error; ``ours_known``: the client knows native messages, though they have not
        started."""
        known = ours_known or isinstance(self._words, messages.S2SNativeDialect)
        told = messages.native_error_message if known else messages.s2s_error_message
        await self._socket.send(told(error))

    def _noted(self, out: conversation_events.ConversationOutput) -> None:
        if isinstance(out, conversation_events.ConversationClientEvent):
            self._account.take(out, time.monotonic())

    async def _ended(self) -> str:
        """Return the last message: the transcript of the conversation, which is saved as a job if
        requested."""
        settings, hears = self._service.settings, self._service.live.spec
        thinker = await self._service.conversations.thinker(self._model)
        transcript = self._account.transcript(
            time.monotonic(),
            engine=hears.name if hears is not None else "none",
            precision=hears.precisions[0].value if hears is not None else "none",
            language=settings.language,
            machine=f"Machine ({thinker.name})",
        )
        job = None
        if self._keep and transcript.segments:
            try:
                caller = self._socket.caller
                job = await self._service.live_archive.conversation(caller, transcript)
            except errors.SidecarError as error:
                self._unkept = Notice(
                    NOT_SAVED_CODE, f"The conversation could not be saved: {error.detail}"
                )
        written = {form: render_transcript(transcript, form) for form in ("text", "srt")}
        body = transcript_body(transcript)
        return messages.json_message("ended", transcript=body, written=written, job=job)
