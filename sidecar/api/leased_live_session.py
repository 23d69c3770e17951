"""Live session on /v1/live for another service.

To everything behind the wire it is a session like others, that begins where the front's is.
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
from sidecar.api.http.websocket_connections import Message, Socket
from sidecar.auth.identity import Identity, Scope
from sidecar.interfaces.live_engine import LIVE_RATE, Begin, Encoding, LiveOptions
from sidecar.interfaces.live_events import (
    ContextKnown,
    Final,
    Heard,
    LiveEvent,
    Partial,
    TurnEnded,
    VoicesKnown,
)
from sidecar.live.sessions.event_log import Numbered, ToldState
from sidecar.live.sessions.input_log import Chunk, SoundState
from sidecar.live.sessions.session import RATES, Session
from sidecar.service.facade import Service
from sidecar.upstream.remote_live_messages import ALIVE_S, FORM, Lease, events_text, lease_of

WIRE = "lease"
"""How such sessions are counted."""


class Sound(BaseModel):
    """What binary messages are, from here on."""

    type: Literal["sound"]
    encoding: Encoding
    rate: int = Field(ge=RATES.start, lt=RATES.stop)


class Options(BaseModel):
    """Hear on with these."""

    type: Literal["change"]
    options: LiveOptions


class Plain(BaseModel):
    """An order that needs no more words."""

    type: Literal["commit", "cancel", "finish"]


Order = Sound | Options | Plain


@cache
def _orders() -> TypeAdapter[Order]:
    return TypeAdapter(Annotated[Order, Field(discriminator="type")])


async def serve(socket: Socket, service: Service, asked: Mapping[str, Any]) -> None:
    """From the first message to the end of the connection, which is the end of the session here.

    Raises:
        Gone: the front went.
        errors.SidecarError: what ended it.
    """
    socket.caller.demand(Scope.LEASE)
    lease = lease_of(asked)
    session = seat(service, socket.caller, lease)
    place = Place(socket, session, lease.begin)
    session.witnesses = [*session.witnesses, place]
    try:
        began = live_messages.message("began", session=session.id, form=FORM, **place.received())
        await socket.send(began)
        await socket.side_by_side(socket.read(place.take), place.tell(), place.be_alive())
    finally:
        service.live.end(session)


def seat(service: Service, caller: Identity, lease: Lease) -> Session:
    """A session that goes on where the front's is.

    Raises:
        errors.SidecarError: there is no room for it, or no engine.
    """
    wanted = lease.options
    options = dataclasses.replace(wanted, keep=False, recognise=False)
    session = service.live.open(caller, options, wire=WIRE, idle_s=math.inf)
    session.bounds = dataclasses.replace(session.bounds, longest_s=math.inf)  # the front's count
    session.options = dataclasses.replace(
        session.options,
        recognise=wanted.recognise,
        client=f"{caller.owner}/{wanted.client}",
    )
    session.meet(wanted)  # whom the front knows, and nobody who is known here
    begin = lease.begin
    lead = begin.at if begin.lead is None else begin.lead
    session.told.restore(_told(begin))
    mark = Chunk(lead, b"", Encoding.PCM16, LIVE_RATE)  # what comes is from there
    session.sound.restore(SoundState(lead, 0, begin.at, 0, (lead, 0), (mark,), (), lead))
    return session


def _told(begin: Begin) -> ToldState:
    """What makes of a session that has said nothing one that said all this (`Told.so_far`)."""
    said = list(zip(begin.pieces, begin.said, strict=True))
    closed = len(said) - begin.open
    before = max(0, begin.turn - 1)
    events: list[LiveEvent] = [Final(before, piece, one) for piece, one in said[:closed]]
    if begin.turn:
        events.append(TurnEnded(before, begin.at, begin.at, ""))
    events += [Final(begin.turn, piece, one) for piece, one in said[closed:]]
    kept = tuple(Numbered(number, event) for number, event in enumerate(events, start=1))
    return ToldState(len(kept), max(begin.turn, begin.began) - 1, kept, begin.voices, begin.context)


class Place:
    """Both directions of one connection; a witness of its session (`live.sessions.session`)."""

    def __init__(self, socket: Socket, session: Session, begin: Begin) -> None:
        self._socket, self._session = socket, session
        self._voices, self._context = begin.voices, begin.context
        self._form = Encoding.PCM16, LIVE_RATE
        self._commits = 0
        """Of the front's that were answered, by whichever process of ours."""
        self._asked_to_finish = False
        self._wrong: errors.SidecarError | None = None
        self._over = False
        self._coming: list[LiveEvent] = []
        self._unsettled = False
        """Something was told, and not yet how much of the sound that was."""
        self._bell = asyncio.Event()

    def received(self) -> dict[str, object]:
        """How much is here."""
        one = self._session
        return live_messages.received(
            one.received_samples, one.received_s, one.received_orders, 0.0
        )

    async def take(self, message: Message) -> bool:
        """A message of the front's, done with."""
        try:
            if isinstance(message, bytes):
                await self._session.send(message, *self._form)
            else:
                self._do(_order_of(message))
        except errors.SessionOver:
            pass  # the summary is on its way
        return True

    def _do(self, order: Order) -> None:
        match order:
            case Sound(encoding=encoding, rate=rate):
                self._form = encoding, rate
            case Options(options=options):
                self._session.change(dataclasses.replace(options, keep=False))
            case Plain(type="commit"):
                self._session.commit()
            case Plain(type="cancel"):
                self._session.forget()
            case _:
                self._asked_to_finish = True
                self._session.finish()

    async def tell(self) -> None:
        """Everything that is said, to the end.

        Raises:
            errors.SessionHandedOver: somebody else is to go on: this service ends.
        """
        while True:
            self._bell.clear()
            if self._coming and not self._unsettled:
                events, self._coming = self._coming, []
                await self._socket.send(events_text(events))
                continue
            if self._wrong is not None:
                raise self._wrong
            if self._over:
                await self._bell.wait()  # until the front goes
            await self._bell.wait()

    async def be_alive(self) -> None:
        """Say something, so that silence means that nobody is here."""
        while True:
            await asyncio.sleep(ALIVE_S)
            await self._socket.send(live_messages.message("received", **self.received()))

    def sound(self, raw: bytes, encoding: Encoding, rate: int) -> None:
        """It came from the front."""

    def ordered(self, order: Mapping[str, Any]) -> None:
        """Who finishes a session whose front did not is about to end. What it makes of the sound
        that is cut off there, nobody is told."""
        if "finish" in order and not self._asked_to_finish:
            self._ended(errors.SessionHandedOver())

    def told(self, numbered: Numbered) -> None:
        """A final comes with how much of the sound it was, so that the front never has one
        without the other: what goes on for this session would say it again."""
        event = numbered.event
        if self._wrong is not None:
            return
        if isinstance(event, Final | TurnEnded):
            self._unsettled = True
            self._commits += isinstance(event, TurnEnded) and event.committed
        elif isinstance(event, Heard):
            self._unsettled = False
            self._add_known()
            event = dataclasses.replace(event, commits=self._commits)
        if isinstance(event, Partial) and self._coming and isinstance(self._coming[-1], Partial):
            self._coming.pop()
        self._coming.append(event)
        self._bell.set()

    def over(self, wrong: errors.SidecarError | None) -> None:
        """Nothing more is said."""
        self._over = True
        if wrong is not None:
            self._ended(wrong)

    def _ended(self, wrong: errors.SidecarError) -> None:
        if self._wrong is None:
            self._wrong = wrong
            self._bell.set()

    def _add_known(self) -> None:
        """What whoever goes on for this engine is to know, where it is news."""
        state = self._session.told.state
        if state.voices is not self._voices:
            self._voices = state.voices
            self._coming.append(VoicesKnown(dict(state.voices)))
        if state.context is not self._context:
            self._context = state.context
            self._coming.append(ContextKnown(state.context))


def _order_of(text: str) -> Order:
    """The order in a text frame.

    Raises:
        errors.MessageInvalid: it is none.
    """
    try:
        return _orders().validate_json(text)
    except (ValidationError, RecursionError):
        raise errors.MessageInvalid() from None
