"""Chat history, and the part of a reply that was heard. Pure.

A reply is pieces, one behind the other; each is shown as it was written, and said by a voice, or
not at all (code, a table's rule). How much was heard is a number of seconds of all its sound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sidecar.conversation.chat_completions import ChatMessage, ChatRole, ToolCall
from sidecar.conversation.heard_reply import ELLIPSIS, ReplyText

_ANSWERS = (ChatRole.ASSISTANT, ChatRole.TOOL)


@dataclass(frozen=True, slots=True)
class ChatEntry:
    """One message, by its ``number``; a reply's ``turn``, and what it was made of, to cut it once
    more: its client let it ``end`` after so many seconds. A tool's entry is a ``call``, or
    what came of one (``returned``)."""

    role: ChatRole
    text: str
    turn: int = 0
    reply: ReplyText | None = None
    number: int = 0
    end: float = float("inf")
    call: ToolCall | None = None
    returned: bool = False


class ChatHistory:
    """Messages in order, the oldest let go of; replies are ``most_bytes`` long at most."""

    def __init__(self, most: int = 40, most_bytes: int = 4096) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._entries: list[ChatEntry] = []
        self._count = 0

    @property
    def entries(self) -> tuple[ChatEntry, ...]:
        """All that say something."""
        return tuple(entry for entry in self._entries if entry.text)

    def add(self, role: ChatRole, text: str, after: int | None = None) -> ChatEntry:
        """Add a message, all of it, behind the entry ``after``; return its entry. 0 is the
        beginning, and None, as a number that is not there, the end."""
        return self._append(ChatEntry(role, text), after)

    def begin(self, turn: int, reply: ReplyText) -> ChatEntry:
        """Keep the place of a reply of which nothing was heard yet."""
        return self._append(ChatEntry(ChatRole.ASSISTANT, "", turn, reply))

    def replied(self, turn: int, text: str) -> str:
        """Add the heard part of a reply; return its entry."""
        at = self._of(turn)
        if at is None:
            return ""
        text = truncate_utf8(text.strip(), self._most_bytes)
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
        text = truncate_utf8(entry.reply.heard(end), self._most_bytes)
        self._entries[at] = replace(entry, text=text, end=end)
        return text

    def called(self, turn: int, call: ToolCall, after: int | None = None) -> ChatEntry:
        """A turn has called a tool; what comes of it is waited for. ``after`` as in `add`."""
        return self._append(ChatEntry(ChatRole.TOOL, "", turn, call=call), after)

    def awaits(self, call: str) -> bool:
        """Return whether the result of that tool call is awaited."""
        found = [one.returned for one in self._entries if one.call and one.call.id == call]
        return found == [False]

    def knows(self, call: str) -> bool:
        """Return whether the history has a call of that id."""
        return any(one.call is not None and one.call.id == call for one in self._entries)

    def returned(self, call: str, output: str, after: int | None = None) -> ChatEntry | None:
        """Add the result of a tool call; None if it is not awaited. The entry stands where the
        result came, or behind ``after``: models want it directly behind its call, so they are told
        of the call there."""
        if not self.awaits(call):
            return None
        made = next(one for one in self._entries if one.call and one.call.id == call)
        return self._append(replace(made, text=output, returned=True), after)

    def drop(self, number: int) -> None:
        """Remove that entry. With a call goes what came of it."""
        dropped = [one for one in self._entries if one.number == number]
        calls = {one.call.id for one in dropped if one.call and not one.returned}
        kept = (one for one in self._entries if one.number != number)
        self._entries = [one for one in kept if not (one.call and one.call.id in calls)]

    def clear(self) -> None:
        """Clear the history."""
        self._entries.clear()

    def bound(self, most: int, most_bytes: int) -> None:
        """Other bounds from here on."""
        self._most, self._most_bytes = most, most_bytes

    def messages(self, instructions: str = "", said: str = "") -> tuple[ChatMessage, ...]:
        """Return the messages for a language model; ``said`` is the user's latest text.

        Neighbours of one role are one message, because models want roles to alternate. Tool calls
        are included once they have a result, those of one turn together.
        """
        system, user = ChatEntry(ChatRole.SYSTEM, instructions), ChatEntry(ChatRole.USER, said)
        found: list[ChatMessage] = []
        calling = 0
        """The place of the last message with calls."""
        turn = 0
        for entry in (system, *self._entries, user):
            last = found[-1].role if found else None
            if entry.call is not None:
                if not entry.returned:
                    continue
                if last is ChatRole.TOOL and entry.turn == turn:
                    calls = (*found[calling].calls, entry.call)
                elif last is ChatRole.ASSISTANT:
                    calling, calls = len(found) - 1, (entry.call,)
                else:
                    calling, calls = len(found), (entry.call,)
                    found.append(ChatMessage(ChatRole.ASSISTANT, ""))
                turn = entry.turn
                found[calling] = replace(found[calling], calls=calls)
                found.append(ChatMessage(ChatRole.TOOL, entry.text, call=entry.call.id))
            elif entry.text and last is entry.role:
                found[-1] = ChatMessage(entry.role, f"{found[-1].text} {entry.text}")
            elif entry.text:
                found.append(ChatMessage(entry.role, entry.text))
        return tuple(found)

    def _of(self, turn: int) -> int | None:
        places = (at for at, one in enumerate(self._entries) if one.reply and one.turn == turn)
        return next(places, None)

    def _append(self, entry: ChatEntry, after: int | None = None) -> ChatEntry:
        self._count += 1
        text = entry.text if entry.call else entry.text.strip()
        entry = replace(entry, text=text, number=self._count)
        if entry.text or entry.reply is not None or entry.call is not None:
            numbers = [0, *(one.number for one in self._entries)]
            at = numbers.index(after) if after in numbers else len(self._entries)
            over = max(0, len(self._entries) + 1 - self._most)
            del self._entries[:over]  # before: a new one at the beginning is not the one that goes
            self._entries.insert(max(0, at - over), entry)
            while over and self._entries[0].role in _ANSWERS and self._entries[0] is not entry:
                del self._entries[0]  # an answer to a question that is gone
        return entry


def truncate_utf8(text: str, most_bytes: int) -> str:
    """``text`` in at most so many bytes of UTF-8, cut with an ellipsis."""
    raw = text.encode(errors="replace")
    if len(raw) <= most_bytes:
        return text
    kept = raw[: max(0, most_bytes - len(ELLIPSIS.encode()))]
    return kept.decode(errors="ignore").rstrip() + ELLIPSIS
