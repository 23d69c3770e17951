"""Where a window's recognition found no words although somebody speaks."""

from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from engine_requests import SampleStream, request_of

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.sample_buffers import AudioHistoryBuffer
from sidecar.diarization.diarizer import Diarizer
from sidecar.diarization.kept_diarization import KeptDiarization
from sidecar.diarization.window_speakers import WindowSpeakers
from sidecar.engines.whisper import whisper_transcription
from sidecar.engines.whisper.overlooked_speech import (
    repeats,
    stretched_words,
    turns_without_words,
    with_overlooked,
)
from sidecar.engines.whisper.whisper_decoder import WhisperRecognizer, WhisperResult
from sidecar.engines.whisper.whisper_transcription import WhisperTranscription
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.transcripts.overlapping_words import OVERLAP_S
from sidecar.transcripts.speaker_turns import SpeakerTurn, turns_within
from sidecar.transcripts.transcript import (
    Finished,
    ResumePoint,
    Segment,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
    Word,
)

Span = tuple[float, float]
BOTH_SIDES_S = 2 * OVERLAP_S + 0.001
"""Seconds of a window that the one before a cut has heard, too."""


def at(*spans: Span) -> list[Word]:
    return [Word(start, end, "word") for start, end in spans]


@pytest.mark.parametrize(
    ("turns", "words", "expected"),
    [
        pytest.param([(1, 4)], [(1.2, 3.8)], [], id="words throughout"),
        pytest.param([(1, 4)], [], [(1, 4)], id="no words"),
        pytest.param([(1, 1.9)], [], [], id="less than one second"),
        pytest.param([(1, 4)], [(3.9, 4.2)], [(1, 3.4)], id="no words at start"),
        pytest.param([(1, 9)], [(1, 3), (7, 9)], [(3.5, 6.5)], id="no words in middle"),
        pytest.param([(1, 4)], [(1, 2.6)], [], id="remainder too short"),
        pytest.param([(1, 4), (5, 8)], [(1, 4)], [(5, 8)], id="words of other turn"),
        pytest.param([(6, 14)], [], [(6, 10)], id="turn cut at window"),
        pytest.param([(1, 2), (12, 14)], [], [(1, 2)], id="turn of next window"),
    ],
)
def test_stretches_of_a_turn_without_words_are_found_if_they_last_a_second_within_the_window(
    turns: list[Span], words: list[Span], expected: list[Span]
) -> None:
    found = turns_without_words([SpeakerTurn(*turn, 3) for turn in turns], at(*words), 0.0, 10.0)
    assert [(part.start, part.end) for part in found] == expected
    assert {part.label for part in found} <= {3}


@pytest.mark.parametrize(
    ("words", "stretched"),
    [
        pytest.param([(0, 0.4), (0.4, 1.3), (1.3, 1.6)], [], id="one drawn word"),
        pytest.param([(0, 0.4), (0.4, 2.4), (2.4, 2.8)], [1], id="longer than any"),
        pytest.param([(0, 0.9), (0.9, 2.9), (2.9, 6.3), (6.5, 6.8)], [0, 1, 2], id="a run"),
        pytest.param([(0, 0.9), (1, 1.2), (1.2, 3.2)], [2], id="a short one between"),
        pytest.param([(0, 2.4), (2.4, 2.42), (2.5, 2.8), (3, 3.2)], [], id="times are wrong"),
        pytest.param([], [], id="none"),
    ],
)
def test_words_longer_than_any_is_spoken_and_long_ones_beside_them_are_stretched(
    words: list[Span], stretched: list[int]
) -> None:
    known = at(*words)
    assert stretched_words(known) == [known[one] for one in stretched]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param(
            ["had little right", "on the last"], "said|had little right|on the last|the bill"
        ),
        pytest.param(["the"], "said|on|the last|the bill"),
        pytest.param([], "said|on|the last|the bill"),
        pytest.param(["on", "the last", "the bill"], "said|on|the last|the bill"),
    ],
    ids=["more words", "fewer letters", "nothing", "what is said anyway"],
)
def test_words_of_a_turn_heard_alone_stand_for_its_stretched_words_if_they_are_no_fewer(
    own: list[str], expected: str
) -> None:
    words = [Word(1.0, 1.2, "said"), *at((2, 4), (4, 7)), Word(7.2, 7.4, "the bill")]
    words[1:3] = [replace(words[1], text="on"), replace(words[2], text="the last")]
    heard = [Word(2.0 + number, 2.9 + number, text) for number, text in enumerate(own)]
    found = with_overlooked(words, words[1:3], SpeakerTurn(1.9, 7.1, 0), heard)
    assert "|".join(word.text for word in found) == expected


def test_speech_that_one_word_spans_is_heard_again_alone() -> None:
    *_, finished = told_by([(0.5, 5.5)], [(0.6, 0.9), (0.9, 4.5), (4.5, 5.2)], words=True)
    assert isinstance(finished, Finished)
    words = [word.text.strip() for one in finished.transcript.segments for word in one.words]
    assert words == ["word", "overlooked", "word"]


