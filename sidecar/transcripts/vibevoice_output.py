"""Incremental parser of the segment list that VibeVoice-ASR writes. Pure.

The output is a JSON list of flat objects, after a line `assistant`. A model may also write it in a
code fence, with the keys of earlier versions, or break off. Nothing here raises: unreadable objects
are skipped and counted, and parsing resumes at the next start of a segment.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sidecar.transcripts.transcript import NON_SPEECH_FLAG, Segment

SILENCE = "[Silence]"
NON_SPEECH_TAGS = (
    SILENCE,
    "[Music]",
    "[Noise]",
    "[Human Sounds]",
    "[Environmental Sounds]",
    "[Unintelligible Speech]",
)
"""Tags of the model for audio without speech; any other single phrase in brackets counts too."""

_TAG = re.compile(r"\[+([^\[\]]+)\]+")
_CANONICAL = {tag[1:-1].casefold(): tag for tag in NON_SPEECH_TAGS}
_SPEAKER = re.compile(r"(?:speaker[\s_-]*)?(\d{1,4})(?:\.0*)?", re.IGNORECASE)
_CHARACTER = re.compile(r"\\u([\da-fA-F]{4})|\\(.)|.", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
"""Letters of JSON's escapes; other characters stand for themselves."""
_FIELDS = {
    "start": "start",
    "start time": "start",
    "end": "end",
    "end time": "end",
    "speaker": "speaker",
    "speaker id": "speaker",
    "content": "content",
    "text": "content",
}
_UNTIMED_S = 0.01
"""Seconds for a character of an item without times: less than speech takes, so that all items are
within the audio, and a repeated one is still found to be a loop."""
_MAX_HEAD_CHARACTERS = 32
_HEAD = re.compile(r'\{\s*"start(?:[ _]time)?"\s*:', re.IGNORECASE)
"""Start of an item. In a string its quotes would be escaped, so it never matches text."""


def parse_segment(
    item: dict[str, Any], duration_s: float | None, after_s: float = 0.0
) -> Segment | None:
    """Convert an object of the list to a segment; return None without text.

    Numbers are expected as the strings that were written. A missing time is taken from the other
    one; without any, it follows ``after_s``, the end of the segment before. Both are clamped to the
    audio, and the end is never before the start.
    """
    fields = {canonical_field(key): value for key, value in item.items()}
    content = fields.get("content")
    text = _without_surrogates(content).strip() if isinstance(content, str) else ""
    if not text:
        return None
    end_s = after_s + _UNTIMED_S * len(text)
    untimed = after_s, end_s if duration_s is None else min(end_s, duration_s)
    span = time_span(item, duration_s) or untimed
    return _segment(*span, text, _speaker(fields.get("speaker")))


def _segment(start: float, end: float, text: str, speaker: int | None) -> Segment:
    if _TAG.fullmatch(text):
        return Segment(start, end, canonical_tag(text), flags=(NON_SPEECH_FLAG,))
    return Segment(start, end, text, speaker)


def canonical_tag(tag: str) -> str:
    """Return a phrase in brackets as `NON_SPEECH_TAGS` has it, or as it is."""
    known = " ".join(tag.strip("[]").replace("_", " ").split()).casefold()
    return _CANONICAL.get(known, tag)


def split_turns(segment: Segment, other: int | None) -> list[Segment]:
    """Return the turns of a segment, one for each line: the model joins turns that follow quickly.

    Its time is divided by characters. ``other``: the speaker of every second line; `None`: a new
    one. No line has a speaker if the segment has none.
    """
    lines = [line for part in segment.text.split("\n") if (line := part.strip())]
    if len(lines) == 1:
        return [segment]
    speakers = [segment.speaker, segment.speaker]
    if segment.speaker is not None:
        speakers[1] = segment.speaker + 1 if other is None else other
    turns, start = [], segment.start
    per_character = (segment.end - segment.start) / sum(map(len, lines))
    for number, line in enumerate(lines):
        last = number == len(lines) - 1
        end = segment.end if last else min(segment.end, start + per_character * len(line))
        turns.append(_segment(start, end, line, speakers[number % 2]))
        start = end
    return turns


