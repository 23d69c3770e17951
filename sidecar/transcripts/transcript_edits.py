"""Edits of a transcript, with undo and redo. Pure.

Operations refer to segments by their index and to speakers by their number. Only `DiarizeAgain`
shifts them (and its undo and redo), so later operations can use the same indexes and numbers until
then. Operations are applied in order, all or none.

Operations that were applied together are one entry and are undone together. An edit after an undo
discards the undone entries.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from sidecar.errors import EditImpossible, EditsFull
from sidecar.transcripts.diarized_pieces import DiarizedPieces
from sidecar.transcripts.transcript import (
    LOOP_FLAG,
    NON_SPEECH_FLAG,
    WORDS_BY_RULE,
    Segment,
    SpeakerEmbedding,
    SpeakerProfile,
    Transcript,
    Word,
)
from sidecar.transcripts.word_timing import common_prefix_length, split_atoms, spread_over_time

MAX_SPEAKERS = 1000
"""Maximum speakers of one transcript, however it is split."""

MAX_OPERATIONS = 500
"""Maximum operations of one request."""
MAX_EDITS = 4000
"""Maximum edits of one transcript, and of undo and redo: two per segment of two hours."""
MAX_HISTORY_BYTES = 4 << 20
"""Maximum memory of all edits of a transcript, by their content."""
OPERATION_BYTES = 200
INDEX_BYTES = 36
"""Memory of an operation and of a segment's index beside their text (CPython 3.11)."""
_NOTES = re.compile(r"(?:\[+[^\[\]]+\]+\s*)+")


@dataclass(frozen=True, slots=True)
class RenameSpeaker:
    """Name a speaker; None: back to its label. This does not enrol the speaker."""

    speaker: int
    name: str | None


@dataclass(frozen=True, slots=True)
class MergeSpeakers:
    """Assign all segments of ``speaker`` to ``into``, whose name stays."""

    speaker: int
    into: int


@dataclass(frozen=True, slots=True)
class SplitSegments:
    """Assign some segments to a new speaker with the next free number."""

    segments: tuple[int, ...]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class MoveSegments:
    """Assign some segments to another speaker."""

    segments: tuple[int, ...]
    speaker: int


@dataclass(frozen=True, slots=True)
class RewriteSegment:
    """Replace the text of a segment."""

    segment: int
    text: str


@dataclass(frozen=True, slots=True)
class DiarizeAgain:
    """Replace speakers and segments by those of another diarization. ``result``: of
    `DiarizedPieces`. The numbers of speakers are those of the request; None if it had none."""

    result: bytes = field(repr=False)
    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None


EditOperation = (
    RenameSpeaker | MergeSpeakers | SplitSegments | MoveSegments | RewriteSegment | DiarizeAgain
)


@dataclass(frozen=True, slots=True)
class SplitSpeakerRequest:
    """Request to split a speaker into ``into`` people by the embeddings of the segments; None: as
    many as there seem to be. It is stored, and undone, as the `SplitSegments` that result."""

    speaker: int
    into: int | None = None


EditRequest = EditOperation | SplitSpeakerRequest
"""Edit that a client can request."""


def apply_operations(transcript: Transcript, operations: Sequence[EditOperation]) -> Transcript:
    """Return the transcript after all operations.

    Raises:
        errors.EditImpossible: one of them is not possible; says which, and why.
    """
    for number, operation in enumerate(operations):
        try:
            transcript = _apply_operation(transcript, operation)
        except EditImpossible as error:
            raise EditImpossible(f"Operation {number}: {error.detail}") from None
    return transcript


def segments_of_speaker(transcript: Transcript, speaker: int) -> list[int]:
    """Return the indexes of a speaker's segments.

    Raises:
        errors.EditImpossible: there is no such speaker.
    """
    transcript = _with_speakers(transcript)
    _check_speaker(transcript, speaker)
    return [at for at, one in enumerate(transcript.segments) if one.speaker == speaker]


def speakers_in(transcript: Transcript) -> list[int]:
    """Return the speakers that have segments."""
    return sorted({one.speaker for one in transcript.segments if one.speaker is not None})


