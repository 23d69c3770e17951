import json
import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.transcripts.transcript import NON_SPEECH_FLAG, Segment
from sidecar.transcripts.vibevoice_output import OpenSegment, VibeVoiceOutputParser, sort_by_time

ITEMS: list[dict[str, Any]] = [
    {"Start": 0, "End": 3.2, "Content": "[Music]"},
    {"Start": 3.2, "End": 7.85, "Speaker": 0, "Content": 'He said: "Look, {here} [now]!"'},
    {"Start": 7.85, "End": 9, "Speaker": 1, "Content": "C:\\temp\\ and Ω, 你好, 🙂."},
    {"Start": 9.01, "End": 28.28, "Speaker": 0, "Content": "Good-bye."},
]
ANSWER = "assistant\n" + json.dumps(ITEMS, separators=(",", ":"), ensure_ascii=False) + "\n"
SEGMENTS = [
    Segment(0, 3.2, "[Music]", None, flags=(NON_SPEECH_FLAG,)),
    Segment(3.2, 7.85, 'He said: "Look, {here} [now]!"', 0),
    Segment(7.85, 9, "C:\\temp\\ and Ω, 你好, 🙂.", 1),
    Segment(9.01, 28.28, "Good-bye.", 0),
]


def parse(text: str, duration_s: float | None = 30.0) -> list[Segment]:
    parser = VibeVoiceOutputParser(duration_s)
    return parser.feed(text) + parser.finish()


def one(**fields: Any) -> Segment | None:
    """The segment of one item that says something from 1 to 2, but for ``fields``."""
    item = {"Start": 1, "End": 2, "Content": "Hello.", **fields}
    segments = parse(json.dumps([{key: value for key, value in item.items() if value != "LEFT"}]))
    return segments[0] if segments else None


def test_segment_of_a_streamed_answer_comes_at_its_closing_brace() -> None:
    parser = VibeVoiceOutputParser(30.0)
    came: list[tuple[int, Segment]] = []
    for count, char in enumerate(ANSWER, 1):
        came += [(count, segment) for segment in parser.feed(char)]
    assert [segment for _, segment in came] == SEGMENTS
    assert [count for count, _ in came] == parser.closed_at
    assert all(ANSWER[count - 1] == "}" for count in parser.closed_at)
    assert parser.ended
    assert parser.finish() == []
    assert not parser.truncated
    assert not parser.skipped


def turn(start: float, end: float, speaker: int | None, text: str) -> dict[str, Any]:
    return {"Start": start, "End": end, "Speaker": speaker, "Content": text}


@pytest.mark.parametrize(
    ("before", "speaker", "speakers"),
    [
        ([], 0, [0, 1, 0]),
        ([0, 1], 0, [0, 1, 0]),
        ([0, 2, 1], 1, [1, 2, 1]),
        ([0, 2], 1, [1, 2, 1]),
        ([3, 3], 3, [3, 4, 3]),
        ([0, 1], None, [None, None, None]),
    ],
)
def test_lines_of_one_content_are_segments_of_two_alternating_speakers(
    before: list[int], speaker: int | None, speakers: list[int | None]
) -> None:
    items = [turn(0, 1, one, "So.") for one in before]
    text = json.dumps([*items, turn(10, 22, speaker, "Coffee?\n\n Tea, thank you.\r\nI see!")])
    parser = VibeVoiceOutputParser(30.0)
    segments = parser.feed(text)[len(before) :]
    assert [one.text for one in segments] == ["Coffee?", "Tea, thank you.", "I see!"]
    assert [one.speaker for one in segments] == speakers
    assert [(one.start, one.end) for one in segments] == [
        (10, pytest.approx(13)), (pytest.approx(13), pytest.approx(19.4286, abs=1e-4)),
        (pytest.approx(19.4286, abs=1e-4), 22),
    ]  # fmt: skip
    assert len(parser.closed_at) == len(before) + 3


@pytest.mark.parametrize("tag", ["[Music]", "[[Music]]", "[[music]"])
def test_tag_on_line_of_its_own_is_no_speech(tag: str) -> None:
    segments = parse(json.dumps([turn(0, 3, 0, f"Hello.\n{tag}")]))
    assert [(one.text, one.speaker, one.flags) for one in segments] == [
        ("Hello.", 0, ()),
        ("[Music]", None, (NON_SPEECH_FLAG,)),
    ]


