"""Turns of a user as items of a session that transcribes, and of a conversation. Pure.

In a transcription turns and items come in the same order, so nobody has to know the number of a
turn that a client ends before an engine has heard of it: the first turn without an item has the
first item without a turn. What was written in deltas stays; where the end of a piece reads
otherwise, the deltas go on behind as many words, and ``completed`` has the text that counts.

In a conversation a turn that a pause ends is told as it goes; one that its client ends is an item
from the commit on, and what was said is told behind that. Words are told as soon as two looks agree
on them, and none of these is taken back: where it reads otherwise in the end, ``completed`` has
what counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from sidecar import errors
from sidecar.conversation import output_queue
from sidecar.conversation.chat_completions import ChatRole
from sidecar.interfaces import live_events
from sidecar.protocols.openai_common import language_code, speaker_letters
from sidecar.protocols.openai_realtime import server_events
from sidecar.protocols.openai_realtime.server_events import (
    EventBody,
    RealtimeDialogueItem,
    RealtimeDialogueItems,
)
from sidecar.transcripts.transcript import Segment, join_texts

LEAST_S = 0.1
"""Seconds of sound that a client can commit, as at OpenAI's."""


class RealtimeUserTurns:
    """User turns of one session. ``detects``: whether pauses end turns; ``transcribes``: whether
    words are told. Both may change."""

    item_events: tuple[str, ...] = ("added", "done")

    def __init__(self, items: RealtimeDialogueItems) -> None:
        self.detects = self.transcribes = True
        self._items = items
        self._taken = 0.0

    def clear(self, received_s: float) -> None:
        """Drop the audio up to here."""
        self._taken = received_s

    def _take(self, received_s: float) -> float:
        """Return where the turn began that its client ends behind so many seconds of sound.

        Raises:
            errors.CommitEmpty: there is nothing in it.
        """
        if received_s - self._taken < LEAST_S:
            raise errors.CommitEmpty()
        began, self._taken = self._taken, received_s
        return began

    def _commit(self, item: RealtimeDialogueItem) -> Iterator[EventBody]:
        before = self._items.add(item)
        yield server_events.input_event("committed", previous_item_id=before, item_id=item.id)
        for what in self.item_events:
            yield server_events.item_event(what, item, before)

    def _show(self, item: RealtimeDialogueItem, text: str) -> Iterator[EventBody]:
        """The words of ``text`` that were not shown, if it goes on from what was."""
        if self.transcribes and text.startswith(item.shown) and (more := text[len(item.shown) :]):
            item.shown = text
            yield server_events.transcription_event("delta", item.id, delta=more)


@dataclass(eq=False, slots=True)
class RealtimeTranscriptionTurn(RealtimeDialogueItem):
    """Turn of a transcription, as it was sent so far; ``number`` is that of its utterances,
    ``before`` are the deltas of the segments that have ended."""

    number: int | None = None
    committed: bool = False
    before: str = ""
    shed: bool = False
    """It got no words: too many speak."""
    languages: list[str] = field(default_factory=list)


