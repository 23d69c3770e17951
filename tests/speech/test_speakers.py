from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.speech.speakers import (
    Turn,
    clearest,
    clearest_stretches,
    dominant,
    in_order_of_appearance,
    link,
    matched,
    shares,
    stretches_alone,
    together,
    within,
)
from sidecar.speech.transcript import Segment


def test_the_voice_that_speaks_most_in_a_stretch_has_it() -> None:
    turns = [Turn(0, 2, 7), Turn(2, 5, 8), Turn(5, 6, 7)]
    assert dominant(turns, 0, 3) == 7
    assert dominant(turns, 1, 5) == 8
    assert dominant(turns, 0, 6) in (7, 8)


def test_a_stretch_nobody_has_goes_to_the_nearest_voice() -> None:
    turns = [Turn(0, 1, 0), Turn(9, 10, 1)]
    assert dominant(turns, 2, 3) == 0
    assert dominant(turns, 7, 8) == 1
    assert dominant([], 7, 8) is None


def test_a_label_is_the_speaker_whose_anchor_it_covers() -> None:
    turns = [Turn(0, 10, 3), Turn(11, 21, 1), Turn(25, 30, 1), Turn(30, 40, 3)]
    assert link(turns, {0: (0.0, 10.0), 1: (11.0, 21.0)}) == {3: 0, 1: 1}


def test_a_voice_without_an_anchor_gets_a_new_number() -> None:
    turns = [Turn(0, 10, 3), Turn(11, 21, 1), Turn(25, 30, 9), Turn(30, 40, 8)]
    assert link(turns, {0: (0.0, 10.0), 1: (11.0, 21.0)}) == {3: 0, 1: 1, 9: 2, 8: 3}


def test_a_label_that_covers_less_than_half_of_an_anchor_is_somebody_new() -> None:
    assert link([Turn(0, 4, 5), Turn(12, 20, 5)], {0: (0.0, 10.0)}) == {5: 1}


def test_two_anchors_under_one_label_stay_with_one_speaker() -> None:
    assert link([Turn(0, 20, 5)], {0: (0.0, 10.0), 1: (10.0, 20.0)}) == {5: 0}


def test_labels_are_numbered_in_order_of_appearance_where_nobody_is_known() -> None:
    assert link([Turn(3, 4, 2), Turn(0, 1, 9)], {}) == {9: 0, 2: 1}


def test_the_clearest_stretch_is_the_longest_without_another_voice() -> None:
    turns = [Turn(0, 10, 0), Turn(4, 5, 1), Turn(20, 23, 0)]
    assert clearest(turns, 0, 30) == (5, 10)
    assert clearest(turns, 0, 2) == (5, 7)
    assert clearest(turns, 2, 30) is None


def test_speakers_are_renumbered_in_the_order_they_first_speak() -> None:
    segments = [Segment(0, 1, "a", 4), Segment(1, 2, "b", 2), Segment(2, 3, "c", 4)]
    assert [segment.speaker for segment in in_order_of_appearance(segments)] == [0, 1, 0]
    assert in_order_of_appearance([Segment(0, 1, "a", None)])[0].speaker is None


def test_a_voice_alone_is_what_nobody_talks_over_the_longest_first() -> None:
    turns = [Turn(0, 2, 0), Turn(3, 9, 0), Turn(5, 6, 1), Turn(1.5, 2.5, 1)]
    assert stretches_alone(turns, 0) == [(6, 9), (3, 5), (0, 1.5)]
    assert stretches_alone(turns, 2) == []


def test_turns_within_a_stretch_are_cut_to_it() -> None:
    turns = [Turn(0, 4, 0), Turn(4, 6, 1), Turn(6, 9, 0)]
    assert within(turns, 3, 6) == [Turn(3, 4, 0), Turn(4, 6, 1)]


def test_the_clearest_stretches_come_in_parts_the_first_of_each_before_the_rest() -> None:
    turns = [Turn(0, 2, 0), Turn(3, 11, 0), Turn(5, 6, 1), Turn(20, 20.4, 0)]
    assert clearest_stretches(turns, 0, 2.25, 0.5) == [
        (6, 8.25),
        (0, 2),
        (3, 5),
        (8.25, 10.5),
        (10.5, 11),
    ]
    assert clearest_stretches(turns, 0, 2.25, 1.0) == [(6, 8.25), (0, 2), (3, 5), (8.25, 10.5)]
    assert clearest_stretches(turns, 1, 2.5, 1.5) == []


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9), st.integers(0, 2)), max_size=12),
)
def test_a_voice_alone_has_every_second_that_is_its_own_only(
    rows: list[tuple[int, int, int]],
) -> None:
    turns = [Turn(start, start + length, label) for start, length, label in rows]
    alone = {at for start, end in stretches_alone(turns, 0) for at in range(int(start), int(end))}
    said = {
        label: {
            at
            for turn in turns
            if turn.label == label
            for at in range(int(turn.start), int(turn.end))
        }
        for label in range(3)
    }
    assert alone == said[0] - said[1] - said[2]


def test_how_long_each_label_speaks_in_a_stretch() -> None:
    assert shares([Turn(0, 3, 7), Turn(3, 4, 8), Turn(5, 9, 7)], 1, 6) == {7: 3, 8: 1}


def test_two_accounts_of_the_same_seconds_say_who_is_whom() -> None:
    before = [Turn(0, 4, 0), Turn(5, 9, 1)]
    after = [Turn(0, 4, 6), Turn(5, 8.9, 5), Turn(9.5, 12, 6)]
    found = together(before, after, 1.0)
    assert found == {(0, 6): pytest.approx(4 / 6.5), (1, 5): pytest.approx(3.9 / 4)}
    assert together(before, after, 3.95) == {(0, 6): pytest.approx(4 / 6.5)}


@pytest.mark.parametrize(
    ("likenesses", "found"),
    [
        ({}, {}),
        ({(0, 0): 0.9, (1, 0): 0.1, (0, 1): 0.2, (1, 1): 0.8}, {0: 0, 1: 1}),
        ({(0, 0): 0.6, (1, 0): 0.9, (0, 1): 0.7, (1, 1): 0.8}, {0: 1, 1: 0}),
        ({(0, 0): 0.9, (0, 1): 0.8}, {0: 0}),
        ({(0, 0): 0.3, (1, 1): 0.4}, {}),
        ({(0, 5): 1.0, (1, 5): 1.0}, {5: 0}),
    ],
    ids=["nobody", "each", "the likeliest first", "one each", "nobody near", "a tie"],
)
def test_who_is_whom_is_one_to_one_and_only_if_likely(
    likenesses: dict[tuple[int, int], float], found: dict[int, int]
) -> None:
    assert matched(likenesses, 0.5) == found
