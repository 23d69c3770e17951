"""People known by their voice, and who of them was recognised. Plain values, without numpy.

A vector travels as text: the service keeps it and hands it on, and only a worker looks inside.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST_NAME = 200
"""Characters of what somebody is called."""
ROUNDED = 0.01
"""A vector of length 1 is that much off at most, as float16."""


@dataclass(frozen=True, slots=True)
class VoicePrint:
    """What a person sounds like in one recording.

    ``vector``: base64 of 256 little-endian float16, of length 1
    (`diarization.speaker_identification`). ``seconds``: of voice, heard alone, that it was made of.
    """

    vector: str = field(repr=False)
    seconds: float


def is_print(one: VoicePrint) -> bool:
    """Whether a stranger's print is one: 256 numbers, of length 1 as far as they are exact."""
    try:
        numbers = struct.unpack("<256e", base64.b64decode(one.vector, validate=True))
    except (ValueError, struct.error):
        return False
    return abs(math.hypot(*numbers) - 1) < ROUNDED and 0 <= one.seconds < math.inf


@dataclass(frozen=True, slots=True)
class KnownVoice:
    """Somebody to be recognised in a recording; ``person`` is an id of whoever asks."""

    person: str
    name: str
    prints: tuple[VoicePrint, ...]

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> KnownVoice:
        """One from the values of `dataclasses.asdict`."""
        prints = tuple(VoicePrint(**one) for one in values["prints"])
        return cls(values["person"], values["name"], prints)


@dataclass(frozen=True, slots=True)
class SpeakerVoice:
    """What is known of a transcript's speaker by voice.

    ``seconds``: of voice that could be compared. ``person`` and ``name``: who it is, None where
    nobody is like enough; a ``name`` without a ``person`` was given by hand. ``likeness``: the
    cosine to that person, or to the likeliest of those that it is not; None where nobody was
    compared. ``print``: what it sounds like, only where somebody asked for that.
    """

    speaker: int
    seconds: float
    person: str | None = None
    name: str | None = None
    likeness: float | None = None
    print: VoicePrint | None = None

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> SpeakerVoice:
        """One from the values of `dataclasses.asdict`."""
        given = values["print"]
        return cls(**{**values, "print": given and VoicePrint(**given)})
