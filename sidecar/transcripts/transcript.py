"""Words, segments, transcripts and the events of a running transcription.

Inside the house speakers are small integers from 0 in order of appearance, times are seconds from
the start of the recording. The wires choose their own names for both.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sidecar import errors
from sidecar.serialization import from_plain
from sidecar.transcripts.speaker_embeddings import (
    EncodedWindowEmbeddings,
    SpeakerEmbedding,
    SpeakerProfile,
)

NON_SPEECH_FLAG = "non_speech"
"""The flag of a segment in which nobody says words: music, silence, noise."""
LOOP_FLAG = "loop"
"""The flag of a segment that stands for a stretch the model could not get through."""
UNINTELLIGIBLE = "[Unintelligible Speech]"
"""The text of such a segment."""
WORDS_BY_ATTENTION, WORDS_BY_SERVER, WORDS_BY_RULE = "attention", "server", "spread"
"""Sources of word times: read from a model's attention (exact to some hundredths of a second);
told by another server, which does not say how; characters spread evenly over the segment (a
guess, exact at its ends only). From the surest to the least."""


_MARKS = ",;:.!?…"
_DOUBLE_COMMA = re.compile(r"(?<!\s)\s*+,(?:\s*+,)+")


@dataclass(frozen=True, slots=True)
class Word:
    """One word, start and end in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of speech by one speaker.

    ``start`` and ``end`` in seconds; ``speaker`` is None where nobody looked for speakers.
    ``words_by``: how the times of ``words`` were found (`WORDS_BY_ATTENTION` and the like), ''
    where there are none.
    """

    start: float
    end: float
    text: str
    speaker: int | None = None
    words: tuple[Word, ...] = ()
    flags: tuple[str, ...] = ()
    words_by: str = ""

    @property
    def is_speech(self) -> bool:
        """Return whether it has words; `[Music]` and the like are none."""
        return NON_SPEECH_FLAG not in self.flags


@dataclass(frozen=True, slots=True)
class Notice:
    """Notice for the reader of a transcript: a stable code and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """A whole recording; ``duration`` in seconds, ``diarized`` if speakers were looked for.

    ``voices``: what is known of its speakers by voice, where somebody asked who they are.
    ``prints``: what each segment sounds like, by its place, None where hardly anybody is heard;
    empty where nobody asked for that.
    ``model``: which one heard it, where the engine may have one of several. ``local_voices``: what
    a piece of a recording says of its voices, where `TranscribeOptions` asked for it.
    """

    segments: tuple[Segment, ...]
    language: str
    duration: float
    engine: str
    precision: str
    diarized: bool = False
    notices: tuple[Notice, ...] = ()
    voices: tuple[SpeakerProfile, ...] = ()
    prints: tuple[SpeakerEmbedding | None, ...] = field(default=(), repr=False)
    model: str = ""
    local_voices: EncodedWindowEmbeddings | None = field(default=None, repr=False)

    def name_of(self, speaker: int | None) -> str | None:
        """Return the name of an enrolled speaker; None for all others."""
        return next((one.name for one in self.voices if one.speaker == speaker), None)

    @property
    def text(self) -> str:
        """All that was said, `join_texts`."""
        return join_texts(segment.text for segment in self.segments if segment.is_speech)

    @property
    def has_speech(self) -> bool:
        """Return whether any segment has words."""
        return any(segment.is_speech for segment in self.segments)

    @property
    def words_by(self) -> str:
        """Return the source of word times: the least sure of the segments' sources, '' without
        any."""
        ways = {segment.words_by for segment in self.segments}
        by_trust = WORDS_BY_RULE, WORDS_BY_SERVER, WORDS_BY_ATTENTION
        return next((way for way in by_trust if way in ways), "")

    def with_notice(self, *notices: Notice) -> Transcript:
        """The same transcript with more to know about it."""
        return replace(self, notices=(*self.notices, *notices))

    @property
    def num_speakers(self) -> int:
        """Return the number of speakers; 1 if there is speech without diarization."""
        named = {segment.speaker for segment in self.segments if segment.speaker is not None}
        return len(named) or int(self.has_speech)


def join_texts(pieces: Iterable[str]) -> str:
    """Pieces of speech as one text, one space between them and one mark where two meet.

    A piece that was cut inside a sentence may begin with the comma that the one before ends with.
    """
    text = ""
    for piece in pieces:
        piece = piece.strip()
        if text and piece[:1] in (",", ";"):
            rest = piece[1:].lstrip()
            if text[-1] in _MARKS:
                piece = rest
            else:
                text, piece = text + piece[0], rest
        text = f"{text} {piece}" if text and piece else text or piece
    return text


def collapse_commas(text: str) -> str:
    """``text`` with one comma where a model wrote several, and none in front."""
    return _DOUBLE_COMMA.sub(",", text).lstrip(", ")


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress: seconds of audio done, and in all (None while that is not known)."""

    audio_s_done: float
    audio_s_total: float | None

    @property
    def fraction(self) -> float | None:
        """Between 0 and 1, None while the whole is not known."""
        if not self.audio_s_total:
            return None
        return round(min(1.0, self.audio_s_done / self.audio_s_total), 4)


@dataclass(frozen=True, slots=True)
class SegmentReady:
    """A segment's text and times stand. Its speaker may still be revised in `Finished`."""

    index: int
    segment: Segment


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peaks of the recording from tenth of a second number ``first`` on, 0 to 255 each."""

    first: int
    levels: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Up to ``audio_s`` nothing has to be done again; who goes on needs this and those before it.

    ``form``: whose state it is, and of which make (`EngineSpec.resumes`). ``segments``: those that
    were settled since the last checkpoint; their speakers may still be revised. ``state``: plain
    values that the engine alone understands, and what it adds to those before.
    """

    audio_s: float
    form: str
    segments: tuple[Segment, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a transcription that went well."""

    transcript: Transcript


TranscriptionEvent = Progress | SegmentReady | Peaks | Checkpoint | Finished
_NAMES: dict[type[TranscriptionEvent], str] = {
    Progress: "Progress",
    SegmentReady: "SegmentReady",
    Peaks: "Peaks",
    Checkpoint: "Checkpoint",
    Finished: "Finished",
}
"""Names in stored jobs and in messages: they stay, whatever the classes are called."""
_EVENTS = {name: kind for kind, name in _NAMES.items()}


def to_wire(event: TranscriptionEvent) -> dict[str, Any]:
    """An event as plain values (for JSON between our own processes)."""
    values = {"event": _NAMES[type(event)], **asdict(event)}
    if isinstance(event, Peaks):
        values["levels"] = base64.b64encode(event.levels).decode()
    return values


def from_wire(values: dict[str, Any]) -> TranscriptionEvent:
    """The event that `to_wire` wrote.

    Raises:
        errors.EngineFailed: it is none.
    """
    try:
        fields = dict(values)
        kind = _EVENTS[fields.pop("event")]
        if kind is Peaks:
            fields["levels"] = base64.b64decode(fields["levels"], validate=True)
        return from_plain(kind, fields)
    except (KeyError, TypeError, ValueError):
        raise errors.EngineFailed(
            "The worker process sent a message that is not an event."
        ) from None