AROUND = {
    "indented": json.dumps(ITEMS, indent=2),
    "escaped": json.dumps(ITEMS, ensure_ascii=True),
    "in a fence": "<|im_start|>assistant\n```json\n" + json.dumps(ITEMS) + "\n```<|im_end|>",
    "text before": 'Here is [the] transcript, it\'s "all" here:\n' + ANSWER,
    "text after": ANSWER + 'That was {"Start": 1, "End": 2, "Content": "nothing"} and [more].',
    "no list around it": "\n".join(json.dumps(item) for item in ITEMS),
    "keys in capitals": json.dumps([{f" {k.upper()}": v for k, v in one.items()} for one in ITEMS]),
}


@pytest.mark.parametrize("answer", AROUND.values(), ids=AROUND)
def test_answer_is_parsed_alike_whatever_its_json_layout_and_the_text_around_it(
    answer: str,
) -> None:
    assert parse(answer) == SEGMENTS


@pytest.mark.parametrize(
    "keys",
    [
        ("Start", "End", "Speaker", "Content"),
        ("Start time", "End time", "Speaker ID", "Content"),
        ("start_time", "end_time", "speaker_id", "text"),
        ("start", "end", "speaker", "content"),
        ("START TIME", "End_Time", "speaker Id", "Text"),
    ],
)
def test_every_known_spelling_of_keys_is_accepted(keys: tuple[str, ...]) -> None:
    item = dict(zip(keys, (1.5, 2.5, 3, "Hello."), strict=True))
    assert parse(json.dumps([item])) == [Segment(1.5, 2.5, "Hello.", 3)]


@pytest.mark.parametrize(
    ("start", "end", "span"),
    [
        (1, 2.25, (1, 2.25)),
        ("1", "2.25", (1, 2.25)),
        ("00:01", "00:02.25", (1, 2.25)),
        ("0:00:01.5", "00:00:20", (1.5, 20)),
        ("1.5s", " 2 s", (1.5, 2)),
        (5, 2, (5, 5)),
        (-3, 2, (0, 2)),
        (1, 99, (1, 30)),
        (40, 99, (30, 30)),
        (1, 10**400, (1, 30)),
        (1, 1e300, (1, 30)),
        (1, math.inf, (1, 30)),
        (-math.inf, 4, (0, 4)),
        (math.nan, 4, (4, 4)),
        (1, None, (1, 1)),
        (1, "soon", (1, 1)),
        ("LEFT", 2, (2, 2)),
        (1, "LEFT", (1, 1)),
        (1, [2], (1, 1)),
        (True, 2, (2, 2)),
        ("LEFT", "LEFT", (0, 0.06)),
        (math.nan, "later", (0, 0.06)),
        ("1:2:3:4", "", (0, 0.06)),
    ],
)
def test_segment_times_are_parsed_from_any_notation_and_clamped_to_the_audio(
    start: Any, end: Any, span: tuple[float, float]
) -> None:
    segment = one(Start=start, End=end)
    assert segment is not None
    assert (segment.start, segment.end) == pytest.approx(span)


def test_items_without_times_follow_those_before_them_within_the_audio() -> None:
    untimed = [{"Content": f"Item {number} of a long list."} for number in range(20)]
    late = {**ITEMS[3], "Start": 20}
    segments = parse(json.dumps([ITEMS[1], *untimed, late]))
    assert [segment.text for segment in segments[1:-1]] == [one["Content"] for one in untimed]
    starts = [segment.start for segment in segments]
    assert starts == sorted(set(starts)), "no guard takes the list for a loop"
    assert (segments[0], segments[-1].text) == (SEGMENTS[1], SEGMENTS[3].text)
    assert parse('[{"Content": "Hello."}]', 0.01) == [Segment(0, 0.01, "Hello.")]


def test_number_of_any_length_is_parsed() -> None:
    answer = f'[{{"Start":1.{"0" * 9000},"End":{"9" * 9000},"Content":"Hello."}}]'
    assert parse(answer) == [Segment(1, 30, "Hello.")]
    assert parse(answer, None) == [Segment(1, 1, "Hello.")]


@pytest.mark.parametrize(
    ("given", "speaker"),
    [
        (0, 0), (12, 12), (2.0, 2), ("0", 0), ("Speaker 3", 3), ("speaker_4", 4), ("Speaker-1", 1),
        (-1, None), (1.5, None), (None, None), ("LEFT", None), ("Anna", None), (True, None),
        (10**30, None), ([1], None), ("", None), ("Speaker", None),
    ],
)  # fmt: skip
def test_speaker_label_is_parsed_as_a_small_number_or_none(given: Any, speaker: int | None) -> None:
    segment = one(Speaker=given)
    assert segment is not None
    assert segment.speaker == speaker


