"""Turns into lines: who has the floor."""

from __future__ import annotations

import pytest

from sidecar.diarization.word_attribution import SpeakerLookup, context_span, merge_turns
from sidecar.transcripts.speaker_turns import SpeakerTurn

Span = tuple[float, float, int]


def turns(*spans: Span) -> list[SpeakerTurn]:
    return [SpeakerTurn(*span) for span in spans]


@pytest.mark.parametrize(
    ("spoken", "lines"),
    [
        pytest.param([], [], id="nobody"),
        pytest.param([(0, 2, 0), (2.5, 4, 0)], [(0, 4, 0)], id="a short pause is none"),
        pytest.param([(0, 2, 0), (3, 4, 0)], [(0, 2, 0), (3, 4, 0)], id="a long pause ends a line"),
        pytest.param(
            [(0, 2, 0), (2.1, 2.3, 1), (2.4, 4, 0)],
            [(0, 2, 0), (2.1, 2.3, 1), (2.4, 4, 0)],
            id="one word between has a line",
        ),
        pytest.param(
            [(0, 3, 0), (2, 6, 1)],
            [(0, 2.5, 0), (2.5, 6, 1)],
            id="the floor goes over in the middle",
        ),
        pytest.param([(0, 6, 0), (2, 2.5, 1)], [(0, 6, 0)], id="a murmur while another speaks"),
        pytest.param(
            [(0, 6, 0), (2, 4, 1)], [(0, 6, 0), (2, 4, 1)], id="a sentence while another speaks"
        ),
        pytest.param([(0, 3, 0), (2, 3.2, 1)], [(0, 3, 0), (2, 3.2, 1)], id="hardly outlasts"),
        pytest.param([(0, 3, 0), (2, 4, 0)], [(0, 4, 0)], id="one voice overlaps itself"),
    ],
)
def test_who_outlasts_takes_the_floor(spoken: list[Span], lines: list[Span]) -> None:
    assert merge_turns(turns(*spoken)) == turns(*lines)
    assert merge_turns(reversed(turns(*spoken))) == turns(*lines)


def test_half_of_a_short_silence_belongs_to_each_line() -> None:
    lines = turns((1, 2, 0), (2.2, 3, 1), (5, 6, 0))
    assert context_span(lines, 0) == pytest.approx((0.7, 2.1))
    assert context_span(lines, 1) == pytest.approx((2.1, 3.3))
    assert context_span(lines, 2) == pytest.approx((4.7, 6.3))
    assert context_span(turns((0.1, 1, 0)), 0)[0] == 0.0
    murmured = turns((0, 10, 0), (8, 9.5, 1), (10.05, 14, 2))
    assert context_span(murmured, 2)[0] == pytest.approx(10.025), "the last to end counts"


def test_a_line_keeps_its_voice_while_that_is_heard_in_half_of_it() -> None:
    floor = SpeakerLookup(turns((0, 10, 3), (2, 4, 7), (20, 30, 7)))
    assert floor.voice(2, 4, 7) == 7
    assert floor.voice(0, 10, 7) == 3
    assert floor.voice(21, 22, 3) == 7
    assert floor.voice(14, 15, 1) in (3, 7)
    assert SpeakerLookup([]).voice(0, 1, 5) == 5
