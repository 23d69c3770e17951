"""Words of an engine that hears no speakers, given to turns."""

from dataclasses import replace
from itertools import pairwise

import pytest
from many_cases import parametrize_by_name

from sidecar.diarization.word_attribution import (
    SpeakerLookup,
    attribute_words,
    context_span,
    extend_over_overlaps,
    fit_to_turns,
    flag_overlaps,
    merge_turns,
)
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import NON_SPEECH_FLAG, OVERLAP_FLAG, Segment, Word
from sidecar.transcripts.word_timing import split_at_words

Span = tuple[float, float, int]


def said(text: str, start: float = 0.0, step: float = 0.5, gap: float = 0.0) -> Segment:
    """A segment whose words follow each other by ``step`` seconds, ``gap`` of it silence."""
    words = tuple(
        Word(start + step * at, start + step * (at + 1) - gap, word)
        for at, word in enumerate(text.split())
    )
    return Segment(start, words[-1].end, text, words=words)


def lines(segments: list[Segment]) -> list[tuple[int | None, str]]:
    return [(segment.speaker, segment.text) for segment in segments]


@pytest.mark.parametrize(
    ("text", "turns", "expected"),
    [
        pytest.param("a b c d", [(0, 2, 4)], [(4, "a b c d")], id="one speaker"),
        pytest.param("a b c d", [(0, 1, 0), (1, 2, 1)], [(0, "a b"), (1, "c d")], id="two turns"),
        pytest.param(
            "yes it is. No", [(0, 1.2, 0), (1.2, 2, 1)], [(0, "yes it is."), (1, "No")],
            id="cut at a sentence's end near the turn"
        ),
        pytest.param(
            "so. a b c d e", [(0, 2, 0), (2, 3, 1)], [(0, "so. a b c"), (1, "d e")],
            id="no cut at a sentence's end far from the turn"
        ),
        pytest.param(
            "a b c d", [(0, 0.9, 0), (5, 6, 1)], [(0, "a b c d")], id="no cut in a silence"
        ),
        pytest.param(
            "a b c d e f", [(0, 3, 0), (1, 1.4, 1)], [(0, "a b c d e f")],
            id="no word for a short overlapping turn"
        ),
        pytest.param(
            "a b c d e f", [(0, 1, 0), (1, 2, 1), (2, 3, 0)], [(0, "a b"), (1, "c d"), (0, "e f")],
            id="speaker returns"
        ),
        pytest.param("a b", [], [(None, "a b")], id="no turns"),
    ],
)  # fmt: skip
def test_segment_is_cut_where_the_speaker_changes(
    text: str, turns: list[Span], expected: list[tuple[int | None, str]]
) -> None:
    found = attribute_words([said(text)], [SpeakerTurn(*one) for one in turns])
    assert lines(found) == expected
    assert [word for segment in found for word in segment.words] == list(said(text).words)
    assert found[0].start == 0
    assert found[-1].end == said(text).end
    assert all(one.end <= other.start for one, other in pairwise(found))


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("yes I have talked to Mr. Miller about it already", "yes I have talked to Mr. Miller"),
        ("das ist von Hrn. Dr. Weiß und gut", "das ist von Hrn. Dr. Weiß"),
        ("he wrote to J. R. Smith and left", "he wrote to J. R. Smith"),
    ],
)
def test_name_stays_with_the_speaker_of_its_title_where_the_speaker_changes_behind_it(
    text: str, first: str
) -> None:
    words = tuple(Word(at / 5, (at + 1) / 5, one) for at, one in enumerate(text.split()))
    segment = Segment(0.0, words[-1].end, text, words=words)
    change = len(first.split()) / 5
    turns = [SpeakerTurn(0.0, change, 0), SpeakerTurn(change, segment.end, 1)]
    found = attribute_words([segment], turns)
    assert lines(found) == [(0, first), (1, text.removeprefix(first).strip())]


def test_cut_of_a_segment_moves_to_a_pause_near_the_change_of_speaker() -> None:
    words = (Word(0, 0.3, "a"), Word(0.35, 0.6, "b"), Word(0.9, 1.1, "c"), Word(1.1, 1.4, "d"))
    segment = Segment(0, 1.4, "a b c d", words=words)
    found = attribute_words([segment], [SpeakerTurn(0, 1.05, 0), SpeakerTurn(1.05, 2, 1)])
    assert lines(found) == [(0, "a b"), (1, "c d")]


def test_segment_without_words_belongs_to_its_main_speaker() -> None:
    turns = [SpeakerTurn(0, 3, 0), SpeakerTurn(3, 10, 1)]
    segments = [Segment(0, 2, "one"), Segment(2, 6, "two"), Segment(20, 21, "three")]
    assert lines(attribute_words(segments, turns)) == [(0, "one"), (1, "two"), (1, "three")]


