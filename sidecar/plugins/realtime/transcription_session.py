"""Connection of both kinds of Realtime session, and the transcription session."""

import asyncio
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sidecar import errors
from sidecar.api.http.websocket_connections import WebSocketConnection
from sidecar.interfaces.engine_interface import EngineSpec
from sidecar.interfaces.live_events import TurnDropped
from sidecar.interfaces.live_options import SampleEncoding, WholeSamples
from sidecar.live.sessions.session import Session
from sidecar.observability.logs import ONCE_A_MINUTE
from sidecar.plugins.realtime import client_events, server_events, session_config
from sidecar.plugins.realtime.server_events import EventBody, RealtimeTranscriptionTurns

log = logging.getLogger(__name__)
ITEM_ID_CHARACTERS = 16
"""Characters of the session's id in the ids of its items."""
_AUDIO_ENDS = (client_events.AUDIO_COMMIT, client_events.AUDIO_CLEAR)
_UPDATES = (client_events.SESSION_UPDATE, client_events.BETA_SESSION_UPDATE)
MAX_CHUNK_S = 1.0
"""Maximum seconds that a session is given at once, however long the client's events are."""


def _warn_of_unknown_fields(session: object) -> None:
    """Log the fields of a client's ``session`` that no session has: its events cannot say it."""
    if unknown := session_config.unknown_session_fields(session):
        log.warning("Realtime session: %s", " ".join(unknown), extra=ONCE_A_MINUTE)


class RealtimeConnection(ABC):
    """Connection of one client. It processes the client's events in order and sends rejections as
    errors.

    ``expires_at``: latest end of the session, in seconds since 1970.
    """

    kind: session_config.RealtimeSessionType

    def __init__(self, socket: WebSocketConnection, session: Session, expires_at: int) -> None:
        self._socket, self._session, self._expires_at = socket, session, expires_at
        self.name = session.id[:ITEM_ID_CHARACTERS]
        """Start of all ids in the session."""
        self._count = 0
        self._samples = WholeSamples()
        self._saying = asyncio.Lock()

    async def hear(self) -> None:
        """Process the client's events until it disconnects.

        Raises:
            WebSocketGone: the client disconnected.
            RealtimeDialogueRequested: the client requested a conversation.
            errors.SidecarError: the session failed.
        """
        while True:
            message, order, event_id, is_sound = await self._socket.receive(), None, None, True
            try:
                event, event_id = client_events.parse_event(message)
                order = client_events.read_command(event, self.kind)
                # audio is limited by the session, all other events are counted
                is_sound = order.name == client_events.AUDIO_APPEND and bool(order.value)
                if not is_sound:
                    self._socket.count()
                if order.name in _AUDIO_ENDS:
                    self._samples.end()
                if order.name in _UPDATES:
                    _warn_of_unknown_fields(order.value)
                await self._do(order, event_id)
            except errors.SessionOver:
                pass  # shutting down: `tell` sends the rest and the reason
            except errors.SidecarError as error:
                if order is not None and self._session.over:
                    raise
                if is_sound:
                    self._socket.count_malformed()
                await self._refuse(error, event_id)

    @abstractmethod
    async def _do(self, order: client_events.RealtimeCommand, event_id: str | None) -> None:
        """Execute a command, whose id of the client is ``event_id``. If the session has ended, an
        error ends the connection."""

    async def _say(self, *events: EventBody) -> None:
        """Send events, without others between them, in the order of the calls."""
        async with self._saying:
            for said in events:
                self._count += 1
                number = f"event_{self.name}_{self._count}"
                await self._socket.send(json.dumps({"event_id": number, **said}))

    async def _append(
        self,
        raw: bytes,
        heard: session_config.RealtimeTranscriptionConfig,
        send: Callable[[bytes, SampleEncoding, int], Awaitable[None]],
    ) -> None:
        """Send audio on in chunks, so that each can be freed once it is recognized."""
        if heard.sound is session_config.RealtimeAudioFormat.PCM:
            raw = self._samples.add(raw)
        sound, encoding, rate = heard.samples(raw)
        most = int(min(MAX_CHUNK_S, self._session.bounds.chunk_s) * rate) * encoding.width
        for begin in range(0, len(sound), most):
            await send(sound[begin : begin + most], encoding, rate)

    def _described(self, name: str, view: Callable[[str, int], EventBody]) -> EventBody:
        """Return the event ``name`` with the current session."""
        return {"type": name, "session": view(f"sess_{self._session.id}", self._expires_at)}

    async def _refuse(self, error: errors.SidecarError, event_id: str | None) -> None:
        await self._say(server_events.error_event(error, event_id))


