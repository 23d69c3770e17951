import pytest

from sidecar.diarization.word_attribution import dominant_speaker
from sidecar.transcripts.speaker_turns import (
    SpeakerTurn,
    longest_solo_spans,
    match_speakers,
    number_speakers_by_appearance,
    solo_spans,
    speaking_seconds,
    turn_agreement,
    turns_within,
)
from sidecar.transcripts.transcript import Segment


def turns_of(*spans: tuple[float, float, int]) -> list[SpeakerTurn]:
    """From when to when, and who."""
    return [SpeakerTurn(*span) for span in spans]


def test_span_belongs_to_its_main_speaker() -> None:
    turns = turns_of((0, 2, 7), (2, 5, 8), (5, 6, 7))
    assert dominant_speaker(turns, 0, 3) == 7
    assert dominant_speaker(turns, 1, 5) == 8
    assert dominant_speaker(turns, 0, 6) in (7, 8)


def test_span_without_speaker_goes_to_the_nearest() -> None:
    turns = turns_of((0, 1, 0), (9, 10, 1))
    assert dominant_speaker(turns, 2, 3) == 0
    assert dominant_speaker(turns, 7, 8) == 1
    assert dominant_speaker([], 7, 8) is None


def test_speakers_are_renumbered_in_order_of_appearance() -> None:
    segments = [Segment(0, 1, "a", 4), Segment(1, 2, "b", 2), Segment(2, 3, "c", 4)]
    assert [segment.speaker for segment in number_speakers_by_appearance(segments)] == [0, 1, 0]
    assert number_speakers_by_appearance([Segment(0, 1, "a", None)])[0].speaker is None


def test_solo_spans_exclude_overlap_and_are_sorted_by_length() -> None:
    turns = turns_of((0, 2, 0), (3, 9, 0), (5, 6, 1), (1.5, 2.5, 1))
    assert solo_spans(turns, 0) == [(6, 9), (3, 5), (0, 1.5)]
    assert solo_spans(turns, 2) == []


def test_turns_are_clipped_to_a_span() -> None:
    turns = turns_of((0, 4, 0), (4, 6, 1), (6, 9, 0))
    assert turns_within(turns, 3, 6) == turns_of((3, 4, 0), (4, 6, 1))


def test_longest_solo_spans_are_cut_into_parts_with_first_part_of_each_first() -> None:
    turns = turns_of((0, 2, 0), (3, 11, 0), (5, 6, 1), (20, 20.4, 0))
    assert longest_solo_spans(turns, 0, 2.25, 0.5) == [
        (6, 8.25),
        (0, 2),
        (3, 5),
        (8.25, 10.5),
        (10.5, 11),
    ]
    assert longest_solo_spans(turns, 0, 2.25, 1.0) == [(6, 8.25), (0, 2), (3, 5), (8.25, 10.5)]
    assert longest_solo_spans(turns, 1, 2.5, 1.5) == []


def test_speaking_seconds_of_each_label_are_summed_within_a_span() -> None:
    assert speaking_seconds(turns_of((0, 3, 7), (3, 4, 8), (5, 9, 7)), 1, 6) == {7: 3, 8: 1}


def test_speakers_agree_by_common_seconds_over_those_of_either_and_too_few_do_not_count() -> None:
    before = turns_of((0, 4, 0), (5, 9, 1))
    after = turns_of((0, 4, 6), (5, 8.9, 5), (9.5, 12, 6))
    found = turn_agreement(before, after, 1.0)
    assert found == {(0, 6): pytest.approx(4 / 6.5), (1, 5): pytest.approx(3.9 / 4)}
    assert turn_agreement(before, after, 3.95) == {(0, 6): pytest.approx(4 / 6.5)}


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
    ids=["none", "two pairs", "likeliest pair first", "one to one", "below the threshold", "tie"],
)
def test_speakers_are_matched_one_to_one_above_a_threshold_most_similar_pair_first(
    likenesses: dict[tuple[int, int], float], found: dict[int, int]
) -> None:
    assert match_speakers(likenesses, 0.5) == found
