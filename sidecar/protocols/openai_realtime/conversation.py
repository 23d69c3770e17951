"""A connection and its live session: what the client says goes in, what is heard comes out.

Events of clients are taken one after the other, and the next is read when there is room for it: who
sends a whole recording at once waits for the engine, and loses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sidecar import errors
from sidecar.api.http.sockets import Socket
from sidecar.interfaces.engine import EngineSpec
from sidecar.interfaces.live_events import TurnDropped
from sidecar.live.sessions.session import Session
from sidecar.protocols.openai_realtime import realtime_orders, realtime_vocabulary
from sidecar.protocols.openai_realtime.configuration import TALKS, Configuration
from sidecar.protocols.openai_realtime.exchange import ID, Exchange
from sidecar.protocols.openai_realtime.items import Items
from sidecar.protocols.openai_realtime.realtime_orders import Append, Clear, Commit, Order, Update
from sidecar.protocols.openai_realtime.realtime_vocabulary import Said
from sidecar.protocols.openai_realtime.updates import updated


class Converses(Exception):
    """The client wants to be answered: a conversation, as ``session`` says."""

    def __init__(self, session: Mapping[str, Any]) -> None:
        super().__init__()
        self.session = session


PIECE_S = 1.0
"""Most sound that a session is given at once, however long the events are."""


class Conversation:
    """One of them. ``expires_at``: when the session ends at the latest, in seconds since 1970;
    ``open``: whether the client may still want a conversation instead."""

    def __init__(
        self,
        socket: Socket,
        session: Session,
        configuration: Configuration,
        spec: EngineSpec,
        *,
        expires_at: int,
        beta: bool = False,
        open: bool = False,
    ) -> None:
        self._open = open
        self._session, self._spec = session, spec
        self._configuration, self._beta = configuration, beta
        self._expires_at = expires_at
        name = session.id[:ID]
        self._items = Items(name, beta=beta)
        self._exchange = Exchange(
            socket, name, realtime_orders.read, self._do, lambda: session.over
        )
        self._say = self._exchange.say
        self._news = asyncio.Event()
        self._dropped = 0
        self._use(configuration)

    async def greet(self) -> None:
        """Say how the session is heard."""
        await self._say(lambda: [self._view("created", self._beta)])

    async def hear(self) -> None:
        """Do what the client says, until it goes.

        Raises:
            sockets.Gone: it went.
            Converses: it wants more than that.
            errors.SidecarError: what ended the session.
        """
        await self._exchange.hear()

    async def tell(self) -> None:
        """Say what is heard, until the session ends.

        Raises:
            sockets.Gone: the client went.
            errors.SidecarError: what ended the session.
        """
        try:
            async for numbered in self._session.events():
                event = numbered.event
                await self._say(lambda event=event: self._items.told(event))  # type: ignore[misc]
                self._dropped += isinstance(event, TurnDropped)
                self._news.set()
        except errors.SidecarError as error:
            await self._say(lambda error=error: self._items.give_up(error))  # type: ignore[misc]
            raise

    async def _do(self, order: Order) -> None:
        match order:
            case Append(raw):
                self._open = False
                await self._append(raw)
            case Commit():
                await self._say(self._commit)
            case Clear():
                await self._clear()
            case Update(session, beta):
                if self._open and isinstance(session, Mapping) and session.get("type") == TALKS:
                    raise Converses(session)
                configuration = updated(self._configuration, session, self._spec)
                self._session.change(configuration.options(self._session.options))
                self._use(configuration)
                await self._say(lambda: [self._view("updated", beta)])

    async def _append(self, raw: bytes) -> None:
        """In pieces, each of which can be let go of when it was heard."""
        sound, encoding, rate = self._configuration.samples(raw)
        most = int(min(PIECE_S, self._session.bounds.chunk_s) * rate) * encoding.width
        for begin in range(0, len(sound), most):
            await self._session.send(sound[begin : begin + most], encoding, rate)

    def _commit(self) -> Iterable[Said]:
        said = self._items.commit(self._session.received_s)
        self._session.commit()
        return said

    async def _clear(self) -> None:
        """Forget the turn; what was committed before it is told first. What comes then is of
        another, so it is not read before that is done."""
        dropped = self._dropped
        self._session.forget()
        self._items.clear(self._session.received_s)
        await self._until(lambda: self._dropped > dropped)

    async def _until(self, done: Callable[[], bool]) -> None:
        while not done() and not self._session.over:
            self._news.clear()
            await self._news.wait()

    def _use(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._items.detects = configuration.pauses is not None
        self._items.diarizes = configuration.diarizes

    def _view(self, what: str, beta: bool) -> Said:
        number, more = f"sess_{self._session.id}", self._session.greeting
        if beta:
            view = self._configuration.beta_view(number, self._expires_at)
            return realtime_vocabulary.session_event(
                f"transcription_session.{what}", {**view, **more}
            )
        view = self._configuration.view(number, self._expires_at)
        return realtime_vocabulary.session_event(f"session.{what}", {**view, **more})
