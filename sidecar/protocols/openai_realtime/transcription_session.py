"""Transcription session, and the connection shared with conversations.

Turns and items come in the same order, so nobody has to know the number of a turn that a client
ends before an engine has heard of it: the first turn without an item has the first item without a
turn. What was written in deltas stays; where the end of a piece reads otherwise, the deltas go on
behind as many words, and ``completed`` has the text that counts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sidecar import errors
from sidecar.api.http.websocket_connections import Socket
from sidecar.interfaces.engine_interface import EngineSpec
from sidecar.interfaces.live_events import (
    NOT_UNDERSTOOD,
    UTTERANCE_DROPPED,
    Final,
    LiveEvent,
    Noticed,
    Partial,
    SpeakersRevised,
    SpeechStarted,
    SpeechStopped,
    TurnDropped,
    TurnEnded,
)
from sidecar.live.sessions.session import Session
from sidecar.protocols.openai_common import code_of
from sidecar.protocols.openai_realtime import client_events, server_events
from sidecar.protocols.openai_realtime.client_events import (
    Append,
    Clear,
    Commit,
    Numbered,
    OrderInvalid,
    TranscriptionOrder,
    Update,
)
from sidecar.protocols.openai_realtime.server_events import Said, error_event
from sidecar.protocols.openai_realtime.session_config import TALKS, Configuration, updated
from sidecar.transcripts.transcript import Segment, joined

LEAST_S = 0.1
"""Seconds of sound that a client can commit, as at OpenAI's."""


@dataclass(eq=False, slots=True)
class Item:
    """A turn, as it was told so far; ``shown`` is all of its deltas, ``before`` those of the pieces
    that have ended."""

    id: str
    turn: int | None = None
    committed: bool = False
    shown: str = ""
    before: str = ""
    shed: bool = False
    """It got no words: too many speak."""
    languages: list[str] = field(default_factory=list)


class Items:
    """Those of one session; ``prefix`` begins their ids. ``detects``: whether pauses end turns;
    ``diarizes``: whether it is told who speaks. Both may change."""

    def __init__(self, prefix: str, *, beta: bool = False) -> None:
        self.detects = True
        self.diarizes = False
        self._prefix, self._beta = prefix, beta
        self._count = 0
        self._open: list[Item] = []
        self._last: str | None = None
        self._taken = 0.0
        self._failed = False
        self._segments: dict[int, tuple[str, Segment]] = {}
        self._names: dict[int, str | None] = {}
        """Who speakers are, by number, of the people known."""

    @property
    def waiting(self) -> bool:
        """Whether turns have ended whose words are still to come."""
        return any(item.committed for item in self._open)

    def commit(self, received_s: float) -> Iterator[Said]:
        """The client ends its turn behind so many seconds of sound.

        Raises:
            errors.CommitEmpty: there is nothing in it.
        """
        if received_s - self._taken < LEAST_S:
            raise errors.CommitEmpty()
        self._taken = received_s
        item = next((one for one in self._open if not one.committed), None)
        return self._commit(item or self._new())

    def clear(self, received_s: float) -> None:
        """What has come up to here is no turn."""
        self._taken = received_s

    def told(self, event: LiveEvent) -> Iterator[Said]:
        """What is to be said of an event."""
        match event:
            case SpeechStarted(turn, at):
                item = self._of(turn)
                if self.detects:
                    yield server_events.speech_started(item.id, at)
            case SpeechStopped(turn, at) if self.detects:
                yield from self._stopped(self._of(turn), at)
            case Partial(turn, stable=stable):
                item = self._of(turn)
                yield from self._show(item, joined([item.before, stable]))
            case Final():
                yield from self._final(event)
            case TurnEnded():
                yield from self._ended(event)
            case TurnDropped(turn):
                self._open = [one for one in self._open if one.turn != turn]
                yield server_events.cleared()
            case SpeakersRevised():
                yield from self._revised(event)
            case Noticed(notice, turn) if notice.code == UTTERANCE_DROPPED and turn is not None:
                self._of(turn).shed = True
            case Noticed(notice):
                self._failed = self._failed or notice.code == NOT_UNDERSTOOD

    def give_up(self, error: errors.SidecarError) -> Iterator[Said]:
        """Nothing more comes."""
        for item in self._open:
            if item.committed:
                yield server_events.failed(item.id, error)
        self._open.clear()

    def _new(self) -> Item:
        item = Item(f"item_{self._prefix}_{self._count}")
        self._count += 1
        self._open.append(item)
        return item

    def _of(self, turn: int) -> Item:
        """The item of a turn, the next one if nobody knows it yet."""
        for item in self._open:
            if item.turn in (turn, None):
                item.turn = turn
                return item
        item = self._new()
        item.turn = turn
        return item

    def _commit(self, item: Item) -> Iterator[Said]:
        item.committed, before = True, self._last
        self._last = item.id
        yield server_events.committed(item.id, before)
        names = ("created",) if self._beta else ("added", "done")
        for name in names:
            yield server_events.transcription_item_event(
                f"conversation.item.{name}", item.id, before
            )

    def _stopped(self, item: Item, at: float) -> Iterator[Said]:
        self._taken = max(self._taken, at)
        yield server_events.speech_stopped(item.id, at)
        if not item.committed:
            yield from self._commit(item)

    def _show(self, item: Item, text: str) -> Iterator[Said]:
        """The words of ``text`` that were not shown, if it goes on from what was."""
        if text.startswith(item.shown) and (more := text[len(item.shown) :]):
            item.shown = text
            yield server_events.delta(item.id, more)

    def _final(self, final: Final) -> Iterator[Said]:
        item, text = self._of(final.turn), final.segment.text
        code = code_of(final.language)
        if code is not None and code not in item.languages:
            item.languages.append(code)
        whole = joined([item.before, text])
        if not whole.startswith(item.shown):
            shown = len(item.shown.split()) - len(item.before.split())
            whole = " ".join([item.shown, *text.split()[shown:]])
        yield from self._show(item, whole)
        item.before = item.shown
        if self.diarizes:
            self._segments[final.piece] = item.id, final.segment
            if final.segment.speaker is not None:
                self._names[final.segment.speaker] = final.name
                yield self._segment(final.piece, final.segment.speaker)

    def _ended(self, ended: TurnEnded) -> Iterator[Said]:
        item = self._of(ended.turn)
        if not item.committed:
            self._taken = max(self._taken, ended.end)
            yield from self._commit(item)
        self._open.remove(item)
        if item.shed:
            yield server_events.failed(item.id, errors.UtteranceDropped())
        elif self._failed and not ended.text:
            yield server_events.failed(item.id, errors.EngineFailed())
        else:
            seconds = ended.end - ended.start
            yield server_events.completed(item.id, ended.text, seconds, item.languages)
        self._failed = False

    def _revised(self, event: SpeakersRevised) -> Iterator[Said]:
        """Pieces that are somebody else's, or whose speaker turned out to be somebody."""
        self._names |= event.names
        for piece, (_, segment) in list(self._segments.items()):
            speaker = event.speakers.get(piece, segment.speaker)
            if speaker is not None and (piece in event.speakers or speaker in event.names):
                yield self._segment(piece, speaker)

    def _segment(self, piece: int, speaker: int) -> Said:
        item, segment = self._segments[piece]
        segment = dataclasses.replace(segment, speaker=speaker)
        self._segments[piece] = item, segment
        number = f"seg_{self._prefix}_{piece}"
        return server_events.segment_event(item, number, segment, speaker, self._names.get(speaker))


