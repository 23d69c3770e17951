"""What this wire says: events as JSON in text frames, and how a connection ends. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from sidecar import errors
from sidecar.errors import Kind
from sidecar.interfaces.live_events import (
    ContextKnown,
    Final,
    Heard,
    LiveEvent,
    Noticed,
    Partial,
    SpeakersRevised,
    SpeechStarted,
    SpeechStopped,
    Summary,
    TurnDropped,
    TurnEnded,
    VoicesKnown,
)
from sidecar.live.sessions.told import Numbered
from sidecar.transcripts.transcript_formats import segment_body, speaker_label, transcript_body

CODES: Mapping[Kind | str, int] = {
    Kind.UNAUTHORIZED: 4401,
    Kind.FORBIDDEN: 4403,
    Kind.NOT_FOUND: 4404,
    Kind.TIMEOUT: 4408,
    Kind.CONFLICT: 4409,
    Kind.LIMITED: 4429,
    errors.SessionHandedOver.code: 1012,
}
"""Close codes of this wire, as HTTP's with 4000 added; all others are those of every wire."""
TYPES: Mapping[type[LiveEvent], str] = {
    SpeechStarted: "speech_started",
    SpeechStopped: "speech_stopped",
    Partial: "partial",
    Final: "final",
    TurnEnded: "turn_ended",
    TurnDropped: "turn_dropped",
    SpeakersRevised: "speakers_revised",
    Noticed: "notice",
    Summary: "summary",
}
"""`Heard` is no message of its own: `received` has it."""


def event_message(numbered: Numbered) -> str:
    """One event, but for `Heard`."""
    event = numbered.event
    kind = TYPES[type(event)]
    return _text({"type": kind, "number": numbered.number, **_body(event)})


def received(samples: int, seconds: float, orders: int, heard_s: float) -> dict[str, Any]:
    """How much the service has, of what a client need not send again; and heard."""
    return {
        "received_samples": samples,
        "received_s": round(seconds, 3),
        "received_orders": orders,
        "heard_s": round(heard_s, 3),
    }


def message(kind: str, **body: Any) -> str:
    """A message that is no event."""
    return _text({"type": kind, **body})


def error_message(error: errors.SidecarError) -> str:
    """What was wrong, and what to do; the last message of a connection."""
    body: dict[str, Any] = {"code": error.code, "message": error.detail, "hint": error.hint}
    if error.retry_after is not None:
        body["retry_after"] = error.retry_after
    return message("error", **body)


def _body(event: LiveEvent) -> dict[str, Any]:
    match event:
        case Final():
            return {
                "turn": event.turn,
                "piece": event.piece,
                "segment": segment_body(event.segment, event.name),
                "diarized": event.segment.speaker is not None,
                "language": event.language,
                "wait_s": round(event.wait_s, 3),
                "work_s": round(event.work_s, 3),
            }
        case SpeakersRevised(speakers, names):
            body = {"speakers": {str(piece): speaker_label(who) for piece, who in speakers.items()}}
            called = {speaker_label(who): name for who, name in names.items()}
            return {**body, "names": called} if called else body
        case Noticed(notice, turn):
            body = dataclasses.asdict(notice)
            return body if turn is None else {**body, "turn": turn}
        case Summary(transcript, job):
            body = {"transcript": transcript_body(transcript)}
            return body if job is None else {**body, "job": job}
        case Heard() | VoicesKnown() | ContextKnown():
            raise AssertionError("told in `received`, or to no client")
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(event).items()
    }


def _text(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
