"""Event log of a session: numbered events, replay for listeners that return; event metrics."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

from sidecar import errors
from sidecar.interfaces import live_events
from sidecar.interfaces.live_engine import LiveSessionStart
from sidecar.observability.metrics import LiveMetrics, RecognitionOutcome, outcome_of_error
from sidecar.transcripts.language_detection import LANGUAGE_DOUBTFUL, Confidence
from sidecar.transcripts.speaker_embeddings import SpeakerEmbedding

SAME_SAMPLE_S = 1e-4
"""Times that are no further apart are those of one sample."""
TAKEOVER_SEQ_STRIDE = 1_000_000
"""Offset of the event numbers of a service that goes on for one that died: the last number of
that one is known to nobody but the client."""
UNSAVED_SEQ_OFFSET = TAKEOVER_SEQ_STRIDE // 2
"""Offset of the numbers of events that were sent without being saved: a client that has them has
more than was saved."""
FINAL_EVENTS = (
    live_events.Final
    | live_events.TurnEnded
    | live_events.TurnDropped
    | live_events.SpeakersRevised
    | live_events.NoticeRaised
    | live_events.Summary
)
"""Events that an engine that goes on for another does not send again."""


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """An event and its place among all of the session, from 1."""

    number: int
    event: live_events.LiveEvent


@dataclass(frozen=True, slots=True)
class EventLogState:
    """State of an `EventLog` for another one: the last number and turn, the kept events, the
    speakers' embeddings, and the context. Of partials none goes along."""

    last: int
    started: int
    kept: tuple[NumberedEvent, ...]
    voices: Mapping[int, SpeakerEmbedding]
    context: tuple[live_events.ContextUtterance, ...] = ()


