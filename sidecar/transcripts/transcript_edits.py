"""Edits of a transcript, with undo and redo. Pure.

Segments go by their place in the transcript and speakers by their number; neither ever moves up, so
what one operation names the next can name, too. Operations are done in order, all or none.

A list of operations that was done together is one entry, and is undone together. An edit after an
undo makes what was undone not to be had again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sidecar.errors import EditImpossible, EditsFull
from sidecar.transcripts.speaker_embeddings import SpeakerVoice
from sidecar.transcripts.transcript import Segment, Transcript
from sidecar.transcripts.word_timing import reworded

MOST_SPEAKERS = 1000
"""Of one transcript, however it is split."""


@dataclass(frozen=True, slots=True)
class Rename:
    """What a speaker is called; None: nothing but its label. Nobody becomes known by that."""

    speaker: int
    name: str | None


@dataclass(frozen=True, slots=True)
class Merge:
    """All that ``speaker`` said was said by ``into``, whose name stands."""

    speaker: int
    into: int


@dataclass(frozen=True, slots=True)
class Split:
    """Some segments are a new speaker's, whose number is the next that is free."""

    segments: tuple[int, ...]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """Some segments are another speaker's."""

    segments: tuple[int, ...]
    speaker: int


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What was said in a segment, in other words."""

    segment: int
    text: str


Operation = Rename | Merge | Split | Move | Rewrite


@dataclass(frozen=True, slots=True)
class SplitSpeaker:
    """A wish: a speaker is ``into`` people, by what the segments sound like; None: as many as there
    seem to be. What is done, and can be undone, are the `Split`s that come of it."""

    speaker: int
    into: int | None = None


Wish = Operation | SplitSpeaker
"""What somebody may ask for."""


def edited(transcript: Transcript, operations: Sequence[Operation]) -> Transcript:
    """The transcript after all of them.

    Raises:
        errors.EditImpossible: one of them is; which, and why.
    """
    for number, operation in enumerate(operations):
        try:
            transcript = _after(transcript, operation)
        except EditImpossible as error:
            raise EditImpossible(f"Operation {number}: {error.detail}") from None
    return transcript


def segments_of(transcript: Transcript, speaker: int) -> list[int]:
    """The places of all that a speaker says.

    Raises:
        errors.EditImpossible: there is no such speaker.
    """
    transcript = _told_apart(transcript)
    _check_speaker(transcript, speaker)
    return [at for at, one in enumerate(transcript.segments) if one.speaker == speaker]


def speakers_in(transcript: Transcript) -> list[int]:
    """Who says something."""
    return sorted({one.speaker for one in transcript.segments if one.speaker is not None})


def _after(transcript: Transcript, operation: Operation) -> Transcript:
    match operation:
        case Rewrite(index, text):
            changed = reworded(_segment(transcript, index), text)
            return _with_segments(transcript, {index: changed})
        case Rename(speaker, name):
            transcript = _told_apart(transcript)
            _check_speaker(transcript, speaker)
            return _renamed(transcript, speaker, name)
        case Merge(speaker, into):
            transcript = _told_apart(transcript)
            _check_speaker(transcript, speaker)
            if speaker == into:
                raise EditImpossible("a speaker cannot be merged into itself.")
            places = [at for at, one in enumerate(transcript.segments) if one.speaker == speaker]
            return _moved(transcript, places, into)
        case Move(places, speaker):
            return _moved(_told_apart(transcript), places, speaker)
        case Split(places, name):
            transcript = _told_apart(transcript)
            taken = [*speakers_in(transcript), *(voice.speaker for voice in transcript.voices)]
            new = max(taken, default=-1) + 1
            if new >= MOST_SPEAKERS:
                raise EditImpossible(f"there are {MOST_SPEAKERS} speakers already.")
            return _renamed(_moved(transcript, places, new, new=True), new, name)


def _told_apart(transcript: Transcript) -> Transcript:
    """One with speakers: where nobody looked for them, all that is said is the first's."""
    nobodys = {
        at: replace(one, speaker=0)
        for at, one in enumerate(transcript.segments)
        if one.speaker is None and one.is_speech
    }
    return replace(_with_segments(transcript, nobodys), diarized=True)


def _renamed(transcript: Transcript, speaker: int, name: str | None) -> Transcript:
    if transcript.name_of(speaker) == name:
        return transcript
    others = [one for one in transcript.voices if one.speaker != speaker]
    known = [one for one in transcript.voices if one.speaker == speaker]
    voice = known[0] if known else SpeakerVoice(speaker, 0.0)
    voice = replace(voice, name=name, person=None, likeness=None)
    if name is not None or voice.seconds or voice.print is not None:
        others.append(voice)
    return replace(transcript, voices=tuple(sorted(others, key=lambda one: one.speaker)))


def _moved(
    transcript: Transcript, places: Sequence[int], speaker: int, *, new: bool = False
) -> Transcript:
    """Segments given to a speaker who is there, unless it is a ``new`` one."""
    if not new:
        _check_speaker(transcript, speaker)
    changed: dict[int, Segment] = {}
    lost: set[int] = set()
    for at in places:
        segment = _segment(transcript, at)
        if segment.speaker is None:
            raise EditImpossible(f"nobody says segment {at}.")
        if segment.speaker != speaker:
            lost.add(segment.speaker)
            changed[at] = replace(segment, speaker=speaker)
    after = _with_segments(transcript, changed)
    # A voice of which a part was another's is nobody's to be known by.
    left = {*speakers_in(after)}
    voices = tuple(
        replace(one, print=None) if one.speaker in lost else one
        for one in after.voices
        if one.speaker not in lost or one.speaker in left
    )
    return replace(after, voices=voices)


def _segment(transcript: Transcript, at: int) -> Segment:
    if not 0 <= at < len(transcript.segments):
        raise EditImpossible(
            f"there is no segment {at}; there are {len(transcript.segments)}, from 0."
        )
    return transcript.segments[at]


def _check_speaker(transcript: Transcript, speaker: int) -> None:
    if all(one.speaker != speaker for one in transcript.segments):
        raise EditImpossible(f"there is no Speaker_{speaker} in it.")


def _with_segments(transcript: Transcript, changed: dict[int, Segment]) -> Transcript:
    if not changed:
        return transcript
    segments = [*transcript.segments]
    for at, segment in changed.items():
        segments[at] = segment
    return replace(transcript, segments=tuple(segments))


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
