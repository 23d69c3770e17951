"""Windows put together: every sentence once, every person one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.audio import Block
from sidecar.engines.vibevoice.vibevoice_windows import (
    TranscriptStitcher,
    VibeVoiceWindow,
    covered_share,
)
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import NON_SPEECH_FLAG, Segment

NOTHING: Block = np.zeros(1, np.float32)


def window(start_s: float, border_s: float | None) -> VibeVoiceWindow:
    return VibeVoiceWindow(start_s, NOTHING, border_s)


def said(*rows: tuple[float, float, str, int]) -> list[Segment]:
    return [Segment(start, end, text, speaker) for start, end, text, speaker in rows]


def stitched(*windows: tuple[VibeVoiceWindow, list[Segment]]) -> list[Segment]:
    stitching = TranscriptStitcher(None)
    for one, segments in windows:
        stitching.begin(one)
        stitching.end(one, segments)
    return sorted(stitching.segments, key=lambda segment: segment.start)


def texts(segments: Sequence[Segment]) -> list[str]:
    return [segment.text for segment in segments]


ROWS = {
    "a pause": ([(0, 8, "a"), (12, 14, "b")], [(6, 8, "a"), (12, 19, "b")], "a b"),
    "one sentence to one, two to the other": (
        [(0, 6, "a"), (7, 14, "bc")],
        [(7, 9, "b"), (10.5, 14, "c")],
        "a b c",
    ),
    "two to one, one sentence to the other": (
        [(0, 6, "a"), (7, 9.9, "b"), (10.1, 14, "c")],
        [(7, 18, "bc")],
        "a bc",
    ),
    "the next window does not say it": ([(0, 6, "a"), (11, 14, "b")], [(16, 19, "c")], "a b c"),
    "this window does not say it": ([(0, 4, "a")], [(6, 9, "b"), (11, 15, "c")], "a b c"),
    "half a word at the edge": ([(0, 6, "a"), (7, 9, "b")], [(6.5, 9, "…b")], "a b"),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_around_a_border_nothing_is_lost_or_said_twice(
    row: tuple[list[tuple[float, float, str]], list[tuple[float, float, str]], str],
) -> None:
    before, after, wanted = row
    segments = stitched(
        (window(0, 10), [Segment(*one) for one in before]),
        (window(5, None), [Segment(*one) for one in after]),
    )
    assert " ".join(texts(segments)) == wanted


def test_a_tag_does_not_swallow_words() -> None:
    music = Segment(0, 15, "[Music]", flags=(NON_SPEECH_FLAG,))
    segments = stitched(
        (window(0, 10), [music]),
        (window(5, None), [music, Segment(6, 9, "a"), Segment(11, 14, "b")]),
    )
    assert texts(segments) == ["[Music]", "a", "b"]


@given(
    lengths=st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 3)), min_size=1, max_size=30),
    data=st.data(),
)
def test_each_sentence_comes_once_wherever_borders_fall_between_two(
    lengths: list[tuple[float, float]], data: st.DataObject
) -> None:
    sentences, at = [], 0.0
    for number, (length, pause) in enumerate(lengths):
        sentences.append((at, at + length, str(number)))
        at += length + pause
    pauses = [(one[1] + two[0]) / 2 for one, two in pairwise(sentences)]
    borders = sorted(data.draw(st.sets(st.sampled_from(pauses))) if pauses else [])
    overlap_s = data.draw(st.floats(0, 6))
    windows, begin = [], 0.0
    for border in [*borders, None]:
        end = at if border is None else border + overlap_s / 2
        heard = [
            Segment(max(start, begin), min(stop, end), text)
            for start, stop, text in sentences
            if start < end and stop > begin
        ]
        windows.append((window(begin, border), heard))
        begin = max(0.0, (border or 0.0) - overlap_s / 2)
    assert texts(stitched(*windows)) == [text for _, _, text in sentences]


def test_what_is_placed_as_it_comes_is_what_is_there_at_the_end() -> None:
    stitching = TranscriptStitcher(None)
    placed = []
    for one, segments in (
        (window(0, 10), said((0, 4, "a", 7), (5, 9, "b", 3), (11, 14, "c", 7))),
        (window(5, None), said((5, 9, "b", 0), (11, 16, "c", 1))),
    ):
        stitching.begin(one)
        placed += [stitching.place(segment) for segment in segments]
        stitching.end(one, segments)
    assert [one and one.text for one in placed] == ["a", "b", None, None, "c"]
    assert [(one.text, one.speaker) for one in stitching.segments] == [
        ("a", 0),
        ("b", 1),
        ("c", 0),
    ]


def test_who_speaks_in_what_both_windows_hear_keeps_the_number() -> None:
    segments = stitched(
        (window(0, 10), said((0, 4, "a", 0), (5, 9, "b", 1), (10.5, 14, "c", 0))),
        (window(5, None), said((5, 9, "b", 0), (10.5, 14, "c", 1), (20, 24, "d", 2))),
    )
    assert [(one.text, one.speaker) for one in segments] == [("a", 0), ("b", 1), ("c", 0), ("d", 2)]


class ByHeart:
    """Knows which label of which window is like whom; notes what it is asked."""

    def __init__(self, *known: Mapping[tuple[int, int], float]) -> None:
        self._known = iter(known)
        self.heard = 0
        self.remembered: list[dict[int, int]] = []

    def hear(self, samples: Block, turns: Sequence[SpeakerTurn]) -> Mapping[int, str]:
        self.heard += 1
        return {turn.label: f"voice {turn.label}" for turn in turns}

    def likenesses(self, voices: Mapping[int, str]) -> Mapping[tuple[int, int], float]:
        return next(self._known)

    def remember(self, voices: Mapping[int, str], persons: Mapping[int, int]) -> None:
        assert voices.keys() == persons.keys()
        self.remembered.append(dict(persons))


def test_a_voice_that_comes_back_after_a_window_of_silence_keeps_its_number() -> None:
    listener = ByHeart({(0, 0): 0.1, (1, 0): 0.0}, {(0, 0): 0.9, (1, 0): 0.0, (2, 0): 0.2})
    stitching = TranscriptStitcher(listener)
    for one, segments in (
        (window(0, 100), said((0, 4, "a", 0), (5, 9, "b", 1))),
        (window(95, 200), said((110, 114, "c", 0))),
        (window(195, None), said((210, 214, "d", 0))),
    ):
        stitching.begin(one)
        stitching.end(one, segments)
    assert [one.speaker for one in stitching.segments] == [0, 1, 2, 0]
    assert listener.remembered == [{0: 0, 1: 1}, {0: 2}]  # nobody asks after the last window
    assert listener.heard == 3


@pytest.mark.parametrize(
    ("alike", "persons"),
    [
        ({}, [0, 1, 0, 1]),
        ({(0, 0): 0.6, (1, 0): 0.1, (0, 1): 0.1, (1, 1): 0.7}, [0, 1, 0, 1]),
        ({(0, 0): 0.05, (1, 0): 0.1, (0, 1): 0.8, (1, 1): 0.1}, [0, 1, 2, 0]),
        ({(0, 0): 0.3, (1, 1): 0.1}, [0, 1, 0, 2]),
        ({(1, 1): 0.1}, [0, 1, 0, 2]),
    ],
    ids=["no voice is heard", "it agrees", "it does not", "a voice that is unsure", "one of two"],
)
def test_a_voice_says_more_than_what_both_windows_heard(
    alike: dict[tuple[int, int], float], persons: list[int]
) -> None:
    """Both windows hear a and b and give them to 0 and 1."""
    stitching = TranscriptStitcher(ByHeart(alike))
    for one, segments in (
        (window(0, 10), said((0, 6, "a", 0), (6.5, 9, "b", 1), (10.5, 13, "c", 0))),
        (window(6, None), said((6.5, 9, "b", 1), (10.5, 13, "c", 0), (20, 22, "d", 1))),
    ):
        stitching.begin(one)
        stitching.end(one, segments)
    assert [one.speaker for one in stitching.segments] == persons


def test_a_recording_in_one_window_is_not_listened_to() -> None:
    listener = ByHeart()
    stitching = TranscriptStitcher(listener)
    stitching.begin(window(0, None))
    stitching.end(window(0, None), said((0, 4, "a", 1), (5, 9, "b", 0)))
    assert [one.speaker for one in stitching.segments] == [0, 1]
    assert (listener.heard, listener.remembered) == (0, [])


@pytest.mark.parametrize(
    ("others", "share"),
    [
        ([], 0),
        ([(0, 10)], 1),
        ([(0, 2)], 0.5),
        ([(1, 2), (1, 2), (1.5, 2)], 0.5),
        ([(2, 2.5), (4, 9)], 0.25),
        ([(5, 9)], 0),
    ],
)
def test_covered_is_the_part_of_the_time_that_others_have(
    others: list[tuple[float, float]], share: float
) -> None:
    segment = Segment(1, 3, "x")
    assert covered_share(segment, [Segment(*span, "y") for span in others]) == pytest.approx(share)


def test_a_segment_without_length_is_covered_where_another_is() -> None:
    assert covered_share(Segment(2, 2, "x"), [Segment(1, 3, "y")]) == 1
    assert covered_share(Segment(4, 4, "x"), [Segment(1, 3, "y")]) == 0
