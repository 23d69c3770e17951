import itertools
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.transcripts.loop_guard import (
    CHARACTERS_PER_S,
    MAX_SPAN_S,
    SPEECH_RATE_SLACK_S,
    STRAY_TOKENS,
    GuardedAnswer,
    LoopGuard,
    LoopReason,
    RepetitionLoop,
    SamplingOptions,
    SkippedAudio,
    next_skipped_audio,
    retry_sampling,
    with_item,
)
from sidecar.transcripts.transcript import LOOP_FLAG, NON_SPEECH_FLAG, Segment
from sidecar.transcripts.vibevoice_output import VibeVoiceOutputParser

Tokenizer = Callable[[str], list[str]]
Said = tuple[float, float, str] | tuple[float, float, str, int]

AUDIO_S = 600.0
INTRO: list[Said] = [
    (0, 4.2, "Good morning, everybody, and welcome."),
    (4.2, 9, "Thank you for having me.", 1),
]


def in_words(text: str) -> list[str]:
    """Roughly as the model's tokenizer: words with their space, single digits, runs of signs."""
    return re.findall(r" ?[^\W\d]+|\d|\s|[^\w\s]{1,4}|_", text)


def in_characters(text: str) -> list[str]:
    """As the tokenizer does with scripts that it hardly knows."""
    return list(text)


TOKENIZERS = pytest.mark.parametrize("tokenizer", [in_words, in_characters])


def item(start: float, end: float, text: str, speaker: int = 0) -> str:
    fields: dict[str, Any] = {"Start": start, "End": end, "Speaker": speaker, "Content": text}
    if text.startswith("["):
        del fields["Speaker"]
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def answer(said: Iterable[Said]) -> str:
    return "assistant\n[" + ",".join(itertools.starmap(item, said))


@dataclass
class Watched:
    """What came of a stream: the loop, the segments that are kept, the text read until then."""

    loop: RepetitionLoop | None
    kept: list[Segment]
    read: str


def watch(
    text: str, tokenizer: Tokenizer = in_words, duration_s: float | None = AUDIO_S
) -> Watched:
    parser, guard = VibeVoiceOutputParser(duration_s), LoopGuard(duration_s)
    ids: dict[str, int] = {}
    segments: list[Segment] = []
    read = 0
    for piece in tokenizer(text):
        read += len(piece)
        closed = parser.feed(piece)
        loop = guard.token(ids.setdefault(piece, len(ids)), parser.open_content)
        for segment in closed:
            segments.append(segment)
            loop = guard.segment(segment) or loop
        if loop:
            return Watched(loop, segments[: len(segments) - loop.cut], text[:read])
    return Watched(None, segments, text)


def every(step_s: float, texts: Iterable[str], length_s: float | None = None) -> list[Said]:
    """One text after the other by one speaker, ``step_s`` apart."""
    return [
        (round(10 + n * step_s, 2), round(10 + n * step_s + (length_s or step_s), 2), text)
        for n, text in enumerate(texts)
    ]


WORDS = [a + b for a in ("ka", "to", "mi", "shu", "re") for b in ("", "na", "di", "zen", "pu", "x")]
LONG_LINE = "We went all the way down to the river, and back."
REFRAIN = ["Oh happy day,", "oh happy day,", "when Jesus washed,", "he washed my sins away."]
COUNTED = ", ".join(str(n) for n in range(1, 101))

