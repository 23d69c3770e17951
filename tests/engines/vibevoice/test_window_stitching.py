"""Windows put together: every sentence once, every person one number."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from many_cases import parametrize_by_name

from sidecar.audio import Block
from sidecar.engines.vibevoice.vibevoice_windows import (
    TranscriptStitcher,
    VibeVoiceWindow,
    VibeVoiceWindows,
    covered_share,
    longest_pause,
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
def test_segments_around_the_border_of_two_windows_are_neither_lost_nor_repeated(
    row: tuple[list[tuple[float, float, str]], list[tuple[float, float, str]], str],
) -> None:
    before, after, wanted = row
    segments = stitched(
        (window(0, 10), [Segment(*one) for one in before]),
        (window(5, None), [Segment(*one) for one in after]),
    )
    assert " ".join(texts(segments)) == wanted


def test_non_speech_tag_does_not_replace_words_of_the_next_window() -> None:
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
def test_each_sentence_comes_once_with_borders_in_any_pauses(
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


def test_segments_emitted_before_their_window_ends_are_those_of_the_final_transcript() -> None:
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
    assert [(one.text, one.speaker) for one in stitching.segments] == [("a", 0), ("b", 1), ("c", 0)]


def test_speaker_in_overlap_of_windows_keeps_label() -> None:
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


def test_speaker_absent_from_one_window_keeps_label_in_the_next() -> None:
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
    ids=["no embeddings", "embeddings agree", "embeddings disagree", "one unsure", "one of two"],
)
def test_embeddings_of_speakers_overrule_the_labels_in_the_overlap_of_windows(
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


def test_recording_in_one_window_needs_no_embeddings() -> None:
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
def test_covered_share_is_part_of_segment_that_others_overlap(
    others: list[tuple[float, float]], share: float
) -> None:
    segment = Segment(1, 3, "x")
    assert covered_share(segment, [Segment(*span, "y") for span in others]) == pytest.approx(share)


def test_segment_of_zero_length_is_covered_if_and_only_if_it_lies_within_another() -> None:
    assert covered_share(Segment(2, 2, "x"), [Segment(1, 3, "y")]) == 1
    assert covered_share(Segment(4, 4, "x"), [Segment(1, 3, "y")]) == 0


RATE = 100


class Recording:
    """Samples as a stream, in blocks of a few."""

    def __init__(self, samples: Block, block: int = 70, total_s: float | None = None) -> None:
        self._samples, self._block, self.total_s = samples, block, total_s

    def __iter__(self) -> Iterator[Block]:
        for at in range(0, len(self._samples), self._block):
            yield self._samples[at : at + self._block]


def ramp(seconds: float) -> Block:
    """Each sample is its own number."""
    return np.arange(round(seconds * RATE), dtype=np.float32)


def cut(samples: Block, window_s: float, block: int = 70) -> list[VibeVoiceWindow]:
    windows = VibeVoiceWindows(Recording(samples, block), RATE, window_s)
    return [VibeVoiceWindow(one.start_s, one.samples.copy(), one.border_s) for one in windows]


@parametrize_by_name(
    "speech, middle",
    {
        "nobody speaks": ([], 5.0),
        "one pause": ([(0, 4), (6, 10)], 5.0),
        "the longer of two": ([(0, 2), (3, 7), (7.5, 10)], 2.5),
        "the later of two as long": ([(0, 2), (3, 6), (7, 10)], 6.5),
        "silence at the end": ([(0, 3)], 6.5),
        "silence at the beginning": ([(8, 10)], 4.0),
        "speech that reaches beyond": ([(-5, 4), (6, 20)], 5.0),
        "one within another": ([(0, 8), (1, 2), (9, 10)], 8.5),
        "speech all through": ([(0, 10)], None),
        "a gap inside a word": ([(0, 5), (5.1, 10)], None),
    },
)
def test_window_border_is_in_the_middle_of_the_longest_pause(
    speech: list[tuple[float, float]], middle: float | None
) -> None:
    assert longest_pause(speech, 0, 10) == (middle and pytest.approx(middle))


def test_recording_that_fits_is_one_window_without_border() -> None:
    for seconds in (0.01, 59.9, 60.0):
        (window,) = cut(ramp(seconds), 60)
        assert (window.start_s, window.border_s) == (0.0, None)
        assert np.array_equal(window.samples, ramp(seconds))


def test_empty_recording_has_no_window() -> None:
    assert cut(ramp(0), 60) == []


@given(seconds=st.floats(0.1, 400), window_s=st.floats(5, 120), block=st.integers(1, 20_000))
def test_windows_overlap_cover_recording_and_keep_limit(
    seconds: float, window_s: float, block: int
) -> None:
    samples = ramp(seconds)
    windows = cut(samples, window_s, block)
    for window in windows:
        assert len(window.samples) <= round(window_s * RATE)
        start = round(window.start_s * RATE)
        assert np.array_equal(window.samples, samples[start : start + len(window.samples)])
    for before, after in pairwise(windows):
        assert before.border_s is not None
        end_s = before.start_s + len(before.samples) / RATE
        assert after.start_s < before.border_s < end_s
        assert before.border_s - before.start_s >= window_s / 2
    assert windows[-1].border_s is None
    assert round(windows[-1].start_s * RATE) + len(windows[-1].samples) == len(samples)


def test_window_border_is_in_a_pause_found_by_vad() -> None:
    heard: list[int] = []

    def listen(samples: Block, rate: int) -> list[tuple[float, float]]:
        """Speech up to 47.0 s and from 48.0 s on."""
        first = float(samples[0]) / rate
        heard.append(len(samples))
        return [(0, 47.0 - first), (48.0 - first, 500.0)]

    windows = list(VibeVoiceWindows(Recording(ramp(100)), RATE, 60, listen))
    assert windows[0].border_s == pytest.approx(47.5)
    assert windows[1].start_s == pytest.approx(42.5)
    assert heard[0] < 60 * RATE / 2  # it is asked about the end only


def test_window_that_was_too_long_is_read_again_from_its_start_in_shorter_ones() -> None:
    samples = ramp(100)
    windows = VibeVoiceWindows(Recording(samples), RATE, 90)
    pieces = iter(windows)
    first = next(pieces)
    assert len(first.samples) == 90 * RATE
    windows.again(30)
    rest = [(one.start_s, len(one.samples), float(one.samples[0])) for one in pieces]
    assert rest[0] == (0.0, 30 * RATE, 0.0)
    assert {length for _, length, _ in rest[:-1]} == {30 * RATE}
    assert rest[-1][0] + rest[-1][1] / RATE == 100
    assert windows.end_s == 100


def test_last_window_that_is_requested_again_has_its_length_and_no_other_follows() -> None:
    windows = VibeVoiceWindows(Recording(ramp(20)), RATE, 60)
    pieces = iter(windows)
    assert next(pieces).border_s is None
    windows.again(60)
    assert len(next(pieces).samples) == 20 * RATE
    assert next(pieces, None) is None
