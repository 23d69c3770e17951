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

    session_type: session_config.RealtimeSessionType

    def __init__(self, socket: WebSocketConnection, session: Session, expires_at: int) -> None:
        self._socket, self._session, self._expires_at = socket, session, expires_at
        self.name = session.id[:ITEM_ID_CHARACTERS]
        """Start of all ids in the session."""
        self._count = 0
        self._samples = WholeSamples()
        self._send_lock = asyncio.Lock()

    async def receive_commands(self) -> None:
        """Process the client's events until it disconnects.

        Raises:
            WebSocketGone: the client disconnected.
            RealtimeDialogueRequested: the client requested a conversation.
            errors.SidecarError: the session failed.
        """
        while True:
            message, command, event_id, is_audio = await self._socket.receive(), None, None, True
            try:
                event, event_id = client_events.parse_event(message)
                command = client_events.read_command(event, self.session_type)
                # audio is limited by the session, all other events are counted
                is_audio = command.name == client_events.AUDIO_APPEND and bool(command.value)
                if not is_audio:
                    self._socket.count()
                if command.name in _UPDATES:
                    _warn_of_unknown_fields(command.value)
                with self._session.executing():
                    await self._execute(command, event_id)
                if command.name in _AUDIO_ENDS:  # not if refused: the audio goes on
                    self._samples.end()
            except errors.SessionOver:
                pass  # shutting down: `send_events` sends the rest and the reason
            except errors.SidecarError as error:
                if command is not None and self._session.over:
                    raise
                if is_audio:
                    self._socket.count_malformed()
                await self._refuse(error, event_id)

    @abstractmethod
    async def _execute(self, command: client_events.RealtimeCommand, event_id: str | None) -> None:
        """Execute a command, whose id of the client is ``event_id``. If the session has ended, an
        error ends the connection."""

    async def _send(self, *events: EventBody) -> None:
        """Send events, without others between them, in the order of the calls."""
        async with self._send_lock:
            for event in events:
                self._count += 1
                number = f"event_{self.name}_{self._count}"
                await self._socket.send(json.dumps({"event_id": number, **event}))

    async def _append(
        self,
        audio: bytes,
        config: session_config.RealtimeTranscriptionConfig,
        send_samples: Callable[[bytes, SampleEncoding, int], Awaitable[None]],
    ) -> None:
        """Send audio on in chunks, so that each can be freed once it is recognized."""
        if config.audio_format is session_config.RealtimeAudioFormat.PCM:
            audio = self._samples.add(audio)
        samples, encoding, rate = config.samples(audio)
        max_bytes = int(min(MAX_CHUNK_S, self._session.bounds.chunk_s) * rate) * encoding.width
        for begin in range(0, len(samples), max_bytes):
            await send_samples(samples[begin : begin + max_bytes], encoding, rate)

    def _session_event(self, name: str, view: Callable[[str, int], EventBody]) -> EventBody:
        """Return the event ``name`` with the current session."""
        return {"type": name, "session": view(f"sess_{self._session.id}", self._expires_at)}

    async def _refuse(self, error: errors.SidecarError, event_id: str | None) -> None:
        await self._send(server_events.error_event(error, event_id))


class RealtimeDialogueRequested(Exception):
    """Request of the client for a conversation, with its ``session``."""

    def __init__(self, session: Mapping[str, Any]) -> None:
        super().__init__()
        self.session = session


class RealtimeTranscriptionConnection(RealtimeConnection):
    """Connection that transcribes. ``open``: the client may still change it to a conversation."""

    session_type = session_config.RealtimeSessionType.TRANSCRIPTION

    def __init__(
        self,
        socket: WebSocketConnection,
        session: Session,
        config: session_config.RealtimeTranscriptionConfig,
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
        self._use(config)

    async def greet(self) -> None:
        """Send the configuration of the session."""
        await self._socket.open()
        await self._send(self._view("created", self._beta))

    async def send_events(self) -> None:
        """Send results until the session ends.

        Raises:
            WebSocketGone: the client disconnected.
            errors.SidecarError: the session failed.
        """
        try:
            async for numbered in self._session.events():
                await self._send(*self._turns.events_of(numbered.event))
                self._dropped += isinstance(numbered.event, TurnDropped)
                self._news.set()
        except errors.SidecarError as error:
            await self._send(*self._turns.fail_committed(error))
            raise

    async def _execute(self, command: client_events.RealtimeCommand, event_id: str | None) -> None:
        match command:
            case client_events.AUDIO_APPEND, audio:
                self._open = False
                await self._append(audio, self._config, self._session.send)
            case client_events.AUDIO_COMMIT, _:
                events = self._turns.commit(self._session.received_s)
                self._session.commit()
                await self._send(*events)
            case client_events.AUDIO_CLEAR, _:
                await self._clear()
            case update, session:
                if self._open and session_config.is_conversation(session):
                    raise RealtimeDialogueRequested(session)
                config = session_config.updated_transcription(self._config, session, self._spec)
                self._session.change(config.options(self._session.options))
                self._use(config)
                beta = update == client_events.BETA_SESSION_UPDATE
                await self._send(self._view("updated", beta))

    async def _clear(self) -> None:
        """Discard the current turn, after the results of committed ones. Later audio belongs to
        another turn, so it is not read before that."""
        dropped = self._dropped
        self._session.cancel()
        self._turns.clear(self._session.received_s)
        while self._dropped == dropped and not self._session.over:
            self._news.clear()
            await self._news.wait()

    def _use(self, config: session_config.RealtimeTranscriptionConfig) -> None:
        self._config = config
        self._turns.detects = config.detection is not None
        self._turns.diarizes = config.diarizes

    def _view(self, what: str, beta: bool) -> EventBody:
        if beta:
            name = f"transcription_session.{what}"
            return self._session_event(name, self._config.beta_view)
        return self._session_event(f"session.{what}", self._config.view)