TRUE_SPEECH: dict[str, list[Said]] = {
    "a chant in one segment": [(10, 18, "No, " * 19 + "no!")],
    "a fast chant": [(10, 13, "No, " * 19 + "no!")],
    "a chant of a minute": [(10, 70, "Hare Krishna, hare Krishna, Krishna, Krishna. " * 14)],
    "a sentence three times over": [(10, 16, "I am going to the store today. " * 4)],
    "laughter": [(10, 11, "Ha ha ha ha ha ha ha ha.")],
    "laughter with no length": [(10, 10, "Ha ha ha ha ha ha ha ha.")],
    "a drawn-out vowel": [(10, 13, "A" * 40 + "h!")],
    "a stutter": [(10, 11.5, "I-I-I-I-I-I d-d-d-d-don't know.")],
    "zeros": [(10, 13, "0 0 0 0 0 0 0 0 0 0 0 0")],
    "a number with many zeros": [(10, 14, "It costs 1000000000000000 dollars.")],
    "counting to a hundred": [(10, 70, COUNTED)],
    "counting in one segment": [(10, 30, "One two three. " * 20)],
    "counting, a word at a time": every(0.4, ["One.", "Two.", "Three."] * 20),
    "yes, every half a second": every(0.5, ["Yes."] * 60),
    "yes, every two seconds": every(2, ["Yes."] * 60, 0.4),
    "yes, at odd times": [
        (10 + n + 0.25 * (n % 3), 10.5 + n + 0.25 * (n % 3), "Yes.") for n in range(36)
    ],
    "a refrain": every(4, REFRAIN * 8),
    "one line over and over, sung": every(3.5, ["[Lyric] All you need is love."] * 30),
    "two speakers who agree": [
        (10 + n * 0.3, 10.4 + n * 0.3, "Ja.", n % 2) for n in range(60)
    ],
    "five say goodbye at once": [
        (10 + 0.02 * n, 11, "Bye.", n) for n in range(5)
    ],
    "silence and music": every(1, ["[Silence]", "[Music]"] * 100),
    "a tag in short steps": every(0.3, ["[Environmental Sounds]"] * 50),
    "one tag": every(10, ["[Music]"] * 50),
    "a listener under a long turn": [
        (10, 90, "And then I said that we would have to look at all of this again."),
        *[(15 + 5 * n, 15.5 + 5 * n, "Mhm.", 1) for n in range(14)],
    ],
    "a long sentence with no length": [
        (10, 10, "This sentence is much too long for the time that it says it has, but it is one.")
    ],
    "a sentence after the end": [
        (599.9, 700, "The last sentence of a recording may begin when it is already over, roughly.")
    ],
    "one time that is far off": [(10, 12, "So."), (500, 502, "Well."), *every(3, WORDS)[1:]],
    "one end that is far off": [(10, 550, "So."), *every(3, WORDS)[1:]],
    "a segment twice": [(10, 12, "So."), (10, 12, "So."), (12, 14, "Now then.")],
}  # fmt: skip


@TOKENIZERS
@pytest.mark.parametrize("said", TRUE_SPEECH.values(), ids=TRUE_SPEECH)
def test_repetitions_of_people_are_no_loop(said: list[Said], tokenizer: Tokenizer) -> None:
    """Also when the repetition is followed by more, and when it comes after more."""
    for spoken in (said, [*INTRO, *said, (500, 503, "That was that.")]):
        watched = watch(answer(spoken) + "]", tokenizer)
        assert watched.loop is None
        assert len(watched.kept) == len(spoken)


LOOPING: dict[str, tuple[list[Said], int, int]] = {
    # what is said again and again; segments of it that are read; segments of it that are kept
    "one segment, the same times": ([(9, 12, "Thank you.")] * 9, 3, 1),
    "one long segment": ([(9, 29, " ".join(WORDS * 2))] * 9, 3, 1),
    "one tag, the same times": ([(9, 12, "[Music]")] * 9, 3, 1),
    "the start stands still": ([(9, 10 + n, "Thank you.") for n in range(9)], 3, 1),
    "the end stands still": ([(9 + n, 20, "Thank you.") for n in range(9)], 3, 1),
    "the times go backwards": ([(50 - n, 52 - n, "Thank you.") for n in range(9)], 3, 1),
    "tiny steps": ([(9 + n / 100, 9.3 + n / 100, "Yes.") for n in range(99)], 3, 1),
    "tiny steps of a long line": (
        [(9 + n / 2, 9.5 + n / 2, LONG_LINE) for n in range(99)], 3, 1
    ),
    "beyond the end": ([(598 + 3 * n, 601 + 3 * n, "Thank you.") for n in range(9)], 3, 1),
    "all beyond the end": ([(601 + 3 * n, 603 + 3 * n, "Thank you.") for n in range(9)], 3, 0),
    "up to the end of the audio": ([(9, 900, "Thank you.")] * 9, 3, 0),
    "no length": ([(9, 9, "Thank you.")] * 9, 3, 0),
    "two segments": ([(9, 12, "Thank you."), (12, 13, "Please.", 1)] * 9, 5, 2),
    "three segments": ([(9, 12, "A."), (12, 13, "B.", 1), (13, 15, "C.")] * 9, 6, 3),
    "two segments in tiny steps": (
        [(9 + n / 100, 10 + n / 100, "AB"[n % 2]) for n in range(99)], 6, 2
    ),
    "a verse in tiny steps": (
        [(9 + n / 50, 10 + n / 50, f"This is the {n % 12}th line.") for n in range(99)], 36, 12
    ),
    "many segments, from the beginning": (
        every(3, [f"Sentence {n}." for n in range(50)]) * 2, 53, 50
    ),
    "other words at the same times": ([(9, 12, f"Sentence {n}.") for n in range(9)], 7, 1),
    "other words beyond the end": (
        [(598 + 3 * n, 601 + 3 * n, f"Sentence {n}.") for n in range(19)], 8, 2
    ),
    "other speakers at the same times": ([(9, 12, "Yes.", n) for n in range(9)], 7, 1),
}  # fmt: skip


