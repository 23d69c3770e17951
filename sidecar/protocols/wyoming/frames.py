"""Events as they stand on the wire: a line of JSON, and what follows it. Pure.

    {"type": "...", "data": {...}, "data_length": 12, "payload_length": 2048}\\n
    <more of "data", as JSON> <payload>

Nothing is believed of a length: who reads decides how much of it is taken, and when.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar import errors
from sidecar.api.http import from_clients

LONGEST_LINE = 64 << 10
LARGEST_DATA = 64 << 10
"""Bytes of JSON, in the line and behind it."""
LARGEST_LENGTH = 1 << 53
HINT = "docs/wyoming.md says which events there are, and what is in them."


@dataclass(frozen=True, slots=True)
class Event:
    """One event; its payload, ``payload`` bytes, is still to be read."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    payload: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """What the line of an event says; ``more`` bytes of data come behind it."""

    event: Event
    more: int

    def whole(self, more: bytes) -> Event:
        """The event, with what came behind its line.

        Raises:
            errors.MessageInvalid: that is no object.
        """
        if not more:
            return self.event
        data = {**self.event.data, **_object(more, "'data' behind it")}
        return Event(self.event.type, data, self.event.payload)


def head_of(line: bytes) -> Head:
    """What a line says.

    Raises:
        errors.MessageInvalid: it is none of an event.
        errors.MessageTooBig: it announces more data than an event has.
    """
    said = _object(line, "line")
    kind, data = said.get("type"), said.get("data")
    if not isinstance(kind, str) or not isinstance(data, dict | None):
        raise errors.MessageInvalid("An event has a 'type', and 'data' is an object.", hint=HINT)
    more, payload = (_length(said, f"{name}_length") for name in ("data", "payload"))
    if more > LARGEST_DATA:
        raise errors.MessageTooBig(f"'data_length' is beyond {LARGEST_DATA}.", hint=HINT)
    return Head(Event(kind, data or {}, payload), more)


def frame(kind: str, data: Mapping[str, Any] | None = None) -> bytes:
    """An event as it goes out: all of it in its line."""
    return json.dumps({"type": kind, "data": dict(data or {})}).encode() + b"\n"


def refusal(error: errors.SidecarError) -> bytes:
    """An error, and what to do about it."""
    return frame("error", {"text": f"{error.detail} {error.hint}", "code": error.code})


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        said = from_clients.read(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise errors.MessageInvalid(f"The {what} of an event is no JSON object.", hint=HINT)
    return said


def _length(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST_LENGTH:
        raise errors.MessageInvalid(f"'{name}' is no number of bytes.", hint=HINT)
    return value
