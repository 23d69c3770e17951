"""Serialization of edits for clients and the journal. Pure.

`OPERATIONS` defines each operation once: for parsing, serialization and documentation (OpenAPI).
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.errors import FieldInvalid, FieldMissing
from sidecar.serialization import to_plain
from sidecar.transcripts import transcript_edits
from sidecar.transcripts.transcript import MAX_NAME_CHARACTERS
from sidecar.transcripts.transcript_formats import speaker_label
from sidecar.transcripts.word_timing import one_line

MAX_TEXT_CHARACTERS = 10_000
"""Characters of a segment's text: ten minutes of speech."""
MAX_SEGMENTS = 1_000_000
"""Limit of segment indexes; no transcript has so many segments."""
MAX_SPLIT_SPEAKERS = 10
"""Maximum speakers that one speaker is split into at once."""
_STEPS: Mapping[str, transcript_edits.UndoStep | transcript_edits.RedoStep] = {
    "undo": transcript_edits.UndoStep(),
    "redo": transcript_edits.RedoStep(),
}
_LABEL = re.compile(r"Speaker_(0|[1-9]\d{0,2})", re.ASCII)

_PLACE_SCHEMA = {"type": "integer", "minimum": 0, "description": "From 0."}
_NAME_SCHEMA = {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_NAME_CHARACTERS}
_PEOPLE_SCHEMA = {
    "type": ["integer", "null"],
    "minimum": 2,
    "maximum": MAX_SPLIT_SPEAKERS,
    "description": "Number of speakers. Default: by their embeddings.",
}
_TEXT_SCHEMA = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARACTERS}


def edit_step_to_json(step: transcript_edits.EditStep) -> list[dict[str, Any]]:
    """Return a step as a list of operations, for clients; `stored_edit_step` for the journal."""
    match step:
        case transcript_edits.UndoStep():
            return [{"op": "undo"}]
        case transcript_edits.RedoStep():
            return [{"op": "redo"}]
        case operations:
            return [_operation_to_json(one) for one in operations]


def stored_edit_step(step: transcript_edits.EditStep) -> list[dict[str, Any]]:
    """Return a step as a list of operations, with the results of diarizations."""
    stored = edit_step_to_json(step)
    for one, operation in zip(stored, step if isinstance(step, tuple) else (), strict=False):
        if isinstance(operation, transcript_edits.DiarizeAgain):
            one["result"] = b64encode(operation.result).decode()
    return stored


def edit_step_from_json(given: object) -> transcript_edits.EditStep:
    """Parse a list of operations as `stored_edit_step` wrote it.

    Raises:
        errors.FieldMissing, errors.FieldInvalid: it is invalid; names the operation and the reason.
        ValueError, TypeError: a diarization is invalid.
    """
    match given:
        case [{"op": "diarize", "result": str(result), **values}]:
            counts: dict[str, Any] = {str(name): value for name, value in values.items()}
            return (transcript_edits.DiarizeAgain(b64decode(result, validate=True), **counts),)
    wished = edit_request_from_json(given)
    if not isinstance(wished, tuple):
        return wished
    done = tuple(one for one in wished if not isinstance(one, transcript_edits.SplitSpeakerRequest))
    if len(done) < len(wished):
        raise FieldInvalid("'split_speaker' by voice cannot be stored as an edit.")
    return done


def edit_request_from_json(given: object) -> transcript_edits.EditStepRequest:
    """Parse the operations of a client's request.

    Raises:
        errors.FieldMissing, errors.FieldInvalid: it is invalid; names the operation and the reason.
    """
    if not isinstance(given, list) or not 0 < len(given) <= transcript_edits.MAX_OPERATIONS:
        raise FieldInvalid(
            f"'operations' is not a list of 1 to {transcript_edits.MAX_OPERATIONS} operations."
        )
    names = [one.get("op") if isinstance(one, Mapping) else None for one in given]
    for name, step in _STEPS.items():
        if name in names:
            if len(names) > 1 or len(given[0]) > 1:
                raise FieldInvalid(
                    f"'{name}' cannot be combined with other operations.",
                    hint="Send it as the only operation.",
                )
            return step
    return tuple(_parse_operation(number, values) for number, values in enumerate(given))


def operation_schemas() -> list[dict[str, Any]]:
    """Return the JSON schema of each operation, undo and redo last."""
    return [
        {
            "type": "object",
            "required": ["op", *(field for field, one in fields.items() if not one.optional)],
            "properties": {
                "op": {"const": name},
                **{field: one.schema for field, one in fields.items()},
            },
            "additionalProperties": False,
        }
        for name, (_, fields) in [*OPERATIONS.items(), *((step, (None, {})) for step in _STEPS)]
    ]


