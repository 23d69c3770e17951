"""Transcription of one recording by Whisper: windows, words, segments.

The model's window is thirty seconds, and padding costs as much as audio. So a window is filled with
several speech regions if they are short. Silence of up to a second is kept; of a longer one only
the ends next to speech are.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from sidecar import errors
from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.loudness import quietest_sample
from sidecar.audio.sample_buffers import AudioHistoryBuffer
from sidecar.diarization import diarizer, word_attribution
from sidecar.diarization.kept_diarization import KeptDiarization, word_ranges_of
from sidecar.engines import whisper
from sidecar.engines.whisper import whisper_decoder
from sidecar.engines.whisper.overlooked_speech import (
    audio_span,
    repeats,
    stretched_words,
    turns_without_words,
    with_overlooked,
)
from sidecar.interfaces import engine_interface
from sidecar.interfaces.language_tags import language_code
from sidecar.serialization import to_plain
from sidecar.transcripts import transcript
from sidecar.transcripts.loop_guard import LOOP_RECOVERED, SkippedAudio, loop_skipped_notice
from sidecar.transcripts.overlapping_words import (
    OVERLAP_S,
    QUIET_S,
    CutWords,
    words_before,
)
from sidecar.transcripts.sentence_ends import ends_sentence
from sidecar.transcripts.speaker_turns import (
    Span,
    SpeakerTurn,
    clipped_spans,
    merged_spans,
    number_speakers_by_appearance,
)

WINDOW_S = 30.0
"""Window that the model was trained on."""
FULL_WINDOW_S = 27.0
"""Seconds of audio from which a window is full: it ends before a region that does not fit. A window
with less takes the beginning of that region."""
CUT_SEARCH_S = 4.0
"""Last seconds of a window in which a pause to cut at is searched."""
CONTEXT_S = 0.3
"""Seconds of silence around speech that are recognized with it."""
MAX_KEPT_SILENCE_S = 1.0
"""Seconds of silence that are kept as a whole."""
SPEECH_END_DELAY_S = 0.5
"""Seconds of silence after which a speech region has ended."""

MAX_BESIDE_S = WINDOW_S - 2 * CONTEXT_S
"""Maximum of the speech beside the dominant speaker that is recognized at once."""

CutFinder = Callable[[float, float], float]
"""Finder of the best cut between two times, in seconds from the start of the recording."""

SEGMENT_PAUSE_S = 0.7
"""Seconds of a pause that begins another segment (`diarization.word_attribution`)."""
SENTENCE_SEGMENT_S = 5.0
"""Seconds from which a segment ends with its sentence."""
MAX_SEGMENT_S = 12.0
NAME = "whisper"
OUTPUT_TRUNCATED = transcript.Notice(
    transcript.TRUNCATED, "The output of the model ended at the limit of tokens."
)
_STEP_SAMPLES = SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class WhisperWindow:
    """Speech regions of a recording that are decoded at once, one after the other; ``end_s`` is the
    position after them. ``cut``: it lies within speech, and the last region goes on for
    `OVERLAP_S`."""

    pieces: tuple[Span, ...]
    end_s: float
    cut: bool = False

    @property
    def length_s(self) -> float:
        """Return the total length of the regions in seconds."""
        return sum(end - start for start, end in self.pieces)

    def placed(self, start: float, end: float) -> Span:
        """Return a span of the window on the recording's clock, inside the region that contains its
        middle."""
        middle, passed = (start + end) / 2, 0.0
        for number, (begin, stop) in enumerate(self.pieces):
            if middle < passed + stop - begin or number == len(self.pieces) - 1:
                shift = begin - passed
                return min(max(start + shift, begin), stop), min(max(end + shift, begin), stop)
            passed += stop - begin
        return start, end


class WindowPacker:
    """Packer of speech regions into windows, fed with the speaker turns so far."""

    def __init__(self, cut: CutFinder) -> None:
        self._cut = cut
        self.done_s = 0.0
        """Position up to which all speech is in a window."""
        self.cut_s: float | None = None
        """Position of the last cut within speech: the window after it has the audio before it."""
        self.needed_s = 0.0
        """Position from which on audio is needed for later windows."""

    def take(self, turns: Iterable[SpeakerTurn], speech_final_s: float) -> list[WhisperWindow]:
        """Return the windows that are final, or all windows if ``speech_final_s``, up to which
        speech detection is final, is infinite."""
        speech = merged_spans((turn.start, turn.end) for turn in turns)
        stretches = clipped_spans(speech, self.done_s, speech_final_s)
        found: list[WhisperWindow] = []
        while (window := self._next(stretches, speech_final_s)) is not None:
            found.append(window)
            self.done_s = window.end_s
            self.cut_s = window.end_s if window.cut else self.cut_s
            stretches = clipped_spans(stretches, window.end_s)
        first = stretches[0][0] if stretches else speech_final_s
        self.needed_s = max(0.0, min(first, speech_final_s) - max(CONTEXT_S, OVERLAP_S))
        return found

    def _next(self, spans: Sequence[Span], speech_final_s: float) -> WhisperWindow | None:
        taken: list[Span] = []
        for number, (start, end) in enumerate(spans):
            pieces = self._pieces([*taken, (start, end)], spans[number + 1 :])
            if _speech_length_s(pieces) <= WINDOW_S:
                if end + SPEECH_END_DELAY_S > speech_final_s:
                    return None
                taken.append((start, end))
                continue
            if taken and _speech_length_s(self._pieces(taken, spans[number:])) >= FULL_WINDOW_S:
                break
            # Length of the region's beginning that fits into the window, after the silence before
            # it.
            room = WINDOW_S - (_speech_length_s(pieces) - (end - start)) - CONTEXT_S
            if room < CUT_SEARCH_S:
                break
            room -= OVERLAP_S
            cut = self._cut(start + max(room - CUT_SEARCH_S, room / 2), start + room)
            *first, (begin, _) = self._pieces([*taken, (start, cut)], [(cut, end)])
            return WhisperWindow((*first, (begin, cut + OVERLAP_S)), cut, cut=True)
        else:
            if speech_final_s != float("inf"):
                return None
        if not taken:
            return None
        rest = spans[len(taken) :]
        return WhisperWindow(tuple(self._pieces(taken, rest)), taken[-1][1])

    def _pieces(self, taken_spans: Sequence[Span], rest_spans: Sequence[Span]) -> list[Span]:
        """Return the regions with some silence around them; no silence is in two windows."""
        found: list[Span] = []
        before = self.done_s
        for number, (start, end) in enumerate(taken_spans):
            later = [*taken_spans[number + 1 :], *rest_spans][:1]
            after = later[0][0] if later else end + 2 * CONTEXT_S
            begin = max(start - CONTEXT_S, 0.0, (before + start) / 2 if before else 0.0)
            if start == self.done_s:
                begin = start - OVERLAP_S * (start == self.cut_s)
            stop = min(end + CONTEXT_S, (end + after) / 2)
            if found and start - before <= MAX_KEPT_SILENCE_S:
                found[-1] = found[-1][0], stop
            else:
                found.append((begin, stop))
            before = end
        return found


def _speech_length_s(spans: Iterable[Span]) -> float:
    return sum(end - start for start, end in spans)


def place_words(words: Iterable[transcript.Word], window: WhisperWindow) -> list[transcript.Word]:
    """Return the words of a window on the recording's clock; their text keeps the space before
    it."""
    found: list[transcript.Word] = []
    for word in words:
        start, end = window.placed(word.start, word.end)
        if found:  # an alignment may go back at the border of two regions
            start = max(start, found[-1].start)
        found.append(replace(word, start=round(start, 2), end=round(max(start, end), 2)))
    return found


def segments_of(words: Sequence[transcript.Word], language: str = "") -> list[transcript.Segment]:
    """Return the words, all in one language, as segments without speakers."""
    found: list[transcript.Segment] = []
    held: list[transcript.Word] = []
    for word in words:
        if held and _ends_segment(held, word, language):
            found.append(_segment(held, language))
            held = []
        held.append(word)
    if held:
        found.append(_segment(held, language))
    return [segment for segment in found if segment.text]


def _ends_segment(words: Sequence[transcript.Word], word: transcript.Word, language: str) -> bool:
    if word.start - words[-1].end >= SEGMENT_PAUSE_S or word.end - words[0].start > MAX_SEGMENT_S:
        return True
    return (
        ends_sentence(words[-1].text, word.text, language)
        and words[-1].end - words[0].start >= SENTENCE_SEGMENT_S
    )


def _segment(words: Sequence[transcript.Word], language: str) -> transcript.Segment:
    text = "".join(word.text for word in words).strip()
    stripped_words = tuple(replace(word, text=word.text.strip()) for word in words)
    return transcript.Segment(
        words[0].start,
        max(word.end for word in words),
        text,
        words=stripped_words,
        words_by=transcript.WORDS_BY_ATTENTION,
        confidence=transcript.words_confidence(words),
        language=language,
    )


class WhisperTranscription:
    """Transcription of one request. It ends early, without `Finished`, once it is cancelled.

    ``thread``: runs the model, one window at a time. CTranslate2 cannot be stopped within a window:
    a cancelled request leaves its window running, and the next request waits for its end.
    """

    def __init__(
        self,
        recognizer: whisper_decoder.WhisperRecognizer,
        thread: ThreadPoolExecutor,
        speaker_diarizer: diarizer.Diarizer,
        request: engine_interface.TranscriptionRequest,
        resume_points: Sequence[transcript.ResumePoint] | None = None,
    ) -> None:
        """``resume_points``: those of this recording so far; None if none are wanted."""
        self._resume_points = resume_points
        self._again_s = 0.0
        """Position up to which the audio was transcribed before the resume point."""
        self._again_from = 0
        """First sample before it that is needed."""
        self._in_resume_points = 0, 0
        """Segments in resume points: those of the recording, and those beside it."""
        self._unsettled: list[transcript.Segment] = []
        """Reported segments in no resume point."""
        self._recognizer = recognizer
        self._thread = thread
        self._speaker_diarizer = speaker_diarizer
        self._source, self._options = request.audio, request.options
        self._cancelled = request.cancelled
        self._audio = AudioHistoryBuffer(SAMPLE_RATE)
        self._packing = WindowPacker(self._quiet)
        self._cut: CutWords | None = None
        """Words at the last cut within speech."""
        self._segments: list[transcript.Segment] = []
        self._beside: list[transcript.Segment] = []
        """Segments of those who speak beside the dominant speaker."""
        self._beside_s: dict[int, float] = {}
        """Position up to which such speech of each speaker is recognized."""
        self._beside_from_s = inf
        """Start of such speech that goes on after the windows so far."""
        self._recognized_s = 0.0
        """Position up to which all windows are recognized."""
        self._ready = 0
        self._languages: Counter[str] = Counter()
        self._likely: dict[str, float] = {}
        """Sums of the probabilities of languages, with the weights of `_languages`."""
        self._last: str | None = None
        self._tokens = 0
        self._done_s = 0.0
        self._notices: dict[str, transcript.Notice] = {}
        self._lost_s = 0.0

    def events(self) -> Iterator[transcript.TranscriptionEvent]:
        """Run the transcription."""
        if self._resume_points:
            self._go_on(self._resume_points)
        previous_turns: Sequence[SpeakerTurn] | None = None
        for update in diarizer.diarize_in_background(
            self._speaker_diarizer,
            self._blocks(),
            cancelled=self._cancelled,
            resumable=self._resume_points is not None,
        ):
            if self._cancelled():
                return
            if update.turns is not previous_turns or update.final_s == inf:
                previous_turns = update.turns
                for window in self._packing.take(update.turns, update.final_s):
                    if (result := self._recognize_window(window)) is None:
                        return
                    yield from self._window_events(window, result, update.turns)
                self._audio.forget(min(self._packing.needed_s, self._beside_from_s - CONTEXT_S))
            if update.snapshot is not None:
                yield self._resume_point(update.end_s, update.snapshot)
        if self._cancelled():
            return
        yield transcript.Progress(self._audio.end_s, self._audio.end_s)
        segments = self._given(self._segments, self._beside, self._speaker_diarizer.turns)
        if self._options.keeps_diarization and (kept := self._kept(segments)) is not None:
            yield kept
        yield transcript.Finished(
            self._speaker_diarizer.identified(self._transcript(segments), self._options)
        )

    def _resume_point(self, end_s: float, voices: Mapping[str, Any]) -> transcript.ResumePoint:
        """Return the resume point since the last one."""
        first, first_beside = self._in_resume_points
        self._in_resume_points = len(self._segments), len(self._beside)
        state = {
            "segments": to_plain(self._segments[first:]),
            "beside": to_plain(self._beside[first_beside:]),
            "beside_s": [*self._beside_s.items()],
            "beside_from_s": None if self._beside_from_s == inf else self._beside_from_s,
            "packed_s": self._packing.done_s,
            "cut": self._cut and self._cut.state(),
            "recognized_s": self._recognized_s,
            "audio": self._audio.start,
            "by": whisper.SPEC.resumes,
            "languages": [*self._languages.items()],
            "likely": {**self._likely},
            "last": self._last,
            "tokens": self._tokens,
            "done_s": self._done_s,
            "lost_s": self._lost_s,
            "notices": [[one.code, one.message] for one in self._notices.values()],
            "voices": voices,
        }
        segments, self._unsettled = tuple(self._unsettled), []
        return transcript.ResumePoint(end_s, whisper.SPEC.resumes, segments, state)

    def _go_on(self, resume_points: Sequence[transcript.ResumePoint]) -> None:
        """Restore the state of the last one."""
        states = [one.state for one in resume_points]
        last = states[-1]
        self._speaker_diarizer.go_on([state["voices"] for state in states])
        for state in states:
            self._segments += transcript.segments_from_plain(state["segments"])
            self._beside += transcript.segments_from_plain(state["beside"])
        self._in_resume_points = len(self._segments), len(self._beside)
        self._ready = sum(len(one.segments) for one in resume_points)
        self._beside_s = dict(last["beside_s"])
        self._beside_from_s = inf if last["beside_from_s"] is None else last["beside_from_s"]
        self._packing.done_s = last["packed_s"]
        if last.get("cut"):
            self._cut = CutWords.from_state(last["cut"])
            self._packing.cut_s = self._cut.at_s
        self._recognized_s, self._done_s = last["recognized_s"], last["done_s"]
        self._languages, self._likely = Counter(dict(last["languages"])), dict(last["likely"])
        self._last, self._tokens, self._lost_s = last["last"], last["tokens"], last["lost_s"]
        for code, message in last["notices"]:
            self._note(transcript.Notice(code, message))
        self._again_s, self._again_from = resume_points[-1].audio_s, last["audio"]

    def _kept(self, segments: Sequence[transcript.Segment]) -> transcript.ResumePoint | None:
        """Return what a diarization after the end needs."""
        uncut_segments = [*self._segments, *self._beside]
        return KeptDiarization(
            self._speaker_diarizer.found,
            self._audio.end_s,
            uncut_segments,
            word_ranges_of(uncut_segments, segments),
            fitted=True,
        ).resume_point()

    def _blocks(self) -> Iterator[tuple[float, Block]]:
        for block in self._source:
            for start in range(0, len(block), _STEP_SAMPLES):
                if self._cancelled():
                    return
                piece = block[start : start + _STEP_SAMPLES]
                self._audio.append(piece)
                if self._audio.end_s <= self._again_s:
                    self._speaker_diarizer.replay_audio(piece)
                    self._audio.drop(self._again_from)
                else:
                    yield self._audio.end_s, piece

    def _quiet(self, start: float, end: float) -> float:
        samples = self._audio.between(start, end)
        return start + quietest_sample(samples, SAMPLE_RATE, QUIET_S) / SAMPLE_RATE

    def _recognize_window(
        self, window: WhisperWindow, language: str | None = None
    ) -> whisper_decoder.WhisperResult | None:
        """Return the result of a window, in a language that is known or else found; `None` if it
        was cancelled."""
        import numpy as np

        left = self._options.max_tokens
        if left is not None:
            left -= self._tokens
            if left <= 0:
                return whisper_decoder.WhisperResult((), None, truncated=True)
        samples = np.concatenate([self._audio.between(*piece) for piece in window.pieces])
        request = whisper_decoder.WhisperRequest(
            language or language_code(self._options.language),
            self._options.prompt_with_hotwords,
            self._options.temperature,
            left,
            self._options.translate,
        )
        hearing = self._thread.submit(self._recognizer.recognize, samples, request, self._last)
        try:
            return diarizer.wait_unless_cancelled(hearing, self._cancelled)
        except RuntimeError as error:
            if whisper_decoder.is_out_of_memory(error):
                raise errors.GpuOutOfMemory() from None
            raise

    def _window_events(
        self,
        window: WhisperWindow,
        result: whisper_decoder.WhisperResult,
        turns: Sequence[SpeakerTurn],
    ) -> Iterator[transcript.TranscriptionEvent]:
        """Add the result of a window; yield its segments and progress."""
        self._tokens += result.tokens
        self._tell(result)
        words = self._once(place_words(result.words, window), window)
        lost_s = None
        if result.lost_s is not None:
            lost_s = window.placed(result.lost_s, result.lost_s)[0]
            lost_s = None if lost_s >= window.end_s else lost_s
        until_s = window.end_s if lost_s is None else lost_s
        alone: dict[float, float | None] = {}
        """Probabilities of no speech of words that were recognized alone, by their starts."""
        lines = word_attribution.dominant_turns(turns)
        own_end_s = window.end_s if window.cut else inf
        own_pieces = clipped_spans(window.pieces, self._recognized_s, own_end_s)
        stretched = stretched_words(words)
        sure = [word for word in words if word not in stretched]
        for turn in turns_without_words(lines, sure, self._recognized_s, until_s):
            own = self._recognize_alone(audio_span(turn, lines, own_pieces), result)
            words = with_overlooked(words, stretched, turn, own.words)
            alone |= {word.start: own.no_speech for word in own.words}
        beside: list[transcript.Segment] = []
        if self._options.diarize:
            for turn, limits in self._turns_beside(turns, window, until_s):
                own = self._recognize_alone(audio_span(turn, lines, [limits]), result)
                first = bisect_right(self._segments, limits[0], key=lambda one: one.end)
                earlier = [word for one in self._segments[first:] for word in one.words]
                if own.words and not repeats(own.words, [*earlier, *words]):
                    one = replace(
                        _segment(own.words, result.language or ""),
                        start=turn.start,
                        end=turn.end,
                        speaker=turn.label,
                        no_speech_probability=own.no_speech,
                    )
                    beside.append(one)
        self._recognized_s = window.end_s
        found = [
            replace(
                one,
                no_speech_probability=alone[one.start]
                if all(word.start in alone for word in one.words)
                else result.no_speech,
            )
            for one in segments_of(words, result.language or "")
        ]
        if result.language is not None and words:
            hundredths = round(100 * window.length_s)
            self._languages[result.language] += hundredths
            if result.likely is not None:
                likely = self._likely.get(result.language, 0.0)
                self._likely[result.language] = likely + result.likely * hundredths
            self._last = result.language if result.sure else self._last
        if lost_s is not None:
            self._lost_s += max(0.0, window.end_s - lost_s)
            found.append(SkippedAudio(lost_s, window.end_s).segment())
            self._note(loop_skipped_notice(self._lost_s))
        self._segments += found
        self._beside += beside
        for segment in self._given(found, beside, turns):
            yield transcript.SegmentReady(self._ready, segment)
            self._ready += 1
            self._unsettled.append(segment)
            yield self._progress(segment.end)
        yield self._progress(window.end_s)

    def _once(
        self, words: Sequence[transcript.Word], window: WhisperWindow
    ) -> Sequence[transcript.Word]:
        """Return the words of a window without those that are of the window before or after it."""
        before, first, last = self._cut, 0, len(words)
        if before is not None and window.pieces[0][0] < before.at_s:
            first = before.first_after(words)
        if window.cut:
            self._cut = CutWords.of(words, window.end_s)
            last = max(first, words_before(words, window.end_s))
        return words[first:last]

    def _turns_beside(
        self, turns: Sequence[SpeakerTurn], window: WhisperWindow, until_s: float
    ) -> Iterator[tuple[SpeakerTurn, Span]]:
        """Yield the turns beside the dominant speaker up to ``until_s``, each with the limits of
        its audio. One that goes on after the window waits for its end, in parts of at most
        `MAX_BESIDE_S`."""
        self._beside_from_s = inf
        for turn in word_attribution.overlapped_turns(turns):
            if turn.end <= self._recognized_s or turn.start >= until_s:
                continue
            done_s = self._beside_s.get(turn.label, 0.0)
            start, end = max(turn.start, done_s, self._audio.start_s), min(turn.end, until_s)
            while end - start > MAX_BESIDE_S:
                latest = min(start + MAX_BESIDE_S, end - word_attribution.MIN_BACKCHANNEL_S)
                cut = self._quiet(latest - CUT_SEARCH_S, latest)
                yield replace(turn, start=start, end=cut), (max(start - CONTEXT_S, done_s), cut)
                start = done_s = self._beside_s[turn.label] = cut
            if turn.end > window.end_s:
                self._beside_from_s = min(self._beside_from_s, start)
            elif end - start >= word_attribution.MIN_BACKCHANNEL_S:
                limit_s = until_s if window.cut or turn.end > until_s else window.pieces[-1][1]
                yield replace(turn, start=start, end=end), (max(start - CONTEXT_S, done_s), limit_s)
                self._beside_s[turn.label] = end

    def _recognize_alone(
        self, span: Span, result: whisper_decoder.WhisperResult
    ) -> whisper_decoder.WhisperResult:
        """Recognize a span alone, in the language of its window; times are of the recording."""
        window = WhisperWindow((span,), span[1])
        found = self._recognize_window(window, result.language)
        if found is None:
            return whisper_decoder.WhisperResult((), None)
        self._tokens += found.tokens
        self._tell(found)
        return replace(found, words=tuple(place_words(found.words, window)))

    def _given(
        self,
        segments: Sequence[transcript.Segment],
        segments_beside: Sequence[transcript.Segment],
        turns: Sequence[SpeakerTurn],
    ) -> Sequence[transcript.Segment]:
        if not self._options.diarize:
            return segments
        speakers = word_attribution.SpeakerLookup(turns)
        asides = [
            replace(one, speaker=speakers.voice(one.start, one.end, one.speaker))
            for one in segments_beside
            if one.speaker is not None
        ]
        found = [*word_attribution.by_turns(segments, turns), *asides]
        found.sort(key=lambda one: (one.start, one.end))
        return word_attribution.flag_overlaps(found, turns)

    def _progress(self, done_s: float) -> transcript.Progress:
        self._done_s = max(self._done_s, done_s)
        return transcript.Progress.of(self._done_s, self._source.total_s)

    def _tell(self, result: whisper_decoder.WhisperResult) -> None:
        if result.retried:
            self._note(LOOP_RECOVERED)
        if result.truncated:
            self._note(OUTPUT_TRUNCATED)

    def _note(self, notice: transcript.Notice) -> None:
        self._notices[notice.code] = notice

    def _transcript(self, segments: Sequence[transcript.Segment]) -> transcript.Transcript:
        language = self._options.language
        languages = self._languages.most_common()
        if language == engine_interface.AUTO and languages:
            language = languages[0][0]
        if len(languages) > 1:
            parts = ", ".join(f"{code} {hundredths / 100:.0f} s" for code, hundredths in languages)
            message = f"The recording has several languages: {parts}."
            self._note(transcript.Notice("several_languages", message))
        if self._options.windows is engine_interface.WindowingMode.PARALLEL:
            self._note(transcript.WINDOWS_NOT_PARALLEL)
        return transcript.Transcript(
            segments=tuple(number_speakers_by_appearance(segments)),
            language=language,
            duration=self._audio.end_s,
            engine=NAME,
            precision=self._recognizer.precision.value,
            diarized=self._options.diarize,
            notices=tuple(self._notices.values()),
            model=self._recognizer.name,
            language_probability=(
                round(self._likely[language] / self._languages[language], 3)
                if language in self._likely
                else None
            ),
        )
