"""Transcription of one recording by Moonshine.

Diarization covers the whole recording, so speakers may be revised until the end. Borders of
utterances are revised for `REVISION_WINDOW_S`, while their audio is kept. An utterance is
recognized once, as soon as it is known, and again only if its borders changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from math import inf
from typing import Any

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.loudness import AudioHistoryBuffer, quietest_sample
from sidecar.diarization import diarizer, word_attribution
from sidecar.engines.moonshine import SPEC
from sidecar.engines.moonshine.moonshine_recognizer import MoonshineHypothesis, MoonshineRecognizer
from sidecar.interfaces.engine_interface import TranscriptionRequest
from sidecar.transcripts import transcript
from sidecar.transcripts.language_detection import Confidence
from sidecar.transcripts.speaker_turns import SpeakerTurn, number_speakers_by_appearance

MAX_UTTERANCE_S = 12.0
REVISION_WINDOW_S = 120.0
"""Seconds after which the borders of an utterance are final, as all passes cover it by then."""
_AUDIO_HISTORY_S = 5 * REVISION_WINDOW_S
"""Seconds after which they are final even within overlapping speech: audio is not kept for ever."""
_PAUSE_S = 0.1
_BORDER_TOLERANCE_S = 0.1
"""Maximum shift of an utterance's borders, in seconds, at which its text is kept."""
_STEP_SAMPLES = SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class MoonshineUtterance:
    """Words of one speaker; times in seconds from the start of the recording."""

    start: float
    end: float
    text: str
    voice: int
    words: tuple[transcript.Word, ...] = ()


_Heard = tuple[str, tuple[transcript.Word, ...]]
"""Text, and its words on the recording's clock."""