def parse_object(text: str) -> dict[str, Any] | None:
    """Parse a JSON object with numbers as strings, so that none overflows; None if it is not
    one."""
    try:
        item = json.loads(text, strict=False, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return item if isinstance(item, dict) else None


def parse_truncated_object(text: str) -> dict[str, Any] | None:
    """Return the complete fields of a truncated object: all of them, or those before its last
    comma."""
    text = text.rstrip()
    members = text.removesuffix(",")
    if text.endswith((",", '"')) and (item := parse_object(members + "}")) is not None:
        return item
    return parse_object(members.rpartition(",")[0] + "}")


def canonical_field(key: str) -> str:
    """Return the field that a key names, in any of its spellings; '' if none."""
    return _FIELDS.get(" ".join(key.replace("_", " ").split()).casefold(), "")


def time_span(item: dict[str, Any], duration_s: float | None) -> tuple[float, float] | None:
    """Return start and end in seconds within the audio, in order; None if both are missing."""
    fields = {canonical_field(key): value for key, value in item.items()}
    start = _seconds(fields.get("start"), duration_s)
    end = _seconds(fields.get("end"), duration_s)
    if start is None or end is None:
        either = end if start is None else start
        return None if either is None else (either, either)
    return start, max(start, end)


def _seconds(value: Any, duration_s: float | None) -> float | None:
    """Parse seconds from `12.3`, `mm:ss` or `hh:mm:ss.fff`, clamped to the audio; None if
    invalid."""
    parts = value.strip().removesuffix("s").split(":") if isinstance(value, str) else []
    seconds = 0.0 if 1 <= len(parts) <= 3 else math.nan
    try:
        for part in parts[:3]:
            seconds = seconds * 60 + float(part)
    except ValueError:
        return None
    if math.isnan(seconds):
        return None
    seconds = min(max(0.0, seconds), math.inf if duration_s is None else duration_s)
    return seconds if math.isfinite(seconds) else None


def _speaker(value: Any) -> int | None:
    match = _SPEAKER.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(match[1]) if match else None


def content_positions(written: str, text: str) -> list[int]:
    """Return where each character of ``text`` begins, and where the last one ends, in ``written``,
    an object of the list that ends with it; nothing if it is not there."""
    found = [*_CHARACTER.finditer(written)]
    said = "".join(
        chr(int(one[1], 16)) if one[1] else _ESCAPES.get(one[2], one[2]) or one[0] for one in found
    )
    at = said.rfind(text)
    inside = found[at : at + len(text)] if at >= 0 else []
    return [one.start() for one in inside] + [one.end() for one in inside[-1:]]


def _without_surrogates(text: str) -> str:
    """Replace lone surrogates, so that the text can be encoded as UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """Segment whose text is being written: its times so far, and the length of the text.

    ``start`` and ``end`` are seconds as in a `Segment`; None if the times are not known yet.
    """

    start: float | None
    end: float | None
    characters: int


class VibeVoiceOutputParser:
    """Parser that yields each segment as soon as it is closed, in the order of the output.

    ``duration_s``: length of the model's audio (None: unknown). The segments do not depend on how
    the text is split, and the time is linear in its length.
    """

    def __init__(self, duration_s: float | None) -> None:
        self._duration = duration_s
        self.skipped = 0
        """Number of objects that could not be read, or had no text."""
        self.closed_at: list[int] = []
        """Number of characters of output at the end of each segment."""
        self.ended = False
        """True once the list is closed: further text is ignored."""
        self.truncated = False
        """Set by `finish`: True if the text broke off inside the list or inside an object."""
        self._position = 0
        self._found: list[Segment] = []
        self._end_s = 0.0
        self._speaker: int | None = None
        self._other: int | None = None
        """The last speaker, and the one before."""
        self._last = " "
        self._in_list = False
        self._final = False
        self._object: _PartialObject | None = None

    @property
    def open_content(self) -> OpenSegment | None:
        """Return the text that is being written; None between texts."""
        if self._object is None or self._object.content_from is None:
            return None
        start, end = time_span(self._object.fields_before_content(), self._duration) or (None, None)
        return OpenSegment(start, end, self._object.content_length())

    def feed(self, text: str) -> list[Segment]:
        """Return the segments that ``text`` completes."""
        for char in text:
            self._position += 1
            if self.ended and not self._goes_on(char):
                continue
            if self._object is None:
                self._between(char)
            else:
                self._inside(self._object, char)
        found, self._found = self._found, []
        return found

    def finish(self) -> list[Segment]:
        """Return the segments that are left at the end of the text: a last object without its
        brace."""
        if self.ended:
            return []
        self.ended = self._final = True
        self.truncated = self._in_list or self._last == "[" or self._object is not None
        tail = parse_truncated_object("".join(self._object.characters)) if self._object else None
        if tail and parse_segment(tail, self._duration):
            self._keep(tail, self._position)
        self._object = None
        return self.feed("")

    def _goes_on(self, char: str) -> bool:
        """Return whether the bracket before ``char`` was a stray one, which the next character
        tells."""
        if self._final or char.isspace():
            return False
        self._final = char not in ",}"
        self.ended = self._final
        return not self.ended

    def _between(self, char: str) -> None:
        if char == "{":
            self._in_list = self._in_list or self._last == "["
            self._object = _PartialObject(["{"])
        elif char == "]":
            self.ended = self._last == "[" or (self._in_list and self._last in "},")
        if not char.isspace():
            self._last = char

    def _inside(self, item: _PartialObject, char: str) -> None:
        item.take(char)
        if item.depth == 0:
            text = "".join(item.characters)
            self._object, self._last = None, char
            found = parse_object(text) if char == "}" else parse_truncated_object(text[:-1])
            self._keep(found, self._position)
        elif char == ":" and item.begins_anew():
            cut = item.suspect or 0
            head = item.characters[cut:]
            before = parse_truncated_object("".join(item.characters[:cut]))
            self._keep(before, self._position - len(head))
            self._object = _PartialObject(head, last=":")

    def _keep(self, item: dict[str, Any] | None, position: int) -> None:
        segment = None if item is None else parse_segment(item, self._duration, self._end_s)
        if segment is None:
            self.skipped += 1
            return
        self._end_s = segment.end
        others = (one for one in (self._speaker, self._other) if one not in (None, segment.speaker))
        for turn in split_turns(segment, next(others, None)):
            if turn.speaker not in (None, self._speaker):
                self._speaker, self._other = turn.speaker, self._speaker
            self._found.append(turn)
            self.closed_at.append(position)


class _PartialObject:
    """Characters of one incomplete object, and the parser's state in it.

    ``depth``: braces and brackets open outside strings, 0 once the object is closed.
    ``content_from``: index of the first character of the text while that is open. ``suspect``:
    index of a brace that may start the next item, if this one is broken.
    """

    def __init__(self, characters: list[str], last: str = "{") -> None:
        self.characters = characters
        self.depth = 1
        self.content_from: int | None = None
        self.suspect: int | None = None
        self._in_string = False
        self._escaped = False
        self._escapes = 0
        self._last = last
        self._string_from = 0
        self._string_to = 0
        self._key_from = 0
        self._key = ""
        self._before_content: dict[str, Any] | None = None

    def take(self, char: str) -> None:
        self.characters.append(char)
        if self._in_string:
            self._take_in_string(char)
        elif not char.isspace():
            self._take_outside(char)
            self._last = char

    def _take_in_string(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
            self._escapes += 5 if char == "u" else 1
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = False
            self._string_to = len(self.characters) - 1
            self.content_from = None
        elif char == "{":
            self.suspect = len(self.characters) - 1

    def _take_outside(self, char: str) -> None:
        if char == '"':
            self._in_string = True
            self._string_from = len(self.characters)
            if self.depth == 1 and self._last == ":" and self._key == "content":
                self.content_from = self._string_from
                self._escapes = 0
        elif char in "{[":
            if char == "{" and self._last != ":":
                self.suspect = len(self.characters) - 1
            self.depth += 1
        elif char in "}]":
            self.depth -= 1
        elif char == ":" and self.depth == 1 and self._last == '"':
            self._key_from = self._string_from - 1
            short = min(self._string_to, self._string_from + _MAX_HEAD_CHARACTERS)
            self._key = canonical_field("".join(self.characters[self._string_from : short]))

    def content_length(self) -> int:
        """Return the number of characters of the open text, with each escape as one."""
        raw = len(self.characters) - (self.content_from or 0)
        return max(0, raw - self._escapes - self._escaped)

    def begins_anew(self) -> bool:
        """Return whether the characters from `suspect` to the last colon start another item."""
        if self.suspect is None or len(self.characters) - self.suspect > _MAX_HEAD_CHARACTERS:
            return False
        return _HEAD.fullmatch("".join(self.characters[self.suspect :])) is not None

    def fields_before_content(self) -> dict[str, Any]:
        """Return the fields before the object's text; parsed once."""
        if self._before_content is None:
            before = "".join(self.characters[: self._key_from])
            self._before_content = parse_truncated_object(before) or {}
        return self._before_content


def sort_by_time(segments: Iterable[Segment]) -> list[Segment]:
    """Return the segments sorted by time; ties keep their order."""
    return sorted(segments, key=lambda segment: (segment.start, segment.end))