@pytest.mark.parametrize(
    ("found", "others", "expected"),
    [
        pytest.param("Yes, I know.", "we will meet", False, id="other words"),
        pytest.param("we will meet", "and we will, meet!", True, id="the same words"),
        pytest.param("we will be there", "we will", True, id="half of words"),
        pytest.param("we know that one", "we", False, id="one word of four"),
        pytest.param("yes", "", False, id="no other words"),
    ],
)
def test_words_are_repeats_if_the_dominant_speaker_has_half_of_them_at_the_same_time(
    found: str, others: str, expected: bool
) -> None:
    own, theirs = ([Word(2.0, 3.0, word) for word in text.split()] for text in (found, others))
    assert repeats(own, theirs) is expected


def test_same_words_at_another_time_are_no_repeats() -> None:
    assert not repeats([Word(2.0, 3.0, "yes")], [Word(5.0, 6.0, "yes")])


class LaggingDiarizer:
    """Diarizer that knows the turns up to some seconds before the end of the audio so far."""

    windows, recent_windows = 1, ()

    def __init__(self, turns: list[SpeakerTurn], lag_s: float) -> None:
        self.found = WindowSpeakers()
        self._turns, self._lag_s, self._heard_s = turns, lag_s, 0.0

    def feed(self, block: Block) -> None:
        self._heard_s += len(block) / SAMPLE_RATE

    def finish(self) -> None:
        self._heard_s = inf

    @property
    def final_s(self) -> float:
        return max(0.0, self._heard_s - self._lag_s)

    @property
    def turns(self) -> list[SpeakerTurn]:
        return turns_within(self._turns, 0.0, self._heard_s)

    def identified(self, found: Transcript, _: object) -> Transcript:
        return found


def told(
    recognize: Callable[..., WhisperResult],
    turns: list[SpeakerTurn],
    samples: Block,
    **options: Any,
) -> list[TranscriptionEvent]:
    recognizer = SimpleNamespace(recognize=recognize, precision=Precision.FP32, name="")
    with ThreadPoolExecutor(1) as thread:
        return [
            *WhisperTranscription(
                cast(WhisperRecognizer, recognizer),
                thread,
                cast(Diarizer, LaggingDiarizer(turns, lag_s=5.0)),
                request_of(SampleStream(samples, SAMPLE_RATE), TranscribeOptions(**options)),
            ).events()
        ]


def told_by(turns: list[Span], written: list[Span], **options: Any) -> list[TranscriptionEvent]:
    """What is told of a window of which the recognizer writes what the one says, and of a turn what
    the other says."""

    def recognize(audio: Block, *_: object) -> WhisperResult:
        if len(audio) > 5 * SAMPLE_RATE:
            return WhisperResult(tuple(at(*written)), "en", no_speech=0.5)
        return WhisperResult((Word(0.5, 2.0, " overlooked"),), "en", no_speech=0.01)

    speakers = [SpeakerTurn(*turn, label) for label, turn in enumerate(turns)]
    return told(recognize, speakers, np.ones(10 * SAMPLE_RATE, np.float32), **options)


class NumberedSpeech:
    """Recognizer of audio whose samples are their times. Each quarter of a second has a word, which
    is the time. Whoever is heard in a window is ``a``, whoever is heard again alone ``b``."""

    def __init__(self, missed: Callable[[float, float], bool] = lambda _time, _end: False) -> None:
        self._missed, self._heard_s = missed, 0.0
        self.longest_s = 0.0

    def __call__(self, audio: Block, *_: object) -> WhisperResult:
        self.longest_s = max(self.longest_s, len(audio) / SAMPLE_RATE)
        alone, end = bool(audio[0] < self._heard_s - BOTH_SIDES_S), float(audio[-1])
        self._heard_s = max(self._heard_s, end)
        times = np.arange(0.125, end, 0.25)
        places = np.searchsorted(audio, times)
        words = [
            Word(place / SAMPLE_RATE, place / SAMPLE_RATE + 0.02, f" {'ab'[alone]}{time}")
            for time, place in zip(times.tolist(), places.tolist(), strict=True)
            if 0 < place < len(audio) and abs(audio[place] - time) < 0.001
            if alone or not self._missed(time, end)
        ]
        return WhisperResult(tuple(words), "en")


def numbered(turns: list[SpeakerTurn], recognize: NumberedSpeech, end_s: float) -> list[Segment]:
    samples = np.arange(int(end_s * SAMPLE_RATE), dtype=np.float32) / np.float32(SAMPLE_RATE)
    *_, finished = told(recognize, turns, samples, words=True)
    assert isinstance(finished, Finished)
    return [*finished.transcript.segments]


def times_of(segments: list[Segment], who: str) -> list[float]:
    words = [word for one in segments for word in one.words if word.text[0] == who]
    assert all(abs(word.start - float(word.text[1:])) < 0.1 for word in words)
    return [float(word.text[1:]) for word in words]