class MoonshineTranscription:
    """Transcription of one request. Iterate `events`, then read `segments`."""

    def __init__(
        self,
        recognizer: MoonshineRecognizer,
        follower: diarizer.Diarizer,
        request: TranscriptionRequest,
        settle_s: float | None = None,
    ) -> None:
        """``settle_s``: interval of checkpoints in seconds of audio; `None` for no checkpoints."""
        self._recognizer = recognizer
        self._follower = follower
        self._source, self._options = request.audio, request.options
        self._cancelled = request.cancelled
        self._audio = AudioHistoryBuffer(SAMPLE_RATE)
        self._texts: dict[tuple[float, float], _Heard] = {}
        self._settled: list[MoonshineUtterance] = []
        self._settled_s = 0.0
        self._ready = 0
        self._ready_s = 0.0
        self._turns: Sequence[SpeakerTurn] = ()
        self._settle_s = settle_s
        self._checkpointed = 0
        self._again_s = 0.0
        """Position up to which the audio was transcribed before the checkpoint."""
        self.confidence = Confidence()
        """Confidence of the recognizer in the whole recording."""

    def go_on(self, settled: Sequence[transcript.Checkpoint]) -> None:
        """Restore the state of the checkpoints."""
        states = [one.state for one in settled]
        self._follower.go_on([state["voices"] for state in states])
        self._settled = [
            MoonshineUtterance(start, end, text, voice, _words_from_json(words))
            for state in states
            for start, end, text, voice, words in state["lines"]
        ]
        self._texts = {
            (start, end): (text, _words_from_json(words))
            for start, end, text, words in states[-1]["texts"]
        }
        self._settled_s = self._ready_s = states[-1]["settled_s"]
        self._ready = self._checkpointed = len(self._settled)
        self._again_s = settled[-1].audio_s
        self.confidence = Confidence(*states[-1].get("confidence", ()))

    @property
    def duration_s(self) -> float:
        """Return the duration of the recording so far, in seconds."""
        return self._audio.end_s

    def events(self) -> Iterator[transcript.TranscriptionEvent]:
        """Yield progress, and segments once they are known; `segments` may still revise them."""
        seen: Sequence[SpeakerTurn] | None = None
        for heard in diarizer.diarize_in_background(
            self._follower, self._blocks(), settle_s=self._settle_s
        ):
            if heard.turns is not seen or heard.told_s == inf:
                seen = heard.turns
                yield from self._take(heard)
            yield transcript.Progress.of(heard.end_s, self._source.total_s)
            if heard.snapshot is not None:
                yield self._checkpoint(heard.end_s, heard.snapshot)

    def _checkpoint(self, end_s: float, voices: Mapping[str, Any]) -> transcript.Checkpoint:
        """Return the checkpoint since the last one. It contains the text of utterances whose
        borders may still change, so that none is recognized twice."""
        lines = self._settled[self._checkpointed :]
        self._checkpointed = len(self._settled)
        state = {
            "lines": [astuple(line) for line in lines],
            "settled_s": self._settled_s,
            "texts": [
                [start, end, text, list(map(astuple, words))]
                for (start, end), (text, words) in self._texts.items()
            ],
            "voices": voices,
            "confidence": astuple(self.confidence),
        }
        segments = tuple(self._segment(line, line.voice) for line in lines)
        return transcript.Checkpoint(end_s, SPEC.resumes, segments, state)

    def _blocks(self) -> Iterator[tuple[float, Block]]:
        for block in self._source:
            for start in range(0, len(block), _STEP_SAMPLES):
                piece = block[start : start + _STEP_SAMPLES]
                self._audio.append(piece)
                if self._audio.end_s <= self._again_s:
                    self._follower.replay_audio(piece)
                    self._audio.forget(self._settled_s - word_attribution.CONTEXT_S)
                else:
                    yield self._audio.end_s, piece
            if self._cancelled():
                return

    def _take(self, heard: diarizer.DiarizationUpdate) -> Iterator[transcript.TranscriptionEvent]:
        """Recognize the utterances that are known by now, and finalize those that are old
        enough."""
        self._turns = [
            replace(turn, start=max(turn.start, self._settled_s))
            for turn in heard.turns
            if turn.end > self._settled_s
        ]
        lines = word_attribution.merge_turns(self._turns)
        known: list[MoonshineUtterance] = []
        for index, line in enumerate(lines):
            over = line.end + word_attribution.MAX_JOINED_PAUSE_S <= heard.told_s
            for part in self._parts(
                line, word_attribution.context_span(lines, index), inf if over else heard.told_s
            ):
                if self._cancelled():
                    return
                known.append(part)
                if part.text and part.start >= self._ready_s:
                    yield transcript.SegmentReady(self._ready, self._segment(part, part.voice))
                    self._ready += 1
                    self._ready_s = part.end
            if not over:
                break
        self._settle(known, heard.told_s)

    def _parts(
        self, line: SpeakerTurn, heard: tuple[float, float], until_s: float
    ) -> Iterator[MoonshineUtterance]:
        """Yield a speaker turn in utterances of at most `MAX_UTTERANCE_S`; of a turn in progress
        only those before ``until_s``, which are final."""
        start, (begin, end) = line.start, heard
        while min(line.end, until_s) - start > MAX_UTTERANCE_S:
            middle = start + MAX_UTTERANCE_S / 2
            sound = self._audio.between(middle, start + MAX_UTTERANCE_S)
            cut = middle + quietest_sample(sound, SAMPLE_RATE, _PAUSE_S) / SAMPLE_RATE
            yield self._line(start, cut, (begin, cut), line.label)
            start = begin = cut
        if until_s == inf:
            yield self._line(start, line.end, (begin, end), line.label)

    def _line(
        self, start: float, end: float, heard: tuple[float, float], voice: int
    ) -> MoonshineUtterance:
        text, words = self._text(*heard)  # of a little more audio than the utterance
        inside = (
            transcript.Word(
                min(max(one.start, start), end), max(min(one.end, end), start), one.text
            )
            for one in words
        )
        return MoonshineUtterance(start, end, text, voice, tuple(inside))

    def _text(self, start: float, end: float) -> _Heard:
        for (known_start, known_end), said in self._texts.items():
            if max(abs(known_start - start), abs(known_end - end)) <= _BORDER_TOLERANCE_S:
                return said
        sound = self._audio.between(start, end)
        heard = self._recognizer.hear(sound, None, self._cancelled, words=self._options.words)
        found = heard or MoonshineHypothesis("")  # cancelled
        self.confidence += found.confidence
        words = tuple(
            transcript.Word(round(start + one.start, 3), round(start + one.end, 3), one.text)
            for one in found.words
        )
        self._texts[start, end] = found.text, words
        return found.text, words

    def _settle(self, known: Sequence[MoonshineUtterance], told_s: float) -> None:
        """Finalize utterances that are not revised any more, and drop their audio.

        The last of them ends where at most one speaker speaks: overlapping speech is not separated
        later.
        """
        count = 0
        for index, line in enumerate(known, 1):
            old = line.end <= told_s - REVISION_WINDOW_S
            if old and (self._clear(line.end) or line.end <= told_s - _AUDIO_HISTORY_S):
                count = index
        self._settled += [line for line in known[:count] if line.text]
        self._settled_s = max([self._settled_s, *(line.end for line in known[:count])])
        waiting = [turn.start for turn in self._turns if turn.end > self._settled_s]
        needed_s = min([told_s, *(max(start, self._settled_s) for start in waiting)])
        self._audio.forget(needed_s - word_attribution.CONTEXT_S)
        self._texts = {at: text for at, text in self._texts.items() if at[1] > self._settled_s}

    def _clear(self, time_s: float) -> bool:
        return sum(turn.start < time_s < turn.end for turn in self._turns) <= 1

    def _segment(self, line: MoonshineUtterance, voice: int) -> transcript.Segment:
        speaker = voice if self._options.diarize else None
        by = transcript.WORDS_BY_ATTENTION if line.words else ""
        return transcript.Segment(line.start, line.end, line.text, speaker, line.words, words_by=by)

    @property
    def segments(self) -> tuple[transcript.Segment, ...]:
        """Return all segments by their start, once `events` has ended: speech beside a long
        utterance lies between its parts."""
        floor = word_attribution.SpeakerLookup(self._follower.turns)
        found = [
            self._segment(line, floor.voice(line.start, line.end, line.voice))
            for line in self._settled
        ]
        if self._options.diarize:
            found = word_attribution.extend_over_overlaps(found, self._follower.turns)
        found.sort(key=lambda one: (one.start, one.end))
        return tuple(number_speakers_by_appearance(found))


def _words_from_json(values: Sequence[Sequence[Any]]) -> tuple[transcript.Word, ...]:
    return tuple(transcript.Word(start, end, text) for start, end, text in values)
