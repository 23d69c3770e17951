"""Subtitles, over transcripts that were made up: the rules hold whatever was said, and when."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import pysubs2
import pytest
import webvtt_parser
from executed_lines import executed_lines
from hypothesis import given
from hypothesis import strategies as st

from sidecar.transcripts import subtitle_cues
from sidecar.transcripts.transcript import (
    NON_SPEECH_FLAG,
    WORDS_BY_ATTENTION,
    Segment,
    Transcript,
    Word,
)
from sidecar.transcripts.transcript_formats import render_transcript
from sidecar.transcripts.word_timing import characters, estimate_word_times, text_columns

VOCABULARY = (
    *("a", "I", "we", "yes", "no,", "well;", "and", "but", "because", "that", "house;", "window."),
    *("Thursday?", "wonderful!", "naturally", "extraordinarily", "--", "“quoted”", "Grüße", "café"),
    *("你好。", "世界", "今天天气很好，我们去公园散步吧。", "ありがとう", "สวัสดีครับ"),
    *("&", "<b>", "-->", "--->"),
    *("3.14", "https://example.org/a/very/long/address/that/never/ends?and=on"),
)
TEXTS = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=40).map(" ".join)
ANYTHING = st.text(max_size=60)
GAPS = st.floats(0, 3)
LENGTHS = st.floats(0, 20)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Some people, one after the other or at once, with times of words or without."""
    at = draw(st.floats(0, 400_000))
    segments: list[Segment] = []
    for _ in range(draw(st.integers(0, 6))):
        start = max(0.0, at + draw(st.floats(-3, 3)))
        end = start + draw(LENGTHS)
        segment = Segment(start, end, draw(TEXTS | ANYTHING), draw(st.sampled_from((0, 1, 12))))
        if draw(st.booleans()):
            segment = said(segment, [draw(GAPS) for _ in segment.text.split()])
        elif draw(st.booleans()):
            segment = Segment(start, end, "[Music]", flags=(NON_SPEECH_FLAG,))
        segments.append(segment)
        at = segment.end
    diarized = draw(st.booleans())
    return Transcript(tuple(segments), "en", at, "scripted", "fp32", diarized)


def said(segment: Segment, gaps: Sequence[float]) -> Segment:
    """With times of words as an engine might tell them: in order, in part of no length."""
    words, at = [], segment.start
    for text, gap in zip(segment.text.split(), gaps, strict=True):
        words.append(Word(at, at + gap / 2, text))
        at += gap
    return Segment(
        segment.start,
        max(at, segment.end),
        segment.text,
        segment.speaker,
        tuple(words),
        words_by=WORDS_BY_ATTENTION if words else "",
    )


def talk(text: str, *, words_per_s: float = 3.0, start: float = 0.0, speaker: int = 0) -> Segment:
    """Somebody who speaks evenly."""
    words = text.split()
    bare = Segment(start, start, text, speaker)
    return said(bare, [1 / words_per_s] * len(words))


def transcript(*segments: Segment) -> Transcript:
    ends_s = max(segment.end for segment in segments)
    return Transcript(segments, "en", ends_s, "scripted", "fp32", True)


def shown(found: Sequence[subtitle_cues.SubtitleCue]) -> list[tuple[str, ...]]:
    return [cue.lines for cue in found]


@given(transcripts())
def test_cue_lines_fit_and_cues_overlap_none_and_end_with_the_recording(made: Transcript) -> None:
    found, duration_ms = subtitle_cues.build_cues(made), round(1000 * made.duration)
    for cue in found:
        assert cue.end_ms <= duration_ms or cue.start_ms >= duration_ms - 10
        assert 1 <= len(cue.lines) <= 2
        assert all(0 < text_columns(line) <= subtitle_cues.MAX_LINE_COLUMNS for line in cue.lines)
        assert all(line == line.strip() for line in cue.lines)
        assert cue.end_ms > cue.start_ms >= 0
    for before, after in pairwise(found):
        assert before.end_ms <= after.start_ms


