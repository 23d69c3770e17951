"""Two recognitions of overlapping audio: words in are words out, in order, each once."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.transcripts.overlapping_words import (
    OVERLAP_S,
    CutWords,
    first_word_after,
    words_before,
)
from sidecar.transcripts.transcript import Word

MAX_WORD_S = 0.8
"""A longer one may lie on both sides and whole in neither."""
CUT_S = 5.0


def joined(before: Sequence[Word], after: Sequence[Word], cut_s: float = CUT_S) -> list[str]:
    taken = words_before(before, cut_s)
    first = first_word_after(before, taken, after, cut_s)
    return [one.text for one in (*before[:taken], *after[first:])]


def spoken(lengths: Sequence[tuple[float, float]], begin: float) -> list[Word]:
    """Words without times of pauses between; each has another text."""
    found, at = list[Word](), begin
    for number, (length, pause) in enumerate(lengths):
        found.append(Word(at, at + length, f"w{number}"))
        at += length + pause
    return found


def heard(words: Sequence[Word], errors: Sequence[float], start: float, end: float) -> list[Word]:
    """Words that are whole within the audio, with errors in their times."""
    return [
        Word(word.start + error, word.end + error, word.text)
        for word, error in zip(words, errors, strict=True)
        if start <= word.start and word.end <= end
    ]


@given(st.data())
def test_words_of_both_sides_are_in_order_and_each_is_there_once(data: st.DataObject) -> None:
    times = st.tuples(st.floats(0.15, MAX_WORD_S - 0.1), st.floats(0, 0.4))
    lengths = data.draw(st.lists(times, min_size=1, max_size=20))
    words = spoken(lengths, CUT_S - data.draw(st.floats(0, 6)))
    errors = st.lists(st.floats(-0.05, 0.05), min_size=len(words), max_size=len(words))
    before = heard(words, data.draw(errors), -60, CUT_S + OVERLAP_S)
    after = heard(words, data.draw(errors), CUT_S - OVERLAP_S, 60)
    assert joined(before, after) == [word.text for word in words]


@given(st.integers(2, 12), st.floats(0, 0.3), st.floats(-0.02, 0.02))
def test_word_that_is_repeated_is_there_as_often_as_it_is_spoken(
    count: int, shift: float, error: float
) -> None:
    words = [
        Word(CUT_S - 1 + shift + 0.3 * at, CUT_S - 0.8 + shift + 0.3 * at, "no")
        for at in range(count)
    ]
    before = heard(words, [error] * count, -60, CUT_S + OVERLAP_S)
    after = heard(words, [-error] * count, CUT_S - OVERLAP_S, 60)
    assert joined(before, after) == ["no"] * count


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("so|4.2 we|4.6 went|4.95 ho|5.3", "ent|4.9 went|5.05 home|5.35", "so we went home"),
        ("so|4.2 Went,|4.95", "went|5.05 home|5.35", "so Went, home"),
        ("so|4.2 went|5.02", "went|4.97 home|5.35", "so went home"),
        ("so|4.2 vent|4.95", "went|5.05 home|5.35", "so vent home"),
        ("so|4.2", "home|5.35", "so home"),
        ("", "went|4.8 home|5.35", "home"),
        ("so|4.2", "", "so"),
    ],
)
def test_word_that_both_sides_have_is_taken_from_one(before: str, after: str, text: str) -> None:
    def of(words: str) -> list[Word]:
        pairs = (one.split("|") for one in words.split())
        return [Word(float(at) - 0.1, float(at) + 0.1, text) for text, at in pairs]

    assert " ".join(joined(of(before), of(after))) == text


def test_words_at_a_cut_come_back_from_plain_values_and_are_followed_by_the_same_word() -> None:
    words = [Word(at / 2, at / 2 + 0.4, f"w{at}") for at in range(13)]
    cut = CutWords.of(words[:11], CUT_S)
    again = CutWords.from_state(json.loads(json.dumps(cut.state())))
    assert again == cut
    assert [one.text for one in cut.words] == ["w7", "w8", "w9", "w10"]
    assert again.first_after(words[9:]) == 1
