"""Turns of speakers in text that comes in chunks."""

import pytest

from sidecar.transcripts.streamed_turns import StreamedTurns


def turns(*chunks: str, seconds: float = 3.0) -> list[tuple[float, float, int | None, str]]:
    """What is made of chunks of audio that have these texts: starts, ends, speakers, texts."""
    found = StreamedTurns()
    ended = [
        turn
        for at, text in enumerate(chunks)
        for turn in found.feed(text, at * seconds, (at + 1) * seconds)
    ]
    return [(one.start, one.end, one.speaker, one.text) for one in (*ended, *found.finish())]


def test_turn_joins_the_text_of_chunks_until_the_label_of_another_speaker() -> None:
    found = turns("Speaker 0: Ever", " tried.\nSpeaker 1: matters")
    assert [one[2:] for one in found] == [(0, "Ever tried."), (1, "matters")]
    assert found[0][0] == 0.0
    assert 3.0 < found[0][1] <= found[1][0] < found[1][1] == 6.0, "in proportion to the characters"


def test_speaker_label_split_over_two_chunks_is_not_part_of_the_text() -> None:
    found = turns("Speaker 0: Ever\nSpea", "ker 1: tried")
    assert [one[2:] for one in found] == [(0, "Ever"), (1, "tried")]
    assert [one[3] for one in turns("Speaker 0: Spea")] == ["Spea"]
    assert [one[3] for one in turns("Speaker 0: the Speaker said: no")] == ["the Speaker said: no"]


def test_partial_speaker_label_at_the_end_of_the_stream_becomes_text() -> None:
    assert turns("", "S") == [(6.0, 6.0, None, "S")]


def test_chunk_without_words_ends_a_turn_and_the_same_speaker_begins_the_next() -> None:
    found = turns("Speaker 2: Ever", "", " tried")
    assert [one[2:] for one in found] == [(2, "Ever"), (2, "tried")]
    assert found[1][0] >= 6.0


def test_long_turn_is_cut_at_a_sentence_end_and_very_long_one_between_words() -> None:
    sentences = turns("Speaker 0: one", " two.", " three", " four.", " five", seconds=5.0)
    assert [one[3] for one in sentences] == ["one two. three four.", "five"]
    words = turns("Speaker 0: one", " two ", "three ", "four", seconds=11.0)
    assert [one[3] for one in words] == ["one two three", "four"]


def test_long_turn_is_not_cut_behind_a_title() -> None:
    chunks = ["Speaker 0: I have talked", " about it to Mr.", " Miller.", " He knows."]
    found = [one[3] for one in turns(*chunks, seconds=7.0)]
    assert found == ["I have talked about it to Mr. Miller.", "He knows."]


def test_very_long_turn_is_not_cut_within_a_word_that_spans_two_chunks() -> None:
    found = turns("Speaker 0: one", " two", " and the compu", "ter is here", seconds=11.0)
    assert [one[3] for one in found] == ["one two and the", "computer is here"]
    assert 22.0 < found[0][1] == found[1][0] < 33.0, "in proportion to the characters"
    assert [one[3] for one in turns("Speaker 0: 你好", "你好", "你好", "吗", seconds=11.0)] == [
        "你好你好你",
        "好吗",
    ]


@pytest.mark.parametrize("end", ["ty", "y"])
def test_very_long_turn_is_cut_where_its_last_word_begins_in_the_chunk_before(end: str) -> None:
    chunks = ["Speaker 0: one two three ", *["and four five and six "] * 10]
    before = "at the universi" + "ty".removesuffix(end)
    first, second = turns(*chunks, before, end, " of Paris", seconds=2.4)
    assert first[3].endswith("at the")
    assert second[3] == "university of Paris"
    assert first[1] == second[0]
    assert 11 * 2.4 < second[0] < 12 * 2.4, "within the chunk in which the word begins"


def test_word_that_a_very_long_turn_is_cut_before_has_the_likelihoods_of_its_chunk() -> None:
    found = StreamedTurns()
    list(found.feed("Speaker 0: one ", 0.0, 30.0, (-1.0,)))
    (cut,) = found.feed("two three", 30.0, 33.0, (-2.0,))
    (rest,) = found.finish()
    assert (cut.text, cut.likelihoods) == ("one two", (-1.0, -2.0))
    assert (rest.text, rest.likelihoods) == ("three", (-2.0,))