@given(transcripts())
def test_cue_lasts_its_reading_time_or_until_the_next_or_the_end(made: Transcript) -> None:
    found = subtitle_cues.build_cues(made)
    for cue, after in pairwise([*found, None]):
        assert cue is not None
        columns = sum(map(text_columns, cue.lines))
        lasts = cue.end_ms - cue.start_ms
        assert lasts <= 1000 * subtitle_cues.MAX_CUE_S + 1
        ends = (after.start_ms if after else None, round(1000 * made.duration))
        if cue.end_ms not in ends:
            assert lasts >= 1000 * subtitle_cues.MIN_CUE_S
            assert columns * 1000 / lasts <= subtitle_cues.READING_COLUMNS_PER_S


@given(transcripts())
def test_cues_have_all_text_once_and_in_order(made: Transcript) -> None:
    found = subtitle_cues.build_cues(made)
    for segment in made.segments:
        lines = [line for cue in found if cue.segment is segment for line in cue.lines]
        wanted = "".join(subtitle_cues.printable_text(segment.text).split())
        assert "".join("".join(lines).split()) == wanted


@given(transcripts())
def test_vtt_and_srt_are_accepted_by_parsers_and_the_vtt_has_all_lines_and_voices(
    made: Transcript,
) -> None:
    strict = webvtt_parser.read(render_transcript(made, "vtt"))
    found = subtitle_cues.build_cues(made)
    assert [cue.lines for cue in strict] == [cue.lines for cue in found]
    for cue, of in zip(strict, found, strict=True):
        named = made.diarized and of.segment.is_speech
        assert cue.voice == (f"Speaker_{of.segment.speaker}" if named else "")
    srt = render_transcript(made, "srt")
    if not srt:
        return
    players = pysubs2.SSAFile.from_string(srt, format_="srt")
    ours = re.findall(r"^(\d+)\n\d\d+:", srt, re.MULTILINE)
    assert ours == [str(number) for number in range(1, len(ours) + 1)]
    assert len(players) == len(ours)
    assert all(one.end <= after.start for one, after in pairwise(players.events))


CHARACTERS = (
    *("a", "é", "e\u0301", "你", "の", "ﾊﾟ", "한", "\u1112\u1161\u11ab", "가\u11ab"),
    *("नि", "क्ष", "क\u094d\u200dष", "ก่", "ทำ", "நி"),
    *("👨\u200d👩\u200d👧", "👍🏽", "❤️\u200d🔥", "1\ufe0f\u20e3", "🇩🇪", "🇫🇷"),
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
)


@given(st.lists(st.sampled_from(CHARACTERS) | st.just(" "), min_size=40, max_size=200))
def test_subtitle_line_breaks_only_between_grapheme_clusters(text: list[str]) -> None:
    made = transcript(Segment(0.0, 60.0, "".join(text), 0))
    whole = set(accumulate(len(one) for one in text if one != " "))
    lines = [line.replace(" ", "") for cue in subtitle_cues.build_cues(made) for line in cue.lines]
    assert set(accumulate(map(len, lines))) <= whole
    assert [one for one in text if one != " "] == [*characters("".join(lines))]


def test_cue_ends_at_a_sentence_else_at_a_clause() -> None:
    text = (
        "I had no idea at all that it would rain today. When we came to the house in the late "
        "afternoon, nobody was there, and all of the doors stood wide open in the wind."
    )
    assert shown(subtitle_cues.build_cues(transcript(talk(text)))) == [
        ("I had no idea at all", "that it would rain today."),
        ("When we came to the house", "in the late afternoon,"),
        ("nobody was there, and all of the", "doors stood wide open in the wind."),
    ]


