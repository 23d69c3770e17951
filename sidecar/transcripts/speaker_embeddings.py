"""Plain values for enrolled and identified speakers. Pure.

A vector travels as text: the service stores and forwards it, and only a worker decodes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_NAME_CHARACTERS = 200
"""Maximum characters of a speaker's name."""


@dataclass(frozen=True, slots=True)
class SpeakerEmbedding:
    """Embedding of a speaker in one recording.

    ``vector``: base64 of 256 little-endian float16, of length 1
    (`diarization.speaker_identification`). ``seconds``: of this speaker alone, that it was computed
    from.
    """

    vector: str = field(repr=False)
    seconds: float


@dataclass(frozen=True, slots=True)
class SpeakerCandidate:
    """Enrolled speaker to identify in a recording; ``person`` is the caller's id for the
    speaker."""

    person: str
    name: str
    prints: tuple[SpeakerEmbedding, ...]


@dataclass(frozen=True, slots=True)
class SpeakerProfile:
    """Voice profile of a transcript's speaker.

    ``seconds``: of voice that could be compared. ``person`` and ``name``: the enrolled speaker,
    None if none is similar enough; a ``name`` without a ``person`` was set in an edit.
    ``likeness``: the cosine to that person, or else to the most similar other one; None if none was
    compared. ``print``: the embedding, only if the client asked for it.
    """

    speaker: int
    seconds: float
    person: str | None = None
    name: str | None = None
    likeness: float | None = None
    print: SpeakerEmbedding | None = None
