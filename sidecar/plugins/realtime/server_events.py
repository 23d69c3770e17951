"""Server events, conversation items and user turns of the Realtime API. Pure.

In a transcription, turns and items come in the same order. So a turn that the client ends needs no
number: the first turn without an item gets the first item without a turn. Deltas are never revised.
If a segment's final differs from them, the deltas continue after as many words. ``completed`` has
the authoritative text.

In a conversation, a turn that ends by a pause is reported as it happens. A turn that the client
ends is an item from the commit on, and its transcript follows. A word is sent once two consecutive
partials agree on it, and is never revised. If the final differs, ``completed`` has the
authoritative text.

Times are in milliseconds if a name ends in ``_ms``, else in seconds, on the session's clock.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from sidecar import errors
from sidecar.interfaces import live_events
from sidecar.interfaces.language_tags import language_code
from sidecar.plugins.conversation import conversation_events
from sidecar.plugins.conversation.chat_completions import ChatRole
from sidecar.plugins.openai.common import error_body, speaker_letters
from sidecar.plugins.realtime.errors import CommitEmpty, ItemUnknown
from sidecar.transcripts.transcript import Segment, join_texts
from sidecar.transcripts.word_timing import common_prefix_length, one_line, unsent_text

FIRST = "root"
"""Name of the position before the first item."""
EventBody: TypeAlias = dict[str, Any]
"""Event without its id, or a part of an event."""

MISSING = "A part of this turn was not recognized: words are missing from %.1f s of the audio on."
LEAST_S = 0.1
"""Minimum seconds of audio that a client can commit, as in OpenAI's API."""


def input_event(what: str, **fields: Any) -> EventBody:
    """Return an event of the input audio: ``speech_started``, ``committed``, ``cleared``, …"""
    return {"type": f"input_audio_buffer.{what}", **fields}


def speech_started(item: str, at: float) -> EventBody:
    """Return the event that speech starts ``at`` this second."""
    return input_event("speech_started", audio_start_ms=round(at * 1000), item_id=item)


def speech_stopped(item: str, at: float) -> EventBody:
    """Return the event that speech stops ``at`` this second."""
    return input_event("speech_stopped", audio_end_ms=round(at * 1000), item_id=item)


def transcription_event(what: str, item: str, **fields: Any) -> EventBody:
    """Return an event of a turn's transcript: a ``delta`` (its words are never revised), a
    ``segment`` of one speaker, or the end."""
    name = f"conversation.item.input_audio_transcription.{what}"
    return {"type": name, "item_id": item, "content_index": 0, **fields}


def transcription_completed(
    item: str, text: str, seconds: float, languages: Sequence[str]
) -> EventBody:
    """Return the event of a turn's complete transcript."""
    return transcription_event(
        "completed",
        item,
        transcript=text,
        languages=[{"code": code} for code in languages],
        usage={"type": "duration", "seconds": round(seconds, 3)},
    )


def transcription_failed(item: str, error: errors.SidecarError) -> EventBody:
    """Return the event that the transcription of a turn failed."""
    return transcription_event("failed", item, error=_body(error))


def error_event(error: errors.SidecarError, event_id: str | None = None) -> EventBody:
    """Return the event of an error, with the id of the client's event that caused it."""
    return {"type": "error", "error": {**_body(error), "event_id": event_id}}


def _body(error: errors.SidecarError) -> dict[str, Any]:
    """Return the body of an error as in a response. The delay before a retry is in its message,
    because OpenAI's events have no field for it."""
    body: dict[str, Any] = error_body(error)["error"]
    body["message"] = f"{error.detail} {error.hint_on('docs/openai.md')}"
    if error.retry_after is not None:
        body["message"] += f" Retry after {error.retry_after} s."
    return body