@pytest.mark.parametrize(
    ("text", "never"),
    [
        (
            "Please call Mrs. Brown, she lives on St. James Street near No. 5 and her number is "
            "unlisted.",
            ("Mrs.", "St.", "No."),
        ),
        (
            "We went to the hospital with Mr. Johnson on Tuesday and then we met Dr. Smith in the "
            "old Capitol at noon.",
            ("Mr.", "Dr."),
        ),
        (
            "Wir treffen uns am 3. Mai mit Hrn. Dr. Weiß vor dem Rathaus und gehen dann z. B. ins "
            "Kino am Markt.",
            ("3.", "Hrn.", "Dr.", "z.", "B."),
        ),
        (
            "Ayer hablé con la Sra. García y con el Dr. Pérez en la Avda. América sobre el "
            "nuevo contrato.",
            ("Sra.", "Dr.", "Avda."),
        ),
    ],
)
@pytest.mark.parametrize("words_per_s", [0.9, 2.5, 4.0])
def test_no_line_ends_between_a_title_or_an_abbreviation_and_what_belongs_to_it(
    text: str, never: tuple[str, ...], words_per_s: float
) -> None:
    """However long the pauses are: of slow speech they are half a second."""
    language = {"Wi": "de", "Ay": "es"}.get(text[:2], "en")
    segment = replace(talk(text, words_per_s=words_per_s), language=language)
    found = subtitle_cues.build_cues(transcript(segment))
    lines = [line for cue in found for line in cue.lines]
    assert len(lines) > 2
    assert " ".join(lines) == text
    assert not [line for line in lines[:-1] if line.endswith(never)]


@pytest.mark.parametrize(
    "words",
    [
        "ผม กำลัง จะ ไป โรงเรียน ใน วันพรุ่งนี้ เพราะว่า ครู ของ ผม จะ สอน ภาษาอังกฤษ ให้ กับ นักเรียน ทุกๆ คน",
        "ຂ້ອຍ ກຳລັງ ຈະ ໄປ ໂຮງຮຽນ ໃນ ມື້ອື່ນ ເພາະວ່າ ຄູ ຂອງ ຂ້ອຍ ຈະ ສອນ ພາສາອັງກິດ ໃຫ້ ກັບ ນັກຮຽນ ທຸກ ຄົນ",
        "ខ្ញុំ នឹង ទៅ សាលារៀន នៅ ថ្ងៃស្អែក ពីព្រោះ គ្រូ របស់ ខ្ញុំ នឹង បង្រៀន ភាសាអង់គ្លេស ដល់ សិស្ស ទាំងអស់ ក្នុង ថ្នាក់",
        "ကျွန်တော် မနက်ဖြန် ကျောင်း ကို သွား မယ် ဘာကြောင့်လဲဆိုတော့ ဆရာ က အင်္ဂလိပ်စာ သင် ပေး မှာ မို့လို့ ပါ",
        "私 は 明日 学校 に 行き ます なぜなら 先生 が コンピュータ と 英語 を 教えて くれる から",
        "我们 明天 要 去 学校 因为 我 的 老师 会 教 同学们 英语 和 计算机 科学 然后 大家 一起 吃饭",
    ],
    ids=["thai", "lao", "khmer", "burmese", "japanese", "chinese"],
)
def test_line_ends_with_a_word_that_the_engine_timed_in_scripts_without_spaces(words: str) -> None:
    parts = words.split()
    timed = tuple(Word(at / 3, (at + 1) / 3, one) for at, one in enumerate(parts))
    segment = Segment(0.0, len(parts) / 3, "".join(parts), 0, timed)
    lines = [line for cue in subtitle_cues.build_cues(transcript(segment)) for line in cue.lines]
    assert "".join(lines) == segment.text
    assert len(lines) > 1
    assert all(text_columns(line) <= subtitle_cues.MAX_LINE_COLUMNS for line in lines)
    ends = {*accumulate(map(len, parts))}
    assert {*accumulate(map(len, lines))} <= ends
    assert not [line for line in lines if line[0] in subtitle_cues.STAYS_WITH_WORD]


def test_change_of_speaker_starts_a_cue() -> None:
    found = subtitle_cues.build_cues(transcript(talk("Yes."), talk("No.", start=0.4, speaker=1)))
    assert shown(found) == [("Yes.",), ("No.",)]