def _apply_operation(transcript: Transcript, operation: EditOperation) -> Transcript:
    match operation:
        case RewriteSegment(index, text):
            changed = replace_segment_text(_segment_at(transcript, index), text)
            return _with_segments(transcript, {index: changed})
        case DiarizeAgain(result):
            try:
                return DiarizedPieces.from_bytes(result).applied(transcript)
            except ValueError as error:
                raise EditImpossible(f"{error}.") from None
    transcript = _with_speakers(transcript)
    match operation:
        case RenameSpeaker(speaker, name):
            _check_speaker(transcript, speaker)
            return _rename_speaker(transcript, speaker, name)
        case MergeSpeakers(speaker, into):
            indices = segments_of_speaker(transcript, speaker)
            if speaker == into:
                raise EditImpossible("a speaker cannot be merged into itself.")
            return _move_segments(transcript, indices, into)
        case MoveSegments(indices, speaker):
            return _move_segments(transcript, indices, speaker)
        case SplitSegments(indices, name):
            taken = [*speakers_in(transcript), *(voice.speaker for voice in transcript.voices)]
            new = max(taken, default=-1) + 1
            if new >= MAX_SPEAKERS:
                raise EditImpossible(
                    f"the transcript already has {MAX_SPEAKERS} speakers, the limit."
                )
            return _rename_speaker(_move_segments(transcript, indices, new, new=True), new, name)


def _with_speakers(transcript: Transcript) -> Transcript:
    """Return a transcript with speakers: without diarization all speech is the first speaker's."""
    speech = ((at, one) for at, one in enumerate(transcript.segments) if one.is_speech)
    nobodys = {at: replace(one, speaker=0) for at, one in speech if one.speaker is None}
    return replace(_with_segments(transcript, nobodys), diarized=True)


def _rename_speaker(transcript: Transcript, speaker: int, name: str | None) -> Transcript:
    if transcript.name_of(speaker) == name:
        return transcript
    others = [one for one in transcript.voices if one.speaker != speaker]
    known = [one for one in transcript.voices if one.speaker == speaker]
    voice = known[0] if known else SpeakerProfile(speaker, 0.0)
    voice = replace(voice, name=name, person=None, likeness=None)
    if name is not None or voice.seconds or voice.print is not None:
        others.append(voice)
    return replace(transcript, voices=tuple(sorted(others, key=lambda one: one.speaker)))


def _move_segments(
    transcript: Transcript, indices: Sequence[int], speaker: int, *, new: bool = False
) -> Transcript:
    """Assign segments to a speaker, who must exist unless ``new``."""
    if not new:
        _check_speaker(transcript, speaker)
    changed: dict[int, Segment] = {}
    lost: set[int] = set()
    for at in indices:
        segment = _segment_at(transcript, at)
        if segment.speaker is None:
            raise EditImpossible(f"segment {at} has no speaker.")
        if segment.speaker != speaker:
            lost.add(segment.speaker)
            changed[at] = replace(segment, speaker=speaker)
    after = _with_segments(transcript, changed)
    # The embedding of a speaker who lost segments may contain another's voice: drop it.
    left = {*speakers_in(after)}
    voices = tuple(
        replace(one, print=None) if one.speaker in lost else one
        for one in after.voices
        if one.speaker not in lost or one.speaker in left
    )
    return replace(after, voices=voices)


def _segment_at(transcript: Transcript, at: int) -> Segment:
    if not 0 <= at < len(transcript.segments):
        count = len(transcript.segments)
        raise EditImpossible(f"there is no segment {at}; there are {count}, from 0.")
    return transcript.segments[at]


def _check_speaker(transcript: Transcript, speaker: int) -> None:
    if all(one.speaker != speaker for one in transcript.segments):
        raise EditImpossible(f"the transcript has no Speaker_{speaker}.")


def _with_segments(transcript: Transcript, changed_segments: dict[int, Segment]) -> Transcript:
    if not changed_segments:
        return transcript
    segments = [*transcript.segments]
    for at, segment in changed_segments.items():
        segments[at] = segment
    return replace(transcript, segments=tuple(segments))


@dataclass(frozen=True, slots=True)
class UndoStep:
    """Undo the last entry."""


@dataclass(frozen=True, slots=True)
class RedoStep:
    """Redo the entry that was undone last."""


EditStep = UndoStep | RedoStep | tuple[EditOperation, ...]
"""One change of a transcript."""
EditStepRequest = UndoStep | RedoStep | tuple[EditRequest, ...]
"""Change of a transcript that a client can request."""


