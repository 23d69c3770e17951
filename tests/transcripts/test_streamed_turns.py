"""Turns of speakers in text that comes in chunks."""

import pytest

from sidecar.transcripts.streamed_turns import LoopOverChunks, StreamedTurns


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


def test_silence_is_no_text_and_parts_what_is_said_before_and_after_it() -> None:
    found = turns("Speaker 0:Good morning.", "[Silence]", "[silence] ", " Let us begin.")
    assert [one[2:] for one in found] == [(0, "Good morning."), (0, "Let us begin.")]
    assert found[1][0] >= 9.0
    assert turns("[Silence]", "[Silence]") == []
    within = turns("Speaker 1:Well. [Silence] So be it.")
    assert [one[2:] for one in within] == [(1, "Well."), (1, "So be it.")]


def test_sound_is_one_turn_of_nobody_however_many_chunks_it_lasts() -> None:
    found = turns("[Music]", " [MUSIC]", "Speaker 0: Welcome [Human_Sounds] back.", "[Noise]")
    said = [one[2:] for one in found]
    assert said == [
        (None, "[Music]"),
        (0, "Welcome"),
        (None, "[Human Sounds]"),
        (0, "back."),
        (None, "[Noise]"),
    ]
    assert (found[0][0], found[0][1]) == (0.0, 6.0)
    assert [one[0] for one in found] == sorted(one[0] for one in found)


def test_sound_longer_than_the_longest_turn_stays_one_turn() -> None:
    assert turns(*["[Music]"] * 20) == [(0.0, 60.0, None, "[Music]")]


@pytest.mark.parametrize("cut", range(1, len("[Silence]")))
def test_tag_split_over_two_chunks_is_no_text(cut: int) -> None:
    chunks = "Speaker 0:One." + "[Silence]"[:cut], "[Silence]"[cut:] + " Two."
    assert [one[3] for one in turns(*chunks)] == ["One.", "Two."]


def test_bracket_that_is_no_tag_stays_text() -> None:
    assert [one[3] for one in turns("Speaker 0:a [", "b] c [d")] == ["a", "[b]", "c [d"]
    long = "x" * 60
    assert [one[3] for one in turns(f"Speaker 0:a [{long}", "] b")] == [f"a [{long}] b"]


@pytest.mark.parametrize(
    "mark",
    ["speaker 1:", "Speaker1:", "Speaker 1 :", "SPEAKER  1：", "[Speaker 1]: ", "\nSpeaker 1: "],
)
def test_mark_of_a_speaker_is_read_in_any_spelling(mark: str) -> None:
    assert [one[2:] for one in turns(f"Speaker 0:好。{mark}no")] == [(0, "好。"), (1, "no")]


def test_words_that_are_said_in_chunk_after_chunk_are_kept_up_to_the_second_copy() -> None:
    loop = LoopOverChunks()
    clause = "the cat sat on the mat. "
    first = loop.words_before("I know that " + clause)
    assert first == "I know that " + clause
    assert [loop.words_before(clause) for _ in range(5)] == [clause, "", "", "", ""]
    assert loop.words_before("The dog ran.") == "The dog ran."


def test_loop_that_begins_or_ends_within_a_chunk_takes_no_other_words() -> None:
    loop = LoopOverChunks()
    words = [f"word{number} " for number in range(8)]
    said = "".join(words) * 3 + "and so on"
    assert loop.words_before(said) == said, "what ends in other words"
    again = LoopOverChunks()
    assert again.words_before("now " + "".join(words * 2)) == "now " + "".join(words * 2)
    assert again.words_before("".join(words[:4])) == "".join(words[:4])
    assert again.words_before("".join(words[4:])) == ""


@pytest.mark.parametrize("part", ["", "[Silence]", "[Music]"])
def test_clause_that_is_said_again_after_pauses_is_no_loop(part: str) -> None:
    loop = LoopOverChunks()
    clause = "please stand clear of the closing doors and mind the gap"
    for _ in range(6):
        assert loop.words_before(clause) == clause
        assert loop.words_before(part) == part


def test_verse_of_three_chunks_that_is_sung_again_and_again_is_no_loop() -> None:
    loop = LoopOverChunks()
    verse = ["row row row your boat ", "gently down the stream and ", "merrily merrily merrily "]
    for chunk in verse * 5:
        assert loop.words_before(chunk) == chunk
    assert [loop.words_before(chunk) for chunk in verse[:2] * 4][-2:] == ["", ""], (
        "of two it is one"
    )


def test_short_answers_in_chunk_after_chunk_are_no_loop() -> None:
    loop = LoopOverChunks()
    assert [loop.words_before("Yes. ") for _ in range(8)] == ["Yes. "] * 8