class RealtimeTranscriptionTurns(RealtimeUserTurns):
    """Turns of a session that transcribes; ``prefix`` begins their ids. ``diarizes``: whether it
    is told who speaks, which may change."""

    def __init__(self, prefix: str, *, beta: bool = False) -> None:
        super().__init__(RealtimeDialogueItems(prefix, most=0))
        self.diarizes = False
        if beta:
            self.item_events = ("created",)
        self._open: list[RealtimeTranscriptionTurn] = []
        self._failed = False
        self._segments: dict[int, tuple[str, Segment]] = {}
        self._names: dict[int, str | None] = {}
        """Names of speakers, by number, of the enrolled ones."""

    def commit(self, received_s: float) -> Iterator[EventBody]:
        """The client ends its turn behind so many seconds of sound.

        Raises:
            errors.CommitEmpty: there is nothing in it.
        """
        self._take(received_s)
        item = next((one for one in self._open if not one.committed), None)
        return self._ends(item or self._new())

    def events_of(self, event: live_events.LiveEvent) -> Iterator[EventBody]:
        """Yield the server events of a live event."""
        match event:
            case live_events.SpeechStarted(turn, at):
                item = self._of(turn)
                if self.detects:
                    yield server_events.speech_started(item.id, at)
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
                yield server_events.input_event("cleared")
            case live_events.SpeakersRevised():
                yield from self._revised(event)
            case live_events.NoticeRaised(notice, turn) if (
                notice.code == live_events.UTTERANCE_DROPPED and turn is not None
            ):
                self._of(turn).shed = True
            case live_events.NoticeRaised(notice):
                self._failed = self._failed or notice.code == live_events.RECOGNITION_FAILED

    def give_up(self, error: errors.SidecarError) -> Iterator[EventBody]:
        """Give up waiting for more."""
        for item in self._open:
            if item.committed:
                yield server_events.transcription_failed(item.id, error)
        self._open.clear()

    def _new(self, number: int | None = None) -> RealtimeTranscriptionTurn:
        item = RealtimeTranscriptionTurn(
            self._items.new_id(), ChatRole.USER, aloud=True, number=number
        )
        self._open.append(item)
        return item

    def _of(self, turn: int) -> RealtimeTranscriptionTurn:
        """The item of a turn, the next one if nobody knows it yet."""
        for item in self._open:
            if item.number in (turn, None):
                item.number = turn
                return item
        return self._new(turn)

    def _ends(self, item: RealtimeTranscriptionTurn) -> Iterator[EventBody]:
        item.committed = True
        yield from self._commit(item)

    def _stopped(self, item: RealtimeTranscriptionTurn, at: float) -> Iterator[EventBody]:
        self._taken = max(self._taken, at)
        yield server_events.speech_stopped(item.id, at)
        if not item.committed:
            yield from self._ends(item)

    def _final(self, final: live_events.Final) -> Iterator[EventBody]:
        item, text = self._of(final.turn), final.segment.text
        code = language_code(final.language)
        if code is not None and code not in item.languages:
            item.languages.append(code)
        whole = join_texts([item.before, text])
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

    def _ended(self, ended: live_events.TurnEnded) -> Iterator[EventBody]:
        item = self._of(ended.turn)
        if not item.committed:
            self._taken = max(self._taken, ended.end)
            yield from self._ends(item)
        self._open.remove(item)
        if item.shed:
            yield server_events.transcription_failed(item.id, errors.UtteranceDropped())
        elif self._failed and not ended.text:
            yield server_events.transcription_failed(item.id, errors.EngineFailed())
        else:
            seconds = ended.end - ended.start
            yield server_events.transcription_completed(
                item.id, ended.text, seconds, item.languages
            )
        self._failed = False

    def _revised(self, event: live_events.SpeakersRevised) -> Iterator[EventBody]:
        """Pieces that are somebody else's, or whose speaker turned out to be somebody."""
        self._names |= event.names
        for piece, (_, segment) in list(self._segments.items()):
            speaker = event.speakers.get(piece, segment.speaker)
            if speaker is not None and (piece in event.speakers or speaker in event.names):
                yield self._segment(piece, speaker)

    def _segment(self, piece: int, speaker: int) -> EventBody:
        item, segment = self._segments[piece]
        segment = replace(segment, speaker=speaker)
        self._segments[piece] = item, segment
        number = f"seg_{self._items.prefix}_{piece}"
        return server_events.transcription_event(
            "segment",
            item,
            id=number,
            text=segment.text,
            speaker=self._names.get(speaker) or speaker_letters(speaker),
            start=round(segment.start, 3),
            end=round(segment.end, 3),
        )


