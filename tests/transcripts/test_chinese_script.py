"""Chinese text in the script of a language tag: which script, which characters, which places."""

import random
from dataclasses import replace
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.transcripts.chinese_script import (
    ChineseScript,
    chinese_script,
    event_in_script,
    in_script,
    in_script_by_character,
    segment_in_script,
)
from sidecar.transcripts.transcript import (
    Finished,
    Progress,
    ResumePoint,
    Segment,
    SegmentReady,
    Transcript,
    Word,
)

SCRIPTS: tuple[ChineseScript, ...] = ("s", "t", "tw", "hk")
CHARACTERS = "他说說她看着著这這里裡裏面麵条條发發头頭髮后後皇干乾幹什为為爲范範于於姓ab1,。 "
TEXTS = st.text(CHARACTERS, max_size=30)


@pytest.mark.parametrize(
    ("tag", "script"),
    [
        *[("zh", "s"), ("zh-CN", "s"), ("zh-Hans", "s"), ("zh-hans-HK", "s"), ("zh-SG", "s")],
        *[("zh-TW", "tw"), ("ZH-tw", "tw"), ("zh-Hant-TW", "tw"), ("zh-Hant", "t")],
        *[("zh-HK", "hk"), ("zh-MO", "hk"), ("zh-Hant-HK", "hk"), ("zh-Hant-SG", "t")],
        *[(other, None) for other in ("auto", "en", "ja", "ko", "yue-HK", "zha", "")],
    ],
)
def test_tag_stands_for_the_script_of_its_script_or_else_its_region(
    tag: str, script: str | None
) -> None:
    assert chinese_script(tag) == script


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("s", "他看着这里的面条,说头发。皇后"),
        ("t", "他看着這裏的麪條,說頭髮。皇后"),
        ("tw", "他看著這裡的麵條,說頭髮。皇后"),
        ("hk", "他看着這裏的麪條,説頭髮。皇后"),
    ],
)
def test_simplified_text_gets_the_characters_of_each_script_by_its_words(
    script: ChineseScript, text: str
) -> None:
    assert in_script("他看着这里的面条,说头发。皇后", script) == text


@pytest.mark.parametrize(
    ("text", "simplified"),
    [
        ("他看著這裡的麵條,說頭髮。皇后", "他看着这里的面条,说头发。皇后"),
        ("什麼", "什么"),
        ("接著", "接着"),
        ("這是顯著的著作", "这是显著的著作"),
        ("這是原著", "这是原著"),
        ("这是显著的原著", "这是显著的原著"),
        ("乾隆說乾淨", "乾隆说干净"),
    ],
)
def test_text_is_simplified_and_its_particles_with_it_but_no_noun(
    text: str, simplified: str
) -> None:
    assert in_script(text, "s") == simplified


@pytest.mark.parametrize(
    ("text", "traditional"),
    [
        ("范先生說皇后在這裡", "范先生說皇后在這裡"),
        ("他姓范", "他姓范"),
        ("范先生說这裡", "范先生說這裡"),
        ("什么", "什麼"),
    ],
)
def test_name_in_traditional_text_keeps_its_characters(text: str, traditional: str) -> None:
    assert in_script(text, "tw") == traditional


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_word_of_the_library_keeps_its_number_of_characters(script: ChineseScript) -> None:
    tables = resources.files("opencc") / "dictionary"
    words = [
        side
        for file in ("STPhrases.txt", "TSPhrases.txt", "STCharacters.txt", "TSCharacters.txt")
        for line in (tables / file).read_text("utf-8").splitlines()
        for side in line.replace("\t", " ").split()
    ]
    chosen = random.Random(1).sample(words, 3000)
    assert [one for one in chosen if len(in_script(one, script)) != len(one)] == []
    assert [one for one in chosen if len(in_script_by_character(one, script)) != len(one)] == []


@given(TEXTS, TEXTS, st.sampled_from(SCRIPTS))
def test_text_that_goes_on_keeps_the_beginning_that_was_said(
    text: str, more: str, script: ChineseScript
) -> None:
    assert in_script_by_character(text + more, script).startswith(
        in_script_by_character(text, script)
    )


@given(TEXTS, st.sampled_from(SCRIPTS))
def test_text_in_its_script_stays_as_an_attempt_that_goes_on_reports_it_again(
    text: str, script: ChineseScript
) -> None:
    once = in_script(text, script)
    assert len(once) == len(text)
    assert in_script(once, script) == once


@given(st.lists(st.text(CHARACTERS[:-4], min_size=1, max_size=3), min_size=1, max_size=8))
def test_words_of_a_segment_have_its_characters_and_their_times(texts: list[str]) -> None:
    words = tuple(Word(at, at + 1, one, 0.5) for at, one in enumerate(texts))
    for text in ("".join(texts), " ".join(texts), "。".join(texts)):
        before = Segment(0, len(texts), text, 1, words)
        after = segment_in_script(before, "tw")
        assert after.text == in_script(text, "tw")
        inside = [one for one in after.text if one not in " 。"]
        assert "".join(one.text for one in after.words) == "".join(inside)
        assert [replace(one, text="") for one in after.words] == [
            replace(one, text="") for one in words
        ]


def test_word_that_the_text_lacks_changes_for_itself() -> None:
    words = Word(0, 1, "头发"), Word(1, 2, "说")
    found = segment_in_script(Segment(0, 2, "说", words=words), "tw")
    assert [one.text for one in found.words] == ["頭髮", "說"]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("zh", "發音"),
        ("", "發音"),
        ("auto", "發音"),
        ("zh-CN", "發音"),
        ("ja", "发音"),
        ("yue", "发音"),
    ],
)
def test_segment_changes_only_if_its_language_is_chinese_or_unknown(
    language: str, text: str
) -> None:
    assert segment_in_script(Segment(0, 1, "发音", language=language), "tw").text == text


def test_all_segments_of_an_event_change_and_events_without_stay() -> None:
    one, changed = Segment(0, 1, "发音"), Segment(0, 1, "發音")
    transcript = Transcript((one, one), "zh-TW", 1.0, "made-up", "fp32")
    for before, after in (
        (SegmentReady(3, one), SegmentReady(3, changed)),
        (ResumePoint(1.0, "form", (one,)), ResumePoint(1.0, "form", (changed,))),
        (Finished(transcript), Finished(replace(transcript, segments=(changed, changed)))),
        (Progress(1.0, 2.0), Progress(1.0, 2.0)),
    ):
        assert event_in_script(before, "tw") == after
