"""The events of a transcription as OpenAI's clients read them, without their numbers. Pure.

Times are milliseconds where a name ends in ``_ms``, and else seconds, on the session's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from sidecar import errors
from sidecar.protocols.dialect import error_body
from sidecar.protocols.labels import letters
from sidecar.transcripts.transcript import Segment

Said: TypeAlias = dict[str, Any]
_TRANSCRIPTION = "conversation.item.input_audio_transcription"


def session_event(name: str, view: Said) -> Said:
    """How a session is heard now; ``name``: ``session.created`` and the like."""
    return {"type": name, "session": view}


def speech_started(item: str, at: float) -> Said:
    """Somebody begins to speak."""
    return {
        "type": "input_audio_buffer.speech_started",
        "audio_start_ms": round(at * 1000),
        "item_id": item,
    }


def speech_stopped(item: str, at: float) -> Said:
    """Nobody speaks any more."""
    return {
        "type": "input_audio_buffer.speech_stopped",
        "audio_end_ms": round(at * 1000),
        "item_id": item,
    }


def committed(item: str, before: str | None) -> Said:
    """A turn has its end."""
    return {
        "type": "input_audio_buffer.committed",
        "previous_item_id": before,
        "item_id": item,
    }


def cleared() -> Said:
    """What came since the last turn is forgotten."""
    return {"type": "input_audio_buffer.cleared"}


def item_event(name: str, item: str, before: str | None) -> Said:
    """A turn as part of a conversation; ``name``: ``conversation.item.added`` and the like."""
    return {
        "type": name,
        "previous_item_id": before,
        "item": {
            "id": item,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        },
    }


def delta(item: str, text: str) -> Said:
    """More words of a turn; none of them is taken back."""
    return {
        "type": f"{_TRANSCRIPTION}.delta",
        "item_id": item,
        "content_index": 0,
        "delta": text,
    }


def completed(item: str, text: str, seconds: float, languages: Sequence[str]) -> Said:
    """All of a turn."""
    return {
        "type": f"{_TRANSCRIPTION}.completed",
        "item_id": item,
        "content_index": 0,
        "transcript": text,
        "languages": [{"code": code} for code in languages],
        "usage": {"type": "duration", "seconds": round(seconds, 3)},
    }


def segment_event(
    item: str, number: str, segment: Segment, speaker: int, name: str | None = None
) -> Said:
    """A stretch of one speaker's; who of the people known that is stands for the letter."""
    return {
        "type": f"{_TRANSCRIPTION}.segment",
        "item_id": item,
        "content_index": 0,
        "id": number,
        "text": segment.text,
        "speaker": name or letters(speaker),
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
    }


def failed(item: str, error: errors.SidecarError) -> Said:
    """Nobody knows what was said in a turn."""
    return {
        "type": f"{_TRANSCRIPTION}.failed",
        "item_id": item,
        "content_index": 0,
        "error": _body(error),
    }


def error_event(error: errors.SidecarError, event_id: str | None = None) -> Said:
    """What went wrong, with which event of the client's."""
    return {"type": "error", "error": {**_body(error), "event_id": event_id}}


def _body(error: errors.SidecarError) -> dict[str, Any]:
    """As in an answer; what its header Retry-After would say is in the message, for OpenAI's
    events have no field for it."""
    body: dict[str, Any] = error_body(error)["error"]
    if error.retry_after is not None:
        body["message"] += f" Retry after {error.retry_after} s."
    return body
