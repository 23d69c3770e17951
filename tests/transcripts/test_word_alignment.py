"""Words that an engine without word times gave are aligned with the recording."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from sidecar.audio import Block
from sidecar.transcripts.transcript import NON_SPEECH_FLAG, WORDS_BY_ALIGNMENT, Segment, Word
from sidecar.transcripts.word_alignment import align_words
from sidecar.transcripts.word_timing import estimate_word_times

RATE = 16_000


def spoken(*parts: tuple[float, float]) -> tuple[Block, list[tuple[float, float]]]:
    """Noise of another colour for each part: (seconds, seconds of silence behind it), and the
    times of the parts."""
    chance = np.random.default_rng(7)
    blocks: list[Block] = []
    times: list[tuple[float, float]] = []
    at_s = 0.0
    for number, (length_s, pause_s) in enumerate(parts):
        noise = chance.normal(0, 0.1, round(length_s * RATE)).astype(np.float32)
        coloured = noise if number % 2 else np.cumsum(noise - noise.mean()) / 10
        silence = chance.normal(0, 1e-4, round(pause_s * RATE))
        blocks += [coloured.astype(np.float32), silence.astype(np.float32)]
        times.append((at_s, at_s + length_s))
        at_s += length_s + pause_s
    return np.concatenate(blocks), times


def of(samples: Block, text: str) -> Segment:
    return Segment(0.0, len(samples) / RATE, text, 0)


@pytest.mark.parametrize(
    "text", ["First, second third.", "Erst, zweit dritt.", "一二三，四五六七八"]
)
def test_words_beside_a_pause_begin_and_end_with_the_sound(text: str) -> None:
    samples, times = spoken((0.5, 0.6), (0.6, 0.0), (0.4, 0.3))
    found = align_words(of(samples, text), samples, RATE)
    assert found.words_by == WORDS_BY_ALIGNMENT
    mark = next(place for place, word in enumerate(found.words) if word.text[-1] in ",，")
    assert found.words[0].start == pytest.approx(times[0][0], abs=0.03)
    assert found.words[mark].end == pytest.approx(times[0][1], abs=0.03)
    assert found.words[mark + 1].start == pytest.approx(times[1][0], abs=0.03)
    assert found.words[-1].end == pytest.approx(times[2][1], abs=0.03)


def test_words_without_a_pause_meet_where_the_sound_changes() -> None:
    samples, times = spoken((0.7, 0.0), (0.4, 0.0), (0.6, 0.0))
    words = align_words(of(samples, "Seven four sixes"), samples, RATE).words
    assert [one.start for one in words] == pytest.approx([one for one, _ in times], abs=0.04)


def test_words_of_a_segment_inside_the_recording_are_on_the_recordings_clock() -> None:
    samples, times = spoken((0.5, 0.6), (0.6, 0.0))
    segment = replace(of(samples, "First, second"), start=60.0, end=60.0 + len(samples) / RATE)
    there = align_words(
        segment, np.concatenate([np.zeros(RATE * 5, np.float32), samples]), RATE, 55.0
    )
    assert [one.start for one in there.words] == pytest.approx(
        [60.0 + start for start, _ in times], abs=0.03
    )


@pytest.mark.parametrize(
    "text", ["a", "A line of words, with a pause. And another one!", "你好，世界。", "x " * 40]
)
@pytest.mark.parametrize("seed", range(3))
def test_words_of_any_sound_are_the_text_in_order_inside_the_segment(text: str, seed: int) -> None:
    samples = np.random.default_rng(seed).normal(0, 0.1, 3 * RATE).astype(np.float32)
    segment = of(samples, text)
    found = align_words(segment, samples, RATE)
    expected = estimate_word_times(segment)
    assert [one.text for one in found.words] == [one.text for one in expected.words]
    assert all(0.0 <= one.start < one.end <= segment.end for one in found.words)
    assert all(before.end <= after.start for before, after in pairwise(found.words))


@pytest.mark.parametrize(
    "segment",
    [
        Segment(0.0, 1.0, "Known", 0, (Word(0.2, 0.4, "Known"),), words_by="attention"),
        Segment(0.0, 1.0, "[Music]", flags=(NON_SPEECH_FLAG,)),
        Segment(0.0, 1.0, ""),
        Segment(0.0, 0.1, "too many words for a tenth of a second"),
        Segment(5.0, 6.0, "behind the end"),
        Segment(0.0, 3600.0, "an endless loop"),
    ],
    ids=["has_words", "no_speech", "no_text", "too_short", "not_in_samples", "too_long"],
)
def test_segment_that_cannot_be_aligned_stays_as_it_is(segment: Segment) -> None:
    samples, _ = spoken((1.0, 0.0))
    assert align_words(segment, samples, RATE) == segment
