"""Where a window's recognition found no words although somebody speaks."""

from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from engine_requests import SampleStream, request_of

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.diarization.diarizer import Diarizer
from sidecar.diarization.kept_diarization import KeptDiarization
from sidecar.diarization.window_speakers import WindowSpeakers
from sidecar.engines.whisper.overlooked_speech import repeats, turns_without_words
from sidecar.engines.whisper.whisper_decoder import WhisperRecognizer, WhisperResult
from sidecar.engines.whisper.whisper_transcription import WhisperTranscription
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import (
    Finished,
    ResumePoint,
    SegmentReady,
    TranscriptionEvent,
    Word,
)

Span = tuple[float, float]


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
def test_turn_without_words_is_found_within_window(
    turns: list[Span], words: list[Span], expected: list[Span]
) -> None:
    found = turns_without_words([SpeakerTurn(*turn, 3) for turn in turns], at(*words), 0.0, 10.0)
    assert [(part.start, part.end) for part in found] == expected
    assert {part.label for part in found} <= {3}


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
def test_words_of_dominant_speaker_heard_again_are_repeats(
    found: str, others: str, expected: bool
) -> None:
    own, theirs = ([Word(2.0, 3.0, word) for word in text.split()] for text in (found, others))
    assert repeats(own, theirs) is expected


def test_same_words_at_another_time_are_no_repeats() -> None:
    assert not repeats([Word(2.0, 3.0, "yes")], [Word(5.0, 6.0, "yes")])


def told_by(turns: list[Span], written: list[Span], **options: Any) -> list[TranscriptionEvent]:
    """What is told of a window of which the recognizer writes what the one says, and of a turn what
    the other says."""

    def recognize(audio: Block, *_: object) -> WhisperResult:
        if len(audio) > 5 * SAMPLE_RATE:
            return WhisperResult(tuple(at(*written)), "en", no_speech=0.5)
        return WhisperResult((Word(0.5, 2.0, " overlooked"),), "en", no_speech=0.01)

    speakers = [SpeakerTurn(*turn, label) for label, turn in enumerate(turns)]
    follower = SimpleNamespace(turns=speakers, final_s=0.0, windows=1, feed=len, recent_windows=())
    follower.finish = lambda: setattr(follower, "final_s", inf)
    follower.identified = lambda found, _: found
    follower.found = WindowSpeakers()
    sound = SampleStream(np.ones(10 * SAMPLE_RATE, np.float32), SAMPLE_RATE)
    with ThreadPoolExecutor(1) as thread:
        return [
            *WhisperTranscription(
                cast(
                    WhisperRecognizer,
                    SimpleNamespace(recognize=recognize, precision=Precision.FP32, name=""),
                ),
                thread,
                cast(Diarizer, follower),
                request_of(sound, TranscribeOptions(**options)),
            ).events()
        ]


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