class EventLog:
    """The events of one session. Of partials and of how far it is the last is kept; so who reads
    slowly misses some of these and nothing else.

    Where it is guarded (`guard`) what stands waits, and all behind it, until it is said to be
    `saved`: so no client was told more that stands than what is saved.
    """

    def __init__(self) -> None:
        self.last = 0
        """The number of the last event."""
        self.guarded = False
        """True if what stands waits until it is saved."""
        self._until: int | None = None
        """The last number that may be told, None where that is any."""
        self.passed = 0
        """Number of the last event that was sent to its client, as far as is known."""
        self._telling: object | None = None
        self._started, self._stopped = -1, -1.0
        self._kept: list[NumberedEvent] = []
        self._partial: NumberedEvent | None = None
        self._heard: NumberedEvent | None = None
        self._voices: Mapping[int, SpeakerEmbedding] = {}
        self._context: tuple[live_events.ContextUtterance, ...] = ()
        self.over = False
        """True if nothing more is said."""
        self.wrong: errors.SidecarError | None = None
        """Error that ended the session; None if the client ended it."""
        self._bell = asyncio.Event()

    @property
    def kept(self) -> int:
        """Return the number of events."""
        return len(self._kept)

    @property
    def state(self) -> EventLogState:
        """Return the state from which another service continues."""
        kept = tuple(self._kept)
        return EventLogState(self.last, self._started, kept, self._voices, self._context)

    @property
    def held(self) -> bool:
        """Return whether an event is held back until it is saved."""
        return self._until is not None

    @property
    def heard_s(self) -> float:
        """Return the seconds of sound that were recognized, as far as events say."""
        told = self._heard.event if self._heard is not None else None
        return self.behind_finals(told.at if isinstance(told, live_events.InputProcessed) else 0.0)

    def restore(self, state: EventLogState) -> None:
        """Go on where another was; behind the last word nothing comes."""
        self.last, self._started = state.last, state.started
        self._kept, self._voices = list(state.kept), state.voices
        self._context = state.context
        stops = (
            one.event for one in self._kept if isinstance(one.event, live_events.SpeechStopped)
        )
        self._stopped = max((stop.at for stop in stops), default=-1.0)
        if self._kept and isinstance(self._kept[-1].event, live_events.Summary):
            self.end()

    def goes_on(self, after: int) -> None:
        """Resume for a client that reconnects and names its last event. What was told to a line
        that had broken already counts no more."""
        self.passed, self._telling = after, None

    def since(self, number: int) -> tuple[NumberedEvent, ...]:
        """Return the kept events behind ``number``."""
        return tuple(self._kept[self._place_behind(number) :])

    def guard(self) -> None:
        """Have what stands wait from here on until it is saved."""
        self.guarded = True

    def stands_behind(self, number: int) -> int | None:
        """The number of the first that stands behind ``number``; None where none does."""
        found = (one.number for one in self.since(number) if isinstance(one.event, FINAL_EVENTS))
        return next(found, None)

    def saved(self, number: int) -> None:
        """All up to ``number`` is saved."""
        if self._until is not None:
            first = self.stands_behind(number)
            self._until = None if first is None else first - 1
            self._ring()

    def loosen(self) -> None:
        """Send everything without waiting to be saved: pending events, and later ones, by
        numbers that show it (`UNSAVED_SEQ_OFFSET`)."""
        first = self.last + 1 if self._until is None else self._until + 1

        def further(one: NumberedEvent) -> NumberedEvent:
            offset = UNSAVED_SEQ_OFFSET if one.number >= first else 0
            return NumberedEvent(one.number + offset, one.event)

        self._kept = [further(one) for one in self._kept]
        self._partial = self._partial and further(self._partial)
        self._heard = self._heard and further(self._heard)
        self.last += UNSAVED_SEQ_OFFSET
        self.guarded, self._until = False, None
        self._ring()

    def so_far(self, at: float, lead: float | None = None) -> LiveSessionStart:
        """Return the start for an engine that knows nothing of the session and resumes at
        ``at``; its audio begins at ``lead``."""
        turn, piece, said, opened = 0, 0, {}, 0
        dropped, confidence, doubted = set[int](), Confidence(), False
        for one in self._kept:
            match one.event:
                case live_events.Final() as final:
                    turn, piece = final.turn, final.piece + 1
                    said[final.piece] = final.segment
                    confidence += final.confidence
                    opened += 1
                case live_events.SpeakersRevised(speakers):
                    for number, who in speakers.items():
                        said[number] = replace(said[number], speaker=who)
                case live_events.TurnEnded(ended) | live_events.TurnDropped(ended):
                    turn, opened = ended + 1, 0
                case live_events.NoticeRaised(notice, int(shed)) if (
                    notice.code == live_events.UTTERANCE_DROPPED
                ):
                    dropped.add(shed)
                case live_events.NoticeRaised(notice):
                    doubted = doubted or notice.code == LANGUAGE_DOUBTFUL
        return LiveSessionStart(
            at,
            turn,
            piece,
            tuple(said.values()),
            opened,
            tuple(said),
            self._voices,
            lead,
            self._behind(at, at if lead is None else lead),
            min((one for one in dropped if one >= turn), default=self._started + 1),
            confidence,
            doubted,
        )

    def behind_finals(self, at: float) -> float:
        """Return ``at``, or the end of the last final where that is later: a death between a final
        and the news that its sound is settled must not say it again."""
        finals = (
            one.event for one in reversed(self._kept) if isinstance(one.event, live_events.Final)
        )
        last = next(finals, None)
        return at if last is None else max(at, last.segment.end)

    def _behind(self, at: float, lead: float) -> tuple[live_events.ContextUtterance, ...]:
        """Return the context of segments whose audio begins at ``lead``: the last of them may be
        sent just before it is settled."""
        begin, end = lead - SAME_SAMPLE_S, at + SAME_SAMPLE_S
        return tuple(one for one in self._context if begin <= one.start and one.end <= end)

    def broken_off(self, at: float) -> live_events.TurnEnded:
        """Return the end of the open turn, if no engine hears more of it than up to ``at``; one
        that has not begun ends with nothing."""
        begin = self.so_far(at)
        pieces = begin.said[len(begin.said) - begin.open :]
        start = pieces[0].start if pieces else at
        return live_events.TurnEnded(begin.turn, start, at, " ".join(one.text for one in pieces))

    def add(self, event: live_events.LiveEvent) -> NumberedEvent | None:
        """Append an event, and return its number; None if it is not sent.

        That a turn begins, or pauses, is said once, though an engine that went on for another says
        it again. What voices sound like and what is heard behind is kept for such an engine, and
        said to nobody.
        """
        if isinstance(event, live_events.SpeakerEmbeddingsKnown):
            self._voices = event.voices
            return None
        if isinstance(event, live_events.ContextKnown):
            self._context = event.pieces
            return None
        if isinstance(event, live_events.SpeechStarted):
            if event.turn <= self._started:
                return None
            self._started = event.turn
        if isinstance(event, live_events.SpeechStopped):
            if event.at <= self._stopped + SAME_SAMPLE_S:
                return None
            self._stopped = event.at
        self.last += 1
        numbered = NumberedEvent(self.last, event)
        if self.guarded and self._until is None and isinstance(event, FINAL_EVENTS):
            self._until = self.last - 1
        if isinstance(event, live_events.Partial):
            self._partial = numbered
        elif isinstance(event, live_events.InputProcessed):
            self._heard = numbered
        else:
            self._kept.append(numbered)
            if isinstance(event, live_events.Final):
                self._partial = None
        self._ring()
        return numbered

    def end(self, wrong: errors.SidecarError | None = None) -> None:
        """End the events."""
        if not self.over:
            self.over, self.wrong = True, wrong
            self._ring()

    async def after(self, number: int) -> AsyncIterator[NumberedEvent]:
        """Everything behind ``number``, as it is said, until the end.

        Raises:
            errors.SidecarError: what ended the session.
        """
        read = self._place_behind(number)
        telling = self._telling = object()
        while True:
            bell = self._bell
            while (found := self._next(number, read)) is not None:
                if isinstance(found.event, live_events.Partial | live_events.InputProcessed):
                    number = found.number
                else:
                    read, number = read + 1, max(number, found.number)
                yield found
                # No client is told of `InputProcessed`.
                if telling is self._telling and not isinstance(
                    found.event, live_events.InputProcessed
                ):
                    self.passed = max(self.passed, found.number)
            if self.over and self._until is None:
                if self.wrong is not None:
                    raise self.wrong
                return
            await bell.wait()

    def _place_behind(self, number: int) -> int:
        return bisect_right(self._kept, number, key=lambda one: one.number)

    def _next(self, number: int, read: int) -> NumberedEvent | None:
        kept = self._kept[read] if read < len(self._kept) else None
        latest = filter(None, (self._partial, self._heard))
        fleeting = [one for one in latest if one.number > number]
        candidates = fleeting if kept is None else [kept, *fleeting]
        first = min(candidates, key=lambda one: one.number, default=None)
        told = first is None or self._until is None or first.number <= self._until
        return first if told else None

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()