@TOKENIZERS
@pytest.mark.parametrize(("said", "read", "kept"), LOOPING.values(), ids=LOOPING)
def test_loop_of_segments_is_found_after_a_few_copies_and_its_repetitions_are_dropped(
    said: list[Said], read: int, kept: int, tokenizer: Tokenizer
) -> None:
    watched = watch(answer([*INTRO, *said]), tokenizer)
    assert watched.loop is not None
    assert len(watched.loop.why) > 3
    shortest = answer([*INTRO, *said[:read]])
    assert shortest.startswith(watched.read) or len(watched.read) - len(shortest) < 5
    assert len(watched.read) >= len(answer([*INTRO, *said[: read - 1]]))
    assert [segment.text for segment in watched.kept] == [
        text for _, _, text, *_ in [*INTRO, *said[:kept]]
    ]


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_segments_kept_of_an_earlier_attempt_count_as_copies_of_a_loop_that_returns(
    kept: int,
) -> None:
    stuck = Segment(9, 12, "Thank you.", 0)
    guard = LoopGuard(AUDIO_S, [stuck] * kept)
    seen = [guard.segment(stuck) for _ in range(3 - kept)]
    assert seen == [None] * (2 - kept) + [RepetitionLoop(LoopReason.REPEATED_SEGMENTS, 2)]


IN_ONE_TEXT: dict[str, tuple[str, LoopReason | None]] = {
    "a word": ("no, ", LoopReason.REPEATED_TOKENS),
    "a letter": ("a", None),
    "a syllable": (" ha", LoopReason.REPEATED_TOKENS),
    "a digit": ("0", LoopReason.REPEATED_TOKENS),
    "a sign": (" .", None),
    "a sentence": ("I am going to the store today. ", LoopReason.REPEATED_TOKENS),
    "Chinese": ("谢谢大家，", LoopReason.REPEATED_TOKENS),
    "escapes": ("\\n", None),
    "a paragraph": (
        "I am going to the store, and then we may see what they have for us, "
        "and whether any of it is good; if not, there is always tomorrow. ",
        LoopReason.REPEATED_TOKENS
    ),
}  # fmt: skip


