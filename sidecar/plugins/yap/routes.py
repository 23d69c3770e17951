"""WebSocket /api/asr-streaming and its connection.

A connection is one session, whose turns the client ends. A refused client is accepted first, gets
the error in a frame, and is closed: these clients expect the error there.
"""

from functools import partial

from fastapi import APIRouter
from starlette.websockets import WebSocket

from sidecar import clock, errors
from sidecar.api.http import websocket_connections
from sidecar.api.http.websocket_connections import WebSocketConnection, WebSocketDialect
from sidecar.auth.rate_limits import MINUTE_S
from sidecar.interfaces import live_options
from sidecar.live.sessions.session import Session
from sidecar.plugins.yap import messages
from sidecar.plugins.yap.inbound_queue import InboundQueue
from sidecar.plugins.yap.messages import MODELS, YapIds, YapMessage, YapRefused, message_text
from sidecar.plugins.yap.settings import YapCloseCodes
from sidecar.plugins.yap.utterances import YapUtterances
from sidecar.service.facade import Service

PATH = "/api/asr-streaming"
SUBPROTOCOLS = ("asr-streaming",)
"""Subprotocol that browser clients offer beside the one with their key."""
APPEND = "input_audio_buffer.append"
UNCOUNTED_CHARACTERS = 2 * live_options.AUDIO_BLOCK_SAMPLES * 4 // 3
"""Length of an append with a block of audio, which does not count towards the rate limit."""


def build_router(service: Service) -> APIRouter:
    """Build the routes of this protocol."""
    router, wire = APIRouter(), dialect()

    @router.websocket(PATH)
    async def stream(websocket: WebSocket) -> None:
        await wire.serve(websocket, partial(_serve, service))

    return router


def dialect() -> WebSocketDialect:
    """Return the WebSocket dialect, with the close codes of the environment.

    Raises:
        errors.SettingsInvalid: a code is not a close code.
    """
    ending_of = partial(messages.close_of, codes=YapCloseCodes.of_environment())
    return WebSocketDialect(SUBPROTOCOLS, ending_of)


async def _serve(service: Service, socket: WebSocketConnection) -> None:
    session = service.live.open(
        socket.identity,
        live_options.LiveOptions(
            turns=live_options.TurnControl.CLIENT,
            endpointing=live_options.QUIET_SPEECH,
        ),
        wire="streaming",
    )
    try:
        connection = _YapConnection(service, socket, session)
        await socket.send(connection.greeting())
        await socket.run_until_first_ends(
            socket.read(connection.receive),
            connection.process(),
            connection.send_events(),
            conclude=partial(service.live.conclude, session),
        )
        await socket.send(message_text("session_end", connection.end))
    finally:
        service.live.end(session)


class _YapConnection:
    """Connection of a client: reading, processing and sending, each in its own task."""

    def __init__(self, service: Service, socket: WebSocketConnection, session: Session) -> None:
        self._model = service.live.engine.name
        self._socket, self._session = socket, session
        self._utterances = YapUtterances(live_options.BUFFER_S)
        self._inbound = InboundQueue()
        self.end = YapIds(session.id)
        """Ids of the message that ended the connection."""

    def greeting(self) -> str:
        """Return the first message, for which clients wait before they send."""
        body = {"id": self._session.id, "created": int(clock.wall_time()), "model": self._model}
        return message_text("session.created", YapIds(self._session.id), body)

    async def receive(self, raw: websocket_connections.Message) -> None:
        """Answer a ping at once, and queue all else."""
        self._session.touch()
        ids, message = YapIds(self._session.id), None
        try:
            message = messages.parse_message(raw)
            ids = message.ids
            if message.type == "ping":
                await self._socket.send(message_text("pong", message.ids))
            elif message.type != "pong":
                if message.type != APPEND or len(raw) < UNCOUNTED_CHARACTERS:
                    self._count(message.type)
                await self._inbound.put(message, len(raw))
        except YapRefused as refused:
            if message is None:
                self._socket.count_malformed()
            await self._socket.send(messages.error_frame(refused, ids))

    async def process(self) -> None:
        """Process the queued messages in order. If the client ends the connection, it gets an
        answer to all before that, for which an engine may have to be loaded."""
        async for message in self._inbound:
            if message.type == "end":
                self.end = message.ids
                unanswered = self._utterances.unanswered
                (self._session.finish if unanswered else self._session.end)()
                continue
            try:
                await self._handle(message)
            except YapRefused as refused:
                await self._socket.send(messages.error_frame(refused, message.ids))
            except (errors.SoundInvalid, errors.ChunkTooLong) as error:
                frame = messages.error_frame(messages.yap_error(error), message.ids)
                await self._socket.send(frame)
            except errors.SessionOver:
                continue  # shutting down: `send_events` sends the remaining events and the reason

    async def send_events(self) -> None:
        """Send the session's events, to its end."""
        async for numbered in self._session.events():
            frames = tuple(self._utterances.frames_of(numbered.event))
            if frames:
                self._session.touch()
                await self._socket.send(*frames)

    async def _handle(self, message: YapMessage) -> None:
        match message.type:
            case "session.update":
                await self._update(message)
            case _ if message.type == APPEND:
                utterance = self._utterances.active(message.ids)
                raw = utterance.samples.add(messages.audio_of(message.payload))
                await self._session.send(raw)
                utterance.bytes += len(raw)
            case "input_audio_buffer.commit":
                self._commit(message)
            case "cancel":
                if self._utterances.cancel(message.ids):
                    self._session.cancel()
                reason = message.payload.get("reason")
                if not isinstance(reason, str) or not reason:
                    reason = "client_request"
                await self._socket.send(message_text("cancelled", message.ids, {"reason": reason}))

    async def _update(self, message: YapMessage) -> None:
        model = message.payload.get("model")
        if model is not None and model not in (self._model, *MODELS):
            raise messages.bad_payload(
                "unsupported_model",
                f"The model here is '{self._model}'.",
                allowed_model=self._model,
                requested=model,
            )
        body = {"id": self._session.id, "model": model or self._model}
        await self._socket.send(message_text("session.updated", message.ids, body))

    def _commit(self, message: YapMessage) -> None:
        final = message.payload.get("final", False)
        if not isinstance(final, bool):
            raise messages.bad_payload("invalid_final", "'final' has to be true or false.")
        if final:
            self._utterances.end(message.ids)
            self._session.commit()
        elif self._utterances.begin(message.ids):
            self._session.cancel()

    def _count(self, type: str) -> None:
        kind, count, most = "message", self._socket.count, websocket_connections.MESSAGES_PER_MINUTE
        if type == "cancel":
            kind, count = "cancel", self._socket.count_cancel
            most = websocket_connections.CANCELS_PER_MINUTE
        try:
            count()
        except errors.RateLimited as error:
            raise YapRefused(
                "rate_limited",
                f"{kind}_rate_limited",
                error.detail,
                retry_in=error.retry_after,
                limit=most,
                window_seconds=round(MINUTE_S),
                kind=kind,
            ) from None
