"""Transcription of one recording utterance by utterance, for a recognizer of one utterance.

Diarization covers the whole recording, so speakers may be revised until the end. An utterance is
recognized once, as soon as it is known, and sent. A border that moves later moves its words to
another speaker, and changes none: a stream has the words of the transcript, in the same order.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from itertools import starmap
from math import inf
from typing import Any

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.loudness import quietest_sample
from sidecar.audio.sample_buffers import AudioHistoryBuffer
from sidecar.diarization import diarizer, word_attribution
from sidecar.diarization.kept_diarization import KeptDiarization, word_ranges_of
from sidecar.diarization.window_embeddings import DiarizationWindow, no_speech_probability
from sidecar.interfaces.engine_interface import (
    AUTO,
    EngineSpec,
    Precision,
    TranscriptionRequest,
)
from sidecar.interfaces.live_options import EndpointingOptions
from sidecar.interfaces.recognition import RecognitionHypothesis
from sidecar.live.runtime.endpointing import (
    FRAME_SAMPLES,
    Endpointer,
    EndpointEvent,
    UtteranceBegan,
    UtteranceEnded,
)
from sidecar.live.runtime.live_scheduler import has_speech
from sidecar.live.runtime.vad import SileroVad
from sidecar.transcripts import transcript
from sidecar.transcripts.language_detection import Confidence, EnglishCheck
from sidecar.transcripts.speaker_turns import SpeakerTurn, number_speakers_by_appearance

MAX_UTTERANCE_S = 12.0
MAX_WAIT_S = 30.0
"""Seconds that an utterance waits for those of other speakers at the same time to end."""
MIN_REST_S = 0.5
"""Minimum of a turn that has been recognized in part: less is a border that has moved."""
_HISTORY_S = 60.0
"""Seconds before the utterances to recognize in which turns matter for their borders."""
_PAUSE_S = 0.1
_STEP_SAMPLES = SAMPLE_RATE
_MIN_MISSED_S = 0.3
"""Minimum of speech between turns: less is the end of a turn."""
_MISSED = EndpointingOptions(
    min_speech_s=_MIN_MISSED_S, min_sure_speech_s=_MIN_MISSED_S, pre_roll_s=0.3
)
_LEAD_S = 0.5
"""Audio before a gap with which the VAD begins."""

RecognizeUtterance = Callable[[Block, bool], RecognitionHypothesis | None]
"""Recognizer of one utterance: its samples, shape (samples,), and whether word times are needed;
`None` if it was cancelled."""


@dataclass(frozen=True, slots=True)
class _Span:
    """Time of an utterance, that of the audio to recognize for it, and its speaker."""

    start: float
    end: float
    audio: tuple[float, float]
    label: int


@dataclass(frozen=True, slots=True)
class RecognizedUtterance:
    """Words of one speaker; times in seconds from the start of the recording. ``language``: '' if
    it is that of the engine. ``no_speech``: as of a `Segment`."""

    start: float
    end: float
    text: str
    voice: int
    confidence: float | None
    words: tuple[transcript.Word, ...] = ()
    language: str = ""
    no_speech: float | None = None

    def state(self) -> tuple[Any, ...]:
        """Return it as plain values, from which it is built again."""
        return astuple(self)


class UtteranceTranscription:
    """Transcription of one request. Iterate `events`, then read `segments`."""

    def __init__(
        self,
        recognize: RecognizeUtterance,
        speaker_diarizer: diarizer.Diarizer,
        vad: SileroVad | None,
        request: TranscriptionRequest,
        spec: EngineSpec,
        *,
        resumable: bool = False,
        longest_s: float = MAX_UTTERANCE_S,
    ) -> None:
        """``spec``: of the engine. ``resumable``: with resume points. ``longest_s``: of an
        utterance, in seconds."""
        self._recognize = recognize
        self._speaker_diarizer = speaker_diarizer
        self._vad = vad
        self._source, self._options = request.audio, request.options
        self._cancelled = request.cancelled
        self._audio = AudioHistoryBuffer(SAMPLE_RATE)
        self._utterances: list[RecognizedUtterance] = []
        self._recognized_s = 0.0
        """Time up to which the audio has been recognized."""
        self._missed: list[SpeakerTurn] = []
        """Speech that the diarization has missed."""
        self._missed_s = 0.0
        """Time up to which such speech has been found."""
        self._spec = spec
        self._language = spec.languages[0] if len(spec.languages) == 1 else ""
        self._longest_s = longest_s
        self._resumable = resumable
        self._in_resume_points = 0
        self._again_s = 0.0
        """Position up to which the audio was transcribed before the resume point."""
        self.confidence = Confidence()
        """Confidence of the recognizer in the whole recording."""

    def run(
        self,
        resume_points: Sequence[transcript.ResumePoint] | None,
        precision: Precision,
        complete: Callable[[transcript.Transcript], transcript.Transcript],
        check: EnglishCheck | None = None,
    ) -> Iterator[transcript.TranscriptionEvent]:
        """Yield all events of the request, from its resume points on; end early without `Finished`
        once it is cancelled, or ``check`` finds another language. ``complete``: adds to the
        transcript what the engine knows."""
        if resume_points:
            self._go_on(resume_points)
        for event in self.events():
            if self._cancelled() or (check and check.refuses(self.confidence)):
                return
            yield event
        if check and check.refuses(self.confidence, whole=True):
            return
        if self._options.keeps_diarization and (kept := self._kept_diarization) is not None:
            yield kept
        found = transcript.Transcript(
            segments=self.segments,
            language=self._transcript_language(),
            duration=self._audio.end_s,
            engine=self._spec.name,
            precision=precision.value,
            diarized=self._options.diarize,
        )
        found = self._speaker_diarizer.identified(complete(found), self._options)
        yield transcript.Finished(found)

    def _transcript_language(self) -> str:
        """Return the language of the engine, else that of the request, else the most frequent."""
        found = Counter(one.language for one in self._utterances if one.language)
        wanted = self._options.language
        if self._language or wanted != AUTO or not found:
            return self._language or wanted
        return found.most_common(1)[0][0]

    def _go_on(self, resume_points: Sequence[transcript.ResumePoint]) -> None:
        """Restore the state of the resume points, in which a later release may have more values."""
        states = [one.state for one in resume_points]
        self._speaker_diarizer.go_on([state["voices"] for state in states])
        self._utterances = [
            RecognizedUtterance(
                start, end, text, voice, sure, tuple(starmap(transcript.Word, words)), *rest[:2]
            )
            for state in states
            for start, end, text, voice, sure, words, *rest in state["lines"]
        ]
        self._in_resume_points = len(self._utterances)
        self._recognized_s = states[-1]["said_s"]
        self._again_s = resume_points[-1].audio_s
        self.confidence = Confidence(*states[-1].get("confidence", ()))

    def events(self) -> Iterator[transcript.TranscriptionEvent]:
        """Yield progress, and segments once they are known; `segments` may still revise them."""
        previous_turns: Sequence[SpeakerTurn] | None = None
        for update in diarizer.diarize_in_background(
            self._speaker_diarizer, self._blocks(), resumable=self._resumable
        ):
            if update.turns is not previous_turns or update.final_s == inf:
                previous_turns = update.turns
                yield from self._take(update)
            yield transcript.Progress.of(update.end_s, self._source.total_s)
            if update.snapshot is not None:
                yield self._resume_point(update.end_s, update.snapshot)

    def _resume_point(self, end_s: float, voices: Mapping[str, Any]) -> transcript.ResumePoint:
        """Return the resume point since the last one."""
        lines = self._utterances[self._in_resume_points :]
        self._in_resume_points = len(self._utterances)
        state = {
            "lines": [line.state() for line in lines],
            "said_s": self._recognized_s,
            "voices": voices,
            "confidence": astuple(self.confidence),
        }
        segments = tuple(map(self._segment, lines))
        return transcript.ResumePoint(end_s, self._spec.resumes, segments, state)

    def _blocks(self) -> Iterator[tuple[float, Block]]:
        for block in self._source:
            for start in range(0, len(block), _STEP_SAMPLES):
                piece = block[start : start + _STEP_SAMPLES]
                self._audio.append(piece)
                if self._audio.end_s <= self._again_s:
                    self._speaker_diarizer.replay_audio(piece)
                    self._audio.forget(self._recognized_s - word_attribution.CONTEXT_S)
                else:
                    yield self._audio.end_s, piece
            if self._cancelled():
                return

    def _take(self, update: diarizer.DiarizationUpdate) -> Iterator[transcript.TranscriptionEvent]:
        """Recognize the utterances that are known by now, each once, in order of time."""
        recent = (turn for turn in update.turns if turn.end > self._recognized_s - _HISTORY_S)
        lines = self._with_missed(word_attribution.merge_turns(recent), update.final_s)
        known, waiting = self._known(lines, update.final_s)
        for span in known:
            utterance = self._recognized(span, update.windows)
            if self._cancelled():
                return
            self._recognized_s = max(self._recognized_s, span.end)
            if utterance.text:
                self._utterances.append(utterance)
                yield transcript.SegmentReady(len(self._utterances) - 1, self._segment(utterance))
        needed_s = min([update.final_s, self._missed_s, *(span.start for span in waiting)])
        self._audio.forget(needed_s - word_attribution.MAX_JOINED_PAUSE_S)

    def _with_missed(self, turns: list[SpeakerTurn], final_s: float) -> list[SpeakerTurn]:
        """Return the turns with the speech between them that only the VAD hears, such as quiet
        words near a shout. The nearest speaker says it."""
        if self._vad is None:
            return turns
        end_s = min(final_s, self._audio.end_s)
        start = max(self._missed_s, self._recognized_s)
        for line in (*turns, SpeakerTurn(final_s, inf, 0)):
            if start < (end := min(line.start, end_s)):
                self._find_missed(self._vad, start, end, whole=end < final_s)
            start = max(start, line.end)
        self._missed = [
            replace(one, label=word_attribution.dominant_speaker(turns, one.start, one.end) or 0)
            for one in self._missed
            if one.end > self._recognized_s
            and not any(line.start < one.end and one.start < line.end for line in turns)
        ]
        return sorted([*turns, *self._missed], key=lambda line: (line.start, line.end))

    def _find_missed(self, vad: SileroVad, start_s: float, end_s: float, *, whole: bool) -> None:
        """Find speech in a gap between turns, of which more follows unless it is ``whole``."""
        samples = self._audio.between(start_s - _LEAD_S, end_s)
        frames = samples[len(samples) % FRAME_SAMPLES :].reshape(-1, 1, FRAME_SAMPLES)
        state = [vad.state()]
        speech = [float(vad.probabilities(frame, state)[0]) for frame in frames]
        end = round(end_s * SAMPLE_RATE)
        count = min(len(frames), (end - round(start_s * SAMPLE_RATE)) // FRAME_SAMPLES)
        endpointer = Endpointer(_MISSED, end - count * FRAME_SAMPLES)
        events: list[EndpointEvent] = []
        for probability in speech[len(frames) - count :]:
            events += endpointer.feed(probability)
        events += endpointer.stop("finish") if whole else ()
        begins = [one.at / SAMPLE_RATE for one in events if isinstance(one, UtteranceBegan)]
        ends = [one.at / SAMPLE_RATE for one in events if isinstance(one, UtteranceEnded)]
        self._missed += [SpeakerTurn(*span, 0) for span in zip(begins, ends, strict=False)]
        self._missed_s = end_s if whole else endpointer.keep_from / SAMPLE_RATE

    def _known(
        self, turns: Sequence[SpeakerTurn], final_s: float
    ) -> tuple[Sequence[_Span], Sequence[_Span]]:
        """Return the utterances that are known, and those that wait, in order of time.

        An utterance waits for those at the same time, at most `MAX_WAIT_S`: later, overlapping
        speech is not separated.
        """
        spans = sorted(self._spans(turns, final_s), key=lambda one: (one.start, one.end))
        over = next((at for at, one in enumerate(spans) if one.end == inf), len(spans))
        count, until_s = over, inf
        if over < len(spans) and final_s - spans[0].start <= MAX_WAIT_S:
            count, until_s = 0, 0.0
            for at, one in enumerate(spans[: over + 1]):
                count = at if one.start >= until_s else count
                until_s = max(until_s, one.end)
        return spans[:count], spans[count:]

    def _spans(self, turns: Sequence[SpeakerTurn], final_s: float) -> Iterator[_Span]:
        """Yield the rest of turns in utterances of bounded length; what is still in
        progress at ``final_s`` has no end."""
        recognized_s = self._recognized_s
        ends = {line.end for line in turns}
        for index, line in enumerate(turns):
            start, (begin, end) = line.start, word_attribution.context_span(turns, index)
            moved = (
                start in ends and abs(start - recognized_s) < MIN_REST_S
            )  # between two who overlap
            if start < recognized_s and line.end - recognized_s < MIN_REST_S:
                continue
            if start < recognized_s or moved:
                start, begin = recognized_s, max(begin, recognized_s)
            over = line.end + word_attribution.MAX_JOINED_PAUSE_S <= final_s
            while min(line.end, inf if over else final_s) - start > self._longest_s:
                middle = start + self._longest_s / 2
                samples = self._audio.between(middle, start + self._longest_s)
                cut = middle + quietest_sample(samples, SAMPLE_RATE, _PAUSE_S) / SAMPLE_RATE
                yield _Span(start, cut, (begin, cut), line.label)
                start = begin = cut
            yield _Span(start, line.end if over else inf, (begin, end), line.label)

    def _recognized(self, span: _Span, windows: Sequence[DiarizationWindow]) -> RecognizedUtterance:
        begin, end = span.audio  # a little more audio than the utterance
        align = self._options.words or self._options.diarize
        audio = self._audio.between(begin, end)
        found: RecognitionHypothesis | None = None
        if self._vad is None or has_speech(self._vad, audio):  # of other audio it invents words
            found = self._recognize(audio, align)
        found = found or RecognitionHypothesis("")  # cancelled, or no speech
        self.confidence += found.confidence

        def inside(time_s: float) -> float:
            return min(max(round(begin + time_s, 3), span.start), span.end)

        words = (replace(one, start=inside(one.start), end=inside(one.end)) for one in found.words)
        language = "" if found.language == self._language else found.language
        return RecognizedUtterance(
            *(span.start, span.end, found.text, span.label, found.confidence.mean, tuple(words)),
            language,
            no_speech_probability(windows, span.start, span.end),
        )

    def _segment(self, utterance: RecognizedUtterance) -> transcript.Segment:
        speaker = utterance.voice if self._options.diarize else None
        words = utterance.words if self._options.words else ()
        by = transcript.WORDS_BY_ATTENTION if words else ""
        return transcript.Segment(
            utterance.start,
            utterance.end,
            utterance.text,
            speaker,
            words,
            words_by=by,
            confidence=utterance.confidence,
            language=utterance.language or self._language,
            no_speech_probability=utterance.no_speech,
        )

    @property
    def segments(self) -> tuple[transcript.Segment, ...]:
        """Return all segments in the order in which their words were sent, once `events` has ended,
        with the speakers of the whole recording."""
        if not self._options.diarize:
            return tuple(map(self._segment, self._utterances))
        found = word_attribution.flag_overlaps(self._attributed, self._speaker_diarizer.turns)
        if not self._options.words:
            found = [replace(one, words=()) for one in found]
        return tuple(number_speakers_by_appearance(found))

    @property
    def _kept_diarization(self) -> transcript.ResumePoint | None:
        """Return what a diarization after the end needs, once `events` has ended."""
        return KeptDiarization(
            self._speaker_diarizer.found,
            self._audio.end_s,
            self._uncut_segments,
            word_ranges_of(self._uncut_segments, self._attributed),
        ).resume_point()

    @cached_property
    def _uncut_segments(self) -> Sequence[transcript.Segment]:
        """Utterances with their words, before they are cut at speaker changes."""
        return [replace(self._segment(one), words=one.words) for one in self._utterances]

    @cached_property
    def _attributed(self) -> Sequence[transcript.Segment]:
        lookup = word_attribution.SpeakerLookup(self._speaker_diarizer.turns)
        found = [cut for one in self._uncut_segments for cut in lookup.attributed(one)]
        return word_attribution.extend_over_overlaps(found, self._speaker_diarizer.turns)
