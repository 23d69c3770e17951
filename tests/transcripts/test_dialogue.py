"""Segments of channels, cut where another channel begins to speak, are a dialogue."""

from itertools import accumulate
from random import Random

from many_cases import parametrize_by_name

from sidecar.transcripts.dialogue import SpeechBeginnings, cut_as_dialogue, cut_at_beginnings
from sidecar.transcripts.transcript import (
    NON_SPEECH_FLAG,
    Segment,
    SpeakerEmbedding,
    Transcript,
    Word,
)

Said = list[tuple[float, float, str]]


def segment(said: Said) -> Segment:
    words = tuple(Word(*one) for one in said)
    return Segment(words[0].start, words[-1].end, " ".join(one.text for one in words), 0, words)


def transcript(*segments: Segment, prints: tuple[SpeakerEmbedding | None, ...] = ()) -> Transcript:
    return Transcript(segments, "en", 60.0, "e", "p", prints=prints)


def read(*channels: Transcript) -> list[str]:
    cut = cut_as_dialogue(channels)
    numbered = [(one.start, at, one.text) for at, each in enumerate(cut) for one in each.segments]
    return [f"{at} {text}" for _, at, text in sorted(numbered)]


QUESTIONS = [(0.0, 1.0, "Where?"), (5.0, 5.4, "And"), (5.5, 6.0, "when?")]
LONG = [(at * 0.5, at * 0.5 + 0.45, str(at)) for at in range(10)]


@parametrize_by_name(
    "first, second, lines",
    {
        "answer within a pause": (QUESTIONS, [(2.0, 3.0, "Here.")], "0 Where?|1 Here.|0 And when?"),
        "answers to both": (
            QUESTIONS,
            [(2.0, 3.0, "Here."), (7.0, 8.0, "Now.")],
            "0 Where?|1 Here.|0 And when?|1 Now.",
        ),
        "word meanwhile": (LONG, [(2.1, 2.3, "Yes.")], "0 0 1 2 3 4|1 Yes.|0 5 6 7 8 9"),
        "last word meanwhile": (LONG, [(4.6, 5.5, "Stop.")], "0 0 1 2 3 4 5 6 7 8 9|1 Stop."),
        "end of a sentence near": (
            [(0.0, 1.0, "So"), (1.0, 1.2, "it"), (1.2, 1.3, "is."), (1.3, 2, "Or"), (2, 4, "no")],
            [(0.9, 1.2, "Yes.")],
            "0 So it is.|1 Yes.|0 Or no",
        ),
    },
)
def test_channels_read_as_a_dialogue_in_the_order_of_its_talk(
    first: Said, second: Said, lines: str
) -> None:
    found = read(transcript(segment(first)), transcript(segment(second)))
    assert found == lines.split("|")


def test_cut_pieces_keep_words_prints_start_and_end_and_music_is_not_cut() -> None:
    one = SpeakerEmbedding("A", 1.0)
    music = Segment(0.0, 9.0, "[Music] [Music]", None, flags=(NON_SPEECH_FLAG,))
    left, right = cut_as_dialogue(
        [
            transcript(segment(QUESTIONS), music, prints=(one, None)),
            transcript(segment([(2.0, 3.0, "Here.")])),
        ]
    )
    assert [(each.start, each.end) for each in left.segments] == [
        (0.0, 1.0),
        (5.0, 6.0),
        (0.0, 9.0),
    ]
    assert [word.text for each in left.segments for word in each.words] == [
        "Where?",
        "And",
        "when?",
    ]
    assert left.prints == (one, one, None)
    assert right.segments[0].text == "Here."


def test_segment_without_word_times_is_cut_by_its_letters_and_has_none_afterwards() -> None:
    bare = Segment(0.0, 8.0, "aa bb cc dd", 0)
    first, second = cut_at_beginnings(bare, [3.9])
    assert (first.text, second.text) == ("aa bb", "cc dd")
    assert second.start > 3.9
    assert not first.words
    assert not second.words


def test_no_word_is_lost_or_doubled_however_two_channels_talk() -> None:
    for seed in range(200):
        random = Random(seed)
        channels: list[Transcript] = []
        for _ in range(2):
            gaps = [random.choice([0.0, 0.1, 0.8, 3.0]) + 0.3 for _ in range(30)]
            said = [(at, at + 0.25, f"w{at:.2f}.") for at in accumulate(gaps)]
            channels.append(transcript(*(segment(said[at : at + 6]) for at in range(0, 30, 6))))
        for before, after in zip(channels, cut_as_dialogue(channels), strict=True):
            assert [word for one in after.segments for word in one.words] == [
                word for one in before.segments for word in one.words
            ]
            assert after.text == before.text


def test_speech_begins_after_each_pause_of_half_a_second_also_within_a_segment() -> None:
    begins = SpeechBeginnings([segment(QUESTIONS), segment([(6.3, 7.0, "Well?")])])
    assert begins.times == [0.0, 5.0]
