"""Times of words on the embedded engine, against sound that was put together at known places."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moonshine_voice import get_assets_path

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.engines.moonshine.moonshine_recognizer import (
    MoonshineRecognizer,
    align_words,
    model_folder,
    token_spans,
)
from sidecar.transcripts.transcript import Segment, Word, collapse_commas
from sidecar.transcripts.word_timing import estimate_word_times

ASSETS = Path(get_assets_path())
SENTENCES = {
    (0.10, 0.90): "Do you hear me?",
    (17.61, 18.80): "What are you talking about?",
    (20.43, 21.89): "You thought you were in pain.",
    (23.77, 24.91): "Do you remember the day?",
}
"""Of the wheel's clip of two voices: from the first sound to the last, in seconds."""


@pytest.fixture(scope="module")
def recognizer() -> Iterator[MoonshineRecognizer]:
    recognizer = MoonshineRecognizer(model_folder())
    yield recognizer
    recognizer.close()


def joined(parts: list[Block], gaps_s: list[float]) -> tuple[Block, list[tuple[float, float]]]:
    """The parts, each after a silence, and where each is."""
    sound: list[Block] = []
    edges, at = [], 0
    for part, gap_s in zip(parts, gaps_s, strict=True):
        sound += [np.zeros(int(gap_s * SAMPLE_RATE), np.float32), part]
        at += len(sound[-2])
        edges.append((at / SAMPLE_RATE, (at + len(part)) / SAMPLE_RATE))
        at += len(part)
    return np.concatenate(sound), edges


def test_words_begin_and_end_where_their_sound_does(recognizer: MoonshineRecognizer) -> None:
    """Most edges to 50 ms, where evenly spread characters are off by many times that."""
    clip = decode_audio_file(ASSETS / "endgame_nagg_nell.wav", SAMPLE_RATE)
    parts = [clip[int(a * SAMPLE_RATE) : int(b * SAMPLE_RATE)] for a, b in SENTENCES]
    audio, edges = joined(parts, [0.2, 0.9, 0.1, 0.5])
    found = recognizer.hear(audio, words=True)
    assert found is not None
    counts = [len(text.split()) for text in SENTENCES.values()]
    assert len(found.words) == sum(counts)
    ends = list(accumulate(counts))
    first = [found.words[end - count].start for count, end in zip(counts, ends, strict=True)]
    last = [found.words[end - 1].end for end in ends]
    off = [abs(ours - edge[0]) for ours, edge in zip(first, edges, strict=True)]
    off += [abs(ours - edge[1]) for ours, edge in zip(last, edges, strict=True)]
    assert sorted(off)[len(off) // 2] < 0.05
    assert max(off) < 0.25
    even = estimate_word_times(Segment(0.0, len(audio) / SAMPLE_RATE, found.text)).words
    starts = zip(counts, ends, edges, strict=True)
    guessed = [abs(even[end - count].start - edge[0]) for count, end, edge in starts]
    assert sum(guessed) > 4 * sum(off)


def test_asking_for_words_changes_no_word(recognizer: MoonshineRecognizer) -> None:
    audio = decode_audio_file(ASSETS / "endgame_nagg_nell.wav", SAMPLE_RATE)[: 9 * SAMPLE_RATE]
    plain, timed = recognizer.hear(audio), recognizer.hear(audio, words=True)
    assert plain is not None
    assert timed is not None
    assert (timed.text, timed.tokens) == (plain.text, plain.tokens)
    assert " ".join(word.text for word in timed.words) == timed.text
    assert plain.words == ()
    for word, after in pairwise(timed.words):
        assert 0 <= word.start <= word.end <= len(audio) / SAMPLE_RATE
        assert word.start <= after.start


@pytest.mark.parametrize("samples", [1, 4000, SAMPLE_RATE])
def test_silence_and_very_short_sound_have_words_or_none(
    recognizer: MoonshineRecognizer, samples: int
) -> None:
    found = recognizer.hear(np.zeros(samples, np.float32), words=True)
    assert found is not None
    assert " ".join(word.text for word in found.words) == found.text


def test_who_is_cancelled_gets_no_words(recognizer: MoonshineRecognizer) -> None:
    assert recognizer.hear(np.zeros(8000, np.float32), None, lambda: True, words=True) is None


def test_a_silence_belongs_to_no_word() -> None:
    attention = np.full((1, 2, 10), 0.01, np.float32)
    attention[0, 0, 0:3] = attention[0, 1, 7:10] = 1.0
    quiet = np.array([-1, -1, -1, 1, 1, 1, 1, -1, -1, -1], np.float32)
    assert token_spans(attention, quiet, [True, True]) == [(0, 3), (7, 10)]
    assert token_spans(attention, -np.ones(10, np.float32), [True, True])[0][1] > 3


@given(st.integers(1, 12), st.integers(1, 30), st.lists(st.booleans(), min_size=12, max_size=12))
def test_any_attention_gives_each_token_its_frames_in_order(
    tokens: int, frames: int, begins: list[bool]
) -> None:
    chance = np.random.default_rng(tokens * 100 + frames)
    attention = chance.random((2, tokens, frames), np.float32)
    quiet = chance.uniform(-1, 1, frames).astype(np.float32)
    found = token_spans(attention, quiet, begins[:tokens])
    assert len(found) == tokens
    assert all(0 <= first <= end <= frames for first, end in found)
    for before, after in pairwise(found):
        assert before[0] <= after[0]
        assert before[1] <= after[1]


PIECES = st.lists(st.sampled_from([" a", " b", "c", ",", " ,", ",,", ".", " ", "", " d'", "é"]))


@given(PIECES)
def test_words_are_those_of_the_tidied_text(pieces: list[str]) -> None:
    text = collapse_commas("".join(pieces).strip())
    at = [(float(number), number + 0.5) for number in range(len(pieces))]
    found = list(align_words(text, pieces, at))
    said = " ".join(word.text for word in found)
    assert said == " ".join(text.split()) or not text.strip(" ,")
    assert all(isinstance(word, Word) and word.start <= word.end for word in found)
    assert all(before.start <= after.start for before, after in pairwise(found))