class RealtimeDialogueRequested(Exception):
    """Request of the client for a conversation, with its ``session``."""

    def __init__(self, session: Mapping[str, Any]) -> None:
        super().__init__()
        self.session = session


class RealtimeTranscriptionConnection(RealtimeConnection):
    """Connection that transcribes. ``open``: the client may still change it to a conversation."""

    kind = session_config.RealtimeSessionType.TRANSCRIPTION

    def __init__(
        self,
        socket: WebSocketConnection,
        session: Session,
        configuration: session_config.RealtimeTranscriptionConfig,
        spec: EngineSpec,
        *,
        expires_at: int,
        beta: bool = False,
        open: bool = False,
    ) -> None:
        super().__init__(socket, session, expires_at)
        self._spec, self._beta, self._open = spec, beta, open
        self._turns = RealtimeTranscriptionTurns(self.name, beta=beta)
        self._news = asyncio.Event()
        self._dropped = 0
        self._use(configuration)

    async def greet(self) -> None:
        """Send the configuration of the session."""
        await self._socket.open()
        await self._say(self._view("created", self._beta))

    async def tell(self) -> None:
        """Send results until the session ends.

        Raises:
            WebSocketGone: the client disconnected.
            errors.SidecarError: the session failed.
        """
        try:
            async for numbered in self._session.events():
                await self._say(*self._turns.events_of(numbered.event))
                self._dropped += isinstance(numbered.event, TurnDropped)
                self._news.set()
        except errors.SidecarError as error:
            await self._say(*self._turns.give_up(error))
            raise

    async def _do(self, order: client_events.RealtimeCommand, event_id: str | None) -> None:
        match order:
            case client_events.AUDIO_APPEND, raw:
                self._open = False
                await self._append(raw, self._configuration, self._session.send)
            case client_events.AUDIO_COMMIT, _:
                said = self._turns.commit(self._session.received_s)
                self._session.commit()
                await self._say(*said)
            case client_events.AUDIO_CLEAR, _:
                await self._clear()
            case update, session:
                if self._open and session_config.talks(session):
                    raise RealtimeDialogueRequested(session)
                configuration = session_config.updated_transcription(
                    self._configuration, session, self._spec
                )
                self._session.change(configuration.options(self._session.options))
                self._use(configuration)
                beta = update == client_events.BETA_SESSION_UPDATE
                await self._say(self._view("updated", beta))

    async def _clear(self) -> None:
        """Discard the current turn, after the results of committed ones. Later audio belongs to
        another turn, so it is not read before that."""
        dropped = self._dropped
        self._session.forget()
        self._turns.clear(self._session.received_s)
        while self._dropped == dropped and not self._session.over:
            self._news.clear()
            await self._news.wait()

    def _use(self, configuration: session_config.RealtimeTranscriptionConfig) -> None:
        self._configuration = configuration
        self._turns.detects = configuration.detection is not None
        self._turns.diarizes = configuration.diarizes

    def _view(self, what: str, beta: bool) -> EventBody:
        if beta:
            name = f"transcription_session.{what}"
            return self._described(name, self._configuration.beta_view)
        return self._described(f"session.{what}", self._configuration.view)