def _operation_to_json(operation: transcript_edits.EditOperation) -> dict[str, Any]:
    if isinstance(operation, transcript_edits.DiarizeAgain):
        counts = to_plain(operation)
        del counts["result"]
        return {"op": "diarize"} | {name: value for name, value in counts.items() if value}
    name, fields = next(
        (name, fields) for name, (kind, fields) in OPERATIONS.items() if type(operation) is kind
    )
    values = ((field, one, getattr(operation, field)) for field, one in fields.items())
    return {"op": name} | {
        field: one.render(value)
        for field, one, value in values
        if not (one.optional and value is None)
    }


def _parse_operation(number: int, values: object) -> transcript_edits.EditRequest:
    if not isinstance(values, Mapping):
        raise FieldInvalid(f"Operation {number} is not an object.")
    name = values.get("op")
    known = OPERATIONS.get(name) if isinstance(name, str) else None
    if known is None:
        raise FieldInvalid(
            f"Operation {number}: 'op' is not a known operation.",
            hint=f"Use one of: {', '.join(OPERATIONS)}, undo, redo.",
        )
    kind, fields = known
    if unknown := [str(one) for one in values if one not in ("op", *fields)]:
        shown = one_line(unknown[0])[:40]
        raise FieldInvalid(f"Operation {number}: '{name}' does not accept the field {shown}.")
    parsed = {}
    for field, one in fields.items():
        if field in values:
            try:
                parsed[field] = one.parse(values[field])
            except ValueError as wrong:
                raise FieldInvalid(f"Operation {number}: '{field}' {wrong}.") from None
        elif not one.optional:
            raise FieldMissing(f"Operation {number}: '{field}' is missing.")
    return kind(**parsed)


def _parse_speaker(value: object) -> int:
    label = _LABEL.fullmatch(value) if isinstance(value, str) else None
    if label is None:
        raise ValueError("is not a speaker label such as 'Speaker_0'")
    return int(label[1])


def _parse_place(value: object) -> int:
    return _integer(
        value, 0, MAX_SEGMENTS - 1, "is no place of a segment, which is a number from 0"
    )


def _parse_places(value: object) -> tuple[int, ...]:
    """Parse a list of segment indexes; return them sorted, each once."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError("is not a list of segments")
    return tuple(sorted({_parse_place(one) for one in value}))


def _parse_name(value: object) -> str | None:
    return None if value is None else _single_line(value, MAX_NAME_CHARACTERS)


def _parse_text(value: object) -> str:
    return _single_line(value, MAX_TEXT_CHARACTERS)


def _parse_people(value: object) -> int | None:
    wrong = f"is no number of people from 2 to {MAX_SPLIT_SPEAKERS}"
    return None if value is None else _integer(value, 2, MAX_SPLIT_SPEAKERS, wrong)


def _integer(value: object, least: int, most: int, wrong: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(wrong)
    return value


def _single_line(value: object, most: int) -> str:
    text = one_line(value) if isinstance(value, str) else ""
    if not 0 < len(text) <= most:
        raise ValueError(f"does not have 1 to {most} characters")
    return text


@dataclass(frozen=True, slots=True)
class OperationField:
    """Field of an operation: its JSON schema, its parser and its serializer.

    ``parse`` raises ValueError; its text follows the field's name in the error.
    """

    schema: dict[str, Any]
    parse: Callable[[object], Any]
    render: Callable[[Any], object] = lambda value: value
    optional: bool = False


_SPEAKER = OperationField(
    {"type": "string", "pattern": "^Speaker_(0|[1-9][0-9]{0,2})$", "examples": ["Speaker_0"]},
    _parse_speaker,
    speaker_label,
)
_PLACES = OperationField(
    {"type": "array", "items": _PLACE_SCHEMA, "minItems": 1}, _parse_places, list
)
OPERATIONS: Mapping[
    str, tuple[Callable[..., transcript_edits.EditRequest], Mapping[str, OperationField]]
] = {
    "rename": (
        transcript_edits.RenameSpeaker,
        {"speaker": _SPEAKER, "name": OperationField(_NAME_SCHEMA, _parse_name)},
    ),
    "merge": (transcript_edits.MergeSpeakers, {"speaker": _SPEAKER, "into": _SPEAKER}),
    "split": (
        transcript_edits.SplitSegments,
        {"segments": _PLACES, "name": OperationField(_NAME_SCHEMA, _parse_name, optional=True)},
    ),
    "split_speaker": (
        transcript_edits.SplitSpeakerRequest,
        {"speaker": _SPEAKER, "into": OperationField(_PEOPLE_SCHEMA, _parse_people, optional=True)},
    ),
    "move": (transcript_edits.MoveSegments, {"segments": _PLACES, "speaker": _SPEAKER}),
    "text": (
        transcript_edits.RewriteSegment,
        {
            "segment": OperationField(_PLACE_SCHEMA, _parse_place),
            "text": OperationField(_TEXT_SCHEMA, _parse_text),
        },
    ),
}
"""Operations by name: the type that each is parsed to, and its fields."""
