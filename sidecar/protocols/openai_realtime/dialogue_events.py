"""Events of a conversation as server events. Pure.

A turn that a pause ends is told as it goes; one that its client ends is an item from the commit on,
and what was said is told behind that. Words are told as soon as two looks agree on them, and none
of these is taken back: where it reads otherwise in the end, ``completed`` has what counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from sidecar import errors
from sidecar.conversation.llm.chat_completions import Role
from sidecar.conversation.output_queue import (
    Failed,
    NothingSaid,
    Out,
    PersonSaid,
    PersonSaying,
    PersonStarted,
    PersonStopped,
    Recorded,
    ReplyStarted,
    Told,
    TurnDropped,
    TurnTaken,
)
from sidecar.protocols.openai_realtime import server_events
from sidecar.protocols.openai_realtime.dialogue_config import Manners
from sidecar.protocols.openai_realtime.dialogue_responses import Replies
from sidecar.protocols.openai_realtime.server_events import EventBody, Item, Items

LEAST_S = 0.1
"""Seconds of sound that a client can commit, as at OpenAI's."""


class Person:
    """Who speaks. ``span`` tells where an utterance lies in the sound. ``detects``: whether pauses
    end turns; ``transcribes``: whether words are told. Both may change."""

    def __init__(self, items: Items, span: Callable[[int], tuple[float, float]]) -> None:
        self.detects = True
        self.transcribes = True
        self._items, self._span = items, span
        self._now: Item | None = None
        self._committed: deque[Item] = deque()
        self._said: set[str] = set()
        self._shown = self._last = ""
        self._start = self._end = 0.0
        self._taken = 0.0
        self._utterance = 0

    def commit(self, received_s: float) -> Iterator[EventBody]:
        """The client ends its turn behind so many seconds of sound.

        Raises:
            errors.CommitEmpty: there is nothing in it.
        """
        if received_s - self._taken < LEAST_S:
            raise errors.CommitEmpty()
        self._start, self._end = self._taken, received_s
        self._taken = received_s
        item = self._now
        if item is None or item.id in self._items:
            item = self._new()
        self._committed.append(item)
        return self._commit(item)

    def clear(self, received_s: float) -> None:
        """What has come up to here is no turn."""
        self._taken = received_s

    def told(self, told: Told) -> Iterator[EventBody]:
        """What is to be said of that."""
        match told:
            case PersonStarted():
                yield from self._started(told.utterance)
            case PersonSaying() if self._now is not None:
                yield from self._saying(self._now, told.text)
            case PersonStopped() if self._now is not None:
                yield from self._stopped(self._now, told.utterance)
            case PersonSaid(backchannel=(began, ended)):
                yield from self._complete(self._new(), told.text, told.entry, ended - began)
            case PersonSaid():
                yield from self._complete(self._now or self._new(), told.text, told.entry)
                self._now = None
            case NothingSaid():
                if self._now is not None and self._now.id not in self._items and self.detects:
                    yield server_events.speech_stopped(self._now.id, self._span(self._utterance)[1])
                self._now, self._shown, self._last = None, "", ""

    def taken(self) -> Iterator[EventBody]:
        """What the client committed first was heard to its end."""
        if not self._committed:
            return
        item = self._committed.popleft()
        if item.id not in self._said:
            yield from self._complete(item, "", 0)
        self._said.discard(item.id)

    def given_up(self, error: errors.SidecarError) -> Iterator[EventBody]:
        """Nobody knows what was said in a turn that is answered now, if there is one."""
        item, self._now = self._now, None
        if item is not None and item.id in self._items and self.transcribes:
            self._settle(item)
            yield server_events.failed(item.id, error)

    def _settle(self, item: Item) -> None:
        """Its words are told."""
        if item in self._committed:
            self._said.add(item.id)

    def _new(self) -> Item:
        return Item(self._items.new_id(), Role.USER, aloud=True)

    def _started(self, utterance: int) -> Iterator[EventBody]:
        self._utterance = utterance
        waiting = [item for item in self._committed if item.id not in self._said]
        self._now = waiting[0] if waiting else self._new()
        self._shown = self._last = ""
        if self.detects and not waiting:
            self._start = self._span(utterance)[0]
            yield server_events.speech_started(self._now.id, self._start)

    def _stopped(self, item: Item, utterance: int) -> Iterator[EventBody]:
        if item.id in self._items:
            return
        self._end = self._span(utterance)[1]
        self._taken = max(self._taken, self._end)
        if self.detects:
            yield server_events.speech_stopped(item.id, self._end)
        yield from self._commit(item)

    def _commit(self, item: Item) -> Iterator[EventBody]:
        before = self._items.add(item)
        yield server_events.committed(item.id, before)
        for what in ("added", "done"):
            yield server_events.dialogue_item_event(what, item, before)

    def _saying(self, item: Item, text: str) -> Iterator[EventBody]:
        """The words on which this look and the one before agree."""
        now, before = text.split(), self._last.split()
        self._last = text
        alike = 0
        while alike < min(len(now), len(before)) and now[alike] == before[alike]:
            alike += 1
        if self.detects or item.id in self._items:
            yield from self._show(item, " ".join(now[:alike]))

    def _show(self, item: Item, text: str) -> Iterator[EventBody]:
        """The words of ``text`` that were not shown, if it goes on from what was."""
        if self.transcribes and text.startswith(self._shown) and (more := text[len(self._shown) :]):
            self._shown = text
            yield server_events.delta(item.id, more)

    def _complete(
        self, item: Item, text: str, entry: int, seconds: float | None = None
    ) -> Iterator[EventBody]:
        """All its words are known. It is ``seconds`` long, or as long as was noted."""
        if item.id not in self._items:  # nobody ended it, but it is history
            yield from self._commit(item)
        item.text, item.entry = text, entry
        self._settle(item)
        yield from self._show(item, text)
        if self.transcribes:
            seconds = self._end - self._start if seconds is None else seconds
            yield server_events.completed(item.id, text, max(0.0, seconds), ())
        self._shown = self._last = ""


