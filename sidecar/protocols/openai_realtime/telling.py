"""What goes out of a conversation, in the words of its client. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sidecar import errors
from sidecar.conversation.outgoing import Out, TurnDropped, TurnTaken
from sidecar.conversation.told import (
    Failed,
    NothingSaid,
    PersonSaid,
    PersonSaying,
    PersonStarted,
    PersonStopped,
    Recorded,
    ReplyStarted,
)
from sidecar.protocols.openai_realtime import realtime_vocabulary, vocabulary
from sidecar.protocols.openai_realtime.dialogue_configuration import Manners
from sidecar.protocols.openai_realtime.dialogue_items import Item, Items, Said
from sidecar.protocols.openai_realtime.dialogue_responses import Replies
from sidecar.protocols.openai_realtime.person import Person


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

    def of(self, out: Out) -> Iterator[Said]:
        """The events for what goes out."""
        match out:
            case Recorded():
                yield from self._recorded(out)
            case Failed(turn=0):
                yield realtime_vocabulary.error_event(out.error)
            case PersonStarted() | PersonSaying() | PersonStopped() | PersonSaid() | NothingSaid():
                yield from self.person.told(out)
            case TurnTaken():
                yield from self.person.taken()
            case TurnDropped():
                yield realtime_vocabulary.cleared()
            case ReplyStarted():
                yield from self.person.given_up(errors.EngineFailed())
                yield from self.replies.told(out)
            case _:
                yield from self.replies.told(out)

    def _recorded(self, stands: Recorded) -> Iterator[Said]:
        item = self._created.pop(stands.name)
        item.entry, item.text = stands.entry, stands.text
        before = self.items.add(item)
        for what in ("added", "done"):
            yield vocabulary.item_event(what, item, before)
