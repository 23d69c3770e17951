"""Event log of a session: numbered events, replay for listeners that return; event metrics."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace

from sidecar import errors
from sidecar.interfaces import live_events
from sidecar.observability.health import RecognitionOutcome, outcome_of_error
from sidecar.observability.metrics import LiveMetrics
from sidecar.transcripts.language_detection import LANGUAGE_DOUBTFUL, Confidence
from sidecar.transcripts.transcript import (
    UNHEARD_FLAG,
    Notice,
    Segment,
    SpeakerEmbedding,
    join_texts,
)

SAME_SAMPLE_S = 1e-4
"""Seconds: times that are no further apart are those of one sample."""

DONE, LEFT = "done", "left"


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """Event with its number among all events of the session, from 1. ``channel``: of a session with
    two, the one that it is about."""

    number: int
    event: live_events.LiveEvent
    channel: int | None = None


class EventLog:
    """Event log of one session. Of the partials of a channel and of progress only the last is kept;
    so a client that reads slowly misses some of these and nothing else."""

    def __init__(self) -> None:
        self.last = 0
        self._started: dict[int | None, int] = {}
        self._stopped: dict[int | None, float] = {}
        """Last turn that began, and last pause, of each channel."""
        self.kept: list[NumberedEvent] = []
        """The events, without partials and progress."""
        self.missing: dict[Notice, float] = {}
        """Notices of audio whose words are missing, and where that first begins."""
        self._partials: dict[int | None, NumberedEvent] = {}
        """Last partial of each channel, unless its words are final."""
        self._latest_input_processed: NumberedEvent | None = None
        self._voices: Mapping[int, SpeakerEmbedding] = {}
        self._context: tuple[live_events.ContextUtterance, ...] = ()
        self.over = False
        """True if no more events follow."""
        self.wrong: errors.SidecarError | None = None
        """Error that ended the session; None if the client ended it."""
        self._bell = asyncio.Event()

    @property
    def progress_s(self) -> tuple[float, float]:
        """Return the seconds of audio that were processed, according to the events, and those in
        which no word is missing."""
        latest, at, settled = self._latest_input_processed, 0.0, 0.0
        if latest is not None and isinstance(latest.event, live_events.InputProcessed):
            at, settled = latest.event.at, latest.event.settled
        recognized_s = min((self.behind_finals(settled), *self.missing.values()))
        return self.behind_finals(at), recognized_s

    def so_far(self, at: float, lead: float | None = None) -> live_events.LiveSessionStart:
        """Return the start for an engine that knows nothing of the session and resumes at
        ``at``; its audio begins at ``lead``."""
        turn, next_segment, segments, opened = 0, 0, {}, 0
        dropped, confidence, doubted = set[int](), Confidence(), False
        for one in self.kept:
            match one.event:
                case live_events.Final() as final:
                    turn = final.turn
                    next_segment = max(next_segment, final.segment_number + 1)
                    segments[final.segment_number] = final.segment
                    confidence += final.confidence
                    opened += 1
                case live_events.SpeakersRevised(speakers):
                    for number, who in speakers.items():
                        segments[number] = replace(segments[number], speaker=who)
                case live_events.TurnEnded(ended) | live_events.TurnDropped(ended):
                    turn, opened = ended + 1, 0
                case live_events.NoticeRaised(notice, int(shed)) if (
                    notice.code == live_events.UTTERANCE_DROPPED
                ):
                    dropped.add(shed)
                case live_events.NoticeRaised(notice):
                    doubted = doubted or notice.code == LANGUAGE_DOUBTFUL
        return live_events.LiveSessionStart(
            at,
            turn,
            next_segment,
            tuple(segments.values()),
            opened,
            tuple(segments),
            self._voices,
            lead,
            self._behind(at, at if lead is None else lead),
            min((one for one in dropped if one >= turn), default=self._started.get(None, -1) + 1),
            confidence,
            doubted,
        )

    def behind_finals(self, at: float) -> float:
        """Return ``at``, or the end of the last final if that is later. If the engine dies after a
        final, before it reports that the audio is settled, its successor must not repeat it."""
        kept = (one.event for one in reversed(self.kept) if one.channel is None)
        ends = (one.segment.end for one in kept if isinstance(one, live_events.Final))
        return max(at, next(ends, at))

    def _behind(self, at: float, lead: float) -> tuple[live_events.ContextUtterance, ...]:
        """Return the context segments in the audio from ``lead`` to ``at``: the last of them may be
        sent just before it is settled."""
        begin, end = lead - SAME_SAMPLE_S, at + SAME_SAMPLE_S
        return tuple(one for one in self._context if begin <= one.start and one.end <= end)

    def broken_off(self, at: float) -> list[live_events.TurnEnded]:
        """Return the ends of the turns that have begun, if no engine recognizes them further than
        ``at``. At least one turn ends; one that has not begun ends without text."""
        begin = self.so_far(at)
        segments = begin.said[len(begin.said) - begin.open :]
        start = segments[0].start if segments else at
        text = join_texts(one.text for one in segments)
        later = range(begin.turn + 1, self._started.get(None, begin.turn) + 1)
        return [
            live_events.TurnEnded(begin.turn, start, at, text),
            *(live_events.TurnEnded(turn, at, at, "") for turn in later),
        ]

    def break_off(self, at: float) -> Iterator[live_events.LiveEvent]:
        """Yield what ends the turns in progress, if no engine recognizes them further than ``at``:
        the words that were shown last are final."""
        begin, flags = self.so_far(at), (UNHEARD_FLAG,)
        for shown in [*self._partials.values()]:
            match shown.event:
                case live_events.Partial(turn, number, start, end, text, tail=tail):
                    text = join_texts((text, tail))
                    segment = Segment(start, end, text, shown.channel, flags=flags)
                    yield live_events.Final(turn, number, segment)
        if begin.open or self._started.get(None, -1) >= begin.turn:
            yield from self.broken_off(self.behind_finals(at))

    def add(self, event: live_events.LiveEvent, channel: int | None = None) -> bool:
        """Append an event of a channel, or of the whole session; return whether it is sent.

        The start of a turn, or a pause, is sent once, though an engine that takes over reports it
        again. Embeddings and context are kept for such an engine, and never sent.
        """
        if isinstance(event, live_events.SpeakerEmbeddingsKnown):
            self._voices = event.voices
            return False
        if isinstance(event, live_events.ContextKnown):
            self._context = event.utterances
            return False
        if isinstance(event, live_events.SpeechStarted):
            if event.turn <= self._started.get(channel, -1):
                return False
            self._started[channel] = event.turn
        if isinstance(event, live_events.SpeechStopped):
            if event.at <= self._stopped.get(channel, -1.0) + SAME_SAMPLE_S:
                return False
            self._stopped[channel] = event.at
        if isinstance(event, live_events.NoticeRaised) and event.missing_from is not None:
            first = self.missing.get(event.notice, event.missing_from)
            self.missing[event.notice] = min(first, event.missing_from)
        self.last += 1
        numbered = NumberedEvent(self.last, event, channel)
        if isinstance(event, live_events.Partial):
            self._partials[channel] = numbered
        elif isinstance(event, live_events.InputProcessed):
            self._latest_input_processed = numbered
        else:
            self.kept.append(numbered)
            if channel in self._partials and _settles(event, self._partials[channel].event):
                del self._partials[channel]
        self._ring()
        return True

    def end(self, error: errors.SidecarError | None = None) -> None:
        """End the events."""
        if not self.over:
            self.over, self.wrong = True, error
            self._ring()

    async def after(self, number: int) -> AsyncIterator[NumberedEvent]:
        """Yield all events after ``number``, as they come, until the end.

        Raises:
            errors.SidecarError: the error that ended the session.
        """
        read = bisect_right(self.kept, number, key=lambda one: one.number)
        while True:
            bell = self._bell
            while (found := self._next(number, read)) is not None:
                number = found.number
                read += not isinstance(
                    found.event, live_events.Partial | live_events.InputProcessed
                )
                yield found
            if self.over:
                if self.wrong is not None:
                    raise self.wrong
                return
            await bell.wait()

    def _next(self, number: int, read: int) -> NumberedEvent | None:
        kept = self.kept[read] if read < len(self.kept) else None
        latest = filter(None, (*self._partials.values(), self._latest_input_processed))
        fleeting = [one for one in latest if one.number > number]
        candidates = fleeting if kept is None else [kept, *fleeting]
        return min(candidates, key=lambda one: one.number, default=None)

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()


def _settles(event: live_events.LiveEvent, shown: live_events.LiveEvent) -> bool:
    """Return whether the words of the partial ``shown`` are final, or dropped, with an event."""
    match event, shown:
        case (
            live_events.Final(segment_number=number, segment=said),
            live_events.Partial(segment_number=other, start=begin),
        ):  # the second part of a divided segment has a later number than what follows it
            return other == number or (other < number and begin < said.end)
        case (
            live_events.TurnEnded(turn) | live_events.TurnDropped(turn),
            live_events.Partial(other),
        ):
            return other <= turn
    return False


class EventMetrics:
    """Metrics of one session's events. ``wire``: the protocol of its client; ``patience_s``: the
    timeout of the recognition of a segment."""

    def __init__(self, live_metrics: LiveMetrics, wire: str, patience_s: float) -> None:
        self.wire = wire
        self.live_metrics, self._patience_s = live_metrics, patience_s
        self._speaking = set[int | None]()
        """Channels in which somebody speaks."""
        self._summed = False
        live_metrics.opened.add(wire)

    def received(self, seconds: float) -> None:
        """Count received audio."""
        self.live_metrics.audio.add(self.wire, by=seconds)

    def sent(self, event: live_events.LiveEvent, channel: int | None = None) -> None:
        """Count a sent event of a channel, or of the whole session."""
        match event:
            case live_events.SpeechStarted():
                self.live_metrics.turns.add(self.wire)
                self._speaks({*self._speaking, channel})
            case live_events.Partial():
                self.live_metrics.partials.add(self.wire)
            case live_events.Final():
                self._final(event)
            case live_events.NoticeRaised(notice) if notice.code == live_events.UTTERANCE_DROPPED:
                self.live_metrics.shed.add(self.wire)
            case live_events.TurnEnded():
                self._speaks(self._speaking - {channel})
            case live_events.TurnDropped():
                self.live_metrics.dropped.add()
                self._speaks(self._speaking - {channel})
            case live_events.Summary():
                self._summed = True

    def ended(self, error: errors.SidecarError | None, *, finished: bool) -> None:
        """Count the end. ``finished``: the client requested it."""
        if self._speaking:
            self.live_metrics.orphaned.add(by=len(self._speaking))
        self._speaks(set())
        reason = DONE if finished or self._summed else LEFT
        if error is not None:
            reason = error.code
            if isinstance(error, errors.LiveFull):
                self.live_metrics.refused.add(self.wire, error.code)
            if (outcome := outcome_of_error(error)) is not None:
                self.live_metrics.came(outcome)
        self.live_metrics.ended.add(self.wire, reason)

    def _final(self, final: live_events.Final) -> None:
        segment = final.segment
        self.live_metrics.told(self.wire, segment.end - segment.start, final.wait_s, final.work_s)
        outcome = RecognitionOutcome.DONE
        if UNHEARD_FLAG in segment.flags:
            late = final.work_s >= self._patience_s
            outcome = RecognitionOutcome.TIMED_OUT if late else RecognitionOutcome.FAILED
        self.live_metrics.came(outcome)

    def _speaks(self, channels: set[int | None]) -> None:
        self.live_metrics.speaking += len(channels) - len(self._speaking)
        self._speaking = channels
