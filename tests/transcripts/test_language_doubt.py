"""Doubt whether all of a recording is in the embedded engine's language, by its confidence."""

import pytest

from sidecar.transcripts.language_detection import Confidence, doubtful_part, with_language_notice
from sidecar.transcripts.transcript import Segment, Transcript

TEN_WORDS = "one two three four five six seven eight nine ten"


def spoken(*confidences: float | None) -> tuple[Segment, ...]:
    """A segment of ten words and ten seconds for each."""
    return tuple(
        Segment(10.0 * at, 10.0 * at + 9.0, TEN_WORDS, confidence=confidence)
        for at, confidence in enumerate(confidences)
    )


@pytest.mark.parametrize(
    ("confidences", "part"),
    [
        pytest.param((0.95, 0.9, 0.88, 0.93), None, id="sure"),
        pytest.param((0.95, 0.9, 0.3, 0.43, 0.15), (20.0, 49.0), id="end"),
        pytest.param((0.2, 0.3, 0.9, 0.95, 0.94, 0.9), (0.0, 19.0), id="begin"),
        pytest.param((0.9, 0.95, 0.2, 0.6, 0.2, 0.9, 0.95), (20.0, 49.0), id="middle"),
        pytest.param((0.95, 0.9, 0.2, 0.9, 0.9), None, id="few words"),
        pytest.param((0.9, 0.3, 0.35, 0.9, 0.9, 0.9, 0.2, 0.2), (60.0, 79.0), id="the surest"),
        pytest.param((0.9, None, 0.2, None, 0.3), (20.0, 49.0), id="without confidence"),
        pytest.param((None, None), None, id="unknown"),
        pytest.param((), None, id="empty"),
    ],
)
def test_part_of_which_the_recognizer_is_unsure_begins_and_ends_with_its_segments(
    confidences: tuple[float | None, ...], part: tuple[float, float] | None
) -> None:
    assert doubtful_part(spoken(*confidences)) == part


def test_notice_of_a_part_says_from_where_to_where_and_what_to_do() -> None:
    sure = [0.95] * 9
    segments = spoken(*sure, 0.2, 0.3)
    found = Transcript(segments, "en", 110.0, "moonshine", "int8", diarized=False)
    confidence = Confidence(-20.0, 110)
    (notice,) = with_language_notice(found, confidence, others=True).notices
    assert notice.code == "language_doubtful"
    assert "from 1:30 to 1:49" in notice.message
    assert "language=de" in notice.message
    assert with_language_notice(found, Confidence()).notices == (), "an engine of any language"
    (whole,) = with_language_notice(found, Confidence(-110.0, 110)).notices
    assert whole.message.startswith("The recording does not seem")
