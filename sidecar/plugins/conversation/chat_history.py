"""Chat history of a conversation, as messages for the LLM, and what was heard of a reply. Pure.

A reply is a sequence of phrases. Each is shown as it was written. It is synthesized, or silent
(code, a table's rule). How much was heard is a position in the reply's audio, in seconds; the words
are known from the audio's marks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from sidecar.interfaces.engine_interface import SynthesizedAudio, WordMark
from sidecar.interfaces.tts_text import TtsPhrase
from sidecar.plugins.conversation.chat_completions import ChatMessage, ChatRole, ToolCall
from sidecar.transcripts.word_timing import split_atoms, spread_over_time, text_columns

DEFAULT_CHARACTERS_PER_S = 15.0
"""Speed of speech in text columns per second if too little audio is known to measure it."""
ECHOED_BEFORE_S, ECHOED_AFTER_S = 6.0, 1.0
"""Seconds before and after the playback position within which a phrase may be heard as an echo."""
ELLIPSIS = "…"
_SLACK_S = 0.005
_ANSWERS = (ChatRole.ASSISTANT, ChatRole.TOOL)


@dataclass(slots=True)
class ReplyPart:
    """Phrase and its audio so far: ``seconds``, from position ``start`` of the reply's audio on.
    ``whole``: no more audio comes. ``broken``: it ended before the end of the text."""

    phrase: TtsPhrase
    start: float | None = None
    seconds: float = 0.0
    whole: bool = False
    marks: list[WordMark] = field(default_factory=list)
    silent: bool = False
    broken: bool = False

    @property
    def awaits_audio(self) -> bool:
        """Return whether more audio is to come."""
        return not (self.silent or self.whole)

    def heard_characters(self, until: float) -> int:
        """Return how many characters were heard once its audio had played to ``until``: up to the
        last word of which half was played."""
        count = 0
        for end, begins, ends in self._words():
            if (begins + ends) / 2 > until + _SLACK_S:
                break
            count = end
        return count

    def _words(self) -> Iterator[tuple[int, float, float]]:
        """Yield the end of each word in the text, and its start and end in the audio."""
        text = self.phrase.text
        if not self.marks:
            words, end = split_atoms(text), 0
            times = spread_over_time(words, 0.0, self._lasts())
            for word, (begins, ends) in zip(words, times, strict=True):
                end += len(word)
                yield end, begins, ends
            return
        for mark, after in zip(self.marks, [*self.marks[1:], None], strict=True):
            if after is not None:
                yield after.character, mark.start, after.start
                continue
            rest = text[mark.character :]
            known = len(rest) if self.whole and not self.broken else len(split_atoms(rest)[0])
            yield mark.character + known, mark.start, self._lasts(mark)

    def _lasts(self, last_mark: WordMark | None = None) -> float:
        """Return the duration of its audio, estimated while it is incomplete. With
        ``last_mark`` the estimate reaches to the end of that word, the last that has a mark."""
        if self.whole and not self.broken:
            return self.seconds
        text, start = self.phrase.text, 0.0
        if last_mark is not None:
            text, start = split_atoms(text[last_mark.character :])[0], last_mark.start
        return max(self.seconds, start + text_columns(text.rstrip()) / DEFAULT_CHARACTERS_PER_S)


class ReplyText:
    """Text and audio of one reply as it grows."""

    def __init__(self) -> None:
        self.parts: list[ReplyPart] = []
        self.made_s = 0.0
        """Seconds of audio so far."""
        self.limited = False
        """The reply was cut: more was to come."""

    def add(self, phrase: TtsPhrase, *, silent: bool) -> None:
        """Add a phrase; ``silent`` if it is not synthesized."""
        self.parts.append(ReplyPart(phrase, silent=silent or not phrase.text))

    def sounded(self, number: int, audio: SynthesizedAudio) -> None:
        """Add audio of phrase ``number``."""
        part = self.parts[number]
        if part.start is None:
            part.start = self.made_s
        part.seconds += audio.seconds
        last = len(part.phrase.text.rstrip())
        part.marks += [mark for mark in audio.marks if mark.character < last]  # espeak: "1½"
        self.made_s += audio.seconds

    def end_audio(self, number: int) -> None:
        """Record that there is no more audio of phrase ``number``."""
        self.parts[number].whole = True

    def mute(self) -> None:
        """Mark that no more audio comes for any phrase."""
        for part in self.parts:
            part.silent = part.silent or part.start is None
            part.broken = part.broken or not part.whole
            part.whole = True

    def limit(self, number: int) -> None:
        """End the reply within phrase ``number``: drop all that was to come after its audio so
        far."""
        self.limited = True
        del self.parts[number if self.parts[number].start is None else number + 1 :]
        for part in self.parts[number:]:
            part.whole = part.broken = True

    def heard_text(self, seconds: float) -> str:
        """Return the text that was heard after ``seconds`` of its audio: cut at a word, with an
        ellipsis there. Text without audio counts with the text before it."""
        text = ""
        for at, part in enumerate(self.parts):
            if part.silent:
                text += part.phrase.shown
                continue
            until = seconds - part.start if part.start is not None else 0.0
            count = part.heard_characters(until) if part.start is not None and until > 0 else 0
            ends = part.whole and not (self.limited and part.broken)
            if ends and until >= part.seconds - _SLACK_S:
                text += part.phrase.shown
                continue
            text += _shown_text(part.phrase, count)
            last = ends and count == len(part.phrase.text)
            later = any(one.phrase.shown.strip() for one in self.parts[at + last :])
            return _cut_text(text) if later else text.strip()
        return _cut_text(text) if self.limited else text.strip()

    def around(self, seconds: float) -> str:
        """Return the phrases that may be heard as an echo at that position of the audio."""
        near = (
            part.phrase.text
            for part in self.parts
            if part.start is not None
            and part.start <= seconds + ECHOED_AFTER_S
            and part.start + part.seconds >= seconds - ECHOED_BEFORE_S
        )
        return " ".join(near)


def _shown_text(phrase: TtsPhrase, characters: int) -> str:
    """Return the displayed text up to the end of the first ``characters`` of the spoken text. The
    two differ only by markup, so the words are searched one after the other."""
    at = 0
    for word in phrase.text[:characters].split():
        bare = re.search(r"\w(?:.*\w)?", word)
        for form in (word, *([bare[0]] if bare else [])):
            index = phrase.shown.find(form, at)
            if index >= 0:
                at = index + len(form)
                break
    return phrase.shown[:at]


def _cut_text(text: str) -> str:
    text = text.strip().rstrip(",;:、，；：-–— ")
    if not text:
        return ""
    if text.endswith(ELLIPSIS):
        return text
    return f"{text} {ELLIPSIS}" if text[-1] in ".!?。！？؟।" else f"{text}{ELLIPSIS}"


@dataclass(frozen=True, slots=True)
class ChatEntry:
    """Message with its ``number``.

    A reply has its ``turn`` and its ``reply`` text with timing, so that it can be truncated again;
    ``end`` is the playback position in seconds at which its client ended it. A tool's entry is a
    ``call``, or the result of one (``returned``).
    """

    role: ChatRole
    text: str
    turn: int = 0
    reply: ReplyText | None = None
    number: int = 0
    end: float = float("inf")
    call: ToolCall | None = None
    returned: bool = False


class ChatHistory:
    """Messages in order, at most ``most`` (2 or more). The oldest are dropped, but not a system
    message at the beginning; a reply has at most ``most_bytes`` bytes."""

    def __init__(self, most: int = 40, most_bytes: int = 4096) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._entries: list[ChatEntry] = []
        self._count = 0

    @property
    def entries(self) -> tuple[ChatEntry, ...]:
        """Return the entries that have text."""
        return tuple(entry for entry in self._entries if entry.text)

    def add(self, role: ChatRole, text: str, after: int | None = None) -> ChatEntry:
        """Add a message after the entry ``after``; return its entry. 0 is the beginning; `None` or
        an unknown number is the end."""
        return self._append(ChatEntry(role, text), after)

    def begin(self, turn: int, reply: ReplyText) -> ChatEntry:
        """Add an empty entry for a reply that begins; return it."""
        return self._append(ChatEntry(ChatRole.ASSISTANT, "", turn, reply))

    def replied(self, turn: int, text: str) -> str:
        """Set the heard text of a reply, unless its entry was dropped; return it as it is
        stored."""
        at = self._of(turn)
        text = truncate_utf8(text.strip(), self._most_bytes)
        if at is not None:
            self._entries[at] = replace(self._entries[at], text=text)
        return text

    def made_s(self, turn: int) -> float:
        """Return the seconds of audio of a reply; infinity if the turn is not known (any more)."""
        at = self._of(turn)
        reply = None if at is None else self._entries[at].reply
        return float("inf") if reply is None else reply.made_s

    def truncate(self, turn: int, seconds: float) -> str | None:
        """Truncate a reply at the playback position that its client reports; return its new text.

        The report counts for more than the service's clock. A later report of more seconds does not
        restore text. Return `None` if the turn is not known (any more).
        """
        at = self._of(turn)
        if at is None:
            return None
        entry = self._entries[at]
        assert entry.reply is not None
        end = min(entry.end, seconds)
        text = truncate_utf8(entry.reply.heard_text(end), self._most_bytes)
        self._entries[at] = replace(entry, text=text, end=end)
        return text

    def add_call(self, turn: int, call: ToolCall, after: int | None = None) -> ChatEntry:
        """Add a tool call of a turn; its result is awaited. ``after`` as in `add`."""
        return self._append(ChatEntry(ChatRole.TOOL, "", turn, call=call), after)

    def awaits(self, call: str) -> bool:
        """Return whether the result of that tool call is awaited."""
        found = [one.returned for one in self._entries if one.call and one.call.id == call]
        return found == [False]

    def knows(self, call: str) -> bool:
        """Return whether the history has a call of that id."""
        return any(one.call is not None and one.call.id == call for one in self._entries)

    def add_result(self, call: str, output: str, after: int | None = None) -> ChatEntry | None:
        """Add the result of a tool call; return its entry, or `None` if the result is not awaited.

        The entry is added at the end, or after ``after``. Models expect a result directly behind
        its call, so `messages` puts the call there, too.
        """
        if not self.awaits(call):
            return None
        made = next(one for one in self._entries if one.call and one.call.id == call)
        return self._append(replace(made, text=output, returned=True), after)

    def delete(self, number: int) -> None:
        """Remove the entry. The result of a removed call is removed with it."""
        dropped = [one for one in self._entries if one.number == number]
        calls = {one.call.id for one in dropped if one.call and not one.returned}
        kept = (one for one in self._entries if one.number != number)
        self._entries = [one for one in kept if not (one.call and one.call.id in calls)]

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()

    def messages(self, instructions: str = "", user_text: str = "") -> tuple[ChatMessage, ...]:
        """Return the messages for a language model; ``user_text`` is the user's latest text.

        Adjacent messages of one role are merged, because models expect roles to alternate. A tool
        call is included once it has a result; the calls of one turn are grouped.
        """
        system, user = ChatEntry(ChatRole.SYSTEM, instructions), ChatEntry(ChatRole.USER, user_text)
        messages: list[ChatMessage] = []
        calling = 0
        """Index of the last message with calls."""
        turn = 0
        for entry in (system, *self._entries, user):
            last = messages[-1].role if messages else None
            if entry.call is not None:
                if not entry.returned:
                    continue
                if last is ChatRole.TOOL and entry.turn == turn:
                    calls = (*messages[calling].calls, entry.call)
                elif last is ChatRole.ASSISTANT:
                    calling, calls = len(messages) - 1, (entry.call,)
                else:
                    calling, calls = len(messages), (entry.call,)
                    messages.append(ChatMessage(ChatRole.ASSISTANT, ""))
                turn = entry.turn
                messages[calling] = replace(messages[calling], calls=calls)
                messages.append(ChatMessage(ChatRole.TOOL, entry.text, call=entry.call.id))
            elif entry.text and last is entry.role:
                messages[-1] = ChatMessage(entry.role, f"{messages[-1].text} {entry.text}")
            elif entry.text:
                messages.append(ChatMessage(entry.role, entry.text))
        return tuple(messages)

    def _of(self, turn: int) -> int | None:
        indices = (at for at, one in enumerate(self._entries) if one.reply and one.turn == turn)
        return next(indices, None)

    def _append(self, entry: ChatEntry, after: int | None = None) -> ChatEntry:
        self._count += 1
        text = entry.text if entry.call else entry.text.strip()
        entry = replace(entry, text=text, number=self._count)
        if entry.text or entry.reply is not None or entry.call is not None:
            numbers = [0, *(one.number for one in self._entries)]
            at = numbers.index(after) if after in numbers else len(self._entries)
            kept = int([one.role for one in self._entries[:1]] == [ChatRole.SYSTEM])
            over = max(0, len(self._entries) + 1 - self._most)
            del self._entries[kept : kept + over]  # first: an entry inserted at the beginning stays
            self._entries.insert(max(min(at, kept), at - over), entry)
            while over and (old := self._entries[kept]) is not entry and old.role in _ANSWERS:
                del self._entries[kept]  # an answer whose question was dropped
        return entry


def truncate_utf8(text: str, most_bytes: int) -> str:
    """Return ``text`` in at most ``most_bytes`` bytes of UTF-8, cut with an ellipsis."""
    raw = text.encode(errors="replace")
    if len(raw) <= most_bytes:
        return text
    kept = raw[: max(0, most_bytes - len(ELLIPSIS.encode()))]
    return kept.decode(errors="ignore").rstrip() + ELLIPSIS