DONE, LEFT = "done", "left"


class EventMetrics:
    """Of one session; ``wire``: by which way its client came, ``patience_s``: how long a stretch
    of speech may take to be recognised."""

    def __init__(self, tally: LiveMetrics, wire: str, patience_s: float) -> None:
        self.wire = wire
        self._tally, self._patience_s = tally, patience_s
        self._turn = -1
        """The last that began."""
        self._speaking = False
        self._summed = False
        tally.opened.add(wire)

    def sound(self, seconds: float) -> None:
        """Count received audio."""
        self._tally.audio.add(self.wire, by=seconds)

    def waited(self, seconds: float) -> None:
        """Count time in the buffer."""
        self._tally.full.see(seconds)

    def emitted(self, seconds: float) -> None:
        """Count the time until the client read a final."""
        self._tally.emitted.see(seconds)

    def said(self, event: live_events.LiveEvent) -> None:
        """Count an event."""
        match event:
            case live_events.SpeechStarted(turn) if turn > self._turn:
                self._turn = turn
                self._tally.turns.add(self.wire)
                self._speaks(True)
            case live_events.Partial():
                self._tally.partials.add(self.wire)
            case live_events.Final():
                self._final(event)
            case live_events.NoticeRaised(notice) if notice.code == live_events.UTTERANCE_DROPPED:
                self._tally.shed.add(self.wire)
            case live_events.TurnEnded():
                self._speaks(False)
            case live_events.TurnDropped():
                self._tally.dropped.add()
                self._speaks(False)
            case live_events.Summary():
                self._summed = True

    def ended(self, wrong: errors.SidecarError | None, *, finished: bool) -> None:
        """Count the end. ``finished``: the client wanted that."""
        if self._speaking:
            self._tally.orphaned.add()
        self._speaks(False)
        reason = DONE if finished or self._summed else LEFT
        if wrong is not None:
            reason = wrong.code
            if isinstance(wrong, errors.LiveFull):
                self._tally.refused.add(self.wire, wrong.code)
            if (outcome := outcome_of_error(wrong)) is not None:
                self._tally.came(outcome)
        self._tally.ended.add(self.wire, reason)

    def _final(self, final: live_events.Final) -> None:
        segment = final.segment
        self._tally.told(self.wire, segment.end - segment.start, final.wait_s, final.work_s)
        outcome = RecognitionOutcome.DONE
        if live_events.AUDIO_UNHEARD in segment.flags:
            late = final.work_s >= self._patience_s
            outcome = RecognitionOutcome.TIMED_OUT if late else RecognitionOutcome.FAILED
        self._tally.came(outcome)

    def _speaks(self, speaking: bool) -> None:
        self._tally.speaking += speaking - self._speaking
        self._speaking = speaking
