"""Times of text by the turns of voices."""

from itertools import pairwise

import pytest

from sidecar.diarization.turn_times import moved_to_turns
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import Segment, Word

A, B = 0, 1


def segments(*borders: float) -> list[Segment]:
    return [
        Segment(start, end, f"text {number}", words=(Word(start, (start + end) / 2, "text"),))
        for number, (start, end) in enumerate(pairwise(borders))
    ]


def times(found: list[Segment]) -> list[tuple[float, float]]:
    return [(one.start, one.end) for one in found]


def test_short_answer_whose_times_are_early_gets_those_of_the_voice_that_gave_it() -> None:
    """Both of its borders are nearest to the first change."""
    turns = [SpeakerTurn(0, 5.7, A), SpeakerTurn(5.7, 6.3, B), SpeakerTurn(6.3, 12, A)]
    found = moved_to_turns(segments(0, 5.0, 5.6, 12), turns, 1.5)
    assert times(found) == [(0, 5.7), (5.7, 6.3), (6.3, 12)]
    assert [word.start for one in found for word in one.words] == [0, 5.7, 6.3]


def test_border_without_a_change_of_voice_near_it_stays() -> None:
    turns = [SpeakerTurn(0, 8, A), SpeakerTurn(8, 30, B)]
    found = moved_to_turns(segments(0, 5, 9, 20, 30), turns, 1.5)
    assert times(found) == [(0, 5), (5, 8), (8, 20), (20, 30)]


def test_border_in_the_pause_between_two_voices_stays() -> None:
    turns = [SpeakerTurn(0, 4, A), SpeakerTurn(6, 10, B)]
    assert times(moved_to_turns(segments(0, 5, 10), turns, 1.5)) == [(0, 5), (5, 10)]


def test_border_without_a_change_gives_way_to_one_that_moves_past_it() -> None:
    turns = [SpeakerTurn(0, 4.1, A), SpeakerTurn(4.1, 5.0, B), SpeakerTurn(5.0, 10, A)]
    found = moved_to_turns(segments(0, 2.0, 2.4, 5.5, 6.4, 10), turns, 1.5)
    starts = [one.start for one in found]
    assert starts == sorted(starts), "the text keeps its order"
    assert all(one.start <= one.end for one in found)


@pytest.mark.parametrize("turns", [[], [SpeakerTurn(0, 10, A)]])
def test_segments_of_one_voice_or_none_keep_their_times(turns: list[SpeakerTurn]) -> None:
    assert moved_to_turns(segments(0, 5, 10), turns, 1.5) == segments(0, 5, 10)
    assert moved_to_turns([], turns, 1.5) == []
