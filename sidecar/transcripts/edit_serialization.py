"""Serialization of edits for clients and the journal. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar.errors import FieldInvalid, FieldMissing
from sidecar.transcripts.speaker_embeddings import LONGEST_NAME
from sidecar.transcripts.transcript_edits import (
    Merge,
    Move,
    Operation,
    Redo,
    Rename,
    Rewrite,
    Split,
    SplitSpeaker,
    Step,
    Undo,
    Wish,
)
from sidecar.transcripts.transcript_formats import speaker_label
from sidecar.transcripts.word_timing import one_line

MOST_OPERATIONS = 500
"""That are done together."""
LONGEST_TEXT = 10_000
"""Characters of a line: ten minutes of speech."""
MOST_SEGMENTS = 1_000_000
"""No transcript has so many."""
MOST_PARTS = 10
"""That a speaker is split into at once."""
_LABEL = re.compile(r"Speaker_(0|[1-9]\d{0,2})", re.ASCII)


def step_values(step: Step) -> list[dict[str, Any]]:
    """A step as a list of operations."""
    match step:
        case Undo():
            return [{"op": "undo"}]
        case Redo():
            return [{"op": "redo"}]
        case operations:
            return [_values(one) for one in operations]


def step_of(given: object) -> Step:
    """The step that a list of operations means, as `step_values` wrote it.

    Raises:
        errors.FieldMissing, errors.FieldInvalid: it means nothing; which of them, and why.
    """
    wished = wished_of(given)
    if not isinstance(wished, tuple):
        return wished
    done = tuple(one for one in wished if not isinstance(one, SplitSpeaker))
    if len(done) < len(wished):
        raise FieldInvalid("'split_speaker' is only a wish.")
    return done


def wished_of(given: object) -> Undo | Redo | tuple[Wish, ...]:
    """What somebody who sends a list of operations asks for.

    Raises:
        errors.FieldMissing, errors.FieldInvalid: it means nothing; which of them, and why.
    """
    if not isinstance(given, list) or not 0 < len(given) <= MOST_OPERATIONS:
        raise FieldInvalid(f"'operations' is not a list of 1 to {MOST_OPERATIONS} operations.")
    names = [one.get("op") if isinstance(one, Mapping) else None for one in given]
    for name, step in (("undo", Undo()), ("redo", Redo())):
        if name in names:
            if len(names) > 1 or len(given[0]) > 1:
                raise FieldInvalid(f"'{name}' stands alone.", hint="Send it as the only one.")
            return step
    return tuple(_Given(number, values).operation for number, values in enumerate(given))


def _values(operation: Operation) -> dict[str, Any]:
    match operation:
        case Rename(speaker, name):
            return {"op": "rename", "speaker": speaker_label(speaker), "name": name}
        case Merge(speaker, into):
            labels = speaker_label(speaker), speaker_label(into)
            return {"op": "merge", "speaker": labels[0], "into": labels[1]}
        case Split(segments, name):
            named = {} if name is None else {"name": name}
            return {"op": "split", "segments": [*segments], **named}
        case Move(segments, speaker):
            return {"op": "move", "segments": [*segments], "speaker": speaker_label(speaker)}
        case Rewrite(segment, text):
            return {"op": "text", "segment": segment, "text": text}


class _Given:
    """One operation as it was sent."""

    def __init__(self, number: int, values: object) -> None:
        self._number = number
        self._values = values

    @property
    def operation(self) -> Wish:
        """What it means."""
        values = self._values
        if not isinstance(values, Mapping):
            raise self._wrong("is not an object")
        name = values.get("op")
        form = _FORMS.get(name) if isinstance(name, str) else None
        if form is None:
            raise FieldInvalid(
                f"Operation {self._number}: 'op' is none that is known.",
                hint=f"Use one of: {', '.join(_FORMS)}, undo, redo.",
            )
        fields, make = form
        if unknown := [str(one) for one in values if one not in ("op", *fields)]:
            raise self._wrong(
                f"has a field that '{name}' does not take: {one_line(unknown[0])[:40]}"
            )
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
        if not 0 < len(name) <= LONGEST_NAME:
            raise self._wrong(f"'name' has not 1 to {LONGEST_NAME} characters")
        return name

    def name_if_any(self) -> str | None:
        """The same, None where it was left out."""
        assert isinstance(self._values, Mapping)
        return self.name() if "name" in self._values else None

    def parts_if_any(self) -> int | None:
        """Into how many people; None where that was left out."""
        assert isinstance(self._values, Mapping)
        value = self._values.get("into")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= MOST_PARTS:
            raise self._wrong(f"'into' is no number of people from 2 to {MOST_PARTS}")
        return value

    def text(self) -> str:
        """What was said, on one line."""
        value = self._value("text")
        text = one_line(value) if isinstance(value, str) else ""
        if not 0 < len(text) <= LONGEST_TEXT:
            raise self._wrong(f"'text' has not 1 to {LONGEST_TEXT} characters")
        return text

    def _value(self, field: str) -> object:
        assert isinstance(self._values, Mapping)
        if field not in self._values:
            raise FieldMissing(f"Operation {self._number}: '{field}' is missing.")
        return self._values[field]

    def _place(self, value: object, field: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST_SEGMENTS:
            raise self._wrong(f"'{field}' is no place of a segment, which is a number from 0")
        return value

    def _wrong(self, said: str) -> FieldInvalid:
        return FieldInvalid(f"Operation {self._number}: {said}.")


_FORMS: Mapping[str, tuple[tuple[str, ...], Callable[[_Given], Wish]]] = {
    "rename": (("speaker", "name"), lambda one: Rename(one.speaker("speaker"), one.name())),
    "merge": (("speaker", "into"), lambda one: Merge(one.speaker("speaker"), one.speaker("into"))),
    "split": (("segments", "name"), lambda one: Split(one.segments(), one.name_if_any())),
    "split_speaker": (
        ("speaker", "into"),
        lambda one: SplitSpeaker(one.speaker("speaker"), one.parts_if_any()),
    ),
    "move": (("segments", "speaker"), lambda one: Move(one.segments(), one.speaker("speaker"))),
    "text": (("segment", "text"), lambda one: Rewrite(one.segment(), one.text())),
}
"""Every operation by its name: its fields, and what they mean."""
