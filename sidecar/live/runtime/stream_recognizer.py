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
from sidecar.audio.sample_buffers import session_audio
from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import (
    BUFFER_S,
    LIVE_RATE,
    EndpointingOptions,
    LiveOptions,
    LiveOrder,
    TurnControl,
)
from sidecar.interfaces.recognition import (
    DEFAULT_SCHEDULE,
    PARTIAL_STEP_S,
    PartialSchedule,
    RecognitionHypothesis,
    SegmentRequest,
    SessionState,
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
from sidecar.live.runtime.recognition_plan import (
    HypothesisAgreement,
    PartialText,
    RecognitionContext,
    RecognitionPlan,
    RecognitionTask,
    RecognitionUrgency,
    SpeechSegment,
)
from sidecar.live.runtime.result_assembler import ResultAssembler
from sidecar.live.runtime.segment_embeddings import EmbeddingTask, SegmentEmbeddings
from sidecar.live.runtime.speaker_changes import divided_at_changes
from sidecar.transcripts.language_detection import doubtful_language_notice, with_language_notice
from sidecar.transcripts.transcript import UNHEARD_FLAG, Notice

SessionInput: TypeAlias = "Block | LiveOrder | LiveOptions"
"""Audio, or what follows it: an order, or other options from there on."""


class WaitingOrder(NamedTuple):
    """Order behind the audio up to the sample ``at``, and the time when it came."""

    at: int
    order: LiveOrder | LiveOptions
    came: float


RECOGNITION_FAILED_NOTICE = Notice(
    live_events.RECOGNITION_FAILED, "A segment of speech could not be recognized."
)
SessionTask: TypeAlias = RecognitionTask | EmbeddingTask
"""Work of an engine for one session."""
MAX_TURNS_S = BUFFER_S / 2
"""Seconds of speech without a pause after which it is cut also for an engine that ends turns
itself (`PartialSchedule.turns`)."""
_PROBABILITY_FRAMES = round(4 * LIVE_RATE / endpointing.FRAME_SAMPLES)
_SPEAKER_CHANGE_SAMPLES = LIVE_RATE
"""Samples around the place that an engine of turns names for a change of speakers, where the least
probability of speech is."""
LEAD_IN_S = 1.0
"""Seconds of audio before the resume point that a new engine gets, for its VAD."""


class StreamRecognizer:
    """State of one stream. ``engine`` and ``precision`` are for the summary; ``voices``: whether
    there is a speaker encoder; ``context``: whether segments are recognized behind the segments
    before them; ``rate``: the engine's."""

    def __init__(
        self,
        options: LiveOptions,
        start: live_events.LiveSessionStart,
        engine: str = "",
        precision: str = "",
        voices: bool = False,
        schedule: PartialSchedule = DEFAULT_SCHEDULE,
        context: bool = False,
        rate: int = LIVE_RATE,
    ) -> None:
        self.options = options
        self._context = RecognitionContext(start.context) if context else None
        self._schedule = schedule
        self._engine_state = SessionState()
        self._probabilities: deque[tuple[float, int]] = deque(maxlen=_PROBABILITY_FRAMES)
        self._engine, self._precision = engine, precision
        at = round(start.at * LIVE_RATE)
        lead = at if start.lead is None else round(start.lead * LIVE_RATE)
        self.audio = session_audio(lead, rate)
        """All that has come and is still needed."""
        self.arrivals: deque[tuple[int, float, bool]] = deque()
        """End of each block of audio that is not processed, the time when it came, and whether it
        came ahead of real time."""
        self.orders: deque[WaitingOrder] = deque()
        """Orders that wait behind audio."""
        self._arrived_at = 0.0
        """Time when the audio that was processed last had come."""
        self.ahead = False
        """True if that audio came ahead of real time."""
        self._processed_to, self._counted_from = _frames_from(lead, at)
        self._endpointer = endpointing.Endpointer(self._endpointing_options, self._counted_from, at)
        self._turn, self._next_number = start.turn, start.segment_number
        self._turn_began = at if start.open else None
        self._silent_since = self._turn_began
        """Sample from which no utterance is open in the open turn, which goes on."""
        goes_on = start.at or start.turn or start.segment_number
        self._entry_ends = at if goes_on else round(ENTRY_WINDOW_S * LIVE_RATE)
        """Samples up to which the session counts as having only just begun."""
        self._open_segment: SpeechSegment | None = None
        identifies = options.known_voices or options.voiceprints  # labels may be requested later
        known = options.known_voices if identifies else None
        self.segment_embeddings = SegmentEmbeddings(start, known, encodes=voices)
        self._assembler = ResultAssembler(start, self.segment_embeddings)
        self._plan = RecognitionPlan(schedule)
        self._reported_at = at
        self._reported_context: tuple[live_events.ContextUtterance, ...] = start.context
        self._late_notice_at: int | None = None
        self._confidence = start.confidence
        self._language_doubted = start.doubted
        self.over = False
        """True once `Summary` was sent."""
        self.finishing = False
        self.decide_admission: Callable[[], UtteranceAdmission] = lambda: UtteranceAdmission.SERVE
        """Admission of an utterance that begins."""
        self._utterance_admission: UtteranceAdmission | None = None
        self._first_new_turn = start.began

    @property
    def _endpointing_options(self) -> EndpointingOptions:
        """Return the options of endpointing. An engine that ends turns itself goes on over the
        places where others would be cut."""
        ends = self.options.endpointing
        if self._schedule.turns:
            ends = dataclasses.replace(ends, longest_s=max(ends.longest_s, MAX_TURNS_S))
        return ends

    @property
    def new(self) -> bool:
        """Return whether the session has only just begun."""
        return self._processed_to < self._entry_ends

    @property
    def resumed(self) -> bool:
        """Return whether the turn that begins was recognized by an engine that died."""
        return self._turn < self._first_new_turn or self._turn_began is not None

    @property
    def speaking(self) -> bool:
        """Return whether there is speech to be recognized."""
        return self._open_segment is not None and not self._open_segment.shed

    @property
    def waiting_s(self) -> float:
        """Return the seconds of speech that has ended and has no final; before an engine of turns
        audio waits, too, that is not processed yet."""
        segments = (one for one in self._assembler.speech_segments if one.final is None)
        waiting = sum((speech.end or 0) - speech.start for speech in segments)
        return (waiting + (self._unseen if self._schedule.turns else 0)) / LIVE_RATE

    @property
    def backlog_s(self) -> float:
        """Return the seconds that are not processed yet, or wait for recognition. Lead-in does not
        count: no event reports that it is processed."""
        waiting = sum(
            (speech.end or 0) - speech.start for speech in self._assembler.speech_segments
        )
        unseen = max(0, self.audio.end - max(self._processed_to, self._counted_from))
        return (unseen + waiting) / LIVE_RATE

    @property
    def _unseen(self) -> int:
        return self.audio.end - self._processed_to

    @property
    def busy(self) -> bool:
        """Return whether some of its input waits: a frame, or an order."""
        return bool(self.orders) or self._unseen >= endpointing.FRAME_SAMPLES

    @property
    def _audio_before_order(self) -> int:
        """Return the end of the audio before the next order."""
        return self.orders[0].at if self.orders else self.audio.end

    @property
    def held(self) -> bool:
        """Return whether no audio may be processed: an engine of turns is behind. Its segments may
        still be divided, and those that begin later have later numbers; and so its results depend
        on the audio, not on when that came. What a cancel drops holds nothing."""
        if not self._schedule.turns:
            return False
        if self._cancelling:
            return any(speech.final is None for speech in self._remaining_segments)
        return self._plan.busy or self.next_recognition() is not None

    @property
    def hurried_since(self) -> float | None:
        """Return since when an order, or perhaps an end of speech, waits behind a partial of an
        engine of turns; None if there is none."""
        silence = round(self.options.endpointing.silence_s * LIVE_RATE)
        if self._schedule.turns and (self._order is not None or self._unseen >= silence):
            return self._arrived_at
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
    def _remaining_segments(self) -> Iterator[SpeechSegment]:
        """Return the ended segments without those that the next order drops for sure."""
        drops = self._cancelling and self.options.turns is TurnControl.CLIENT
        return (
            one for one in self._assembler.speech_segments if not (drops and one.turn == self._turn)
        )

    def push(self, what: SessionInput, now: float, *, ahead: bool = False) -> None:
        """Add audio at the engine's rate, shape (samples,), or what follows it."""
        if isinstance(what, LiveOrder):
            self.audio.complete()
        if isinstance(what, LiveOrder | LiveOptions):
            self.orders.append(WaitingOrder(self.audio.end, what, now))
        else:
            self.audio.push(what)
            self.arrivals.append((self.audio.end, now, ahead))

    def frames(self, most: int) -> Block | None:
        """Return at most ``most`` of the next frames, shape (frames, `FRAME_SAMPLES`); None if
        there are none before the next order."""
        count = min(
            most, (self._audio_before_order - self._processed_to) // endpointing.FRAME_SAMPLES
        )
        if count <= 0:
            return None
        found = self.audio.cut(
            self._processed_to, self._processed_to + count * endpointing.FRAME_SAMPLES
        )
        return found.reshape(count, endpointing.FRAME_SAMPLES)

    def process_frame(self, probability: float, now: float) -> Iterator[live_events.LiveEvent]:
        """Process the next frame, given its speech probability."""
        self._probabilities.append((probability, self._processed_to))
        self._processed_to += endpointing.FRAME_SAMPLES
        while self.arrivals and self.arrivals[0][0] < self._processed_to:
            self.arrivals.popleft()
        if self.arrivals:
            _, self._arrived_at, self.ahead = self.arrivals[0]
        else:
            self._arrived_at = now
        if self.over or self._processed_to <= self._counted_from:
            return  # lead-in frames only give the VAD its state
        if not self.finishing:  # after the end of the session no utterance begins
            for event in self._endpointer.feed(probability):
                yield from self._handle_endpoint(event, self._arrived_at)
                if self.over:
                    return
            if probability >= self.options.endpointing.threshold:
                self.segment_embeddings.spoken(self._processed_to - endpointing.FRAME_SAMPLES)
            if (
                (since := self._silent_since) is not None
                and probability < self.options.endpointing.threshold
                and self.options.turns is not TurnControl.CLIENT
                and self._is_silent(since)
            ):
                yield from self._end_silent_turn(since)
                if self.over:
                    return
        yield from self._report_progress()

    def follow(self) -> Iterator[live_events.LiveEvent]:
        """Follow the next order, or change the options; yield the events. All frames before it are
        processed."""
        match self.orders[0].order:
            case LiveOptions() as options:
                self.options = options
                for event in self._endpointer.use(self._endpointing_options):
                    yield from self._handle_endpoint(event, self.orders[0].came)
            case LiveOrder.COMMIT:
                yield from self.commit(self.orders[0].came)
            case LiveOrder.CANCEL:
                yield from self.cancel()
            case LiveOrder.PAUSE:
                yield from self.pause(self.orders[0].came)
            case LiveOrder.FINISH:
                yield from self.finish(self.orders[0].came)
        self.orders.popleft()

    def commit(self, now: float) -> Iterator[live_events.LiveEvent]:
        """End the turn here; behind the end of the audio there is none."""
        if self.finishing:
            return
        at = self._end_of_audio()
        for event in self._endpointer.stop("commit", at):
            yield from self._handle_endpoint(event, now)
        self._end_turn(at, committed=True)
        yield from self._send_due()

    def pause(self, now: float) -> Iterator[live_events.LiveEvent]:
        """End the turn here as silence does, if silence ends turns."""
        ends = self.options.endpointing.neg_threshold > 0
        if self.finishing or self.options.turns is TurnControl.CLIENT or not ends:
            return
        for event in self._endpointer.stop("silence", self._end_of_audio()):
            yield from self._handle_endpoint(event, now)
        if self._silent_since is not None:
            yield from self._end_silent_turn(self._silent_since)

    def cancel(self) -> Iterator[live_events.LiveEvent]:
        """Cancel the open turn; the results of ended turns are sent before."""
        if self._open_segment is not None:
            self._open_segment.cancelled = True
            self.segment_embeddings.forget(self._open_segment.number)
        if self._context is not None:
            self._context.forget()
        self._open_segment = None
        self._processed_to = max(self._processed_to, self._counted_from)
        self._assembler.drop(self._turn, self._processed_to)
        self.audio.silence(
            self._processed_to, self._audio_before_order
        )  # less than a frame, not the next turn's
        self._endpointer = endpointing.Endpointer(self._endpointing_options, self._processed_to)
        self._turn_began = self._silent_since = None
        self._turn += 1
        yield from self._send_due()
        yield from self._report_progress(always=True)

    def leave(self) -> None:
        """Stop recognition: the session is closed, and what the engine keeps for it goes."""
        self._engine_state.kept = None
        if self._open_segment is not None:
            self._open_segment.cancelled = True
        self._assembler.leave()

    def finish(self, now: float) -> Iterator[live_events.LiveEvent]:
        """End the audio."""
        if self.finishing:
            return
        self.finishing = True
        at = self._end_of_audio()
        for event in self._endpointer.stop("finish", at):
            yield from self._handle_endpoint(event, now)
        if self._turn_began is not None:
            self._end_turn(at)
        self._assembler.end()
        yield from self._send_due()

    def next_task(
        self, voices: bool = True, admits_task: Callable[[RecognitionTask], bool] | None = None
    ) -> SessionTask | None:
        """Return the next task; `begin`, or `began` of `segment_embeddings`, reports its begin.
        ``voices``: whether an embedding may be computed. ``admits_task``: whether a recognition is
        worth its cost now."""
        words = self.next_recognition()
        if words is not None and admits_task is not None and not admits_task(words):
            words = None
        if not voices:
            return words
        voiced = self.segment_embeddings.next_task(self._assembler.only_summary_left)
        if words is None or voiced is None:
            return words or voiced
        partial = words.urgency is RecognitionUrgency.PARTIAL and self.hurried_since is None
        return voiced if partial and self.segment_embeddings.before_partial else words

    def next_recognition(self) -> RecognitionTask | None:
        """Return the next recognition."""
        going_on = None if self._cancelling else self._open_segment
        return self._plan.next_task(
            self._remaining_segments, going_on, self._processed_to, self.options
        )

    def begin(self, task: RecognitionTask) -> SegmentRequest:
        """Begin a recognition; return the request to the engine, without its cancellation."""
        self._plan.began(task)
        if self._schedule.turns:
            self._endpointer.given_to = max(self._endpointer.given_to, task.to)
        partial = task.urgency is RecognitionUrgency.PARTIAL
        if partial:
            task.late_s = (task.to + self._unseen) / LIVE_RATE - task.since
            self.segment_embeddings.partial_began()
        before = None if self._context is None else self._context.of(task, self._longest_segment())
        start = task.segment.start - (before.samples if before else 0)
        draft = task.segment.draft_hypothesis if partial or self._schedule.grows else None
        sure_language = self._assembler.sure_language
        options = dataclasses.replace(task.segment.options, language_before=sure_language)
        return SegmentRequest(
            self.audio.for_engine(start, task.to),
            options,
            draft,
            before,
            start=start * self.audio.rate // LIVE_RATE,
            session=self._engine_state,
        )

    def _longest_segment(self) -> int:
        return round(self.options.endpointing.longest_s * LIVE_RATE)

    def add_hypothesis(
        self,
        task: RecognitionTask,
        hypothesis: RecognitionHypothesis | None,
        now: float,
        work_s: float,
    ) -> Iterator[live_events.LiveEvent]:
        """Yield the events of a result; it is None if recognition was stopped or failed."""
        self._plan.over(task, now)
        speech = task.segment
        if speech.cancelled or speech.final is not None:
            return
        if self._schedule.turns:  # its turns are over, whatever follows in the segment
            rest = yield from self._divided(speech, hypothesis, task.to, now, work_s)
            if rest is not speech and hypothesis is not None:
                speech, hypothesis, work_s = rest, dataclasses.replace(hypothesis, earlier=()), 0.0
        if task.urgency is RecognitionUrgency.FINAL:
            yield from self._set_final(speech, hypothesis, now, work_s)
            return
        if hypothesis is None:
            return
        news = (
            speech.draft_hypothesis is None
            or speech.draft_hypothesis.text != hypothesis.text
            or not self._schedule.grows
        )
        speech.draft_hypothesis = hypothesis
        if task.pause is not None and task.pause == speech.paused:
            speech.early_hypothesis = hypothesis
            if speech.end is not None:
                yield from self._set_final(speech, hypothesis, now, work_s)
                return
        if speech.end is None and self.options.partials and hypothesis.text and news:
            yield from self._partial(speech, hypothesis, task)

    def _speaker_change_frame(self, speech: SpeechSegment, at: int, last: int) -> int:
        """Return the frame with the least speech near a change of speakers, in the audio up to
        ``last``, which the engine has. Both speakers get speech."""
        threshold = self.options.endpointing.threshold
        within = [one for one in self._probabilities if speech.start < one[1] < last]
        spoken = [frame for probability, frame in within if probability >= threshold]
        near = [
            (probability, abs(frame - at), frame)
            for probability, frame in within
            if spoken
            and spoken[0] < frame <= spoken[-1]
            and abs(frame - at) <= _SPEAKER_CHANGE_SAMPLES
        ]
        return min(near)[2] if near else at

    def _divided(
        self,
        speech: SpeechSegment,
        hypothesis: RecognitionHypothesis | None,
        last: int,
        now: float,
        work_s: float,
    ) -> Generator[live_events.LiveEvent, None, SpeechSegment]:
        """Divide a segment behind the earlier turns of a hypothesis of its audio up to ``last``;
        return the segment of the rest."""
        for end, turn in hypothesis.earlier if hypothesis is not None else ():
            if self._schedule.turns:  # that knows the place by its words
                end = self._speaker_change_frame(speech, end, last)
            at = min(max(end, speech.start + 1), last)
            speech = yield from self._divide(speech, at, turn, now, work_s)
            work_s = 0.0
        return speech

    def _divide(
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
            number=self._next_number,
            start=at,
            draft_hypothesis=None,
            agreement=HypothesisAgreement(),
        )
        self._next_number += 1
        if speech.diarize:
            self.segment_embeddings.divided(speech.number, at, rest.number, now, self.audio)
        if speech is self._open_segment:
            self._open_segment, speech.since = rest, self._arrived_at
            self._assembler.add(speech)
        else:
            self._assembler.add(rest, previous_speech=speech)
        speech.end = at
        yield from self._set_final(speech, hypothesis, now, work_s, part=True)
        return rest

    def relabel(
        self, task: EmbeddingTask, result: RelabelResult | None
    ) -> Iterator[live_events.LiveEvent]:
        """Take over a decision, if there was one; yield the events."""
        yield from self.segment_embeddings.decided(task, result)
        yield from self._send_due()

    def _end_of_audio(self) -> int:
        """Return the end of the audio, which may be in the middle of a frame."""
        return max(
            self._counted_from,
            min(self._audio_before_order, self._processed_to + endpointing.FRAME_SAMPLES - 1),
        )

    def _handle_endpoint(
        self, event: endpointing.EndpointEvent, now: float
    ) -> Iterator[live_events.LiveEvent]:
        match event:
            case endpointing.UtteranceBegan(at):
                begins = self._turn_began is None
                if begins or self._utterance_admission is None:
                    self._utterance_admission = self.decide_admission()
                if self._utterance_admission is UtteranceAdmission.REFUSE:
                    self.leave()
                    self.over = True
                    yield live_events.SessionRejected()
                    return
                self._open_segment = SpeechSegment(
                    self._next_number, self._turn, at, self._processed_to, self.options, asked=at
                )
                self._open_segment.shed = self._utterance_admission is UtteranceAdmission.SHED
                labelled = self.options.diarize and self.segment_embeddings.encodes
                self._open_segment.diarize = labelled and not self._open_segment.shed
                if self._open_segment.diarize:
                    self.segment_embeddings.opened(self._next_number, at)
                self._next_number += 1
                self._silent_since = None
                if begins:
                    self._turn_began = at
                    yield live_events.SpeechStarted(self._turn, at / LIVE_RATE)
                if begins and self._open_segment.shed:
                    begin_s = at / LIVE_RATE
                    yield live_events.NoticeRaised(UTTERANCE_DROPPED_NOTICE, self._turn, begin_s)
            case endpointing.UtterancePaused(at):
                assert self._open_segment is not None
                self._open_segment.paused, self._open_segment.early_hypothesis = at, None
                self.segment_embeddings.paused()
            case endpointing.UtteranceResumed():
                assert self._open_segment is not None
                self._open_segment.paused = self._open_segment.early_hypothesis = None
            case endpointing.UtteranceEnded(at, reason):
                yield from self._end_segment(at, reason, now)

    def _end_segment(
        self, at: int, reason: endpointing.EndReason, now: float
    ) -> Iterator[live_events.LiveEvent]:
        speech, self._open_segment = self._open_segment, None
        assert speech is not None
        speech.end, speech.since = at, now
        self.segment_embeddings.ended(speech.number, at, now, self.audio)
        if reason == "cut":
            speech.paused = speech.early_hypothesis = None
        self._assembler.add(speech)
        if reason == "silence":
            self._silent_since = at
            yield live_events.SpeechStopped(speech.turn, at / LIVE_RATE)
            if self.options.turns is not TurnControl.CLIENT:
                self._end_turn(at)
        if speech.shed:
            yield from self._set_final(speech, RecognitionHypothesis(""), now, 0.0)
        elif speech.early_hypothesis is not None:
            yield from self._set_final(speech, speech.early_hypothesis, now, 0.0)
        if reason == "silence" and self.options.turns is TurnControl.ONE:
            yield from self.finish(now)

    def _is_silent(self, since: int) -> bool:
        """Return whether the silence behind the last utterance is long enough."""
        ends = self.options.endpointing
        quiet = since - round(ends.post_roll_s * LIVE_RATE)
        return self._processed_to - quiet >= round(ends.silence_s * LIVE_RATE)

    def _end_silent_turn(self, since: int) -> Iterator[live_events.LiveEvent]:
        """End a turn without an open utterance: when its last one ended, the client was to end it,
        or the engine died before it did."""
        yield live_events.SpeechStopped(self._turn, since / LIVE_RATE)
        self._end_turn(since)
        yield from self._send_due()
        if self.options.turns is TurnControl.ONE:
            yield from self.finish(self._arrived_at)

    def _end_turn(self, at: int, *, committed: bool = False) -> None:
        self._assembler.end_turn(self._turn, at, committed=committed)
        self._turn += 1
        self._turn_began = self._silent_since = None

    def _set_final(
        self,
        speech: SpeechSegment,
        hypothesis: RecognitionHypothesis | None,
        now: float,
        work_s: float,
        *,
        part: bool = False,
    ) -> Iterator[live_events.LiveEvent]:
        """Set the final of a segment that has ended, or one for each turn of its speakers; they are
        sent behind those before it. ``part``: it is one of these."""
        assert speech.end is not None
        if self._context is not None and not part:
            self._context.settled(speech, hypothesis)
        if hypothesis is not None and hypothesis.turns and not part:
            hypothesis = divided_at_changes(hypothesis, speech.start, speech.end)
            rest = yield from self._divided(speech, hypothesis, speech.end, now, work_s)
            speech, work_s = rest, work_s if rest is speech else 0.0
        flags: tuple[str, ...] = ()
        if hypothesis is None or hypothesis.unheard:
            hypothesis = hypothesis or speech.draft_hypothesis or RecognitionHypothesis("")
            hypothesis, flags = (
                dataclasses.replace(hypothesis, words=()),
                (UNHEARD_FLAG,),
            )
            yield live_events.NoticeRaised(
                RECOGNITION_FAILED_NOTICE, missing_from=speech.start / LIVE_RATE
            )
        if not hypothesis.language:
            hypothesis = dataclasses.replace(hypothesis, language=speech.options.language)
        self._confidence += hypothesis.confidence
        if self._confidence.doubtful and not self._language_doubted:
            self._language_doubted = True
            yield live_events.NoticeRaised(doubtful_language_notice(live=True))
        self._assembler.set_final(
            speech, hypothesis, flags, max(0.0, now - speech.since - work_s), work_s
        )
        yield from self._send_due()

    def _send_due(self) -> Iterator[live_events.LiveEvent]:
        """Yield due results, in order."""
        yield from self._report_context()
        waited = sum(1 for _ in self._assembler.speech_segments)
        before = self._assembler.commits
        yield from self._assembler.due_events()
        if (waited, before) != (
            sum(1 for _ in self._assembler.speech_segments),
            self._assembler.commits,
        ):
            yield from self._report_progress(always=True)
        if self.over or not self._assembler.only_summary_left:
            return
        if not self.segment_embeddings.settled:
            if not self.segment_embeddings.has_no_work:
                return
            yield from self.segment_embeddings.settle()
        yield from self._report_progress(always=True)
        self.over = True
        about = self._engine, self._precision
        transcript = self._assembler.summary(self.options, self._end_of_audio(), *about)
        yield live_events.Summary(with_language_notice(transcript, self._confidence, live=True))

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
        if (
            self._late_notice_at is None
            or task.to - self._late_notice_at >= LATE_NOTICE_INTERVAL_S * LIVE_RATE
        ):
            self._late_notice_at = task.to
            yield live_events.NoticeRaised(PARTIALS_LATE_NOTICE)

    def _report_context(self) -> Iterator[live_events.LiveEvent]:
        """Yield the context if it has changed: before its last segment is sent, as an engine that
        takes over behind that recognizes the next one with it."""
        known = () if self._context is None else self._context.utterances
        if known != self._reported_context:
            self._reported_context = known
            yield live_events.ContextKnown(known)

    def _report_progress(self, always: bool = False) -> Iterator[live_events.LiveEvent]:
        """Drop audio that is not needed any more; report the progress now and then."""
        settled = (
            self._processed_to
            if self.finishing
            else min(self._endpointer.keep_from, self._processed_to)
        )
        for speech in self._assembler.speech_segments:
            settled = min(settled, speech.start)
        if self._open_segment is not None:
            settled = min(settled, self._open_segment.start)
        wanted = settled
        if self._context is not None:
            wanted = self._context.keep_from(settled, self._longest_segment())
        self.audio.drop(wanted)
        if always or self._processed_to - self._reported_at >= LIVE_RATE // 2:
            self._reported_at = self._processed_to
            yield from self._report_context()
            known = self._reported_context
            lead_s = max(0.0, settled / LIVE_RATE - LEAD_IN_S)
            wanted_s = min(lead_s, known[0].start) if known else lead_s
            at_s = self._processed_to / LIVE_RATE
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
