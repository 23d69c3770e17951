"""Long recordings are listened to: where nobody speaks, and whose voice is whose."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import tiny_vibevoice

from sidecar.audio import Block
from sidecar.diarization import speaker_models
from sidecar.diarization.speaker_identification import (
    DiarizedSpeakers,
    SpeakerVector,
    embedding_of,
    identify_speakers,
)
from sidecar.engines.vibevoice.vibevoice_windows import (
    MIN_EMBEDDING_S,
    SAME_SPEAKER_SIMILARITY,
    TranscriptStitcher,
    VibeVoiceWindow,
    WindowSpeakerMatcher,
    detect_window_speech,
    majority_vector,
)
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.transcripts.speaker_turns import SpeakerTurn, match_speakers, speaker_turns_of
from sidecar.transcripts.transcript import Segment, SpeakerCandidate, Transcript

RATE = 24_000
NAGG, NELL, READER = 0, 1, 2
PEOPLE = {
    NAGG: [(4.85, 8.0), (12.0, 14.0), (23.8, 27.4), (20.4, 21.9)],
    NELL: [(8.75, 11.3), (14.7, 16.95)],
    READER: [(30.0, 35.0), (44.0, 49.0)],
}
"""Who speaks when in `recording`."""
HALVES = {
    "the longest there is": ({NAGG: [0, 1], NELL: [0], READER: [0]}, 5.0),
    "4 s": ({NAGG: [0, 1], NELL: [0], READER: [0]}, 4.0),
    "3 s": ({NAGG: [0], NELL: [0], READER: [0]}, 3.0),
    "2 s": ({NAGG: [1], NELL: [0], READER: [0]}, 2.0),
}
"""Which of it the first window has, the second the rest; how much of a voice at the most."""


@pytest.fixture(scope="module")
def recording() -> Block:
    """Two people of a play, and from 30 s on the reader of a novel."""
    play = tiny_vibevoice.clip_24k("endgame_nagg_nell")
    novel = tiny_vibevoice.clip_24k("two_cities")[RATE:]
    return np.concatenate([play, np.zeros(30 * RATE - len(play), np.float32), novel])


def spoken(person: int, spans: list[int], label: int, most_s: float) -> list[SpeakerTurn]:
    turns, left_s = [], most_s
    for start, end in (PEOPLE[person][span] for span in spans):
        turns.append(SpeakerTurn(start, start + min(end - start, left_s), label))
        left_s -= turns[-1].end - start
    return [turn for turn in turns if turn.end > turn.start]


def windows(row: str) -> tuple[list[SpeakerTurn], list[SpeakerTurn]]:
    """The turns of a first window, with people for labels, and of a second: 7, 8 and 9."""
    spans, most_s = HALVES[row]
    before, after = [], []
    for person, first in spans.items():
        rest = [span for span in range(len(PEOPLE[person])) if span not in first]
        before += spoken(person, first, person, most_s)
        after += spoken(person, rest, person + 7, most_s)
    return before, after


@pytest.mark.slow_except("4 s")
@pytest.mark.parametrize("row", HALVES)
def test_speakers_are_matched_across_windows_by_a_few_seconds_of_speech(
    recording: Block, row: str
) -> None:
    before, after = windows(row)
    voices = WindowSpeakerMatcher(RATE)
    voices.remember(voices.hear(recording, before), {who: who for who in PEOPLE})
    alike = voices.likenesses(voices.hear(recording, after))
    assert match_speakers(alike, SAME_SPEAKER_SIMILARITY) == {7: NAGG, 8: NELL, 9: READER}


@pytest.mark.slow_except("4 s")
@pytest.mark.parametrize("row", HALVES)
@pytest.mark.parametrize("stranger", PEOPLE)
def test_new_speaker_matches_no_known_speaker(recording: Block, row: str, stranger: int) -> None:
    before, after = windows(row)
    voices = WindowSpeakerMatcher(RATE)
    known = voices.hear(recording, [turn for turn in before if turn.label != stranger])
    voices.remember(known, {who: who for who in PEOPLE})
    new = voices.hear(recording, [turn for turn in after if turn.label == stranger + 7])
    alike = voices.likenesses(new)
    assert len(alike) == len(PEOPLE) - 1
    assert match_speakers(alike, SAME_SPEAKER_SIMILARITY) == {}


def test_speaker_embedding_is_that_of_majority_of_pieces() -> None:
    one, other, another = np.eye(3, dtype=np.float32)
    voice = majority_vector(
        np.stack([other, one, one, another]), np.array([5, 3, 3, 4], np.float32)
    )
    assert voice.vector == pytest.approx(one)
    assert voice.seconds == 6


def test_embedding_of_a_known_speaker_is_the_mean_weighted_by_seconds() -> None:
    one, other = np.eye(2, dtype=np.float32)
    voices = WindowSpeakerMatcher(RATE)
    voices.remember({5: SpeakerVector(one, 8.0)}, {5: 0})
    assert voices.likenesses({7: SpeakerVector(other, 3.0)}) == {(0, 7): 0.0}
    voices.remember({6: SpeakerVector(other, 6.0), 7: SpeakerVector(other, 4.0)}, {6: 0, 7: 1})
    assert voices.likenesses({9: SpeakerVector(other, 3.0)}) == {
        (0, 9): pytest.approx(0.6),
        (1, 9): 1.0,
    }


def test_too_short_speech_has_no_embedding(recording: Block) -> None:
    voices = WindowSpeakerMatcher(RATE)
    assert voices.hear(recording, [SpeakerTurn(5.0, 5.0 + MIN_EMBEDDING_S - 0.1, 0)]) == {}
    end_s = len(recording) / RATE
    assert voices.hear(recording, [SpeakerTurn(end_s - 1.0, end_s + 9.0, 0)]) == {}
    assert voices.hear(recording, [SpeakerTurn(5.0, 5.0 + MIN_EMBEDDING_S + 0.1, 0)]).keys() == {0}


def test_unavailable_speaker_encoder_is_logged_once_as_a_warning_and_raises_no_error(
    recording: Block, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    voices = WindowSpeakerMatcher(RATE)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            heard = voices.hear(recording, windows("4 s")[0])
            voices.remember(heard, {who: who for who in PEOPLE})
            assert voices.likenesses(heard) == {}
    (record,) = [one for one in caplog.records if one.name == speaker_models.__name__]
    assert "onnxruntime" in record.getMessage()


def test_single_window_has_embeddings_only_for_identification(recording: Block) -> None:
    segments = [
        Segment(start, end, "words", person)
        for person, spans in PEOPLE.items()
        for start, end in spans
    ]
    for remember in (False, True):
        voices = WindowSpeakerMatcher(RATE)
        stitching = TranscriptStitcher(voices, remember=remember)
        window = VibeVoiceWindow(0.0, recording, None)
        stitching.begin(window)
        stitching.end(window, segments)
        assert set(voices.persons) == (set(PEOPLE) if remember else set())
    assert voices.persons[NAGG].seconds > voices.persons[NELL].seconds > 4
    (found,) = [
        one
        for one in identify_speakers(
            Transcript(tuple(segments), "en", 60.0, "any", "int8", diarized=True),
            DiarizedSpeakers(speaker_turns_of(stitching.segments), voices.persons),
            TranscribeOptions(
                known_voices=(SpeakerCandidate("n", "Nell", (embedding_of(voices.persons[NELL]),)),)
            ),
        ).voices
        if one.name
    ]
    assert (found.speaker, found.name) == (NELL, "Nell")


def test_speaker_encoder_is_not_loaded_for_one_window() -> None:
    code = """
