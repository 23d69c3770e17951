"""Messages of a live session that runs on another service. Pure.

It carries the calls that `live.sessions.engine_relay` makes in a worker process, as messages of
`/v1/live` (docs/live-wire.md, "Leases for other services").
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sidecar import errors
from sidecar.interfaces import live_events, live_options
from sidecar.serialization import WireValues
from sidecar.transcripts.speaker_embeddings import is_valid_embedding
from sidecar.transcripts.transcript import Segment, Word

MAX_MESSAGE_BYTES = 16 << 20
"""Maximum bytes of a message; the summary of a day takes a few MiB."""

PROTOCOL_VERSION = 1
"""Raise it whenever the meaning of a message changes: a service with another version gets no
work."""
HEARTBEAT_INTERVAL_S = 1.0
"""Maximum interval between two messages of a lease holder."""
TIME_TOLERANCE_S = 1 / 8000
"""Maximum difference between two times that may be those of one sample."""
_MAX_LATE_S = 1.0
"""Tolerance of times after the end of the audio: engines process whole frames."""


@dataclass(frozen=True, slots=True)
class RemoteSessionRequest(WireValues):
    """Request for a session with these options, continued from a position."""

    form: int
    options: live_options.LiveOptions
    begin: live_events.LiveSessionStart


@cache
def _request_adapter() -> TypeAdapter[RemoteSessionRequest]:
    return TypeAdapter(RemoteSessionRequest)


@cache
def _event_adapters() -> Mapping[str, TypeAdapter[live_events.LiveEvent]]:
    return {name: TypeAdapter(kind) for name, kind in live_events.EVENT_TYPES.items()}


def _check_request(lease: RemoteSessionRequest) -> None:
    begin = lease.begin
    if lease.form != PROTOCOL_VERSION:
        raise ValueError(f"its form is {lease.form}, and here it is {PROTOCOL_VERSION}")
    if len(begin.said) != len(begin.pieces) or not 0 <= begin.open <= len(begin.said):
        raise ValueError("what was said before is not as much as its pieces")
    lead = begin.at if begin.lead is None else begin.lead
    ordered = 0 <= lead <= begin.at + TIME_TOLERANCE_S < math.inf
    if not (ordered and begin.turn >= 0 and begin.piece >= 0):
        raise ValueError("it begins nowhere")
    timed: list[Segment | Word | live_events.ContextUtterance] = [*begin.said, *begin.context]
    timed += [word for segment in begin.said for word in segment.words]
    place = live_options.field_limits(live_events.LiveSessionStart)["at"]
    if not all(one.start in place and one.end in place for one in timed):
        raise ValueError("what was said before has times that cannot be")
    known = [one for person in lease.options.known_voices for one in person.prints]
    if not all(map(is_valid_embedding, (*begin.voices.values(), *known))):
        raise ValueError("a voice sounds like nothing")


def parse_session_request(values: Mapping[str, Any]) -> RemoteSessionRequest:
    """Return the request of a front.

    Raises:
        errors.FieldInvalid: it is malformed, or from another version of this service.
    """
    try:
        lease = _request_adapter().validate_python(values)
        _check_request(lease)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, ("lease", *first["loc"])))
        raise errors.FieldInvalid(f"'{where}': {first['msg']}.") from None
    except ValueError as error:
        raise errors.FieldInvalid(f"'lease': {error}.") from None
    return lease


def command_text(told: Mapping[str, Any]) -> str:
    """Return a command of `live.sessions.engine_relay`, or an announcement of audio, as a
    message."""
    match told:
        case {"sound": encoding, "rate": rate}:
            return _text({"type": "sound", "encoding": encoding, "rate": rate})
        case {"change": options}:
            return _text({"type": "change", "options": options})
        case {"forget": _}:
            return _text({"type": "cancel"})
        case {"commit": _}:
            return _text({"type": "commit"})
        case _:
            return _text({"type": "finish"})


def events_text(events: Sequence[live_events.LiveEvent]) -> str:
    """Return events as one message: they arrive together or not at all."""
    return _text({"type": "events", "events": [live_events.to_wire(one) for one in events]})


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, allow_nan=False, separators=(",", ":"))


def parse_message(text: str | bytes) -> dict[str, Any]:
    """Parse a message of the other service.

    Raises:
        ValueError: it is no JSON object with a ``type``.
    """

    if isinstance(text, bytes):
        raise ValueError("bytes")
    try:
        found = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise ValueError("no message")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


class RemoteEventChecker:
    """Checker of another service's events: they may only refer to audio that was sent and to
    segments that were announced."""

    def __init__(self, begin: live_events.LiveSessionStart) -> None:
        self._begin = begin
        self._pieces = set(begin.pieces)
        self._last = begin.piece - 1
        self._end = begin.at if begin.lead is None else begin.lead

    def sent(self, raw: bytes, encoding: str, rate: int) -> None:
        """Note that audio was sent."""
        self._end += len(raw) / live_options.SampleEncoding(encoding).width / rate

    def events(self, values: Any) -> list[dict[str, Any]]:
        """Return the events of a message, as `interfaces.live_events.from_wire` reads them.

        Raises:
            ValueError: they are malformed or impossible.
        """
        if not isinstance(values, list):
            raise ValueError("no events")
        return [live_events.to_wire(self._checked(one)) for one in values]

    def _checked(self, values: Any) -> live_events.LiveEvent:
        if not isinstance(values, dict) or values.get("live") not in _event_adapters():
            raise ValueError("no event")
        event = _event_adapters()[values["live"]].validate_python(values)
        self._in_sound(event)
        turn = getattr(event, "turn", None)  # a notice may have no turn
        if turn is not None and turn < self._begin.turn:
            raise ValueError("a turn that was told")
        if isinstance(event, live_events.Final):
            self._told(event.piece)
            self._said(event.segment)
        elif isinstance(event, live_events.Summary):
            for segment in event.transcript.segments:
                self._said(segment)
        elif isinstance(event, live_events.SpeakersRevised) and not self._pieces.issuperset(
            event.speakers
        ):
            raise ValueError("speakers of nothing")
        elif isinstance(event, live_events.SpeakerEmbeddingsKnown) and not all(
            map(is_valid_embedding, event.voices.values())
        ):
            raise ValueError("voices that sound like nothing")
        elif isinstance(event, live_events.InputProcessed):
            known = max(self._end, self._begin.at)
            return replace(event, settled=min(event.settled, known))
        return event

    def _said(self, segment: Segment) -> None:
        for one in (segment, *segment.words):
            self._in_sound(one)

    def _in_sound(self, said: object) -> None:
        """Check that an event's times are within the audio that was sent."""
        latest = max(self._end, self._begin.at) + _MAX_LATE_S
        for name in ("at", "start", "end", "settled", "wanted"):
            at = getattr(said, name, None)
            if at is not None and not 0 <= at <= latest:
                raise ValueError("a time without sound")

    def _told(self, piece: int) -> None:
        if piece <= self._last:
            raise ValueError("a piece that was told")
        self._last = piece
        self._pieces.add(piece)