@dataclass(frozen=True, slots=True)
class EditUndoState:
    """State that an edit replaced: segments with their indexes, and the rest. ``whole``: the
    segments are all that there were, with their embeddings (``prints``)."""

    segments: tuple[tuple[int, Segment], ...]
    voices: tuple[SpeakerProfile, ...]
    diarized: bool
    whole: bool = False
    prints: tuple[SpeakerEmbedding | None, ...] = ()

    @classmethod
    def of(
        cls, old_transcript: Transcript, new_transcript: Transcript, *, whole: bool = False
    ) -> EditUndoState:
        """Return the parts of ``old_transcript`` that are not in ``new_transcript``; all segments
        if it is ``whole``, since their number may differ."""
        voices, diarized = old_transcript.voices, old_transcript.diarized
        if whole:
            everything = tuple(enumerate(old_transcript.segments))
            return cls(everything, voices, diarized, True, old_transcript.prints)
        pairs = enumerate(zip(old_transcript.segments, new_transcript.segments, strict=True))
        gone = tuple((at, before) for at, (before, after) in pairs if before is not after)
        return cls(gone, voices, diarized)

    def again(self, transcript: Transcript) -> Transcript:
        """Return the transcript with this state restored."""
        if self.whole:
            segments = tuple(segment for _, segment in self.segments)
            before = replace(transcript, segments=segments, prints=self.prints)
        else:
            before = _with_segments(transcript, dict(self.segments))
        return replace(before, voices=self.voices, diarized=self.diarized)


@dataclass(frozen=True, slots=True)
class EditEntry:
    """Operations that were applied together, ``at`` a wall-clock time."""

    at: float
    operations: tuple[EditOperation, ...]
    before: EditUndoState


@dataclass(frozen=True, slots=True)
class EditHistory:
    """History of edits: the first ``applied`` of the ``entries`` are in effect, the rest was
    undone.

    ``revision``: number of changes of the transcript. ``said``: bytes of all operations so far.
    ``changed``: wall-clock time of the last change; None if there was none.
    """

    entries: tuple[EditEntry, ...] = ()
    applied: int = 0
    revision: int = 0
    said: int = 0
    changed: float | None = None

    @property
    def effective(self) -> Iterator[EditOperation]:
        """Yield the operations that are in effect, the last one first."""
        for entry in reversed(self.entries[: self.applied]):
            yield from reversed(entry.operations)

    @property
    def diarized_again(self) -> bool:
        """Return whether a diarization is in effect or was undone: clients may have read other
        indexes and numbers than those of now."""
        operations = (one for entry in self.entries for one in entry.operations)
        return any(isinstance(one, DiarizeAgain) for one in operations)

    @property
    def undone(self) -> int:
        """Return the number of steps that can be redone."""
        return len(self.entries) - self.applied

    def after(
        self,
        transcript: Transcript,
        step: EditStep,
        at: float,
        ready_transcript: Transcript | None = None,
    ) -> tuple[EditHistory, Transcript] | None:
        """Return history and transcript after a step; None if it changes nothing.
        ``ready_transcript``: that transcript, if it was computed before.

        Raises:
            errors.EditImpossible: the step cannot be applied.
            errors.EditsFull: the limit of edits is reached.
        """
        history = replace(self, revision=self.revision + 1, changed=at)
        if self.revision >= MAX_EDITS * (1 if isinstance(step, tuple) else 2):
            raise EditsFull(f"The transcript was edited {self.revision} times.")
        match step:
            case UndoStep():
                if not self.applied:
                    raise EditImpossible("There is nothing to undo.")
                before = self.entries[self.applied - 1].before
                return replace(history, applied=self.applied - 1), before.again(transcript)
            case RedoStep():
                if not self.undone:
                    raise EditImpossible("There is nothing to redo.")
                again = ready_transcript or apply_operations(
                    transcript, self.entries[self.applied].operations
                )
                return replace(history, applied=self.applied + 1), again
            case operations:
                new = ready_transcript or apply_operations(transcript, operations)
                if new == transcript:
                    return None
                said = self.said + sum(map(_size_bytes, operations))
                if said > MAX_HISTORY_BYTES:
                    raise EditsFull(
                        f"The edits have reached the limit of {MAX_HISTORY_BYTES >> 20} MB."
                    )
                whole = any(isinstance(one, DiarizeAgain) for one in operations)
                before = EditUndoState.of(transcript, new, whole=whole)
                entry = EditEntry(at, operations, before)
                entries = (*self.entries[: self.applied], entry)
                return replace(history, entries=entries, applied=len(entries), said=said), new