class RealtimeConversationTurns(RealtimeUserTurns):
    """Turns of the user of a conversation. ``span`` tells where an utterance lies in the sound."""

    def __init__(
        self, items: RealtimeDialogueItems, span: Callable[[int], tuple[float, float]]
    ) -> None:
        super().__init__(items)
        self._span = span
        self._now: RealtimeDialogueItem | None = None
        self._committed: deque[RealtimeDialogueItem] = deque()
        self._said: set[str] = set()
        self._last = ""
        self._start = self._end = 0.0
        self._utterance = 0

    def commit(self, received_s: float) -> Iterator[EventBody]:
        """The client ends its turn behind so many seconds of sound.

        Raises:
            errors.CommitEmpty: there is nothing in it.
        """
        self._start, self._end = self._take(received_s), received_s
        item = self._now
        if item is None or item.id in self._items:
            item = self._new()
        self._committed.append(item)
        return self._commit(item)

    def events_of(self, told: output_queue.ConversationClientEvent) -> Iterator[EventBody]:
        """Yield the server events of an output."""
        match told:
            case output_queue.UserTurnStarted():
                yield from self._started(told.utterance)
            case output_queue.UserTurnPartial() if self._now is not None:
                yield from self._saying(self._now, told.text)
            case output_queue.UserTurnStopped() if self._now is not None:
                yield from self._stopped(self._now, told.utterance)
            case output_queue.UserTurnFinal(backchannel=(began, ended)):
                yield from self._complete(self._new(), told.text, told.entry, ended - began)
            case output_queue.UserTurnFinal():
                yield from self._complete(self._now or self._new(), told.text, told.entry)
                self._now = None
            case output_queue.UserTurnDropped():
                if self._now is not None and self._now.id not in self._items and self.detects:
                    yield server_events.speech_stopped(self._now.id, self._span(self._utterance)[1])
                self._now, self._last = None, ""

    def taken(self) -> Iterator[EventBody]:
        """Note that the oldest commit was recognized to its end."""
        if not self._committed:
            return
        item = self._committed.popleft()
        if item.id not in self._said:
            yield from self._complete(item, "", 0)
        self._said.discard(item.id)

    def given_up(self, error: errors.SidecarError) -> Iterator[EventBody]:
        """Return events for a turn that is answered without its words, if there is one."""
        item, self._now = self._now, None
        if item is not None and item.id in self._items and self.transcribes:
            self._settle(item)
            yield server_events.transcription_failed(item.id, error)

    def _settle(self, item: RealtimeDialogueItem) -> None:
        """Settle a turn whose words were sent."""
        if item in self._committed:
            self._said.add(item.id)

    def _new(self) -> RealtimeDialogueItem:
        return RealtimeDialogueItem(self._items.new_id(), ChatRole.USER, aloud=True)

    def _started(self, utterance: int) -> Iterator[EventBody]:
        self._utterance = utterance
        waiting = [item for item in self._committed if item.id not in self._said]
        self._now = waiting[0] if waiting else self._new()
        self._now.shown = self._last = ""
        if self.detects and not waiting:
            self._start = self._span(utterance)[0]
            yield server_events.speech_started(self._now.id, self._start)

    def _stopped(self, item: RealtimeDialogueItem, utterance: int) -> Iterator[EventBody]:
        if item.id in self._items:
            return
        self._end = self._span(utterance)[1]
        self._taken = max(self._taken, self._end)
        if self.detects:
            yield server_events.speech_stopped(item.id, self._end)
        yield from self._commit(item)

    def _saying(self, item: RealtimeDialogueItem, text: str) -> Iterator[EventBody]:
        """The words on which this look and the one before agree."""
        now, before = text.split(), self._last.split()
        self._last = text
        alike = 0
        while alike < min(len(now), len(before)) and now[alike] == before[alike]:
            alike += 1
        if self.detects or item.id in self._items:
            yield from self._show(item, " ".join(now[:alike]))

    def _complete(
        self, item: RealtimeDialogueItem, text: str, entry: int, seconds: float | None = None
    ) -> Iterator[EventBody]:
        """All its words are known. It is ``seconds`` long, or as long as was noted."""
        if item.id not in self._items:  # nobody ended it, but it is history
            yield from self._commit(item)
        item.text, item.entry = text, entry
        self._settle(item)
        yield from self._show(item, text)
        if self.transcribes:
            seconds = self._end - self._start if seconds is None else seconds
            yield server_events.transcription_completed(item.id, text, max(0.0, seconds), ())
        item.shown = self._last = ""
