"""A transcript edited after the fact, without running anything again. Pure.

Segments go by their place in the transcript and speakers by their number; neither ever moves up,
so what one operation names the next can name, too. Operations are done in order, all or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sidecar.errors import EditImpossible
from sidecar.transcripts.people import SpeakerVoice
from sidecar.transcripts.retiming import reworded
from sidecar.transcripts.transcript import Segment, Transcript

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