def test_non_speech_has_no_speaker() -> None:
    music = Segment(0, 2, "[Music]", 3, flags=(NON_SPEECH_FLAG,))
    assert attribute_words([music], [SpeakerTurn(0, 2, 0)]) == [
        Segment(0, 2, "[Music]", None, flags=(NON_SPEECH_FLAG,))
    ]


@parametrize_by_name(
    "text, words, pieces",
    {
        "punctuation": ("Yes, sir. No!", ["Yes", "sir", "No"], ["Yes, ", "sir. ", "No!"]),
        "no spaces": ("你好世界", ["你好", "世界"], ["你好", "世界"]),
        "words with spaces": ("a b", [" a", " b"], ["a ", "b"]),
        "word missing in the text": ("a b", ["a", "x"], ["a ", "x "]),
        "repeated words": ("no no no", ["no", "no", "no"], ["no ", "no ", "no"]),
    },
)
def test_punctuation_and_spaces_stay_with_their_words(
    text: str, words: list[str], pieces: list[str]
) -> None:
    assert split_at_words(text, words) == pieces


def test_each_turn_of_an_hour_gets_its_words() -> None:
    """Four speakers in turns of three seconds; every word has the voice of its turn."""
    turns = [SpeakerTurn(3 * at, 3 * at + 3, at % 4) for at in range(1200)]
    segments = [said("a b c d e f g h i j k l", 6 * at) for at in range(600)]
    found = attribute_words(segments, turns)
    assert len(found) == 1200
    assert [segment.speaker for segment in found] == [turn.label for turn in turns]


@parametrize_by_name(
    "turns, cut, expected",
    {
        "long overlap": (
            [(0, 5.6, 0), (3.2, 9, 1)],
            [(0, 4.4, 0), (4.4, 9, 1)],
            [(0, 5.6, 0), (3.2, 9, 1)],
        ),
        "short overlap": (
            [(0, 5, 0), (4.4, 9, 1)],
            [(0, 4.7, 0), (4.7, 9, 1)],
            [(0, 4.7, 0), (4.7, 9, 1)],
        ),
        "one turn cut in two": ([(0, 20, 0)], [(0, 11, 0), (11, 20, 0)], [(0, 11, 0), (11, 20, 0)]),
        "no overlap": ([(0, 5, 0), (5, 9, 1)], [(0, 5, 0), (5, 9, 1)], [(0, 5, 0), (5, 9, 1)]),
    },
)
def test_segments_extend_to_their_turns_where_turns_overlap_long_and_not_elsewhere(
    turns: list[Span], cut: list[Span], expected: list[Span]
) -> None:
    segments = [Segment(start, end, "words", who) for start, end, who in cut]
    found = extend_over_overlaps(segments, [SpeakerTurn(*turn) for turn in turns])
    assert [(one.start, one.end, one.speaker) for one in found] == expected


def test_segment_without_speaker_beside_a_turn_extends_nothing() -> None:
    music = Segment(20, 30, "[Music]", None, flags=(NON_SPEECH_FLAG,))
    segments = [music, Segment(30, 33, "words", 0), replace(music, start=33, end=40)]
    assert extend_over_overlaps(segments, [SpeakerTurn(10, 40, 0)]) == segments


@pytest.mark.parametrize(
    ("turns", "said", "expected"),
    [
        pytest.param([(0, 5, 0)], [(0.4, 4.6, 0)], [(0, 5, 0)], id="extended at both ends"),
        pytest.param([(1, 5, 0)], [(0.6, 5.3, 0)], [(1, 5, 0)], id="shortened at the start"),
        pytest.param([(0, 5, 0)], [(0.8, 4.2, 0)], [(0.8, 4.2, 0)], id="edges too far away"),
        pytest.param(
            [(0, 5, 0)], [(0.2, 2, 0), (3, 4.8, 0)], [(0, 2, 0), (3, 5, 0)], id="pause in the turn"
        ),
        pytest.param(
            [(0, 5, 0), (5, 9, 1)], [(0, 5.2, 0), (5.2, 9, 1)], [(0, 5, 0), (5, 9, 1)],
            id="change of speaker"
        ),
        pytest.param([(0, 5, 1)], [(0.2, 4.8, 0)], [(0.2, 4.8, 0)], id="turn of another speaker"),
        pytest.param(
            [(0, 2.5, 0), (2.5, 5, 0)], [(0.1, 2.2, 0), (2.3, 4.9, 0)],
            [(0, 2.2, 0), (2.3, 5, 0)], id="neighbour in the way"
        ),
    ],
)  # fmt: skip
def test_edge_of_a_segment_near_that_of_its_turn_moves_there_but_over_no_neighbour(
    turns: list[Span], said: list[Span], expected: list[Span]
) -> None:
    segments = [Segment(start, end, "words", who) for start, end, who in said]
    found = fit_to_turns(segments, [SpeakerTurn(*turn) for turn in turns])
    assert [(one.start, one.end, one.speaker) for one in found] == expected


def turns(*spans: Span) -> list[SpeakerTurn]:
    return [SpeakerTurn(*span) for span in spans]


