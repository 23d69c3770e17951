"""Speech that a machine makes: sound, and which word is heard when. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """The word at ``character`` of the text that was to be said is heard from ``start`` on: seconds
    since the beginning of that text's sound."""

    character: int
    start: float


@dataclass(frozen=True, slots=True)
class Sound:
    """A stretch of speech as it comes from a voice: 16-bit samples, mono, little-endian, ``rate`` a
    second. ``marks``: words that are known by now, in order; a voice that knows none gives none,
    and no word is marked twice."""

    pcm: bytes
    rate: int
    marks: tuple[Mark, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it takes to be heard."""
        return len(self.pcm) / (2 * self.rate)
