"""What was said so far, by both, as a language model is told of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sidecar.conversation.llm.dialogue import Call, Message, Role
from sidecar.conversation.reply import ELLIPSIS, Reply

_ANSWERS = (Role.ASSISTANT, Role.TOOL)
MOST_SAID = 65_536
"""Bytes of what a person says aloud in one turn: an hour without a pause that ends it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message, by its ``number``; a reply's ``turn``, and what it was made of, to cut it once
    more: its client let it ``end`` after so many seconds. A tool's entry is a ``call``, or
    what came of one (``returned``)."""

    role: Role
    text: str
    turn: int = 0
    reply: Reply | None = None
    number: int = 0
    end: float = float("inf")
    call: Call | None = None
    returned: bool = False


class History:
    """Messages in order, the oldest let go of; replies are ``most_bytes`` long at most."""

    def __init__(self, most: int = 40, most_bytes: int = 4096) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._entries: list[Entry] = []
        self._count = 0

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All that say something."""
        return tuple(entry for entry in self._entries if entry.text)

    def add(self, role: Role, text: str) -> Entry:
        """What somebody said, all of it; as it stands there."""
        return self._append(Entry(role, text))

    def begin(self, turn: int, reply: Reply) -> Entry:
        """Keep the place of a reply of which nothing was heard yet."""
        return self._append(Entry(Role.ASSISTANT, "", turn, reply))

    def replied(self, turn: int, text: str) -> str:
        """What was heard of a reply; as it stands there."""
        at = self._of(turn)
        if at is None:
            return ""
        text = bounded(text.strip(), self._most_bytes)
        self._entries[at] = replace(self._entries[at], text=text)
        return text

    def truncate(self, turn: int, seconds: float) -> str | None:
        """So much of that turn's sound was heard, says who played it, and knows better than a
        clock: what stands there now, None if the turn is not known (any more). What was once cut
        does not come back by a greater number."""
        at = self._of(turn)
        if at is None:
            return None
        entry = self._entries[at]
        assert entry.reply is not None
        end = min(entry.end, seconds)
        text = bounded(entry.reply.heard(end), self._most_bytes)
        self._entries[at] = replace(entry, text=text, end=end)
        return text

    def called(self, turn: int, call: Call) -> Entry:
        """A turn has called a tool; what comes of it is waited for."""
        return self._append(Entry(Role.TOOL, "", turn, call=call))

    def awaits(self, call: str) -> bool:
        """Whether what comes of that call is waited for."""
        found = [one.returned for one in self._entries if one.call and one.call.id == call]
        return found == [False]

    def knows(self, call: str) -> bool:
        """Whether a call of that id stands there."""
        return any(one.call is not None and one.call.id == call for one in self._entries)

    def returned(self, call: str, output: str) -> Entry | None:
        """What came of a call; None if nobody waits for that. It stands where it came: models
        want it behind its call with nothing between, so they are told of the call there."""
        if not self.awaits(call):
            return None
        made = next(one for one in self._entries if one.call and one.call.id == call)
        return self._append(replace(made, text=output, returned=True))

    def drop(self, number: int) -> None:
        """Nobody said that. With a call goes what came of it."""
        gone = {one.call.id for one in self._entries
                if one.number == number and one.call and not one.returned}  # fmt: skip
        self._entries = [
            entry
            for entry in self._entries
            if entry.number != number and not (entry.call and entry.call.id in gone)
        ]

    def clear(self) -> None:
        """Nothing was said."""
        self._entries.clear()

    def bound(self, most: int, most_bytes: int) -> None:
        """Other bounds from here on."""
        self._most, self._most_bytes = most, most_bytes

    def messages(self, instructions: str = "", said: str = "") -> tuple[Message, ...]:
        """What a language model gets: what ``said`` besides is the person's. Neighbours of one role
        are one message: models want them to take turns. Of calls they are told once something came
        of them, of those of one turn together."""
        entries = [Entry(Role.SYSTEM, instructions), *self._entries, Entry(Role.USER, said)]
        found: list[Message] = []
        calling = 0
        """The place of the last message with calls."""
        turn = 0
        for entry in entries:
            last = found[-1].role if found else None
            if entry.call is not None:
                if not entry.returned:
                    continue
                if last is Role.TOOL and entry.turn == turn:
                    calls = (*found[calling].calls, entry.call)
                elif last is Role.ASSISTANT:
                    calling, calls = len(found) - 1, (entry.call,)
                else:
                    calling, calls = len(found), (entry.call,)
                    found.append(Message(Role.ASSISTANT, ""))
                turn = entry.turn
                found[calling] = replace(found[calling], calls=calls)
                found.append(Message(Role.TOOL, entry.text, call=entry.call.id))
            elif entry.text and last is entry.role:
                found[-1] = Message(entry.role, f"{found[-1].text} {entry.text}")
            elif entry.text:
                found.append(Message(entry.role, entry.text))
        return tuple(found)

    def _of(self, turn: int) -> int | None:
        places = (at for at, one in enumerate(self._entries) if one.reply and one.turn == turn)
        return next(places, None)

    def _append(self, entry: Entry) -> Entry:
        self._count += 1
        text = entry.text if entry.call else entry.text.strip()
        entry = replace(entry, text=text, number=self._count)
        if entry.text or entry.reply is not None or entry.call is not None:
            self._entries.append(entry)
        if len(self._entries) > self._most:
            del self._entries[: len(self._entries) - self._most]
            while self._entries[0].role in _ANSWERS and len(self._entries) > 1:
                del self._entries[0]  # an answer to a question that is gone
        return entry


def bounded(text: str, most_bytes: int) -> str:
    """``text`` in at most so many bytes of UTF-8, cut with an ellipsis."""
    raw = text.encode(errors="replace")
    if len(raw) <= most_bytes:
        return text
    kept = raw[: max(0, most_bytes - len(ELLIPSIS.encode()))]
    return kept.decode(errors="ignore").rstrip() + ELLIPSIS
