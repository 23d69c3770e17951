"""Live session on /v1/live for another service.

The rest of this service treats it like any other session; it begins where the front's session is.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from sidecar import errors
from sidecar.api import live_messages
from sidecar.api.http.websocket_connections import Message, WebSocketConnection
from sidecar.auth.identity import Identity, Scope
from sidecar.interfaces import live_events
from sidecar.interfaces.live_events import LiveSessionStart
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions, SampleEncoding
from sidecar.live.sessions.event_log import EventLogState, NumberedEvent
from sidecar.live.sessions.input_log import InputLogState
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_limits import SAMPLE_RATES
from sidecar.service.facade import Service
from sidecar.transcripts.language_detection import doubtful_language_notice
from sidecar.upstream import remote_live_messages

WIRE = "lease"
"""Protocol name of such sessions in metrics."""


class LeaseAudioFormat(BaseModel):
    """Format of the binary messages that follow."""

    type: Literal["sound"]
    encoding: SampleEncoding
    rate: int = Field(ge=SAMPLE_RATES.start, lt=SAMPLE_RATES.stop)


class LeaseOptions(BaseModel):
    """Change of a session's options."""

    type: Literal["change"]
    options: LiveOptions


LeaseRequest = LeaseAudioFormat | LeaseOptions | live_messages.LivePlainRequest


@cache
def _command_adapter() -> TypeAdapter[LeaseRequest]:
    return TypeAdapter(Annotated[LeaseRequest, Field(discriminator="type")])


async def serve(socket: WebSocketConnection, service: Service, asked: Mapping[str, Any]) -> None:
    """Serve a connection from its first message to its end, which also ends the session here.

    Raises:
        WebSocketGone: the front disconnected.
        errors.SidecarError: the error that ended the connection.
    """
    socket.caller.demand(Scope.LEASE)
    lease = remote_live_messages.parse_session_request(asked)
    session = open_leased_session(service, socket.caller, lease)
    place = LeaseConnection(socket, session, lease.begin)
    session.observers = [*session.observers, place]
    try:
        began = live_messages.message(
            "began",
            session=session.id,
            form=remote_live_messages.PROTOCOL_VERSION,
            **place.received(),
        )
        await socket.send(began)
        await socket.run_until_first_ends(socket.read(place.take), place.tell(), place.be_alive())
    finally:
        service.live.end(session)


def open_leased_session(
    service: Service, caller: Identity, lease: remote_live_messages.RemoteSessionRequest
) -> Session:
    """Open a session that continues the front's.

    Raises:
        errors.SidecarError: there is no capacity for it, or no engine.
    """
    wanted = lease.options
    options = dataclasses.replace(wanted, keep=False, recognise=False)
    session = service.live.open(caller, options, wire=WIRE, idle_s=math.inf)
    session.bounds = dataclasses.replace(session.bounds, longest_s=math.inf)  # the front's limits
    session.options = dataclasses.replace(
        session.options,
        recognise=wanted.recognise,
        client=f"{caller.owner}/{wanted.client}",
    )
    session.meet(wanted)  # enrolled speakers of the front, none of this service
    begin = lease.begin
    lead = begin.at if begin.lead is None else begin.lead
    session.told.restore(_initial_event_log(begin))
    session.sound.restore(InputLogState(lead, 0, begin.at, 0, (lead, 0), (), (), lead))
    return session


def _initial_event_log(begin: LiveSessionStart) -> EventLogState:
    """Return the event log of a session that continues another."""
    said = list(zip(begin.pieces, begin.said, strict=True))
    closed = len(said) - begin.open
    before = max(0, begin.turn - 1)
    events: list[live_events.LiveEvent] = [
        live_events.Final(before, piece, one) for piece, one in said[:closed]
    ]
    if begin.turn:
        events.append(live_events.TurnEnded(before, begin.at, begin.at, ""))
    events += [live_events.Final(begin.turn, piece, one) for piece, one in said[closed:]]
    if events and isinstance(events[0], live_events.Final):
        events[0] = dataclasses.replace(events[0], confidence=begin.confidence)
    if begin.doubted:
        events.append(live_events.NoticeRaised(doubtful_language_notice(live=True)))
    kept = tuple(NumberedEvent(number, event) for number, event in enumerate(events, start=1))
    return EventLogState(
        len(kept), max(begin.turn, begin.began) - 1, kept, begin.voices, begin.context
    )


