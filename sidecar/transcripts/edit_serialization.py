"""Serialization of edits for clients and the journal. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from sidecar.errors import FieldInvalid, FieldMissing
from sidecar.transcripts.speaker_embeddings import MAX_NAME_CHARACTERS
from sidecar.transcripts.transcript_edits import (
    EditOperation,
    EditRequest,
    EditStep,
    MergeSpeakers,
    MoveSegments,
    RedoStep,
    RenameSpeaker,
    RewriteSegment,
    SplitSegments,
    SplitSpeakerRequest,
    UndoStep,
)
from sidecar.transcripts.transcript_formats import speaker_label
from sidecar.transcripts.word_timing import one_line

MAX_OPERATIONS = 500
"""That are done together."""
MAX_TEXT_CHARACTERS = 10_000
"""Characters of a line: ten minutes of speech."""
MAX_SEGMENTS = 1_000_000
"""No transcript has so many."""
MAX_SPLIT_SPEAKERS = 10
"""That a speaker is split into at once."""
_LABEL = re.compile(r"Speaker_(0|[1-9]\d{0,2})", re.ASCII)


def edit_step_to_json(step: EditStep) -> list[dict[str, Any]]:
    """A step as a list of operations."""
    match step:
        case UndoStep():
            return [{"op": "undo"}]
        case RedoStep():
            return [{"op": "redo"}]
        case operations:
            return [_operation_to_json(one) for one in operations]


def edit_step_from_json(given: object) -> EditStep:
    """The step that a list of operations means, as `edit_step_to_json` wrote it.

    Raises:
        errors.FieldMissing, errors.FieldInvalid: it means nothing; which of them, and why.
    """
    wished = edit_request_from_json(given)
    if not isinstance(wished, tuple):
        return wished
    done = tuple(one for one in wished if not isinstance(one, SplitSpeakerRequest))
    if len(done) < len(wished):
        raise FieldInvalid("'split_speaker' is only a wish.")
    return done


def edit_request_from_json(given: object) -> UndoStep | RedoStep | tuple[EditRequest, ...]:
    """What somebody who sends a list of operations asks for.

    Raises:
        errors.FieldMissing, errors.FieldInvalid: it means nothing; which of them, and why.
    """
    if not isinstance(given, list) or not 0 < len(given) <= MAX_OPERATIONS:
        raise FieldInvalid(f"'operations' is not a list of 1 to {MAX_OPERATIONS} operations.")
    names = [one.get("op") if isinstance(one, Mapping) else None for one in given]
    for name, step in (("undo", UndoStep()), ("redo", RedoStep())):
        if name in names:
            if len(names) > 1 or len(given[0]) > 1:
                raise FieldInvalid(f"'{name}' stands alone.", hint="Send it as the only one.")
            return step
    return tuple(_OperationFields(number, values).operation for number, values in enumerate(given))


def _operation_to_json(operation: EditOperation) -> dict[str, Any]:
    match operation:
        case RenameSpeaker(speaker, name):
            return {"op": "rename", "speaker": speaker_label(speaker), "name": name}
        case MergeSpeakers(speaker, into):
            labels = speaker_label(speaker), speaker_label(into)
            return {"op": "merge", "speaker": labels[0], "into": labels[1]}
        case SplitSegments(segments, name):
            named = {} if name is None else {"name": name}
            return {"op": "split", "segments": [*segments], **named}
        case MoveSegments(segments, speaker):
            return {"op": "move", "segments": [*segments], "speaker": speaker_label(speaker)}
        case RewriteSegment(segment, text):
            return {"op": "text", "segment": segment, "text": text}


class _OperationFields:
    """One operation as it was sent."""

    def __init__(self, number: int, values: object) -> None:
        self._number = number
        if not isinstance(values, Mapping):
            raise self._wrong("is not an object")
        self._values = values

    @property
    def operation(self) -> EditRequest:
        """What it means."""
        name = self._values.get("op")
        form = _OPERATION_FIELDS.get(name) if isinstance(name, str) else None
        if form is None:
            raise FieldInvalid(
                f"Operation {self._number}: 'op' is none that is known.",
                hint=f"Use one of: {', '.join(_OPERATION_FIELDS)}, undo, redo.",
            )
        fields, make = form
        if unknown := [str(one) for one in self._values if one not in ("op", *fields)]:
            field = one_line(unknown[0])[:40]
            raise self._wrong(f"has a field that '{name}' does not take: {field}")
        return make(self)

    def speaker(self, field: str) -> int:
        """A speaker's number, by its label."""
        value = self._value(field)
        label = _LABEL.fullmatch(value) if isinstance(value, str) else None
        if label is None:
            raise self._wrong(f"'{field}' is no speaker, as 'Speaker_0' is")
        return int(label[1])

    def segment(self) -> int:
        """A segment's place."""
        return self._place(self._value("segment"), "segment")

    def segments(self) -> tuple[int, ...]:
        """Places of segments, in order and each once."""
        value = self._value("segments")
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise self._wrong("'segments' is not a list of segments")
        return tuple(sorted({self._place(one, "segments") for one in value}))

    def name(self) -> str | None:
        """What somebody is called, None for nothing."""
        value = self._value("name")
        if value is None:
            return None
        name = one_line(value) if isinstance(value, str) else ""
        if not 0 < len(name) <= MAX_NAME_CHARACTERS:
            raise self._wrong(f"'name' has not 1 to {MAX_NAME_CHARACTERS} characters")
        return name

    def optional_name(self) -> str | None:
        """The same, None where it was left out."""
        return self.name() if "name" in self._values else None

    def optional_parts(self) -> int | None:
        """Into how many people; None where that was left out."""
        value = self._values.get("into")
        if value is None or _is_integer(value, 2, MAX_SPLIT_SPEAKERS):
            return value
        raise self._wrong(f"'into' is no number of people from 2 to {MAX_SPLIT_SPEAKERS}")

    def text(self) -> str:
        """What was said, on one line."""
        value = self._value("text")
        text = one_line(value) if isinstance(value, str) else ""
        if not 0 < len(text) <= MAX_TEXT_CHARACTERS:
            raise self._wrong(f"'text' has not 1 to {MAX_TEXT_CHARACTERS} characters")
        return text

    def _value(self, field: str) -> object:
        if field not in self._values:
            raise FieldMissing(f"Operation {self._number}: '{field}' is missing.")
        return self._values[field]

    def _place(self, value: object, field: str) -> int:
        if _is_integer(value, 0, MAX_SEGMENTS - 1):
            return value
        raise self._wrong(f"'{field}' is no place of a segment, which is a number from 0")

    def _wrong(self, said: str) -> FieldInvalid:
        return FieldInvalid(f"Operation {self._number}: {said}.")


def _is_integer(value: object, least: int, most: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


_OPERATION_FIELDS: Mapping[
    str, tuple[tuple[str, ...], Callable[[_OperationFields], EditRequest]]
] = {
    "rename": (("speaker", "name"), lambda one: RenameSpeaker(one.speaker("speaker"), one.name())),
    "merge": (
        ("speaker", "into"),
        lambda one: MergeSpeakers(one.speaker("speaker"), one.speaker("into")),
    ),
    "split": (("segments", "name"), lambda one: SplitSegments(one.segments(), one.optional_name())),
    "split_speaker": (
        ("speaker", "into"),
        lambda one: SplitSpeakerRequest(one.speaker("speaker"), one.optional_parts()),
    ),
    "move": (
        ("segments", "speaker"),
        lambda one: MoveSegments(one.segments(), one.speaker("speaker")),
    ),
    "text": (("segment", "text"), lambda one: RewriteSegment(one.segment(), one.text())),
}
"""Every operation by its name: its fields, and what they mean."""
