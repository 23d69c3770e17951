"""What was done to a transcript, to be undone and done again. Pure.

A list of operations that was done together is one entry, and is undone together. An edit after an
undo makes what was undone not to be had again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sidecar.errors import EditImpossible, EditsFull
from sidecar.transcripts.edits import Move, Operation, Rename, Rewrite, Split, edited
from sidecar.transcripts.people import SpeakerVoice
from sidecar.transcripts.transcript import Segment, Transcript

MOST_EDITS = 4000
"""Edits of one transcript, undoing and doing again counted: two for each line of two hours. As
many more may be undone."""
MOST_BYTES = 4 << 20
"""Of memory that all edits of a transcript may take, by what they say."""
OPERATION_BYTES = 200
PLACE_BYTES = 36
"""What an operation and a segment's place in it take beside their text (CPython 3.11)."""


@dataclass(frozen=True, slots=True)
class Undo:
    """Take the last entry back."""


@dataclass(frozen=True, slots=True)
class Redo:
    """Do again what was taken back last."""


Step = Undo | Redo | tuple[Operation, ...]
"""What is one change of a transcript."""


@dataclass(frozen=True, slots=True)
class Before:
    """What an entry replaced: segments with their places, and the rest."""

    segments: tuple[tuple[int, Segment], ...]
    voices: tuple[SpeakerVoice, ...]
    diarized: bool

    @classmethod
    def of(cls, old: Transcript, new: Transcript) -> Before:
        """What of ``old`` is not in ``new``."""
        pairs = enumerate(zip(old.segments, new.segments, strict=True))
        gone = tuple((at, before) for at, (before, after) in pairs if before is not after)
        return cls(gone, old.voices, old.diarized)

    def again(self, transcript: Transcript) -> Transcript:
        """The transcript as it was."""
        segments = [*transcript.segments]
        for at, segment in self.segments:
            segments[at] = segment
        return replace(
            transcript, segments=tuple(segments), voices=self.voices, diarized=self.diarized
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """Operations that were done together, ``at`` a time of day."""

    at: float
    operations: tuple[Operation, ...]
    before: Before


@dataclass(frozen=True, slots=True)
class History:
    """Of the ``entries`` the first ``applied`` count; the rest was undone.

    ``revision``: how often the transcript changed. ``said``: bytes of all operations so far.
    ``changed``: when it last did, a time of day; None if never.
    """

    entries: tuple[Entry, ...] = ()
    applied: int = 0
    revision: int = 0
    said: int = 0
    changed: float | None = None

    def after(
        self, transcript: Transcript, step: Step, at: float, ready: Transcript | None = None
    ) -> tuple[History, Transcript] | None:
        """History and transcript after a step; None where it changes nothing. ``ready``: that
        transcript, where it was worked out before.

        Raises:
            errors.EditImpossible: there is nothing that it could be done to.
            errors.EditsFull: it is one too many.
        """
        history = replace(self, revision=self.revision + 1, changed=at)
        if self.revision >= MOST_EDITS * (1 if isinstance(step, tuple) else 2):
            raise EditsFull(f"The transcript was edited {self.revision} times.")
        match step:
            case Undo():
                if not self.applied:
                    raise EditImpossible("There is nothing to undo.")
                before = self.entries[self.applied - 1].before
                return replace(history, applied=self.applied - 1), before.again(transcript)
            case Redo():
                if self.applied == len(self.entries):
                    raise EditImpossible("There is nothing to do again.")
                again = ready or edited(transcript, self.entries[self.applied].operations)
                return replace(history, applied=self.applied + 1), again
            case operations:
                new = ready or edited(transcript, operations)
                if new == transcript:
                    return None
                said = self.said + size_of(operations)
                if said > MOST_BYTES:
                    raise EditsFull(f"The edits have {MOST_BYTES >> 20} MB.")
                entry = Entry(at, operations, Before.of(transcript, new))
                entries = (*self.entries[: self.applied], entry)
                return replace(history, entries=entries, applied=len(entries), said=said), new


def size_of(operations: Sequence[Operation]) -> int:
    """Bytes of memory that they take."""
    return sum(OPERATION_BYTES + _said(operation) for operation in operations)


def _said(operation: Operation) -> int:
    match operation:
        case Rewrite(text=text):
            return sys.getsizeof(text)
        case Rename(name=name):
            return sys.getsizeof(name)
        case Split(segments, name):
            return sys.getsizeof(name) + PLACE_BYTES * len(segments)
        case Move(segments=segments):
            return PLACE_BYTES * len(segments)
    return 0
