"""Reads WebVTT as strictly as its specification writes it (W3C, "Syntax"): what a file that
conforms may hold, and not what players forgive. Of its parts those that this service writes."""

import re
from dataclasses import dataclass
from itertools import pairwise

_TIMES = re.compile(
    r"(?:(\d{2,}):)?([0-5]\d):([0-5]\d)\.(\d{3}) --> (?:(\d{2,}):)?([0-5]\d):([0-5]\d)\.(\d{3})"
)
_TAG = re.compile(r"<v(?:\.[^\s<>&.]+)* ((?:[^<>&\n]|&[a-z]+;)+)>")
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&lrm;": "\u200e", "&rlm;": "\u200f"}
_ENTITY = re.compile(r"&[a-z]+;")
_CLASS = re.compile(r"<c(?:\.[^\s<>&.]+)+>([^<>]+)</c>")


@dataclass(frozen=True)
class VttCue:
    """A cue as a viewer has it; times in milliseconds."""

    start: int
    end: int
    voice: str
    lines: tuple[str, ...]


def read(file: str) -> list[VttCue]:
    """The cues; an AssertionError says what does not conform."""
    assert "\0" not in file
    assert "\r" not in file, "line terminators are of one kind here"
    head, *blocks = file.rstrip("\n").split("\n\n")
    assert head == "WEBVTT"
    assert file.endswith("\n")
    found = [_cue(block) for block in blocks]
    for before, after in pairwise(found):
        assert after.start >= before.start, "cues are in the order of their begin"
    return found


def _cue(block: str) -> VttCue:
    times, *lines = block.split("\n")
    assert "-->" not in "\n".join(lines)
    match = _TIMES.fullmatch(times)
    assert match, times
    start, end = _ms(*match.groups()[:4]), _ms(*match.groups()[4:])
    assert end > start
    assert lines, "a cue says something"
    assert all(line.strip() for line in lines), "an empty line ends a cue"
    voice = ""
    if tag := _TAG.match(lines[0]):
        voice = tag[1]
        lines[0] = lines[0][tag.end() :]
    return VttCue(start, end, voice, tuple(map(_text, lines)))


def _text(line: str) -> str:
    line = _CLASS.sub(r"\1", line)
    assert "<" not in line
    assert ">" not in line
    bare = _ENTITY.sub(lambda entity: "" if entity[0] in _ENTITIES else "&", line)
    assert "&" not in bare, "an ampersand is escaped"
    return _ENTITY.sub(lambda entity: _ENTITIES[entity[0]], line)


def _ms(hours: str | None, minutes: str, seconds: str, ms: str) -> int:
    return ((int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(ms)