@dataclass(eq=False, slots=True)
class RealtimeDialogueItem:
    """Item of a conversation: a message of ``role``, spoken if ``aloud``, or a tool call.

    ``entry``: its number in the history; ``turn``: the number of its reply; 0 if it has none.
    ``sent_s``: seconds of a reply's audio that were sent. ``status``: as clients read it.
    ``index``: its position in its response. ``shown``: the words that were sent while they were
    recognized. ``previous``: the id of the item before it, since it was added. ``settled``:
    the transcript of a user's turn, or its failure, was sent.

    With a ``call`` it is that call of the tool ``name``, and ``text`` has the arguments. If it was
    ``returned``, it is the output of that call.
    """

    id: str
    role: ChatRole
    aloud: bool = False
    text: str = ""
    status: str = "completed"
    entry: int = 0
    turn: int = 0
    sent_s: float = 0.0
    index: int = 0
    call: str = ""
    name: str = ""
    returned: bool = False
    shown: str = ""
    previous: str | None = None
    settled: bool = False

    @property
    def content(self) -> EventBody:
        """Return its content part."""
        direction = "output" if self.role is ChatRole.ASSISTANT else "input"
        if self.aloud:
            unknown = None if self.role is ChatRole.USER else ""
            return {"type": f"{direction}_audio", "transcript": self.text or unknown}
        return {"type": f"{direction}_text", "text": self.text}

    @property
    def text_output(self) -> str:
        """Return the name of its text events, below `response`."""
        return f"output_{'audio_transcript' if self.aloud else 'text'}"

    def view(self, *, empty: bool = False) -> EventBody:
        """Return the item as clients read it; ``empty``: without its content."""
        view = {"id": self.id, "object": "realtime.item", "status": self.status}
        if self.returned:
            kind = "function_call_output"
            return view | {"type": kind, "call_id": self.call, "output": self.text}
        if self.call:
            return view | {
                "type": "function_call",
                "call_id": self.call,
                "name": self.name,
                "arguments": "" if empty else self.text,
            }
        content = [] if empty else [self.content]
        return view | {"type": "message", "role": self.role.value, "content": content}


class RealtimeDialogueItems:
    """Items of one conversation; ``prefix`` starts the ids that the service assigns. Beyond
    ``most`` (0: none is kept; else 2 or more) the oldest is dropped, but not a system message at
    the beginning."""

    def __init__(self, prefix: str, most: int) -> None:
        self.prefix, self._most = prefix, most
        self._count = 0
        self._all: dict[str, RealtimeDialogueItem] = {}
        self.last: str | None = None

    def new_id(self) -> str:
        """Return an unused id."""
        self._count += 1
        return f"item_{self.prefix}_{self._count - 1}"

    def add(self, item: RealtimeDialogueItem, after: str = "") -> str | None:
        """Add an item after ``after``, or first (`FIRST`), or last if ``after`` is unknown; return
        the id of the item before it."""
        all = list(self._all.values())
        at = [FIRST, *self._all].index(after) if after in (FIRST, *self._all) else len(all)
        item.previous = self.last if at == len(all) else all[at - 1].id if at else None
        if at == len(all):
            self.last = item.id
        kept = [item, *(one for one in all[:1] if one.role is ChatRole.SYSTEM)]
        all.insert(at, item)
        if len(all) > self._most:
            all.remove(next((one for one in all if one not in kept), item))
        self._all = {one.id: one for one in all}
        return item.previous

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def find(self, name: str) -> RealtimeDialogueItem:
        """Return the item of an id.

        Raises:
            ItemUnknown: there is none.
        """
        if name not in self._all:
            raise ItemUnknown(f"The conversation has no item '{name}'.")
        return self._all[name]

    def reply(self, turn: int) -> RealtimeDialogueItem | None:
        """Return the reply of a turn."""
        return next((item for item in self._all.values() if item.turn == turn), None)

    def drop(self, item: RealtimeDialogueItem) -> None:
        """Remove an item."""
        self._all.pop(item.id, None)
        if self.last == item.id:
            self.last = next(reversed(self._all), None)


def item_event(what: str, item: RealtimeDialogueItem, *, empty: bool = False) -> EventBody:
    """Return the event that an item is ``added`` to the conversation or ``done``; ``created`` in
    the beta."""
    view = item.view(empty=empty)
    return {"type": f"conversation.item.{what}", "previous_item_id": item.previous, "item": view}