@pytest.mark.parametrize(
    "beside", [(10, 55), (20, 33), (24, 31), (3, 9), (10, 57), (10.0, 25.0)], ids=str
)
def test_speech_beside_the_dominant_speaker_across_windows_is_written_once_at_its_time(
    beside: Span,
) -> None:
    recognize = NumberedSpeech()
    turns = [SpeakerTurn(0.5, 90.0, 0), SpeakerTurn(*beside, 1)]
    segments = numbered(turns, recognize, 92.0)
    found = times_of([one for one in segments if one.speaker == 1], "b")
    assert found == sorted(set(found))
    assert {*np.arange(beside[0] + 0.125, beside[1], 0.25)} <= {*found}
    assert min(found) > beside[0] - 0.4
    assert max(found) < beside[1] + 0.4
    assert recognize.longest_s <= 30.0


@pytest.mark.parametrize("end_s", [17.0, 12.3])
def test_speech_beside_another_is_written_up_to_a_repetition_loop_and_under_15_s_audio_is_held(
    end_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Looping(NumberedSpeech):
        def __call__(self, audio: Block, *_: object) -> WhisperResult:
            result = super().__call__(audio)
            if any(word.text[1] == "b" for word in result.words):
                return result
            words = tuple(word for word in result.words if float(word.text[2:]) < 12.0)
            return replace(result, words=words, lost_s=12.0 - float(audio[0]))

    class MeasuredBuffer(AudioHistoryBuffer):
        def forget(self, before_s: float) -> None:
            super().forget(before_s)
            held_s.append(self.end_s - self.start_s)

    held_s: list[float] = []
    monkeypatch.setattr(whisper_transcription, "AudioHistoryBuffer", MeasuredBuffer)
    turns = [SpeakerTurn(0.5, 20.0, 0), SpeakerTurn(8.0, end_s, 1)]
    segments = numbered(turns, Looping(), 90.0)
    (beside,) = [one for one in segments if one.speaker == 1]
    assert (beside.start, beside.end) == pytest.approx((8.0, 12.0))
    assert {*np.arange(8.125, 12.0, 0.25)} <= {*times_of([beside], "b")}
    assert held_s[-1] < 15.0


def test_overlooked_words_that_an_earlier_window_has_written_get_no_segment() -> None:
    class SameWords(NumberedSpeech):
        def __call__(self, audio: Block, *_: object) -> WhisperResult:
            result = super().__call__(audio)
            return replace(
                result, words=tuple(replace(one, text=f" a{one.text[2:]}") for one in result.words)
            )

    turns = [SpeakerTurn(0.5, 90.0, 0), SpeakerTurn(22.0, 31.0, 1)]
    segments = numbered(turns, SameWords(), 92.0)
    assert {one.speaker for one in segments} == {0}


@pytest.mark.parametrize(
    ("turns", "missed"),
    [
        pytest.param(
            [(1, 5, 0), (5, 8, 1), (8, 12, 0)], lambda at, _: 5 <= at < 8, id="between neighbours"
        ),
        pytest.param([(0.5, 60, 0)], lambda at, end: at > end - 3, id="before a window's cut"),
    ],
)
def test_overlooked_turn_is_recognized_without_repeating_a_word_of_its_neighbours(
    turns: list[tuple[float, float, int]], missed: Callable[[float, float], bool]
) -> None:
    speakers = [SpeakerTurn(*turn) for turn in turns]
    segments = numbered(speakers, NumberedSpeech(missed), turns[-1][1] + 1.0)
    found = sorted([*times_of(segments, "a"), *times_of(segments, "b")])
    assert found == sorted(set(found))
    assert {*np.arange(turns[0][0] + 0.125, turns[-1][1], 0.25)} <= {*found}


TURNS = pytest.mark.parametrize(
    ("turns", "written"),
    [
        pytest.param([(0, 9.5), (4, 6)], [(0.2, 3), (3, 9)], id="under the dominant speaker"),
        pytest.param([(0, 5), (6, 8)], [(0.2, 3), (3, 4.8)], id="quiet after loud speech"),
    ],
)


@TURNS
def test_turn_without_words_in_window_is_recognized_alone_and_has_its_own_segment(
    turns: list[Span], written: list[Span]
) -> None:
    told = told_by(turns, written)
    segments = [one.segment for one in told if isinstance(one, SegmentReady)]
    found = {one.speaker: (one.text, one.no_speech_probability) for one in segments}
    assert found[1] == ("overlooked", 0.01)
    assert found[0][1] == 0.5


@TURNS
def test_kept_diarization_has_the_words_of_every_segment(
    turns: list[Span], written: list[Span]
) -> None:
    *_, point, finished = told_by(turns, written, keeps_diarization=True)
    assert isinstance(point, ResumePoint)
    assert isinstance(finished, Finished)
    kept = KeptDiarization.from_bytes(b64decode(point.state["data"]))
    assert kept.fitted
    assert [
        kept.uncut_segments[line].words[first:last] for line, first, last in kept.word_ranges
    ] == [segment.words for segment in finished.transcript.segments]
