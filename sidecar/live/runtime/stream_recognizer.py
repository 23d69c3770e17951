"""State of one audio stream on its way to partial and final text. Pure.

`StreamRecognizer` takes audio, speech probabilities and recognition results, and returns events. It
has no thread, no clock and no engine; its caller (`live.runtime.live_scheduler`) has them, for many
streams at once.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple, TypeAlias

from sidecar.audio import Block
from sidecar.audio.loudness import SampleRingBuffer
from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import (
    BUFFER_S,
    LIVE_RATE,
    EndpointingOptions,
    LiveOptions,
    LiveOrder,
    TurnControl,
)
from sidecar.live.runtime import endpointing
from sidecar.live.runtime.live_speaker_labels import RelabelResult
from sidecar.live.runtime.load_shedding import (
    ENTRY_WINDOW_S,
    LATE_NOTICE_INTERVAL_S,
    PARTIALS_LATE_NOTICE,
    UTTERANCE_DROPPED_NOTICE,
    UtteranceAdmission,
)
from sidecar.live.runtime.partial_results import (
    DEFAULT_SCHEDULE,
    PARTIAL_STEP_S,
    HypothesisAgreement,
    PartialSchedule,
    PartialText,
    RecognitionContext,
    RecognitionHypothesis,
    RecognitionPlan,
    RecognitionTask,
    RecognitionUrgency,
    SegmentRequest,
    SessionState,
    SpeechSegment,
)
from sidecar.live.runtime.result_assembler import ResultAssembler
from sidecar.live.runtime.segment_embeddings import EmbeddingTask, SegmentEmbeddings
from sidecar.transcripts.language_detection import doubtful_language_notice
from sidecar.transcripts.transcript import Notice

SessionInput: TypeAlias = "Block | LiveOrder | LiveOptions"
"""Audio, or what follows it: an order, or other options from there on."""


class WaitingOrder(NamedTuple):
    """Order behind the audio up to the sample ``at``, and the time when it came."""

    at: int
    order: LiveOrder | LiveOptions
    came: float


SessionTask: TypeAlias = RecognitionTask | EmbeddingTask
"""Work of an engine for one session."""
MAX_TURNS_S = BUFFER_S / 2
"""Seconds of speech without a pause after which it is cut also for an engine that ends turns
itself (`PartialSchedule.turns`)."""
_PROBABILITY_FRAMES = round(4 * LIVE_RATE / endpointing.FRAME_SAMPLES)
_BORDER = LIVE_RATE
"""Samples around the place that an engine names for a change of speakers, where the least
probability of speech is."""
LEAD_IN_S = 1.0
"""Seconds of audio before the resume point that a new engine gets, for its VAD."""


class StreamRecognizer:
    """State of one stream. ``engine`` and ``precision`` are for the summary; ``voices``: whether
    there is a speaker encoder; ``context``: whether segments are recognized behind the segments
    before them."""

    def __init__(
        self,
        options: LiveOptions,
        start: live_events.LiveSessionStart,
        engine: str = "",
        precision: str = "",
        voices: bool = False,
        schedule: PartialSchedule = DEFAULT_SCHEDULE,
        context: bool = False,
    ) -> None:
        self.options = options
        self._context = RecognitionContext(start.context) if context else None
        self._schedule = schedule
        self._engine_state = SessionState()
        self._probabilities: deque[tuple[float, int]] = deque(maxlen=_PROBABILITY_FRAMES)
        self._engine, self._precision = engine, precision
        at = round(start.at * LIVE_RATE)
        lead = at if start.lead is None else round(start.lead * LIVE_RATE)
        self.audio = SampleRingBuffer(lead)
        """All that has come and is still needed."""
        self.arrivals: deque[tuple[int, float]] = deque()
        """End of each block of audio that is not processed, and the time when it came."""
        self.orders: deque[WaitingOrder] = deque()
        """Orders that wait behind audio."""
        self._came = 0.0
        """Time when the audio that was processed last had come."""
        self._looked, self._decided = _frames_from(lead, at)
        self._ends = endpointing.Endpointer(self._endpointing, self._decided, at)
        self._turn, self._piece = start.turn, start.piece
        self._turn_began = at if start.open else None
        goes_on = start.at or start.turn or start.piece
        self._entered = at if goes_on else round(ENTRY_WINDOW_S * LIVE_RATE)
        """Samples up to which the session counts as having only just begun."""
        self._open: SpeechSegment | None = None
        identifies = options.known_voices or options.voiceprints  # labels may be requested later
        known = options.known_voices if identifies else None
        self.segment_embeddings = SegmentEmbeddings(start, known) if voices else None
        self._assembler = ResultAssembler(start, self.segment_embeddings)
        self._listening = RecognitionPlan(schedule)
        self._told_at = at
        self._known: tuple[live_events.ContextUtterance, ...] = start.context
        self._late: int | None = None
        self._confidence = start.confidence
        self._doubted = start.doubted
        self.over = False
        """True once `Summary` was sent."""
        self.finishing = False
        self.verdict: Callable[[], UtteranceAdmission] = lambda: UtteranceAdmission.SERVE
        """Admission of an utterance that begins."""
        self._verdict: UtteranceAdmission | None = None
        self._began = start.began

    @property
    def _endpointing(self) -> EndpointingOptions:
        """Return the options of endpointing. An engine that ends turns itself goes on over the
        places where others would be cut."""
        ends = self.options.endpointing
        if self._schedule.turns:
            ends = dataclasses.replace(ends, longest_s=max(ends.longest_s, MAX_TURNS_S))
        return ends

    @property
    def new(self) -> bool:
        """Return whether the session has only just begun."""
        return self._looked < self._entered

    @property
    def resumed(self) -> bool:
        """Return whether the turn that begins was recognized by an engine that died."""
        return self._turn < self._began or self._turn_began is not None

    @property
    def speaking(self) -> bool:
        """Return whether there is speech to be recognized."""
        return self._open is not None and not self._open.shed

    @property
    def waiting_s(self) -> float:
        """Return the seconds of speech that has ended and has no final; before an engine of turns
        audio waits, too, that is not looked at yet."""
        pieces = (piece for piece in self._assembler.pieces if piece.final is None)
        waiting = sum((piece.end or 0) - piece.start for piece in pieces)
        return (waiting + (self._unseen if self._schedule.turns else 0)) / LIVE_RATE

    @property
    def backlog_s(self) -> float:
        """Return the seconds that are not processed yet, or wait for recognition. Lead-in does not
        count: no event reports that it is processed."""
        waiting = sum((piece.end or 0) - piece.start for piece in self._assembler.pieces)
        unseen = max(0, self.audio.end - max(self._looked, self._decided))
        return (unseen + waiting) / LIVE_RATE

    @property
    def _unseen(self) -> int:
        return self.audio.end - self._looked

    @property
    def busy(self) -> bool:
        """Return whether some of its input waits: a frame, or an order."""
        return bool(self.orders) or self._unseen >= endpointing.FRAME_SAMPLES

    @property
    def _end(self) -> int:
        """Return the end of the audio before the next order."""
        return self.orders[0].at if self.orders else self.audio.end

    @property
    def held(self) -> bool:
        """Return whether no audio may be looked at: an engine of turns is behind. Its segments may
        still be divided, and those that begin later have later numbers; and so its results depend
        on the audio, not on when that came. What a cancel drops holds nothing."""
        if not self._schedule.turns:
            return False
        if self._cancelling:
            return any(piece.final is None for piece in self._wanted)
        return self._listening.busy or self.next_task() is not None

    @property
    def hurried_since(self) -> float | None:
        """Return since when an order, or perhaps an end of speech, waits behind a partial of an
        engine of turns; None if there is none."""
        silence = round(self.options.endpointing.silence_s * LIVE_RATE)
        if self._schedule.turns and (self._order is not None or self._unseen >= silence):
            return self._came
        return None

    @property
    def _order(self) -> LiveOrder | None:
        """Return the next order of those that wait, except changes of options."""
        waiting = (one.order for one in self.orders)
        return next((one for one in waiting if isinstance(one, LiveOrder)), None)

    @property
    def _cancelling(self) -> bool:
        return self._order is LiveOrder.CANCEL

    @property
    def _wanted(self) -> Iterator[SpeechSegment]:
        """Return the ended segments without those that the next order drops for sure."""
        drops = self._cancelling and self.options.turns is TurnControl.CLIENT
        return (one for one in self._assembler.pieces if not (drops and one.turn == self._turn))

    def push(self, what: SessionInput, now: float) -> None:
        """Add audio at `LIVE_RATE`, shape (samples,), or what follows it."""
        if isinstance(what, LiveOrder | LiveOptions):
            self.orders.append(WaitingOrder(self.audio.end, what, now))
        else:
            self.audio.append(what)
            self.arrivals.append((self.audio.end, now))

    def frames(self, most: int) -> Block | None:
        """Return at most ``most`` of the next frames, shape (frames, `FRAME_SAMPLES`); None if
        there are none before the next order."""
        count = min(most, (self._end - self._looked) // endpointing.FRAME_SAMPLES)
        if count <= 0:
            return None
        found = self.audio.cut(self._looked, self._looked + count * endpointing.FRAME_SAMPLES)
        return found.reshape(count, endpointing.FRAME_SAMPLES)

    def looked(self, probability: float, now: float) -> Iterator[live_events.LiveEvent]:
        """Process the next frame, given its speech probability."""
        self._probabilities.append((probability, self._looked))
        self._looked += endpointing.FRAME_SAMPLES
        while self.arrivals and self.arrivals[0][0] < self._looked:
            self.arrivals.popleft()
        self._came = self.arrivals[0][1] if self.arrivals else now
        if self.over or self._looked <= self._decided:
            return  # lead-in frames only give the VAD its state
        if not self.finishing:  # after the end of the session no utterance begins
            for event in self._ends.feed(probability):
                yield from self._take(event, self._came)
                if self.over:
                    return
            if (
                self.segment_embeddings is not None
                and probability >= self.options.endpointing.threshold
            ):
                self.segment_embeddings.spoken(self._looked - endpointing.FRAME_SAMPLES)
        yield from self._heard()

    def follow(self) -> Iterator[live_events.LiveEvent]:
        """Follow the next order, or change the options; yield the events. All frames before it are
        processed."""
        match self.orders[0].order:
            case LiveOptions() as options:
                self.options = options
                self._ends.use(self._endpointing)
            case LiveOrder.COMMIT:
                yield from self.commit(self.orders[0].came)
            case LiveOrder.CANCEL:
                yield from self.cancel()
            case LiveOrder.FINISH:
                yield from self.finish(self.orders[0].came)
        self.orders.popleft()

    def commit(self, now: float) -> Iterator[live_events.LiveEvent]:
        """End the turn here."""
        at = self._within_frame()
        for event in self._ends.stop("commit", at):
            yield from self._take(event, now)
        self._end_turn(at, committed=True)
        yield from self._flush()

    def cancel(self) -> Iterator[live_events.LiveEvent]:
        """Cancel the open turn; the results of ended turns are sent before."""
        if self._open is not None:
            self._open.cancelled = True
            self._assembler.forget_embedding(self._open)
        if self._context is not None:
            self._context.forget()
        self._open = None
        self._looked = max(self._looked, self._decided)
        self._assembler.drop(self._turn, self._looked)
        self.audio.silence(self._looked, self._end)  # less than a frame, not the next turn's
        self._ends = endpointing.Endpointer(self._endpointing, self._looked)
        self._turn_began = None
        self._turn += 1
        yield from self._flush()
        yield from self._heard(always=True)

    def leave(self) -> None:
        """Stop recognition: the session is closed."""
        if self._open is not None:
            self._open.cancelled = True
        self._assembler.leave()

    def finish(self, now: float) -> Iterator[live_events.LiveEvent]:
        """End the audio."""
        if self.finishing:
            return
        self.finishing = True
        at = self._within_frame()
        for event in self._ends.stop("finish", at):
            yield from self._take(event, now)
        if self._turn_began is not None:
            self._end_turn(at)
        self._assembler.end()
        yield from self._flush()

    def due(
        self, voices: bool = True, admits_task: Callable[[RecognitionTask], bool] | None = None
    ) -> SessionTask | None:
        """Return the next task; `began`, here or of `segment_embeddings`, reports its begin.
        ``voices``: whether an embedding may be computed. ``admits_task``: whether a recognition is
        worth its cost now."""
        words = self.next_task()
        if words is not None and admits_task is not None and not admits_task(words):
            words = None
        if not voices or self.segment_embeddings is None:
            return words
        voiced = self.segment_embeddings.next_task(self._assembler.only_summary_left)
        if words is None or voiced is None:
            return words or voiced
        partial = words.urgency is RecognitionUrgency.PARTIAL and self.hurried_since is None
        return voiced if partial and self.segment_embeddings.before_partial else words

    def next_task(self) -> RecognitionTask | None:
        """Return the next recognition."""
        going_on = None if self._cancelling else self._open
        return self._listening.next_task(self._wanted, going_on, self._looked, self.options)

    def began(self, task: RecognitionTask) -> SegmentRequest:
        """Begin a recognition; return the request to the engine, without its cancellation."""
        self._listening.began(task)
        if self._schedule.turns:
            self._ends.heard = max(self._ends.heard, task.to)
        partial = task.urgency is RecognitionUrgency.PARTIAL
        if partial:
            task.late_s = (task.to + self._unseen) / LIVE_RATE - task.since
        if partial and self.segment_embeddings is not None:
            self.segment_embeddings.partial_began()
        before = None if self._context is None else self._context.of(task, self._longest())
        start = task.segment.start - (before.samples if before else 0)
        draft = task.segment.draft_hypothesis if partial or self._schedule.grows else None
        sure_language = self._assembler.sure_language
        options = dataclasses.replace(task.segment.options, language_before=sure_language)
        audio = self.audio.cut(start, task.to)
        return SegmentRequest(
            audio, options, draft, before, start=start, session=self._engine_state
        )

    def _longest(self) -> int:
        return round(self.options.endpointing.longest_s * LIVE_RATE)

    def recognised(
        self,
        task: RecognitionTask,
        hypothesis: RecognitionHypothesis | None,
        now: float,
        work_s: float,
    ) -> Iterator[live_events.LiveEvent]:
        """Yield the events of a result; it is None if recognition was stopped or failed."""
        self._listening.over(task, now)
        piece = task.segment
        if piece.cancelled or piece.final is not None:
            return
        for end, turn in hypothesis.earlier if hypothesis is not None else ():
            piece = yield from self._divided(
                piece, self._border(piece, end, task.to), turn, now, work_s
            )
            work_s = 0.0
        if task.urgency is RecognitionUrgency.FINAL:
            yield from self._settle(piece, hypothesis, now, work_s)
            return
        if hypothesis is None:
            return
        news = (
            piece.draft_hypothesis is None
            or piece.draft_hypothesis.text != hypothesis.text
            or not self._schedule.grows
        )
        piece.draft_hypothesis = hypothesis
        if task.pause is not None and task.pause == piece.paused:
            piece.early_hypothesis = hypothesis
            if piece.end is not None:
                yield from self._settle(piece, hypothesis, now, work_s)
                return
        if piece.end is None and self.options.partials and hypothesis.text and news:
            yield from self._partial(piece, hypothesis, task)

    def _border(self, speech: SpeechSegment, at: int, last: int) -> int:
        """Return the frame with the least speech near a change of speakers, in the audio up to
        ``last``, which the engine has. Both speakers get speech."""
        threshold = self.options.endpointing.threshold
        within = [one for one in self._probabilities if speech.start < one[1] < last]
        spoken = [frame for probability, frame in within if probability >= threshold]
        near = [
            (probability, abs(frame - at), frame)
            for probability, frame in within
            if spoken and spoken[0] < frame <= spoken[-1] and abs(frame - at) <= _BORDER
        ]
        return min(near)[2] if near else min(max(at, speech.start + 1), last)

    def _divided(
        self,
        speech: SpeechSegment,
        at: int,
        hypothesis: RecognitionHypothesis,
        now: float,
        work_s: float,
    ) -> Generator[live_events.LiveEvent, None, SpeechSegment]:
        """End a segment at ``at`` with the text of a turn; return the segment of the rest."""
        rest = dataclasses.replace(
            speech,
            number=self._piece,
            start=at,
            draft_hypothesis=None,
            agreement=HypothesisAgreement(),
        )
        self._piece += 1
        if self.segment_embeddings is not None and speech.diarize:
            self.segment_embeddings.divided(speech.number, at, rest.number, now, self.audio)
        if speech is self._open:
            self._open, speech.since = rest, self._came
            self._assembler.add(speech)
        else:
            self._assembler.add(rest, previous_speech=speech)
        speech.end = at
        yield from self._settle(speech, hypothesis, now, work_s)
        return rest

    def decided(
        self, task: EmbeddingTask, result: RelabelResult | None
    ) -> Iterator[live_events.LiveEvent]:
        """Take over a decision, if there was one; yield the events."""
        assert self.segment_embeddings is not None
        yield from self.segment_embeddings.decided(task, result)
        yield from self._flush()

    def _within_frame(self) -> int:
        """Return the end of the audio, which may be in the middle of a frame."""
        return max(self._decided, min(self._end, self._looked + endpointing.FRAME_SAMPLES - 1))

    def _take(
        self, event: endpointing.EndpointEvent, now: float
    ) -> Iterator[live_events.LiveEvent]:
        match event:
            case endpointing.UtteranceBegan(at):
                begins = self._turn_began is None
                if begins or self._verdict is None:
                    self._verdict = self.verdict()
                if self._verdict is UtteranceAdmission.REFUSE:
                    self.leave()
                    self.over = True
                    yield live_events.SessionRejected()
                    return
                self._open = SpeechSegment(
                    self._piece, self._turn, at, self._looked, self.options, asked=at
                )
                self._open.shed = self._verdict is UtteranceAdmission.SHED
                if (
                    self.segment_embeddings is not None
                    and self.options.diarize
                    and not self._open.shed
                ):
                    self._open.diarize = True
                    self.segment_embeddings.opened(self._piece, at)
                self._piece += 1
                if begins:
                    self._turn_began = at
                    yield live_events.SpeechStarted(self._turn, at / LIVE_RATE)
                if begins and self._open.shed:
                    yield live_events.NoticeRaised(UTTERANCE_DROPPED_NOTICE, self._turn)
            case endpointing.UtterancePaused(at):
                assert self._open is not None
                self._open.paused, self._open.early_hypothesis = at, None
                if self.segment_embeddings is not None:
                    self.segment_embeddings.paused()
            case endpointing.UtteranceResumed():
                assert self._open is not None
                self._open.paused = self._open.early_hypothesis = None
            case endpointing.UtteranceEnded(at, reason):
                yield from self._ended(at, reason, now)

    def _ended(
        self, at: int, reason: endpointing.EndReason, now: float
    ) -> Iterator[live_events.LiveEvent]:
        piece, self._open = self._open, None
        assert piece is not None
        piece.end, piece.since = at, now
        if self.segment_embeddings is not None:
            self.segment_embeddings.ended(piece.number, at, now, self.audio)
        if reason == "cut":
            piece.paused = piece.early_hypothesis = None
        self._assembler.add(piece)
        if reason == "silence":
            yield live_events.SpeechStopped(piece.turn, at / LIVE_RATE)
            if self.options.turns is not TurnControl.CLIENT:
                self._end_turn(at)
        if piece.shed:
            yield from self._settle(piece, RecognitionHypothesis(""), now, 0.0)
        elif piece.early_hypothesis is not None:
            yield from self._settle(piece, piece.early_hypothesis, now, 0.0)
        if reason == "silence" and self.options.turns is TurnControl.ONE:
            yield from self.finish(now)

    def _end_turn(self, at: int, *, committed: bool = False) -> None:
        self._assembler.end_turn(self._turn, at, committed=committed)
        self._turn += 1
        self._turn_began = None

    def _settle(
        self,
        speech: SpeechSegment,
        hypothesis: RecognitionHypothesis | None,
        now: float,
        work_s: float,
    ) -> Iterator[live_events.LiveEvent]:
        """Set the final of a segment; it is sent behind those before it."""
        assert speech.end is not None
        flags: tuple[str, ...] = ()
        if self._context is not None:
            self._context.settled(speech, hypothesis)
        if hypothesis is None or hypothesis.unheard:
            hypothesis = hypothesis or speech.draft_hypothesis or RecognitionHypothesis("")
            hypothesis, flags = (
                dataclasses.replace(hypothesis, words=()),
                (live_events.AUDIO_UNHEARD,),
            )
            yield live_events.NoticeRaised(
                Notice(
                    live_events.RECOGNITION_FAILED, "A segment of speech could not be recognized."
                )
            )
        if not hypothesis.language:
            hypothesis = dataclasses.replace(hypothesis, language=speech.options.language)
        self._confidence += hypothesis.confidence
        if self._confidence.doubtful and not self._doubted:
            self._doubted = True
            yield live_events.NoticeRaised(doubtful_language_notice(live=True))
        self._assembler.settle(
            speech, hypothesis, flags, max(0.0, now - speech.since - work_s), work_s
        )
        yield from self._flush()

    def _flush(self) -> Iterator[live_events.LiveEvent]:
        """Yield due results, in order."""
        waited = sum(1 for _ in self._assembler.pieces)
        before = self._assembler.commits
        yield from self._assembler.due()
        if (waited, before) != (sum(1 for _ in self._assembler.pieces), self._assembler.commits):
            yield from self._heard(always=True)
        if self.over or not self._assembler.only_summary_left:
            return
        if self.segment_embeddings is not None and not self.segment_embeddings.settled:
            if not self.segment_embeddings.has_no_work:
                return
            yield from self.segment_embeddings.settle()
        yield from self._heard(always=True)
        self.over = True
        about = self._engine, self._precision
        transcript = self._assembler.summary(self.options, self._within_frame(), *about)
        if self._confidence.doubtful:
            transcript = transcript.with_notice(doubtful_language_notice(live=True))
        yield live_events.Summary(transcript)

    def _partial(
        self, speech: SpeechSegment, hypothesis: RecognitionHypothesis, task: RecognitionTask
    ) -> Iterator[live_events.LiveEvent]:
        if task.late_s > PARTIAL_STEP_S:
            yield from self.partials_late(task)
        if self._schedule.grows:
            shown = PartialText(hypothesis.text, hypothesis.text, "")
        else:
            shown = speech.agreement.update(hypothesis.text)
        start, end = speech.start / LIVE_RATE, task.to / LIVE_RATE
        if shown.text or shown.tail:
            yield live_events.Partial(
                speech.turn, speech.number, start, end, shown.text, shown.stable, shown.tail
            )

    def partials_late(self, task: RecognitionTask) -> Iterator[live_events.LiveEvent]:
        """Yield the notice that partials come late, unless it was sent lately."""
        if self._late is None or task.to - self._late >= LATE_NOTICE_INTERVAL_S * LIVE_RATE:
            self._late = task.to
            yield live_events.NoticeRaised(PARTIALS_LATE_NOTICE)

    def _heard(self, always: bool = False) -> Iterator[live_events.LiveEvent]:
        """Drop audio that is not needed any more; report the progress now and then."""
        settled = self._looked if self.finishing else min(self._ends.keep_from, self._looked)
        for piece in self._assembler.pieces:
            settled = min(settled, piece.start)
        if self._open is not None:
            settled = min(settled, self._open.start)
        wanted = settled
        if self._context is not None:
            wanted = self._context.keep_from(settled, self._longest())
        self.audio.drop(wanted)
        if always or self._looked - self._told_at >= LIVE_RATE // 2:
            self._told_at = self._looked
            known = self._context.known(settled) if self._context is not None else ()
            if known != self._known:
                self._known = known
                yield live_events.ContextKnown(known)
            lead_s = max(0.0, settled / LIVE_RATE - LEAD_IN_S)
            wanted_s = min(lead_s, known[0].start) if known else lead_s
            at_s = self._looked / LIVE_RATE
            yield live_events.InputProcessed(
                at_s, settled / LIVE_RATE, self._assembler.commits, wanted_s
            )


def _frames_from(lead: int, at: int) -> tuple[int, int]:
    """Return the first frame to process, in audio that begins at ``lead``, and the first that
    counts. Both lie where an engine would have them that processed the session from its begin."""
    first, counts = (
        -(-lead // endpointing.FRAME_SAMPLES) * endpointing.FRAME_SAMPLES,
        at // endpointing.FRAME_SAMPLES * endpointing.FRAME_SAMPLES,
    )
    return (first, counts) if first <= counts else (at, at)