class RealtimeUserTurns:
    """User turns of one session. ``detects``: pauses end turns; ``transcribes``: transcripts are
    sent. Both may change."""

    item_events: tuple[str, ...] = ("added", "done")

    def __init__(self, items: RealtimeDialogueItems) -> None:
        self.detects = self.transcribes = True
        self._items = items
        self._turn_start_s = 0.0

    def clear(self, received_s: float) -> None:
        """Discard the audio up to ``received_s``."""
        self._turn_start_s = received_s

    def _end_turn(self, received_s: float) -> float:
        """End the turn at ``received_s`` seconds of audio; return the second at which it began.

        Raises:
            CommitEmpty: it is too short.
        """
        if received_s - self._turn_start_s < LEAST_S:
            raise CommitEmpty()
        began, self._turn_start_s = self._turn_start_s, received_s
        return began

    def _commit(self, item: RealtimeDialogueItem) -> Iterator[EventBody]:
        previous = self._items.add(item)
        yield input_event("committed", previous_item_id=previous, item_id=item.id)
        for what in self.item_events:
            yield item_event(what, item)

    def _show(self, item: RealtimeDialogueItem, text: str) -> Iterator[EventBody]:
        """Yield the words of ``text`` that were not sent, if it continues the sent ones."""
        if self.transcribes and text.startswith(item.shown) and (more := text[len(item.shown) :]):
            item.shown = text
            yield transcription_event("delta", item.id, delta=more)


@dataclass(eq=False, slots=True)
class RealtimeTranscriptionItem(RealtimeDialogueItem):
    """Turn of a transcription as the client knows it. ``number``: the turn number of its
    utterances; ``before``: the deltas of its finished segments; ``finals``: the text of those, the
    last of which ends at ``end``."""

    number: int | None = None
    committed: bool = False
    before: str = ""
    finals: str = ""
    end: float = 0.0
    shed: bool = False
    """True if it was not recognized because of overload."""
    languages: list[str] = field(default_factory=list)


