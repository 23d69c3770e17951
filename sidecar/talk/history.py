"""What was said so far, by both, as a language model is told of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sidecar.speech.dialogue import Message, Role
from sidecar.talk.reply import ELLIPSIS, Reply


@dataclass(frozen=True, slots=True)
class Entry:
    """One message; a reply's ``turn``, and what it was made of, to cut it once more."""

    role: Role
    text: str
    turn: int = 0
    reply: Reply | None = None


class History:
    """Messages in order, the oldest let go of."""

    def __init__(self, most: int = 40, most_bytes: int = 4096) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._entries: list[Entry] = []

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of them."""
        return tuple(self._entries)

    def add(self, role: Role, text: str) -> str:
        """What somebody said; as it stands there."""
        return self._append(Entry(role, text))

    def replied(self, turn: int, reply: Reply, text: str) -> str:
        """What was heard of a reply; nothing if that was nothing."""
        return self._append(Entry(Role.ASSISTANT, text, turn, reply))

    def truncate(self, turn: int, seconds: float) -> str | None:
        """Only so much of that turn's sound was heard: what stands there now, None if the turn is
        not known (any more). What is gone does not come back by a greater number."""
        for at, entry in enumerate(self._entries):
            if entry.turn == turn and entry.reply is not None:
                text = bounded(entry.reply.heard(seconds), self._most_bytes)
                if len(text) > len(entry.text):
                    return entry.text
                if text:
                    self._entries[at] = replace(entry, text=text)
                else:
                    del self._entries[at]
                return text
        return None

    def clear(self) -> None:
        """Nothing was said."""
        self._entries.clear()

    def bound(self, most: int, most_bytes: int) -> None:
        """Other bounds from here on."""
        self._most, self._most_bytes = most, most_bytes

    def messages(self, instructions: str = "", said: str = "") -> tuple[Message, ...]:
        """What a language model gets: what ``said`` besides is the person's. Neighbours of one role
        are one message: models want them to take turns."""
        found: list[Message] = []
        rows = [(entry.role, entry.text) for entry in self._entries]
        rows = [(Role.SYSTEM, instructions), *rows, (Role.USER, said)]
        for role, text in rows:
            if text and found and found[-1].role is role:
                found[-1] = Message(role, f"{found[-1].text} {text}")
            elif text:
                found.append(Message(role, text))
        return tuple(found)

    def _append(self, entry: Entry) -> str:
        entry = replace(entry, text=bounded(entry.text.strip(), self._most_bytes))
        if entry.text:
            self._entries.append(entry)
        if len(self._entries) > self._most:
            del self._entries[: len(self._entries) - self._most]
            while self._entries[0].role is Role.ASSISTANT and len(self._entries) > 1:
                del self._entries[0]  # an answer to a question that is gone
        return entry.text


def bounded(text: str, most_bytes: int) -> str:
    """``text`` in at most so many bytes of UTF-8, cut with an ellipsis."""
    raw = text.encode(errors="replace")
    if len(raw) <= most_bytes:
        return text
    kept = raw[: max(0, most_bytes - len(ELLIPSIS.encode()))]
    return kept.decode(errors="ignore").rstrip() + ELLIPSIS