@parametrize_by_name(
    "spoken, lines",
    {
        "none": ([], []),
        "short pause": ([(0, 2, 0), (2.5, 4, 0)], [(0, 4, 0)]),
        "long pause": ([(0, 2, 0), (3, 4, 0)], [(0, 2, 0), (3, 4, 0)]),
        "one word between": (
            [(0, 2, 0), (2.1, 2.3, 1), (2.4, 4, 0)],
            [(0, 2, 0), (2.1, 2.3, 1), (2.4, 4, 0)],
        ),
        "change within an overlap": ([(0, 3, 0), (2, 6, 1)], [(0, 2.5, 0), (2.5, 6, 1)]),
        "murmur in another's turn": ([(0, 6, 0), (2, 2.5, 1)], [(0, 6, 0)]),
        "sentence in another's turn": ([(0, 6, 0), (2, 4, 1)], [(0, 6, 0), (2, 4, 1)]),
        "short rest after an overlap": ([(0, 3, 0), (2, 3.2, 1)], [(0, 3, 0), (2, 3.2, 1)]),
        "overlapping turns of one speaker": ([(0, 3, 0), (2, 4, 0)], [(0, 4, 0)]),
    },
)
def test_turns_are_joined_over_short_pauses_and_overlaps_go_to_who_talks_longer(
    spoken: list[Span], lines: list[Span]
) -> None:
    assert merge_turns(turns(*spoken)) == turns(*lines)
    assert merge_turns(reversed(turns(*spoken))) == turns(*lines)


def test_audio_recognized_for_a_turn_extends_to_the_middle_of_a_gap_but_at_most_0_3_s() -> None:
    lines = turns((1, 2, 0), (2.2, 3, 1), (5, 6, 0))
    assert context_span(lines, 0) == pytest.approx((0.7, 2.1))
    assert context_span(lines, 1) == pytest.approx((2.1, 3.3))
    assert context_span(lines, 2) == pytest.approx((4.7, 6.3))
    assert context_span(turns((0.1, 1, 0)), 0)[0] == 0.0
    murmured = turns((0, 10, 0), (8, 9.5, 1), (10.05, 14, 2))
    assert context_span(murmured, 2)[0] == pytest.approx(10.025), "the last to end counts"


def test_segment_keeps_a_speaker_heard_in_half_of_it_else_gets_the_dominant_one() -> None:
    floor = SpeakerLookup(turns((0, 10, 3), (2, 4, 7), (20, 30, 7)))
    assert floor.voice(2, 4, 7) == 7
    assert floor.voice(0, 10, 7) == 3
    assert floor.voice(21, 22, 3) == 7
    assert floor.voice(14, 15, 1) in (3, 7)
    assert SpeakerLookup([]).voice(0, 1, 5) == 5


def test_segment_is_cut_where_its_speaker_changes_unless_its_speaker_talks_throughout() -> None:
    floor = SpeakerLookup(turns((0, 2, 3), (2, 10, 7), (4, 6, 3)))
    segment = replace(said("a b c. d e f g h"), speaker=7)
    pieces = [(one.text, one.speaker) for one in floor.attributed(segment)]
    assert pieces == [("a b c.", 3), ("d e f g h", 7)]
    aside = replace(said("a b c d", 4.0), speaker=3)
    assert floor.attributed(aside) == [aside]
    over = SpeakerLookup(turns((0, 10, 3), (4, 5.1, 7)))
    remark = replace(said("mm hm", 4.0, 0.6), speaker=7)
    assert over.attributed(remark) == [remark], "who talks longer at the same time has not said it"
    (wordless,) = floor.attributed(replace(segment, words=()))
    assert (wordless.text, wordless.speaker) == (segment.text, 7)


@parametrize_by_name(
    "turns, flagged",
    {
        "one speaker": ([(0, 4, 0), (3, 6, 0)], [False, False, False]),
        "half a second": ([(0, 3.5, 0), (3, 6, 1)], [False, True, False]),
        "less": ([(0, 3.4, 0), (3, 6, 1)], [False, False, False]),
        "over all": ([(0, 6, 0), (1, 5, 1)], [True, True, False]),
        "in parts": ([(0, 6, 0), (2, 2.3, 1), (3, 3.3, 2)], [False, True, False]),
    },
)
def test_segment_is_flagged_if_two_people_speak_in_it_for_half_a_second(
    turns: list[Span], flagged: list[bool]
) -> None:
    segments = [
        Segment(0, 2, "a", 0),
        Segment(2, 6, "b", 0, flags=(OVERLAP_FLAG,)),  # by other turns
        Segment(0, 6, "[Music]", None, flags=(NON_SPEECH_FLAG,)),
    ]
    found = flag_overlaps(segments, [SpeakerTurn(*one) for one in turns])
    assert [OVERLAP_FLAG in one.flags for one in found] == flagged
    assert found[2] == segments[2]