import sys
import numpy as np
from sidecar.engines.vibevoice.vibevoice_windows import TranscriptStitcher
from sidecar.engines.vibevoice.vibevoice_windows import WindowSpeakerMatcher
from sidecar.engines.vibevoice.vibevoice_windows import VibeVoiceWindow
from sidecar.transcripts.transcript import Segment
stitching = TranscriptStitcher(WindowSpeakerMatcher(16_000))
window = VibeVoiceWindow(0.0, np.zeros(160_000, np.float32), None)
stitching.begin(window)
stitching.end(window, [Segment(0, 5, "a", 0), Segment(5, 10, "b", 1)])
assert [one.speaker for one in stitching.segments] == [0, 1]
print(sorted({"onnxruntime", "moonshine_voice", "transformers", "torch"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_speech_detected_in_a_window_leaves_out_the_silence_around_it() -> None:
    silence = np.zeros(2 * RATE, np.float32)
    beckett = tiny_vibevoice.clip_24k("beckett")[: 5 * RATE]
    stretches = detect_window_speech(np.concatenate([silence, beckett, silence]), RATE)
    assert stretches
    assert stretches[0][0] > 1.0
    assert stretches[-1][1] < 8.5


def test_without_vad_library_no_speech_is_detected_and_no_error_raised(
    recording: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "moonshine_voice", None)
    assert detect_window_speech(recording[: 5 * RATE], RATE) == []