class RealtimeTranscriptionTurns(RealtimeUserTurns):
    """Turns of a transcription session; ``prefix`` starts their ids. ``diarizes``: speaker labels
    are sent; this may change."""

    def __init__(self, prefix: str, *, beta: bool = False) -> None:
        super().__init__(RealtimeDialogueItems(prefix, most=0))
        self.diarizes = False
        if beta:
            self.item_events = ("created",)
        self._open: list[RealtimeTranscriptionItem] = []
        self._missing_from_s: float | None = None
        """Where audio of the turn begins that could not be recognized."""
        self._segments: dict[int, tuple[str, Segment]] = {}
        self._names: dict[int, str | None] = {}
        """Names of enrolled speakers, by speaker number."""

    def commit(self, received_s: float) -> Iterator[EventBody]:
        """End the user's turn at ``received_s`` seconds of audio.

        Raises:
            CommitEmpty: it is too short.
        """
        self._end_turn(received_s)
        item = next((one for one in self._open if not one.committed), None)
        return self._ends(item or self._new())

    def events_of(self, event: live_events.LiveEvent) -> Iterator[EventBody]:
        """Yield the server events of a live event."""
        match event:
            case live_events.SpeechStarted(turn, at):
                item = self._of(turn)
                if self.detects:
                    yield speech_started(item.id, at)
            case live_events.SpeechStopped(turn, at) if self.detects:
                yield from self._stopped(self._of(turn), at)
            case live_events.Partial(turn, stable=stable):
                item = self._of(turn)
                yield from self._show(item, join_texts([item.before, stable]))
            case live_events.Final():
                yield from self._final(event)
            case live_events.TurnEnded():
                yield from self._ended(event)
            case live_events.TurnDropped(turn):
                self._open = [one for one in self._open if one.number != turn]
                yield input_event("cleared")
            case live_events.SpeakersRevised():
                yield from self._revised(event)
            case live_events.NoticeRaised(notice, turn) if (
                notice.code == live_events.UTTERANCE_DROPPED and turn is not None
            ):
                self._of(turn).shed = True
            case live_events.NoticeRaised(missing_from=at) if self._missing_from_s is None:
                self._missing_from_s = at

    def fail_committed(self, error: errors.SidecarError) -> Iterator[EventBody]:
        """Report committed turns as failed, because no more results come."""
        for item in self._open:
            if item.committed:
                yield transcription_failed(item.id, error)
        self._open.clear()

    def _new(self, number: int | None = None) -> RealtimeTranscriptionItem:
        item = RealtimeTranscriptionItem(
            self._items.new_id(), ChatRole.USER, aloud=True, number=number
        )
        self._open.append(item)
        return item

    def _of(self, turn: int) -> RealtimeTranscriptionItem:
        """Return the item of a turn; a new turn gets the first item without a number, or a new
        item."""
        for item in self._open:
            if item.number in (turn, None):
                item.number = turn
                return item
        return self._new(turn)

    def _ends(self, item: RealtimeTranscriptionItem) -> Iterator[EventBody]:
        item.committed = True
        yield from self._commit(item)

    def _stopped(self, item: RealtimeTranscriptionItem, at: float) -> Iterator[EventBody]:
        self._turn_start_s = max(self._turn_start_s, at)
        yield speech_stopped(item.id, at)
        if not item.committed:
            yield from self._ends(item)

    def _final(self, final: live_events.Final) -> Iterator[EventBody]:
        item, text = self._of(final.turn), final.segment.text
        code = language_code(final.language)
        if code is not None and code not in item.languages:
            item.languages.append(code)
        # What was shown of a divided segment may have words of its second part, which begins there.
        goes_on = final.segment.start == item.end and item.shown.startswith(item.finals)
        before = item.finals if goes_on else item.before
        item.finals = full_text = join_texts([before, text])
        if not full_text.startswith(item.shown) and not item.shown.startswith(full_text):
            shown = item.shown.removeprefix(before).strip()
            full_text = f"{item.shown}{unsent_text(one_line(text), shown)}"
        yield from self._show(item, full_text)
        item.before, item.end = item.shown, final.segment.end
        if self.diarizes:
            self._segments[final.segment_number] = item.id, final.segment
            if final.segment.speaker is not None:
                self._names[final.segment.speaker] = final.name
                yield self._segment(final.segment_number, final.segment.speaker)

    def _ended(self, ended: live_events.TurnEnded) -> Iterator[EventBody]:
        item = self._of(ended.turn)
        if not item.committed:
            self._turn_start_s = max(self._turn_start_s, ended.end)
            yield from self._ends(item)
        self._open.remove(item)
        missing_from_s, self._missing_from_s = self._missing_from_s, None
        if item.shed:
            yield transcription_failed(item.id, errors.UtteranceDropped())
        elif missing_from_s is not None and not ended.text:
            yield transcription_failed(item.id, errors.EngineFailed())
        else:
            seconds = ended.end - ended.start
            yield transcription_completed(item.id, ended.text, seconds, item.languages)
            if missing_from_s is not None:  # behind its words, for clients that wait for either
                yield transcription_failed(item.id, errors.EngineFailed(MISSING % missing_from_s))

    def _revised(self, revised: live_events.SpeakersRevised) -> Iterator[EventBody]:
        """Yield the segments whose speaker changed, or whose speaker was identified."""
        self._names |= revised.names
        for segment_number, (_, segment) in list(self._segments.items()):
            speaker = revised.speakers.get(segment_number, segment.speaker)
            if speaker is not None and (
                segment_number in revised.speakers or speaker in revised.names
            ):
                yield self._segment(segment_number, speaker)

    def _segment(self, segment_number: int, speaker: int) -> EventBody:
        item, segment = self._segments[segment_number]
        segment = replace(segment, speaker=speaker)
        self._segments[segment_number] = item, segment
        number = f"seg_{self._items.prefix}_{segment_number}"
        return transcription_event(
            "segment",
            item,
            id=number,
            text=segment.text,
            speaker=self._names.get(speaker) or speaker_letters(speaker),
            start=round(segment.start, 3),
            end=round(segment.end, 3),
        )