class Telling:
    """One conversation, as it was told so far. ``prefix`` begins the ids; of items ``most`` are
    known; ``span`` as `Person`."""

    def __init__(self, prefix: str, most: int, span: Callable[[int], tuple[float, float]]) -> None:
        self.conversation = f"conv_{prefix}"
        self.items = Items(prefix, most)
        self.person = Person(self.items, span)
        self.replies = Replies(self.items, prefix, self.conversation)
        self._created: dict[str, Item] = {}

    def use(self, manners: Manners) -> None:
        """From here on."""
        self.person.detects = manners.turning is not None
        self.person.transcribes = manners.transcribes
        self.replies.output, self.replies.law = manners.output_view, manners.sound

    def create(self, item: Item) -> None:
        """A client puts that into the conversation; it is told once it stands there.

        Raises:
            errors.FieldInvalid: there is one of that name.
        """
        if item.id in self.items or item.id in self._created:
            raise errors.FieldInvalid(f"'item.id' is taken: there is an item '{item.id}'.")
        self._created[item.id] = item

    def of(self, out: Out) -> Iterator[EventBody]:
        """The events for what goes out."""
        match out:
            case Recorded():
                yield from self._recorded(out)
            case Failed(turn=0):
                yield server_events.error_event(out.error)
            case PersonStarted() | PersonSaying() | PersonStopped() | PersonSaid() | NothingSaid():
                yield from self.person.told(out)
            case TurnTaken():
                yield from self.person.taken()
            case TurnDropped():
                yield server_events.cleared()
            case ReplyStarted():
                yield from self.person.given_up(errors.EngineFailed())
                yield from self.replies.told(out)
            case _:
                yield from self.replies.told(out)

    def _recorded(self, stands: Recorded) -> Iterator[EventBody]:
        item = self._created.pop(stands.name)
        item.entry, item.text = stands.entry, stands.text
        before = self.items.add(item)
        for what in ("added", "done"):
            yield server_events.dialogue_item_event(what, item, before)