def _size_bytes(operation: EditOperation) -> int:
    """Return the bytes of memory that an operation takes."""
    match operation:
        case RewriteSegment(text=text) | RenameSpeaker(name=text):
            return OPERATION_BYTES + sys.getsizeof(text)
        case SplitSegments(segments, name):
            return OPERATION_BYTES + sys.getsizeof(name) + INDEX_BYTES * len(segments)
        case MoveSegments(segments=segments):
            return OPERATION_BYTES + INDEX_BYTES * len(segments)
        case DiarizeAgain(result):
            return OPERATION_BYTES + len(result)
    return OPERATION_BYTES


def replace_segment_text(segment: Segment, text: str) -> Segment:
    """Return the segment with another text. A person wrote it, so it is no loop, and it is speech
    unless it has only notes in brackets such as `[Music]`."""
    flags = [flag for flag in segment.flags if flag not in (LOOP_FLAG, NON_SPEECH_FLAG)]
    if _NOTES.fullmatch(text):
        flags.append(NON_SPEECH_FLAG)
    changed = replace(
        segment, text=text, flags=tuple(flags), confidence=None, no_speech_probability=None
    )
    if not segment.words:
        return changed
    words = tuple(_transfer_word_times(segment, [piece.strip() for piece in split_atoms(text)]))
    known = {(word.start, word.end) for word in segment.words}
    guessed = any((word.start, word.end) not in known for word in words)
    return replace(changed, words=words, words_by=WORDS_BY_RULE if guessed else segment.words_by)


def _transfer_word_times(segment: Segment, fresh: Sequence[str]) -> Iterator[Word]:
    """Yield the words of ``fresh`` in order: those of before with their times, the others spread
    over the time of the words that they replace, or of the gap that they are in."""
    old, first, begin = segment.words, 0, 0
    for last, end in [*_same_words([word.text for word in old], fresh), (len(old), len(fresh))]:
        inside = old[first:last]
        before = old[first - 1].end if first else segment.start
        behind = old[last].start if last < len(old) else segment.end
        since = inside[0].start if inside else min(before, behind)  # words may overlap
        until = max(since, inside[-1].end if inside else behind)
        times = spread_over_time(fresh[begin:end], since, until)
        for text, (start, stop) in zip(fresh[begin:end], times, strict=True):
            yield Word(round(start, 3), round(stop, 3), text)
        if last < len(old):
            yield replace(old[last], text=fresh[end])
        first, begin = last + 1, end + 1


def _same_words(old: Sequence[str], fresh: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the indexes of the words that stayed, in both, in order."""
    before, after = list(map(_comparison_key, old)), list(map(_comparison_key, fresh))
    head = common_prefix_length(before, after)
    tail = common_prefix_length(before[head:][::-1], after[head:][::-1])
    yield from ((at, at) for at in range(head))
    left, right = before[head : len(before) - tail], after[head : len(after) - tail]
    yield from ((head + a, head + b) for a, b in _common_subsequence(left, right))
    yield from ((len(old) - at, len(fresh) - at) for at in range(tail, 0, -1))


def _common_subsequence(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int]]:
    """Return the indexes of a longest common subsequence, by the bit-parallel method of Hyyrö
    (2004): 0.1 s for 10,000 words and 5,000 others. difflib may take 10 s for 500 and 500."""
    positions = Counter[str]()
    for at, text in enumerate(right):
        positions[text] |= 1 << at
    # Row i has a zero at each position of ``right`` where the subsequence with left[: i + 1] grows.
    row = everywhere = (1 << len(right)) - 1
    rows = list[int]()
    for text in left:
        found = row & positions[text]
        row = (row + found | row - found) & everywhere
        rows.append(row)
    pairs = list[tuple[int, int]]()
    row_at = len(rows) - 1
    for at in reversed(range(len(right))):
        if row_at < 0:
            break
        if not rows[row_at] >> at & 1:
            while row_at and not rows[row_at - 1] >> at & 1:
                row_at -= 1
            pairs.append((row_at, at))
            row_at -= 1
    return pairs[::-1]


def _comparison_key(text: str) -> str:
    """Return the key by which words are equal: capitals and marks do not change times."""
    return "".join(one for one in text.casefold() if one.isalnum()) or text.strip()