@pytest.mark.parametrize(
    ("content", "text", "speech"),
    [
        ("[Silence]", "[Silence]", False),
        ("[MUSIC]", "[Music]", False),
        (" [human sounds]\n", "[Human Sounds]", False),
        ("[environmental_sounds]", "[Environmental Sounds]", False),
        ("[ Unintelligible  speech ]", "[Unintelligible Speech]", False),
        ("[Noise]", "[Noise]", False),
        ("[Applause]", "[Applause]", False),
        ("[Lyric] Oh happy day", "[Lyric] Oh happy day", True),
        ("Oh [laughs]", "Oh [laughs]", True),
        ("[a] and [b]", "[a] and [b]", True),
        ("  Hello.  ", "Hello.", True),
        (5, "5", True),
        (1.50, "1.5", True),
    ],
)
def test_content_in_brackets_is_no_speech(content: Any, text: str, speech: bool) -> None:
    segment = one(Content=content, Speaker=2)
    assert segment == Segment(
        1, 2, text, 2 if speech else None, flags=() if speech else (NON_SPEECH_FLAG,)
    )


@pytest.mark.parametrize("content", ["LEFT", None, "", " \n", True, ["Hello."], {"a": 1}])
def test_item_without_text_is_skipped_and_counted(content: Any) -> None:
    items = [{"Start": 0, "End": 1, "Content": content}, ITEMS[3]]
    if content == "LEFT":
        del items[0]["Content"]
    parser = VibeVoiceOutputParser(30.0)
    assert parser.feed(json.dumps(items)) == [SEGMENTS[3]]
    assert parser.skipped == 1


@pytest.mark.parametrize(
    "escaped", ["\\ud83d", "\\ude42", "\\ude42\\ud83d", "a\\u0000b", "\\ud83d\\ude42", "\udc80"]
)
def test_text_with_lone_surrogates_or_null_is_parsed_as_valid_utf_8(escaped: str) -> None:
    (segment,) = parse('[{"Start":0,"End":1,"Content":"So: ' + escaped + '"}]')
    assert segment.text.startswith("So: ")
    segment.text.encode("utf-8")
    assert (segment.text == "So: 🙂") == (escaped == "\\ud83d\\ude42")


@pytest.mark.parametrize(
    ("broken", "kept"),
    [
        ('{"Start":1,"End":2,"Content":"Hello.",}', False),
        ('{"Start":01:02,"End":2,"Content":"Hello."}', False),
        ('{"Start":1,"End":2,"Content":"He said "hello" to me."}', False),
        ('{"Start":1,"End":2,"Content":"He said "hello to me."}', False),
        ('{"Start":1,"End":2,"Content":"Hello.}', False),
        ('{"Start":1,"End":2,"Content":"Hello."', True),
        ('{"Start":1,"End":2,"Content":"Hello.","Speaker":', True),
        ('{"Start":1,"End":2,"Content":"Hello.","words":[{"start":1,"word":"Hello."}]}', True),
        ('{"Start":1,"End":2,"Content":[[["Hello."}', False),
        ('{"Start":1,"End":2,"Content":"Hello.","more":{"start":7}}', True),
        ('{"Start":1,"End":2,"more":{"start":7},"Content":"Hello."}', True),
        ('{"Start":1,"End":2,"Content":"\n\tHello.\n"}', True),
        ('"Start":1,"End":2,"Content":"Hello."}', False),
        ("{}", False),
        ("{" * 3, False),
    ],
)
def test_broken_object_costs_only_itself(broken: str, kept: bool) -> None:
    whole = [json.dumps(item) for item in ITEMS[1:3]]
    segments = parse(f"[{whole[0]},{broken},{whole[1]}]")
    assert [segment for segment in segments if segment.text == "Hello."] == (
        [Segment(1, 2, "Hello.")] if kept else []
    )
    assert [segment for segment in segments if segment.text != "Hello."] == SEGMENTS[1:3]


def test_object_closed_by_the_end_of_the_list_is_kept() -> None:
    assert parse('[{"Start":1,"End":2,"Content":"Hello."]') == [Segment(1, 2, "Hello.")]


