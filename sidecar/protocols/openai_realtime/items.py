"""A live session's turns as the items of a conversation: what is told of them, and when. Pure.

Turns and items come in the same order, so nobody has to know the number of a turn that a client
ends before an engine has heard of it: the first turn without an item has the first item without a
turn. What was written in deltas stays; where the end of a piece reads otherwise, the deltas go on
behind as many words, and ``completed`` has the text that counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

from sidecar import errors
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
from sidecar.protocols.languages import code_of
from sidecar.protocols.openai_realtime import realtime_vocabulary
from sidecar.protocols.openai_realtime.realtime_vocabulary import Said
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
                    yield realtime_vocabulary.speech_started(item.id, at)
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
                yield realtime_vocabulary.cleared()
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
                yield realtime_vocabulary.failed(item.id, error)
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
        yield realtime_vocabulary.committed(item.id, before)
        names = ("created",) if self._beta else ("added", "done")
        for name in names:
            yield realtime_vocabulary.item_event(f"conversation.item.{name}", item.id, before)

    def _stopped(self, item: Item, at: float) -> Iterator[Said]:
        self._taken = max(self._taken, at)
        yield realtime_vocabulary.speech_stopped(item.id, at)
        if not item.committed:
            yield from self._commit(item)

    def _show(self, item: Item, text: str) -> Iterator[Said]:
        """The words of ``text`` that were not shown, if it goes on from what was."""
        if text.startswith(item.shown) and (more := text[len(item.shown) :]):
            item.shown = text
            yield realtime_vocabulary.delta(item.id, more)

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
            yield realtime_vocabulary.failed(item.id, errors.UtteranceDropped())
        elif self._failed and not ended.text:
            yield realtime_vocabulary.failed(item.id, errors.EngineFailed())
        else:
            seconds = ended.end - ended.start
            yield realtime_vocabulary.completed(item.id, ended.text, seconds, item.languages)
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
        return realtime_vocabulary.segment_event(
            item, number, segment, speaker, self._names.get(speaker)
        )