def stuck_text(phrase: str, times: str = '"Start":9,"End":14,"Speaker":0,') -> str:
    return answer(INTRO) + "," + "{" + times + '"Content":"' + phrase * (20000 // len(phrase))


def most(span_s: float, phrase: str) -> float:
    """Characters of a stuck text that may be read: what the time holds, three copies, a few."""
    plausible = CHARACTERS_PER_S * (min(span_s, MAX_SPAN_S) + SPEECH_RATE_SLACK_S)
    escaped = 2 if "\\" in phrase else 1
    return escaped * max(plausible, 3 * len(phrase)) + 16 * min(len(phrase), 4) + len(phrase)


@TOKENIZERS
@pytest.mark.parametrize(("phrase", "why"), IN_ONE_TEXT.values(), ids=IN_ONE_TEXT)
@pytest.mark.parametrize("span_s", [0, 5, 29, 3000])
def test_endlessly_repeated_phrase_is_cut_once_over_its_time_and_its_segment_dropped(
    phrase: str, why: LoopReason | None, span_s: float, tokenizer: Tokenizer
) -> None:
    text = stuck_text(phrase, f'"Start":9,"End":{9 + span_s},')
    if why is None:
        tokenizer = in_characters
    watched = watch(text, tokenizer)
    assert watched.loop is not None
    assert watched.loop.why in (LoopReason.REPEATED_TOKENS, LoopReason.FEW_WORDS)
    assert watched.loop.cut == 0
    assert len(watched.kept) == len(INTRO)
    assert len(watched.read) - text.index(phrase, len(answer(INTRO)) + 20) <= most(span_s, phrase)


@pytest.mark.parametrize(
    "text", ["no " * 80, "malo " * 46, "No, " * 120, "Не надо. " * 60, "哈，" * 60]
)
@pytest.mark.parametrize("end", [69, 129])
def test_word_repeated_at_speech_rate_for_a_minute_is_loop_and_its_segment_dropped(
    text: str, end: float
) -> None:
    for spoken in ([(9, end, text)], [*INTRO, (9, end, "Well, then. " + text)]):
        watched = watch(answer(spoken))
        assert watched.loop == RepetitionLoop(LoopReason.REPEATED_TOKENS)
        assert len(watched.kept) == len(spoken) - 1


def test_endless_text_that_claims_to_end_after_the_audio_is_cut_by_the_audio_left() -> None:
    text = answer([(598, 599, "So.")]) + ',{"Start":599,"End":700,"Content":"' + "no, " * 5000
    assert len(watch(text).read) - text.index("no, ") <= most(1, "no, ")


@pytest.mark.parametrize("times", ["", '"Start":null,', '"Speaker":0,'])
def test_endless_text_without_times_is_cut_by_the_remaining_audio_or_30_s_if_unknown(
    times: str,
) -> None:
    for duration_s in (20.0, None):
        watched = watch(stuck_text("no, ", times), duration_s=duration_s)
        assert watched.loop == RepetitionLoop(LoopReason.REPEATED_TOKENS)
        assert len(watched.read) < 200 + most(duration_s - 9 if duration_s else 30, "no, ")


TOKENS, WORDLESS, COUNTED_ON, TOO_MUCH = (
    *(LoopReason.REPEATED_TOKENS, LoopReason.NO_SEGMENT),
    *(LoopReason.FEW_WORDS, LoopReason.TOO_MUCH_TEXT),
)
NUMBERS = range(9999)
RUNAWAYS: dict[str, tuple[str, LoopReason, int]] = {
    # what follows the intro; why it is a loop; characters of it that are read, at most
    "zeros in a time": (',{"Start":9,"End":15.43' + "0" * 4000, TOKENS, 45),
    "nines in a time": (',{"Start":9.' + "9" * 4000, TOKENS, 35),
    "digits in a time": (',{"Start":9.' + "1234567" * 900, TOKENS, 40),
    "blank lines": ("," + "\n" * 4000, TOKENS, 20),
    "commas": (", , " * 4000, TOKENS, 40),
    "open braces": (',{"' * 4000, TOKENS, 70),
    "items that say nothing": (
        "".join("," + item(9 + n, 10 + n, "") for n in range(999)), WORDLESS, 4 * STRAY_TOKENS
    ),
    "items that are none": (',{"Start":9,"Content":oh}' * 999, TOKENS, 90),
    "text after the list": (
        "] " + " ".join(f"word{n}" for n in NUMBERS), WORDLESS, 10 * STRAY_TOKENS
    ),
    "a count that goes on": (
        ',{"Start":9,"End":14,"Content":"' + ", ".join(map(str, NUMBERS)), COUNTED_ON, 500
    ),
    "a story that counts": (
        ',{"Start":9,"End":14,"Content":"' + "".join(f"and then {n} " for n in NUMBERS),
        COUNTED_ON, 500
    ),
    "more than the rest of the audio holds": (
        ',{"Start":599,"End":600,"Content":"' + " ".join(map(chr, range(500, 9000))), TOO_MUCH, 900
    ),
}  # fmt: skip


@pytest.mark.parametrize(("tail", "why", "longest"), RUNAWAYS.values(), ids=RUNAWAYS)
def test_endless_output_of_digits_signs_items_or_counts_is_cut_as_loop_with_its_reason(
    tail: str, why: LoopReason, longest: int
) -> None:
    watched = watch(answer(INTRO) + tail)
    assert watched.loop == RepetitionLoop(why)
    assert len(watched.kept) == len(INTRO)
    assert len(watched.read) - len(answer(INTRO)) <= longest


def test_endless_output_of_one_item_without_a_time_is_cut_as_loop_to_its_first_copy() -> None:
    watched = watch(answer(INTRO) + ',{"Content":"Thank you very much."}' * 999)
    assert watched.loop is not None
    assert watched.loop.why is LoopReason.REPEATED_SEGMENTS
    assert [one.text for one in watched.kept[len(INTRO) :]] == ["Thank you very much."]
    assert len(watched.read) - len(answer(INTRO)) <= 120


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 60),
            st.floats(0, 60),
            st.lists(st.sampled_from(WORDS), min_size=1, unique=True),
            st.integers(0, 3),
        ),
        max_size=40,
    )
)
def test_distinct_sentences_with_rising_times_are_no_loop(
    lines: list[tuple[float, float, list[str], int]],
) -> None:
    said: list[Said] = []
    at = 0.0
    for number, (step, length, words, speaker) in enumerate(lines):
        at = round(at + step, 2)
        said.append((at, round(at + length, 2), f"{number} {' '.join(words)}.", speaker))
    watched = watch(answer(said) + "]", duration_s=at + 60)
    assert watched.loop is None
    assert len(watched.kept) == len(said)