def test_truncated_list_keeps_every_whole_segment() -> None:
    for length in range(len(ANSWER)):
        parser = VibeVoiceOutputParser(30.0)
        segments = parser.feed(ANSWER[:length])
        tail = parser.finish()
        assert segments + tail == SEGMENTS[: len(segments) + len(tail)]
        assert parser.closed_at[: len(segments)] == [
            end for end in parser.closed_at if ANSWER[:length][end - 1] == "}"
        ]
        assert len(segments) >= ANSWER[:length].count("},")
        assert parser.truncated == (ANSWER.index("[") < length < ANSWER.rindex("]") + 1)
        assert parser.skipped == 0


@pytest.mark.parametrize(
    ("tail", "segments"),
    [
        ('{"Start":1,"End":2,"Content":"Hello."', [Segment(1, 2, "Hello.")]),
        ('{"Start":1,"End":2,"Content":"Hello."  ', [Segment(1, 2, "Hello.")]),
        ('{"Start":1,"End":2,"Content":"Hello.","Spea', [Segment(1, 2, "Hello.")]),
        ('{"Content":"Hello.","Start":1,"End":2', [Segment(1, 1, "Hello.")]),
        ('{"Start":1,"End":2,"Content":"Hello, wor', []),
        ('{"Start":1,"End":2,"Content":"Hello \\"', []),
        ('{"Start":1,"End":2,"Content":', []),
        ('{"Start":1', []),
        ("{", []),
    ],
)
def test_last_object_of_a_truncated_answer_is_kept_if_its_text_is_complete(
    tail: str, segments: list[Segment]
) -> None:
    parser = VibeVoiceOutputParser(30.0)
    parser.feed("[" + tail)
    assert parser.finish() == segments
    assert parser.truncated
    assert parser.finish() == []


@pytest.mark.parametrize("answer", ["", "assistant\n", "assistant\n[]", "Nobody speaks.", "[] [{"])
def test_answer_without_segments_is_not_truncated(answer: str) -> None:
    parser = VibeVoiceOutputParser(30.0)
    assert parser.feed(answer) + parser.finish() == []
    assert not parser.truncated


def test_segment_being_written_has_its_start_clamped_end_and_characters_so_far() -> None:
    parser = VibeVoiceOutputParser(30.0)
    seen = []
    for char in '[{"Start":1.5,"End":99,"Content":"a\\"\\u4f60b"},{"text":"x","start":3}]':
        parser.feed(char)
        if (content := parser.open_content) not in seen:
            seen.append(content)
    assert seen == [
        None,
        *(OpenSegment(1.5, 30.0, count) for count in range(5)),
        *(OpenSegment(None, None, count) for count in range(2)),
    ]


def test_content_that_is_no_string_is_no_segment_being_written() -> None:
    parser = VibeVoiceOutputParser(30.0)
    for piece in ('[{"Content":', '{"x":"a', '"},"Content":["a'):
        parser.feed(piece)
        assert parser.open_content is None


def test_deeply_nested_object_is_parsed_without_recursion() -> None:
    deep = '{"a":' + "[" * 200_000 + "]" * 200_000 + "}"
    assert parse(f"[{deep},{json.dumps(ITEMS[3])}]") == [SEGMENTS[3]]


def test_sort_by_time_sorts_by_start_and_keeps_order_of_equal_segments() -> None:
    late, early, same = Segment(5, 6, "a"), Segment(1, 9, "b"), Segment(1, 9, "c")
    assert sort_by_time([late, early, same]) == [early, same, late]


def split(text: str, cuts: list[int]) -> list[str]:
    places = sorted(min(cut, len(text)) for cut in cuts)
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


FRAGMENTS = st.lists(
    st.sampled_from(
        [
            *'{}[]",:\\ 0-9', "\n", '"Start":', '"End":', '"Content":"', '"Speaker":', "1.5",
            '{"Start":', "},{", "assistant\n", "```json", "NaN", "1e999", "null", "[Music]", "\\u",
            "\\ud800", "\ud800", "text", "é", json.dumps(ITEMS[1]), json.dumps(ITEMS[2]),
        ]
    ),
    max_size=60,
).map("".join)  # fmt: skip
MUTATED = st.builds(
    lambda at, length, new: ANSWER[:at] + new + ANSWER[at + length :],
    st.integers(0, len(ANSWER)),
    st.integers(0, 40),
    FRAGMENTS,
)


