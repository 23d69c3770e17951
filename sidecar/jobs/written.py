"""Records and events as plain values, for a store that outlives the process; and back.

What is written here is read by later versions: a field that is new has a default, one that is
unknown is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from sidecar.audio.audio_decoder import AudioFacts
from sidecar.audio.ref import AudioRef, Held, Kept, Named
from sidecar.errors import BadRequest
from sidecar.interfaces.engine import TranscribeOptions
from sidecar.jobs.events import (
    Begun,
    Cancelled,
    Change,
    Crashed,
    Edited,
    Failed,
    Failure,
    Interrupted,
    PutBack,
    Refused,
    Reported,
)
from sidecar.jobs.record import JobRecord, RequestKey
from sidecar.jobs.scheduler import Priority
from sidecar.transcripts import transcript
from sidecar.transcripts.edit_serialization import step_of, step_values
from sidecar.transcripts.transcript import Progress

_REFS: dict[str, type[AudioRef]] = {kind.__name__: kind for kind in (Held, Kept, Named)}
_PLAIN: dict[str, Callable[..., Change]] = {
    kind.__name__: kind for kind in (Begun, Crashed, PutBack, Interrupted, Cancelled)
}
_AS_SUBMITTED = {"id", "owner", "created", "kept", "durable", "alone", "seq"}
"""Beside audio, options and facts; the rest is what events say."""


class Unreadable(Exception):
    """It is not what was written, or a later version wrote it."""


def record_text(record: JobRecord) -> bytes:
    """A record as it was submitted."""
    plain = {name: getattr(record, name) for name in _AS_SUBMITTED}
    more = {
        "audio": _ref_values(record.audio),
        "options": record.options.to_wire(),
        "facts": record.facts.to_wire(),
        "priority": record.priority.value,
        "key": asdict(record.key) if record.key is not None else None,
    }
    return _text(plain | more)


def record_of(text: bytes) -> JobRecord:
    """The record that `record_text` wrote.

    Raises:
        Unreadable: it is none.
    """
    try:
        values = json.loads(text)
        facts = AudioFacts.from_wire(values["facts"])
        return JobRecord(
            audio=_ref(values["audio"]),
            options=TranscribeOptions.from_wire(values["options"]),
            facts=facts,
            progress=Progress(0.0, facts.total_s),
            priority=Priority(values.get("priority", Priority.INTERACTIVE)),
            key=RequestKey(**values["key"]) if values.get("key") else None,
            **{name: value for name, value in values.items() if name in _AS_SUBMITTED},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"no record: {error}") from None


def change_text(change: Change) -> bytes:
    """What happened to a job."""
    match change:
        case Reported(event, processing_s):
            values = {"report": transcript.to_wire(event), "processing_s": processing_s}
        case Failed(failure):
            values = {"failure": asdict(failure)}
        case Refused(refused):
            values = {"refused": asdict(refused) if refused is not None else None}
        case Edited(step):
            values = {"edit": step_values(step)}
        case _:
            values = {"change": type(change).__name__, **asdict(change)}
    return _text(values)


def change_of(text: bytes) -> Change:
    """The change that `change_text` wrote.

    Raises:
        Unreadable: it is none.
    """
    try:
        match json.loads(text):
            case {"report": report, "processing_s": processing_s}:
                return Reported(transcript.from_wire(report), processing_s)
            case {"failure": failure}:
                return Failed(Failure(**failure))
            case {"refused": refused}:
                return Refused(Failure(**refused) if refused is not None else None)
            case {"edit": operations}:
                return Edited(step_of(operations))
            case {"change": str(name), **values}:
                return _PLAIN[name](**{str(key): value for key, value in values.items()})
    except (ValueError, KeyError, TypeError, BadRequest) as error:
        raise Unreadable(f"no change: {error}") from None
    raise Unreadable("no change")


def _ref_values(ref: AudioRef) -> dict[str, Any]:
    values = {field.name: getattr(ref, field.name) for field in fields(ref)}
    if isinstance(ref, Kept):
        values["path"] = values.pop("name")  # as older versions read it
    return {"ref": type(ref).__name__, **values}


def _ref(values: dict[str, Any]) -> AudioRef:
    kind = _REFS[values.pop("ref")]
    if kind is Kept:  # older versions wrote where it was then
        name = Path(values.pop("path")).name
        known = {field.name for field in fields(Kept)}
        return Kept(name, **{key: one for key, one in values.items() if key in known})
    return kind(**values)


def _text(values: dict[str, Any]) -> bytes:
    """JSON; half a surrogate pair, which a transcript may hold, is written as an escape."""
    return json.dumps(values, separators=(",", ":")).encode()