class RealtimeConversationTurns(RealtimeUserTurns):
    """Turns of the user in a conversation. ``span`` returns the start and end of an utterance in
    the audio."""

    def __init__(
        self, items: RealtimeDialogueItems, span: Callable[[int], tuple[float, float]]
    ) -> None:
        super().__init__(items)
        self._span = span
        self._now: RealtimeDialogueItem | None = None
        self._committed: deque[RealtimeDialogueItem] = deque()
        self._last = ""
        self._start = self._end = 0.0
        self._utterance = 0

    def commit(self, received_s: float) -> Iterator[EventBody]:
        """End the user's turn at ``received_s`` seconds of audio.

        Raises:
            CommitEmpty: it is too short.
        """
        self._start, self._end = self._end_turn(received_s), received_s
        item = self._now
        if item is None or item.id in self._items or item in self._committed or item.settled:
            item = self._new()  # that one has its commit, although the client may have deleted it
        self._committed.append(item)
        return self._commit(item)

    def events_of(self, output: conversation_events.ConversationOutput) -> Iterator[EventBody]:
        """Yield the server events of an output, if it is about the user."""
        match output:
            case conversation_events.UserTurnStarted():
                yield from self._started(output.utterance)
            case conversation_events.UserTurnPartial() if self._now is not None:
                yield from self._partial(self._now, output.text)
            case conversation_events.UserTurnStopped() if self._now is not None:
                yield from self._stopped(self._now, output.utterance)
                if output.failure is not None:
                    yield from self._fail_current(output.failure)
            case conversation_events.UserTurnFinal(backchannel=(began, ended)):
                yield from self._complete(self._new(), output.text, output.entry, ended - began)
            case conversation_events.UserTurnFinal():
                yield from self._complete(self._now or self._new(), output.text, output.entry)
                self._now = None
            case conversation_events.UserTurnDropped():
                if self._now is not None and self._now.id not in self._items and self.detects:
                    yield speech_stopped(self._now.id, self._span(self._utterance)[1])
                self._now, self._last = None, ""

    def commit_recognized(self) -> Iterator[EventBody]:
        """Record that the oldest commit was recognized to its end."""
        if self._committed and not (item := self._committed.popleft()).settled:
            yield from self._complete(item, "", 0)

    def _fail_current(self, error: errors.SidecarError) -> Iterator[EventBody]:
        """Report the failure of the current turn, whose words do not come."""
        item, self._now = self._now, None
        if item is not None and item.id in self._items and self.transcribes:
            item.settled = True
            yield transcription_failed(item.id, error)

    def _new(self) -> RealtimeDialogueItem:
        return RealtimeDialogueItem(self._items.new_id(), ChatRole.USER, aloud=True)

    def _started(self, utterance: int) -> Iterator[EventBody]:
        self._utterance = utterance
        waiting = next((item for item in self._committed if not item.settled), None)
        self._now = waiting or self._new()
        self._now.shown = self._last = ""
        if self.detects and waiting is None:
            self._start = self._span(utterance)[0]
            yield speech_started(self._now.id, self._start)

    def _stopped(self, item: RealtimeDialogueItem, utterance: int) -> Iterator[EventBody]:
        if item.id in self._items:
            return
        self._end = self._span(utterance)[1]
        self._turn_start_s = max(self._turn_start_s, self._end)
        if self.detects:
            yield speech_stopped(item.id, self._end)
        yield from self._commit(item)

    def _partial(self, item: RealtimeDialogueItem, text: str) -> Iterator[EventBody]:
        """Yield the words on which this partial and the one before agree."""
        now, before = text.split(), self._last.split()
        self._last = text
        if self.detects or item.id in self._items:
            yield from self._show(item, " ".join(now[: common_prefix_length(now, before)]))

    def _complete(
        self, item: RealtimeDialogueItem, text: str, entry: int, seconds: float | None = None
    ) -> Iterator[EventBody]:
        """Yield the complete transcript. Its duration is ``seconds``, or the recorded one."""
        if item.id not in self._items:  # it was not committed, but is in the history
            yield from self._commit(item)
        item.text, item.entry, item.settled = text, entry, True
        yield from self._show(item, text)
        if self.transcribes:
            seconds = self._end - self._start if seconds is None else seconds
            yield transcription_completed(item.id, text, max(0.0, seconds), ())
        item.shown = self._last = ""
