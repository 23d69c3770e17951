"""One object of the model's list: how it is read, in every spelling there was. Pure functions."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from sidecar.transcripts.transcript import NON_SPEECH, Segment

TAGS = (
    "[Silence]",
    "[Music]",
    "[Noise]",
    "[Human Sounds]",
    "[Environmental Sounds]",
    "[Unintelligible Speech]",
)
"""What the model writes where nobody speaks; any other single phrase in brackets counts too."""

_TAG = re.compile(r"\[([^\[\]]+)\]")
_CANONICAL = {tag[1:-1].casefold(): tag for tag in TAGS}
_SPEAKER = re.compile(r"(?:speaker[\s_-]*)?(\d{1,4})(?:\.0*)?", re.IGNORECASE)
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


def to_segment(item: dict[str, Any], duration_s: float | None, offset_s: float) -> Segment | None:
    """One object of the list as a segment; None without text or without any time.

    Numbers are expected as the strings they were written as. A time that is missing is taken from
    the other one; both are clamped to the audio, and the end is never before the start.
    """
    fields = {field_of(key): value for key, value in item.items()}
    content, span = fields.get("content"), span_of(item, duration_s)
    text = _encodable(content).strip() if isinstance(content, str) else ""
    if not text or span is None:
        return None
    start, end = span[0] + offset_s, span[1] + offset_s
    if tag := _TAG.fullmatch(text):
        known = " ".join(tag[1].replace("_", " ").split()).casefold()
        return Segment(start, end, _CANONICAL.get(known, text), flags=(NON_SPEECH,))
    return Segment(start, end, text, _speaker(fields.get("speaker")))


def loads(text: str) -> dict[str, Any] | None:
    """A JSON object with its numbers as strings, so that none is too large; None if it is none."""
    try:
        item = json.loads(text, strict=False, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return item if isinstance(item, dict) else None


def loads_cut(text: str) -> dict[str, Any] | None:
    """What an object that breaks off holds whole: all of it, or all up to its last comma."""
    text = text.rstrip()
    members = text.removesuffix(",")
    if text.endswith((",", '"')) and (item := loads(members + "}")) is not None:
        return item
    return loads(members.rpartition(",")[0] + "}")


def field_of(key: str) -> str:
    """Which of the four fields a key names, in any of its spellings; '' if none."""
    return _FIELDS.get(" ".join(key.replace("_", " ").split()).casefold(), "")


def span_of(item: dict[str, Any], duration_s: float | None) -> tuple[float, float] | None:
    """Start and end in seconds within the audio, the end not before the start; None without any."""
    fields = {field_of(key): value for key, value in item.items()}
    start = _seconds(fields.get("start"), duration_s)
    end = _seconds(fields.get("end"), duration_s)
    if start is None or end is None:
        either = end if start is None else start
        return None if either is None else (either, either)
    return start, max(start, end)


def _seconds(value: Any, duration_s: float | None) -> float | None:
    """Seconds from `12.3`, `mm:ss` or `hh:mm:ss.fff`, clamped to the audio; None if unusable."""
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


def _encodable(text: str) -> str:
    """The same text without halves of surrogate pairs, so that it can be written as UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