@given(st.lists(st.integers(0, 3), max_size=400))
def test_random_tokens_raise_nothing(tokens: list[int]) -> None:
    guard = LoopGuard(None)
    for token in tokens:
        guard.token(token, None)


def test_three_retries_have_rising_temperature_and_no_fourth_follows() -> None:
    assert [retry_sampling(tried) for tried in range(4)] == [
        SamplingOptions(0.2, 0.95),
        SamplingOptions(0.3, 0.95),
        SamplingOptions(0.4, 0.95),
        None,
    ]


def test_no_retry_follows_after_audio_was_skipped() -> None:
    assert retry_sampling(0, lost_s=15.0) is None


@pytest.mark.parametrize(
    ("stuck_s", "lost_s", "claimed_end_s", "end_s"),
    [
        (100, 0, None, 115),
        (100, 15, None, 115),
        (100, 45, None, 115),
        (100, 120, None, 130),
        (100, 900, None, 160),
        (100, 0, 122.5, 122.5),
        (100, 0, 101, 105),
        (100, 0, 500, 160),
        (100, 0, 99, 115),
        (100, 15, 122.5, 115),
        (590, 0, None, 600),
        (590, 900, 599, 600),
        (599.5, 0, None, None),
        (600, 0, None, None),
    ],
)
def test_skipped_audio_ends_where_the_stuck_text_claims_or_grows_with_audio_lost_before(
    stuck_s: float, lost_s: float, claimed_end_s: float | None, end_s: float | None
) -> None:
    skip = next_skipped_audio(stuck_s, 600.0, lost_s, claimed_end_s)
    assert skip == (None if end_s is None else SkippedAudio(stuck_s, end_s))


def test_skipped_audio_is_written_as_item_that_the_output_parser_reads() -> None:
    text = with_item("", SkippedAudio(100.0, 115.004).segment())
    assert text == 'assistant\n[{"Start":100,"End":115,"Content":"[Unintelligible Speech]"}'
    (segment,) = VibeVoiceOutputParser(600.0).feed(text)
    assert segment == Segment(100, 115, "[Unintelligible Speech]", flags=(NON_SPEECH_FLAG,))
    more = with_item(text, SkippedAudio(99.999, 100.129).segment())
    assert more.startswith(text + ',{"Start":100,"End":100.13,')


def test_skipped_audio_is_a_segment_with_loop_flag_and_times_of_the_recording() -> None:
    assert SkippedAudio(100, 115).segment(3600.0) == Segment(
        3700, 3715, "[Unintelligible Speech]", flags=(NON_SPEECH_FLAG, LOOP_FLAG)
    )


def test_item_of_several_turns_cut_between_them_goes_on_after_the_turns_that_are_kept() -> None:
    heard = GuardedAnswer(AUDIO_S, "", [])
    heard.take(1, "[" + item(0, 4, "First."))
    _, loop = heard.take(2, ',{"Start":5,"End":5.1,"Content":"Yeah.\\nYeah.\\nYeah."}')
    assert loop
    del heard.segments[len(heard.segments) - loop.cut :]
    assert [one.text for one in heard.segments] == ["First.", "Yeah."]
    begun = heard.text_until(2)
    assert begun.count("Yeah.") == 1
    heard = GuardedAnswer(AUDIO_S, begun, heard.segments)
    heard.take(3, "," + item(10, 12, "Alpha."))
    heard.take(4, "," + item(13, 15, "Beta."))
    assert heard.text_until(4) == heard.text


TURNS = st.lists(
    st.sampled_from(["Yes.", 'He: "{\\', '{"Start":1', "[Music]", "é\u2028"]), min_size=1
)


@given(st.lists(st.tuples(TURNS, st.none() | st.integers(0, 2)), max_size=5), st.data())
def test_text_up_to_any_turn_reads_as_exactly_the_segments_up_to_it(
    said: list[tuple[list[str], int | None]], data: st.DataObject
) -> None:
    items = [
        {"Start": 3 * n, "End": 3 * n + 2, "Speaker": speaker, "Content": "\n".join(turns)}
        for n, (turns, speaker) in enumerate(said)
    ]
    heard = GuardedAnswer(AUDIO_S, "", [])
    heard.take(0, json.dumps(items))
    count = data.draw(st.integers(0, len(heard.segments)))
    again = VibeVoiceOutputParser(AUDIO_S).feed(heard.text_until(count))
    for one, read in itertools.zip_longest(heard.segments[:count], again):
        assert (one.text, one.speaker, one.flags) == (read.text, read.speaker, read.flags)
        assert (one.start, one.end) == pytest.approx((read.start, read.end), abs=0.0051)