def test_cue_of_overlapping_speech_starts_when_the_cue_before_has_lasted_a_second() -> None:
    first = talk("I was just about to say", start=0.0)
    found = subtitle_cues.build_cues(transcript(first, talk("No!", start=0.1, speaker=1)))
    assert [cue.start_ms for cue in found] == [0, 1000]


def test_cue_starts_with_its_first_word() -> None:
    segment = Segment(0.0, 9.0, "Late.", 0, (Word(8.0, 8.5, "Late."),), words_by=WORDS_BY_ATTENTION)
    assert [
        (cue.start_ms, cue.end_ms) for cue in subtitle_cues.build_cues(transcript(segment))
    ] == [(8000, 9000)]


def test_cue_of_slow_speech_spans_at_most_seven_seconds() -> None:
    words = tuple(Word(3.0 * at, 3.0 * at + 3.0, text) for at, text in enumerate("abcd"))
    slow = Segment(0.0, 12.0, "a b c d", 0, words, words_by=WORDS_BY_ATTENTION)
    found = subtitle_cues.build_cues(transcript(slow))
    assert [(cue.start_ms, cue.end_ms) for cue in found] == [(0, 6000), (6000, 12000)]


def test_chinese_is_wrapped_without_a_mark_at_the_start_of_a_line() -> None:
    text = "今天天气很好，我们去公园散步吧。" * 6
    found = subtitle_cues.build_cues(transcript(Segment(0.0, 30.0, text, 0)))
    lines = [line for cue in found for line in cue.lines]
    assert len(lines) > 4
    assert all(text_columns(line) <= subtitle_cues.MAX_LINE_COLUMNS for line in lines)
    assert not [line for line in lines if line[0] in "，。"]
    assert "".join(lines) == text


def test_speaker_prefix_counts_in_the_width_of_an_srt_line() -> None:
    text = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen."
    lines = render_transcript(transcript(talk(text)), "srt").split("\n")
    named = [line for line in lines if line.startswith("Speaker_0: ")]
    assert named == [line for line in lines if "One" in line or "Speaker" in line]
    assert max(map(len, lines)) <= subtitle_cues.MAX_LINE_COLUMNS


def test_work_of_building_cues_is_linear_in_the_words_of_a_segment() -> None:
    def work(words: int) -> int:
        text = " ".join(f"word{number}" for number in range(words))
        return executed_lines(
            lambda: subtitle_cues.build_cues(transcript(Segment(0.0, words / 3, text, 0)))
        )

    assert work(3000) < 11 * work(300)


@pytest.mark.parametrize(
    "text", ["Hello there, you.", "你好世界", "a", "สวัสดี ครับ", "“Oh,” he said"]
)
def test_estimated_words_have_the_text_and_fill_the_segment(text: str) -> None:
    found = estimate_word_times(Segment(1.0, 3.0, text, 0))
    assert found.words_by == "spread"
    assert "".join(word.text for word in found.words) == "".join(text.split())
    assert (found.words[0].start, found.words[-1].end) == (1.0, 3.0)
    assert all(one.end <= after.start + 1e-9 for one, after in pairwise(found.words))


def test_korean_words_are_timed_and_kept_whole_in_lines_as_they_have_spaces() -> None:
    text = "안녕하세요, 오늘 회의를 시작하겠습니다. 먼저 지난주에 결정한 내용을 확인합시다."
    segment = Segment(0.0, 9.0, text, 0)
    assert [one.text for one in estimate_word_times(segment).words] == text.split()
    lines = [line for cue in subtitle_cues.build_cues(transcript(segment)) for line in cue.lines]
    assert len(lines) > 1
    assert " ".join(lines).split() == text.split()


def test_segment_with_word_times_or_without_speech_gets_no_estimated_times() -> None:
    known = talk("Yes we do.")
    assert estimate_word_times(known) is known
    music = Segment(0.0, 4.0, "[Music]", flags=(NON_SPEECH_FLAG,))
    assert estimate_word_times(music) is music