@given(st.one_of(FRAGMENTS, MUTATED, st.just(ANSWER)), st.lists(st.integers(0, 400), max_size=30))
def test_segments_do_not_depend_on_how_the_stream_is_split(text: str, cuts: list[int]) -> None:
    whole, pieces = VibeVoiceOutputParser(30.0), VibeVoiceOutputParser(30.0)
    expected = whole.feed(text) + whole.finish()
    found = [segment for piece in split(text, cuts) for segment in pieces.feed(piece)]
    found += pieces.finish()
    assert found == expected
    assert pieces.closed_at == whole.closed_at
    assert (pieces.skipped, pieces.truncated) == (whole.skipped, whole.truncated)


@given(st.one_of(st.text(), FRAGMENTS, MUTATED), st.one_of(st.none(), st.floats(0, 1e6)))
def test_random_text_raises_nothing_and_gives_valid_segments(
    text: str, duration_s: float | None
) -> None:
    parser = VibeVoiceOutputParser(duration_s)
    segments = []
    for char in text:
        segments += parser.feed(char)
        assert parser.open_content is None or parser.open_content.characters >= 0
    segments += parser.finish()
    assert len(parser.closed_at) == len(segments)
    assert parser.closed_at == sorted(parser.closed_at)
    limit = math.inf if duration_s is None else duration_s
    for segment in segments:
        assert 0 <= segment.start <= segment.end <= limit
        assert math.isfinite(segment.end)
        assert segment.text
        assert segment.text.encode("utf-8")
        assert segment.speaker is None or segment.speaker >= 0


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "Start": st.floats(0, 30),
                "End": st.floats(0, 30),
                "Speaker": st.integers(0, 9),
                "Content": st.text(
                    st.characters(exclude_characters="\n", codec="utf-8"), min_size=1
                ).map(lambda text: f"words {text} words"),
            }
        )
    ),
    st.booleans(),
)
def test_random_segments_are_parsed_as_they_were_written(
    items: list[dict[str, Any]], escape: bool
) -> None:
    parser = VibeVoiceOutputParser(30.0)
    assert parser.feed(json.dumps(items, ensure_ascii=escape)) == [
        Segment(item["Start"], max(item["Start"], item["End"]), item["Content"], item["Speaker"])
        for item in items
    ]
    assert parser.skipped == 0


@pytest.mark.parametrize("new", ["", *'{}[",:\\ x'])
def test_character_inserted_replaced_or_missing_costs_at_most_one_segment(new: str) -> None:
    """A bracket that closes the list is the exception: what follows it does not count."""
    for at in range(len(ANSWER) - 1):
        for rest in (at, at + 1):
            segments = parse(ANSWER[:at] + new + ANSWER[rest:])
            assert sum(segment in segments for segment in SEGMENTS) >= len(SEGMENTS) - 1, at


HOSTILE = {
    "an unclosed string": '[{"Start":0,"End":1,"Content":"' + "a" * 4000,
    "an unclosed string, with braces": '[{"Start":0,"Content":"' + '{"' * 2000,
    "braces": "[" + "{" * 4000,
    "brackets": "[" * 4000,
    "brackets in an object": '{"a":' + "[" * 4000,
    "colons after one brace": '[{"Start":0,"a{' + ":" * 4000,
    "colons": '[{"Start":0,"a' + "{:" * 2000,
    "contents": '[{"Start":0,' + '"text":"a",' * 400,
    "heads": "[" + '{"Start":' * 400,
    "a number": '[{"Start":' + "1" * 4000,
    "commas": '[{"Start":0' + "," * 4000,
    "backslashes": '[{"Start":0,"Content":"' + "\\" * 4000,
}


def work(text: str) -> int:
    """Characters looked at: lines of the parser run, and the lengths that they copy or parse."""
    count = 0

    def line(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.endswith(("output.py", "items.py")):
            return None
        if event == "line":
            count += 1
        elif event == "call":
            count += sum(len(v) for v in frame.f_locals.values() if isinstance(v, str | dict))
        return line

    parser = VibeVoiceOutputParser(30.0)
    sys.settrace(line)
    try:
        for char in text:
            parser.feed(char)
            assert parser.open_content is None or parser.open_content.end is not math.nan
        parser.finish()
    finally:
        sys.settrace(None)
    return count


@pytest.mark.slow_except("contents")
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_work_of_the_parser_is_linear_in_the_text(text: str) -> None:
    assert work(text) / work(text[: len(text) // 4]) < 6
