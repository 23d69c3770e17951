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
from sidecar.plugins.yap.messages import MODELS, YapEnvelope, YapIds, YapRefused, message_text
from sidecar.plugins.yap.settings import YapCloseCodes
from sidecar.plugins.yap.utterances import YapUtterances
from sidecar.service.facade import Service

PATH = "/api/asr-streaming"
SUBPROTOCOLS = ("asr-streaming",)
"""Subprotocol that browser clients offer beside the one with their key."""
APPEND = "input_audio_buffer.append"
UNCOUNTED_CHARACTERS = 2 * live_options.AUDIO_BLOCK_SAMPLES * 4 // 3
"""Length of an append with a block of audio, which does not count towards the rate limit."""
IMMEDIATE_TYPES = frozenset({"ping", "pong", "end"})
"""Types that are answered at once and do not count towards the rate limit."""


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
            turns=live_options.TurnControl.CLIENT, endpointing=live_options.QUIET_SPEECH
        ),
        wire="streaming",
    )
    try:
        wire = _YapConnection(service, socket, session)
        await socket.send(wire.greeting())
        await socket.run_until_first_ends(socket.read(wire.at_once), wire.work(), wire.tell())
    finally:
        service.live.end(session)


class _YapConnection:
    """Connection of a client: reading, processing and sending, each in its own task."""

    def __init__(self, service: Service, socket: WebSocketConnection, session: Session) -> None:
        self._model = service.live.engine.name
        self._socket, self._session = socket, session
        self._utterances = YapUtterances(live_options.BUFFER_S)
        self._samples = live_options.WholeSamples()

    def greeting(self) -> str:
        """Return the first message, for which clients wait before they send."""
        body = {"id": self._session.id, "created": int(clock.wall_time()), "model": self._model}
        return message_text("session.created", YapIds(self._session.id), body)

    async def at_once(self, message: websocket_connections.Message) -> None:
        """Answer a message at once if its type allows that, else queue it."""
        self._session.touch()
        ids, given = YapIds(self._session.id), None
        try:
            given = messages.parse_message(message)
            ids = given.ids
            if given.type in IMMEDIATE_TYPES:
                await self._answer(given)
            else:
                if given.type != APPEND or len(message) < UNCOUNTED_CHARACTERS:
                    self._count(given.type)
                self._socket.inbound.put(given, len(message))
        except YapRefused as refused:
            if given is None:
                self._socket.count_malformed()
            await self._socket.send(messages.error_frame(refused, ids))

    async def work(self) -> None:
        """Process the queued messages in order."""
        async for given in self._socket.inbound:
            try:
                await self._do(given)
            except YapRefused as refused:
                await self._socket.send(messages.error_frame(refused, given.ids))
            except (errors.SoundInvalid, errors.ChunkTooLong) as error:
                said = messages.yap_error(error)
                await self._socket.send(messages.error_frame(said, given.ids))
            except errors.SessionOver:
                continue  # shutting down: `tell` sends the remaining events and the reason

    async def tell(self) -> None:
        """Send the session's events. Clients end connections, not sessions: if the session ends,
        the service shuts down."""
        async for numbered in self._session.events():
            frames = tuple(self._utterances.frames_of(numbered.event))
            if frames:
                self._session.touch()
                await self._socket.send(*frames)
        raise errors.ShuttingDown

    async def _answer(self, given: YapEnvelope) -> None:
        if given.type == "ping":
            await self._socket.send(message_text("pong", given.ids))
        elif given.type == "end":
            await self._socket.send(message_text("session_end", given.ids))
            await self._socket.close()
            raise websocket_connections.WebSocketGone

    async def _do(self, given: YapEnvelope) -> None:
        match given.type:
            case "session.update":
                await self._update(given)
            case _ if given.type == APPEND:
                utterance = self._utterances.active(given.ids)
                raw = self._samples.add(messages.audio_of(given.payload))
                await self._session.send(raw)
                utterance.bytes += len(raw)
            case "input_audio_buffer.commit":
                self._commit(given)
            case "cancel":
                if self._utterances.cancel(given.ids):
                    self._samples.end()
                    self._session.forget()
                reason = given.payload.get("reason")
                said = reason if isinstance(reason, str) and reason else "client_request"
                await self._socket.send(message_text("cancelled", given.ids, {"reason": said}))

    async def _update(self, given: YapEnvelope) -> None:
        wanted = given.payload.get("model")
        if wanted is not None and wanted not in (self._model, *MODELS):
            raise messages.bad_payload(
                "unsupported_model",
                f"The model here is '{self._model}'.",
                allowed_model=self._model,
                requested=wanted,
            )
        body = {"id": self._session.id, "model": wanted or self._model}
        await self._socket.send(message_text("session.updated", given.ids, body))

    def _commit(self, given: YapEnvelope) -> None:
        final = given.payload.get("final", False)
        if not isinstance(final, bool):
            raise messages.bad_payload("invalid_final", "'final' has to be true or false.")
        if final:
            self._utterances.end(given.ids)
            self._samples.end()
            self._session.commit()
        elif self._utterances.begin(given.ids):
            self._samples.end()
            self._session.forget()

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
