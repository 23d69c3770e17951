"""Stretches of speech into windows of half a minute, and words into segments."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.engines.whisper.whisper_transcription import (
    MAX_SEGMENT_S,
    WINDOW_S,
    WhisperWindow,
    WindowPacker,
    place_words,
    segments_of,
)
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import Word

OVER = float("inf")
Span = tuple[float, float]


def packed(*spans: Span, heard_s: float = OVER) -> list[WhisperWindow]:
    packing = WindowPacker(lambda start, end: (start + end) / 2)
    return packing.take([SpeakerTurn(*span, 0) for span in spans], heard_s)


def pieces(windows: list[WhisperWindow]) -> list[list[Span]]:
    return [
        [(round(start, 2), round(end, 2)) for start, end in window.pieces] for window in windows
    ]


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        pytest.param([], [], id="nobody"),
        pytest.param([(1, 3)], [[(0.7, 3.3)]], id="some silence around"),
        pytest.param([(1, 3), (3.8, 5)], [[(0.7, 5.3)]], id="a short silence stays in"),
        pytest.param(
            [(1, 3), (60, 62)], [[(0.7, 3.3), (59.7, 62.3)]], id="a long one is not heard"
        ),
        pytest.param(
            [(1, 29), (29.5, 40)], [[(0.7, 29.25)], [(29.25, 40.3)]], id="filled well: it ends"
        ),
        pytest.param(
            [(1, 5), (6, 40)],
            [[(0.7, 28.1)], [(28.1, 40.3)]],
            id="filled badly: it takes a part of what comes",
        ),
        pytest.param(
            [(0, 70)],
            [[(0, 27.4)], [(27.4, 54.8)], [(54.8, 70.3)]],
            id="one who does not stop is cut",
        ),
    ],
)
def test_windows_are_filled_with_speech(spans: list[Span], expected: list[list[Span]]) -> None:
    assert pieces(packed(*spans)) == expected


speech = st.lists(st.tuples(st.floats(0.05, 9.0), st.floats(0.2, 45.0)), min_size=1, max_size=40)


@given(speech, st.lists(st.floats(1.0, 30.0), min_size=1, max_size=60))
def test_all_speech_is_heard_once_however_it_becomes_known(
    gaps_and_lengths: list[tuple[float, float]], steps: list[float]
) -> None:
    """None is lost, none twice, no window is longer than 30 s, and they come in order."""
    at, spans = 0.0, []
    for gap, length in gaps_and_lengths:
        spans.append((at + gap, at + gap + length))
        at += gap + length
    packing = WindowPacker(lambda start, end: (start + end) / 2)
    windows, known = [], 0.0
    for step in steps:
        known += step
        if known < at:
            so_far = [
                SpeakerTurn(start, min(end, known), 0) for start, end in spans if start < known
            ]
            windows += packing.take(so_far, known)
    windows += packing.take([SpeakerTurn(*span, 0) for span in spans], OVER)
    heard = [piece for window in windows for piece in window.pieces]
    assert all(window.length_s <= WINDOW_S + 1e-6 for window in windows)
    assert all(one[1] <= other[0] + 1e-6 for one, other in pairwise(heard))
    for start, end in spans:
        inside = sum(max(0.0, min(end, stop) - max(start, begin)) for begin, stop in heard)
        assert inside == pytest.approx(end - start, abs=0.01)


def test_no_window_is_given_while_more_may_come_into_it() -> None:
    assert packed((1, 3), heard_s=20) == []
    assert packed((1, 25), heard_s=25.2) == []
    assert len(packed((1, 25), (26, 33), heard_s=40)) == 1


def test_sound_is_let_go_of_where_nobody_speaks_and_where_it_was_heard() -> None:
    packing = WindowPacker(lambda start, end: (start + end) / 2)
    assert packing.take([], 3600) == []
    assert packing.needed_s == pytest.approx(3599.7)
    assert packing.take([SpeakerTurn(3610, 3620, 0)], 3650) == []
    assert packing.needed_s == pytest.approx(3609.7)
    turns = [SpeakerTurn(3610, 3635, 0), SpeakerTurn(3636, 3650, 0)]
    assert len(packing.take(turns, 3652)) == 1
    assert packing.needed_s == pytest.approx(3635.7)


def test_a_time_in_a_window_is_found_in_the_recording() -> None:
    window = WhisperWindow(((10.0, 15.0), (30.0, 32.0)), 32.0)
    assert window.length_s == 7
    assert window.placed(1, 2) == (11, 12)
    assert window.placed(5.5, 6) == (30.5, 31)
    assert window.placed(4.9, 6.0) == (30.0, 31.0), "all of a word is where its middle is"
    assert window.placed(6.5, 9) == (31.5, 32)
    words = [Word(4.0, 4.8, " a"), Word(4.9, 6.0, " b")]
    assert place_words(words, window) == [Word(14.0, 14.8, " a"), Word(30.0, 31.0, " b")]


def words_of(text: str, step: float = 0.5) -> list[Word]:
    return [Word(step * at, step * (at + 1), f" {one}") for at, one in enumerate(text.split())]


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param(words_of("a b c"), ["a b c"], id="one"),
        pytest.param(
            [*words_of("a b"), Word(2.0, 2.5, " c")], ["a b", "c"], id="a pause begins another"
        ),
        pytest.param(words_of("a. b. c"), ["a. b. c"], id="short sentences stay together"),
        pytest.param(
            words_of("a b c d e f g h i j. k l"), ["a b c d e f g h i j.", "k l"], id="a long one"
        ),
        pytest.param([Word(0, 1, "你"), Word(1, 2, "好")], ["你好"], id="no spaces"),
        pytest.param([Word(0, 1, " ")], [], id="only space"),
    ],
)
def test_words_become_segments(words: list[Word], texts: list[str]) -> None:
    found = segments_of(words)
    assert [segment.text for segment in found] == texts
    assert all(word.text == word.text.strip() for one in found for word in one.words)


def test_no_segment_is_longer_than_its_limit() -> None:
    found = segments_of(words_of("la " * 200))
    assert max(segment.end - segment.start for segment in found) <= MAX_SEGMENT_S
    assert sum(len(segment.words) for segment in found) == 200