class LeaseConnection:
    """Both directions of a connection; an observer of its session (`live.sessions.session`)."""

    def __init__(
        self, socket: WebSocketConnection, session: Session, begin: LiveSessionStart
    ) -> None:
        self._socket, self._session = socket, session
        self._voices, self._context = begin.voices, begin.context
        self._form = SampleEncoding.PCM16, LIVE_RATE
        self._commits = 0
        """Number of the front's commits that were executed, by any worker process of this
        service."""
        self._asked_to_finish = False
        self._wrong: errors.SidecarError | None = None
        self._over = False
        self._coming: list[live_events.LiveEvent] = []
        self._unsettled = False
        """True if events were queued and the amount of audio that they cover is not known yet."""
        self._bell = asyncio.Event()

    def received(self) -> dict[str, object]:
        """Return the message that acknowledges audio."""
        one = self._session
        return live_messages.received_message(
            one.sound.samples, one.received_s, one.received_orders, 0.0
        )

    async def take(self, message: Message) -> bool:
        """Handle a message of the front."""
        try:
            if isinstance(message, bytes):
                await self._session.send(message, *self._form)
            else:
                self._do(_parse_command(message))
        except errors.SessionOver:
            pass  # the summary is being sent
        return True

    def _do(self, order: LeaseRequest) -> None:
        match order:
            case LeaseAudioFormat(encoding=encoding, rate=rate):
                self._form = encoding, rate
            case LeaseOptions(options=options):
                self._session.change(dataclasses.replace(options, keep=False))
            case live_messages.LivePlainRequest(type="commit"):
                self._session.commit()
            case live_messages.LivePlainRequest(type="cancel"):
                self._session.forget()
            case _:
                self._asked_to_finish = True
                self._session.finish()

    async def tell(self) -> None:
        """Send all events to the front, to the end of the session.

        Raises:
            errors.SessionHandedOver: this service shuts down, and another one is to continue.
        """
        while True:
            self._bell.clear()
            if self._coming and not self._unsettled:
                events, self._coming = self._coming, []
                await self._socket.send(remote_live_messages.events_text(events))
                continue
            if self._wrong is not None:
                raise self._wrong
            if self._over:
                await self._bell.wait()  # until the front disconnects
            await self._bell.wait()

    async def be_alive(self) -> None:
        """Send a heartbeat, so that silence means a dead peer."""
        while True:
            await asyncio.sleep(remote_live_messages.HEARTBEAT_INTERVAL_S)
            await self._socket.send(live_messages.message("received", **self.received()))

    def sound(self, raw: bytes, encoding: SampleEncoding, rate: int) -> None:
        """Ignore the audio, as it came from the front."""

    def ordered(self, order: Mapping[str, Any]) -> None:
        """Hand the session over if this service finishes it and not the front. No client receives
        what is recognized of the audio that is cut off there."""
        if "finish" in order and not self._asked_to_finish:
            self._ended(errors.SessionHandedOver())

    def told(self, numbered: NumberedEvent) -> None:
        """Queue an event for the front. A final is sent together with the amount of audio that it
        covers: another service that continues the session would otherwise send it again."""
        event = numbered.event
        if self._wrong is not None:
            return
        if isinstance(event, live_events.Final | live_events.TurnEnded):
            self._unsettled = True
            self._commits += isinstance(event, live_events.TurnEnded) and event.committed
        elif isinstance(event, live_events.InputProcessed):
            self._unsettled = False
            self._add_known()
            event = dataclasses.replace(event, commits=self._commits)
        if (
            isinstance(event, live_events.Partial)
            and self._coming
            and isinstance(self._coming[-1], live_events.Partial)
        ):
            self._coming.pop()
        self._coming.append(event)
        self._bell.set()

    def over(self, wrong: errors.SidecarError | None) -> None:
        """Record the end of the session's events."""
        self._over = True
        if wrong is not None:
            self._ended(wrong)

    def _ended(self, wrong: errors.SidecarError) -> None:
        if self._wrong is None:
            self._wrong = wrong
            self._bell.set()

    def _add_known(self) -> None:
        """Queue what an engine that continues this session has to know, if it has changed."""
        state = self._session.told.state
        if state.voices is not self._voices:
            self._voices = state.voices
            self._coming.append(live_events.SpeakerEmbeddingsKnown(dict(state.voices)))
        if state.context is not self._context:
            self._context = state.context
            self._coming.append(live_events.ContextKnown(state.context))


def _parse_command(text: str) -> LeaseRequest:
    """Return the command in a text message.

    Raises:
        errors.MessageInvalid: it is not a command.
    """
    try:
        return _command_adapter().validate_json(text)
    except (ValidationError, RecursionError):
        raise errors.MessageInvalid() from None
