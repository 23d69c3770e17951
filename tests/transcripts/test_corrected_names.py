"""Names that a person gave to speakers and wrote into texts."""

import pytest

from sidecar.transcripts.corrected_names import corrected_names
from sidecar.transcripts.transcript import Segment, Transcript
from sidecar.transcripts.transcript_edits import (
    EditHistory,
    EditStep,
    MergeSpeakers,
    RenameSpeaker,
    RewriteSegment,
    SplitSegments,
    UndoStep,
)

SAID = Transcript(
    (
        Segment(0.0, 1.0, "I spoke with tea bow about it.", 0),
        Segment(1.0, 2.0, "She von asked the team.", 1),
        Segment(2.0, 3.0, "Good.", 0),
    ),
    "en",
    3.0,
    "moonshine",
    "int8",
    diarized=True,
)


def names_after(*steps: EditStep) -> list[str]:
    history, transcript = EditHistory(), SAID
    for step in steps:
        changed = history.after(transcript, step, 0.0)
        assert changed is not None
        history, transcript = changed
    return corrected_names(history, transcript)


def test_names_of_speakers_and_new_capitalized_words_inside_sentences_are_names() -> None:
    spoke = RewriteSegment(0, "I spoke with Thibault Okonkwo-Szymańska about it.")
    assert names_after((RenameSpeaker(0, "Old Nagg"), spoke), (SplitSegments((2,), "Nell"),)) == [
        "Nell",
        "Old Nagg",
        "Okonkwo-Szymańska",
        "Thibault",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "There is a plan. We spoke.",  # begins of sentences
        "I spoke with Tea about it.",  # was there
        "I said: “We know”, and I'm OK.",  # behind a colon, and too short
        "i spoke with thibault about it.",
    ],
)
def test_words_without_capital_at_the_start_of_a_sentence_or_known_are_no_names(text: str) -> None:
    assert names_after((RewriteSegment(0, text),)) == []


def test_names_that_later_edits_took_back_are_no_names() -> None:
    name, text = RenameSpeaker(0, "Nel"), RewriteSegment(0, "I spoke with Tibbo about it.")
    assert names_after((name, text)) == ["Nel", "Tibbo"]
    assert names_after((name, text), UndoStep()) == []
    again = RenameSpeaker(0, "Nell"), RewriteSegment(0, "I spoke with Thibault about it.")
    assert names_after((name, text), again) == ["Nell", "Thibault"]
    assert names_after((name,), (MergeSpeakers(0, 1),)) == []