Asked = TypeVar("Asked")

ID = 16
"""Letters of a session's number in the ids of what is in it."""


class Exchange(Generic[Asked]):
    """One connection's: orders are done one after the other, and what is refused is told.

    ``name`` begins the ids of its events; ``do`` does an order, and ``over`` says whether its
    session is: then what is wrong ends the connection.
    """

    def __init__(
        self,
        socket: Socket,
        name: str,
        read: Callable[[str | bytes], Numbered[Asked]],
        do: Callable[[Asked], Awaitable[None]],
        over: Callable[[], bool],
    ) -> None:
        self._socket, self._name = socket, f"event_{name}"
        self._read, self._do, self._over = read, do, over
        self._count = 0
        self._saying = asyncio.Lock()

    async def hear(self) -> None:
        """Do what the client says, until it goes.

        Raises:
            sockets.Gone: it went.
            errors.SidecarError: what ended the session.
        """
        while True:
            message = await self._socket.receive()
            try:
                asked = self._read(message)
            except OrderInvalid as invalid:
                self._socket.count_malformed()
                await self._refuse(invalid.error, invalid.event_id)
            else:
                await self._take(asked)

    async def say(self, make: Callable[[], Iterable[Said]]) -> None:
        """Say what ``make`` comes to, and nothing else in between."""
        async with self._saying:
            for said in list(make()):
                self._count += 1
                number = f"{self._name}_{self._count}"
                await self._socket.send(json.dumps({"event_id": number, **said}))

    async def _take(self, asked: Numbered[Asked]) -> None:
        order = asked.order
        is_sound = isinstance(order, Append) and bool(order.raw)  # bounded by what a session takes
        try:
            if not is_sound:
                self._socket.count()
            await self._do(asked.order)
        except errors.SessionOver:
            pass  # the service ends: what was said is still told, and then why
        except errors.SidecarError as error:
            if self._over():
                raise
            if is_sound:  # the rest is counted
                self._socket.count_malformed()
            await self._refuse(error, asked.event_id)

    async def _refuse(self, error: errors.SidecarError, event_id: str | None) -> None:
        await self.say(lambda: [error_event(error, event_id)])


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
            socket, name, client_events.read_transcription_event, self._do, lambda: session.over
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

    async def _do(self, order: TranscriptionOrder) -> None:
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
            return server_events.session_event(f"transcription_session.{what}", {**view, **more})
        view = self._configuration.view(number, self._expires_at)
        return server_events.session_event(f"session.{what}", {**view, **more})
