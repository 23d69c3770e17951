"""User turns as items of a transcription session or of a conversation. Pure.

In a transcription, turns and items come in the same order. So a turn that the client ends needs no
number: the first turn without an item gets the first item without a turn. Deltas are never revised.
If a segment's final differs from them, the deltas continue after as many words. ``completed`` has
the authoritative text.

In a conversation, a turn that ends by a pause is reported as it happens. A turn that the client
ends is an item from the commit on, and its transcript follows. A word is sent once two consecutive
partials agree on it, and is never revised. If the final differs, ``completed`` has the
authoritative text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from sidecar import errors
from sidecar.conversation import conversation_events
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
"""Minimum seconds of audio that a client can commit, as in OpenAI's API."""


class RealtimeUserTurns:
    """User turns of one session. ``detects``: pauses end turns; ``transcribes``: transcripts are
    sent. Both may change."""

    item_events: tuple[str, ...] = ("added", "done")

    def __init__(self, items: RealtimeDialogueItems) -> None:
        self.detects = self.transcribes = True
        self._items = items
        self._taken = 0.0

    def clear(self, received_s: float) -> None:
        """Discard the audio up to ``received_s``."""
        self._taken = received_s

    def _take(self, received_s: float) -> float:
        """End the turn at ``received_s`` seconds of audio; return the second at which it began.

        Raises:
            errors.CommitEmpty: it is too short.
        """
        if received_s - self._taken < LEAST_S:
            raise errors.CommitEmpty()
        began, self._taken = self._taken, received_s
        return began

    def _commit(self, item: RealtimeDialogueItem) -> Iterator[EventBody]:
        before = self._items.add(item)
        yield server_events.input_event("committed", previous_item_id=before, item_id=item.id)
        for what in self.item_events:
            yield server_events.item_event(what, item)

    def _show(self, item: RealtimeDialogueItem, text: str) -> Iterator[EventBody]:
        """Yield the words of ``text`` that were not sent, if it continues the sent ones."""
        if self.transcribes and text.startswith(item.shown) and (more := text[len(item.shown) :]):
            item.shown = text
            yield server_events.transcription_event("delta", item.id, delta=more)


@dataclass(eq=False, slots=True)
class RealtimeTranscriptionTurn(RealtimeDialogueItem):
    """Turn of a transcription as the client knows it. ``number``: the turn number of its
    utterances; ``before``: the deltas of its finished segments."""

    number: int | None = None
    committed: bool = False
    before: str = ""
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
        self._open: list[RealtimeTranscriptionTurn] = []
        self._failed = False
        self._segments: dict[int, tuple[str, Segment]] = {}
        self._names: dict[int, str | None] = {}
        """Names of enrolled speakers, by speaker number."""

    def commit(self, received_s: float) -> Iterator[EventBody]:
        """End the user's turn at ``received_s`` seconds of audio.

        Raises:
            errors.CommitEmpty: it is too short.
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
        """Report committed turns as failed, because no more results come."""
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
        """Return the item of a turn; a new turn gets the first item without a number, or a new
        item."""
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
        """Yield the segments whose speaker changed, or whose speaker was identified."""
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
            errors.CommitEmpty: it is too short.
        """
        self._start, self._end = self._take(received_s), received_s
        item = self._now
        if item is None or item.id in self._items or item in self._committed or item.settled:
            item = self._new()  # that one has its commit, although the client may have deleted it
        self._committed.append(item)
        return self._commit(item)

    def events_of(self, told: conversation_events.ConversationOutput) -> Iterator[EventBody]:
        """Yield the server events of an output, if it is about the user."""
        match told:
            case conversation_events.UserTurnStarted():
                yield from self._started(told.utterance)
            case conversation_events.UserTurnPartial() if self._now is not None:
                yield from self._saying(self._now, told.text)
            case conversation_events.UserTurnStopped() if self._now is not None:
                yield from self._stopped(self._now, told.utterance)
            case conversation_events.UserTurnFinal(backchannel=(began, ended)):
                yield from self._complete(self._new(), told.text, told.entry, ended - began)
            case conversation_events.UserTurnFinal():
                yield from self._complete(self._now or self._new(), told.text, told.entry)
                self._now = None
            case conversation_events.UserTurnDropped():
                if self._now is not None and self._now.id not in self._items and self.detects:
                    yield server_events.speech_stopped(self._now.id, self._span(self._utterance)[1])
                self._now, self._last = None, ""

    def taken(self) -> Iterator[EventBody]:
        """Record that the oldest commit was recognized to its end."""
        if self._committed and not (item := self._committed.popleft()).settled:
            yield from self._complete(item, "", 0)

    def given_up(self, error: errors.SidecarError) -> Iterator[EventBody]:
        """Report the failure of a turn that is answered without its transcript, if there is one."""
        item, self._now = self._now, None
        if item is not None and item.id in self._items and self.transcribes:
            item.settled = True
            yield server_events.transcription_failed(item.id, error)

    def _new(self) -> RealtimeDialogueItem:
        return RealtimeDialogueItem(self._items.new_id(), ChatRole.USER, aloud=True)

    def _started(self, utterance: int) -> Iterator[EventBody]:
        self._utterance = utterance
        waiting = next((item for item in self._committed if not item.settled), None)
        self._now = waiting or self._new()
        self._now.shown = self._last = ""
        if self.detects and waiting is None:
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
        """Yield the words on which this partial and the one before agree."""
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
        """Yield the complete transcript. Its duration is ``seconds``, or the recorded one."""
        if item.id not in self._items:  # it was not committed, but is in the history
            yield from self._commit(item)
        item.text, item.entry, item.settled = text, entry, True
        yield from self._show(item, text)
        if self.transcribes:
            seconds = self._end - self._start if seconds is None else seconds
            yield server_events.transcription_completed(item.id, text, max(0.0, seconds), ())
        item.shown = self._last = ""
