"""Chinese text in the script of the language tag that a client sent. Pure.

All changes keep the number of characters, so that times of words and places in a text stay right.
The library and its tables are read when the first Chinese text is to be changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal

from sidecar.transcripts.transcript import Segment, TranscriptionEvent, Word, map_segments

if TYPE_CHECKING:
    from opencc import OpenCC

ChineseScript = Literal["s", "t", "tw", "hk"]
"""Simplified; traditional in general, of Taiwan, of Hong Kong: OpenCC's names."""
_CHINESE = "zh"
_CHINESE_OR_UNKNOWN = (_CHINESE, "", "auto")
_OF_REGION: Mapping[str, ChineseScript] = {"tw": "tw", "hk": "hk", "mo": "hk"}
_WRITTEN = re.compile(r"(?<=[原专译论编遗卓土拙])著")
"""著 as *written* or *outstanding*; the library's list of such words lacks these."""


def chinese_script(tag: str) -> ChineseScript | None:
    """Return the script that a language tag stands for; None if it is not Chinese. A script
    precedes a region, and without either it is simplified."""
    language, *rest = tag.lower().split("-")
    if language != _CHINESE:
        return None
    regional: ChineseScript | None = next(
        (_OF_REGION[one] for one in rest if one in _OF_REGION), None
    )
    if "hans" in rest:
        return "s"
    return regional or ("t" if "hant" in rest else "s")


def in_script(text: str, script: ChineseScript) -> str:
    """Return a whole text in a script, by its words. A text with at least as many characters that
    are traditional only as simplified ones stays traditional, its names too (范, 于)."""
    if script == "s":
        return _simplified(text)
    traditional = sum(one in _only_traditional() for one in text)
    if traditional >= sum(one in _only_simplified() for one in text):
        return in_script_by_character(text, script)
    found: str = _converter(f"s2{script}").convert(text)
    return found


def in_script_by_character(text: str, script: ChineseScript) -> str:
    """Return text that may go on in a script: what follows does not change its beginning, and
    characters that are of both scripts stay."""
    if script == "s":
        return "".join(_only_traditional().get(one, one) for one in text)
    found = "".join(_only_simplified().get(one, one) for one in text)
    return found if script == "t" else _converter(f"t2{script}").convert(found)


def text_and_words(
    text: str, words: Iterable[Word], change: Callable[[str], str]
) -> tuple[str, tuple[Word, ...]]:
    """Return a text that ``change`` changed, and its words with the same characters."""
    changed, found, at = change(text), list[Word](), 0
    for word in words:
        begin = text.find(word.text, at)
        if begin < 0:  # as an engine lists it, with other space or marks
            found.append(replace(word, text=change(word.text)))
            continue
        at = begin + len(word.text)
        found.append(replace(word, text=changed[begin:at]))
    return changed, tuple(found)


def may_be_chinese(language: str) -> bool:
    """Return whether a recognized language is Chinese, or unknown."""
    return language.partition("-")[0].lower() in _CHINESE_OR_UNKNOWN


def segment_in_script(segment: Segment, script: ChineseScript) -> Segment:
    """Return a segment in a script, unless it is in another language."""
    if not may_be_chinese(segment.language):
        return segment
    text, words = text_and_words(segment.text, segment.words, lambda one: in_script(one, script))
    return replace(segment, text=text, words=words)


def event_in_script(event: TranscriptionEvent, script: ChineseScript) -> TranscriptionEvent:
    """Return an event with all of its segments in a script."""
    return map_segments(event, lambda one: segment_in_script(one, script))


def _simplified(text: str) -> str:
    """Return text in simplified characters. 著 of Taiwan becomes 着 where it is a particle."""
    found: str = _converter("t2s").convert(text)
    if "著" not in found or sum(one in _only_simplified() for one in text) > sum(
        one in _only_traditional() for one in text
    ):
        return found
    of_taiwan = _converter("tw2s").convert(text)  # only for this one: it has 幺 for 么
    written = {one.start() for one in _WRITTEN.finditer(found)}
    return "".join(
        of_taiwan[at] if of_taiwan[at] == "着" and at not in written else one
        for at, one in enumerate(found)
    )


@cache
def _converter(name: str) -> OpenCC:
    from opencc import OpenCC

    return OpenCC(name)


@cache
def _only_simplified() -> Mapping[str, str]:
    return _table("STCharacters.txt")


@cache
def _only_traditional() -> Mapping[str, str]:
    return _table("TSCharacters.txt")


def _table(file: str) -> Mapping[str, str]:
    """Return the characters of one of the library's files that the other script lacks, with what it
    has instead."""
    text = resources.files("opencc").joinpath("dictionary", file).read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    found = {character: others.split() for character, others in rows}
    return {one: others[0] for one, others in found.items() if one not in others}
