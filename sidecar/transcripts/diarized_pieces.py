"""Result of another diarization, as pieces of the transcript that it was made for. Pure.

A diarization that is done again cuts and joins segments, and changes no word: each new segment is
made of parts of the texts as they are, edits included. So the result is small, needs no numpy where
it is applied, and can be stored as one operation among the edits.
"""

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sidecar.serialization import from_plain, to_plain
from sidecar.transcripts.transcript import (
    WORDS_BY,
    Segment,
    SpeakerEmbedding,
    SpeakerProfile,
    Transcript,
)

MAX_UNPACKED_BYTES = 64 << 20
"""Limit of a result in bytes: four hundred hours."""


class WordRange(NamedTuple):
    """Words that a segment has of a recognized utterance: ``first`` to before ``last``."""

    utterance: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class SegmentPart:
    """Part of a segment's text: characters ``begin`` to before ``end``; ``first`` to before
    ``last`` are its words, if the segment has words. ``space``: a space stands before it, behind
    another part."""

    segment: int
    begin: int
    end: int
    first: int
    last: int
    space: bool


@dataclass(frozen=True, slots=True)
class DiarizedPiece:
    """New segment: its times in seconds, its speaker, and the parts that it is made of.

    ``word_range``: of the utterance it belongs to (`diarization.kept_diarization`), for a
    diarization after this one.
    """

    start: float
    end: float
    speaker: int | None
    confidence: float | None
    word_range: WordRange
    parts: tuple[SegmentPart, ...]


@dataclass(frozen=True, slots=True)
class DiarizedPieces:
    """All segments and speaker profiles after another diarization."""

    pieces: tuple[DiarizedPiece, ...]
    voices: tuple[SpeakerProfile, ...]

    def to_bytes(self) -> bytes:
        """Return it as compressed JSON."""
        pieces = [
            [
                *(one.start, one.end, one.speaker, one.confidence, *one.word_range),
                [[*to_plain(part).values()] for part in one.parts],
            ]
            for one in self.pieces
        ]
        values = {"pieces": pieces, "voices": to_plain(self.voices)}
        return zlib.compress(json.dumps(values, separators=(",", ":")).encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> "DiarizedPieces":
        """Parse the output of `to_bytes`.

        Raises:
            ValueError: it is not that.
        """
        try:
            unpacked = zlib.decompressobj()
            values = json.loads(unpacked.decompress(data, MAX_UNPACKED_BYTES))
            pieces = tuple(_piece(*one) for one in values["pieces"])
            voices = tuple(
                from_plain(SpeakerProfile, one, lenient=True) for one in values["voices"]
            )
        except (zlib.error, KeyError, TypeError) as error:
            raise ValueError(f"no result of a diarization: {error}") from None
        return cls(pieces, voices)

    @property
    def word_ranges(self) -> list[WordRange]:
        """Return the range of each segment."""
        return [one.word_range for one in self.pieces]

    def applied(self, transcript: Transcript) -> Transcript:
        """Return the transcript with these segments.

        Raises:
            ValueError: it was made for another transcript.
        """
        count = len(transcript.segments)
        if any(not 0 <= part.segment < count for one in self.pieces for part in one.parts):
            raise ValueError("the segments of another transcript")
        segments = tuple(_segment(one, transcript.segments) for one in self.pieces)
        prints = tuple(_print_of(one, transcript) for one in self.pieces if transcript.prints)
        return replace(
            transcript, segments=segments, voices=self.voices, prints=prints, diarized=True
        )


def _piece(
    start: float,
    end: float,
    speaker: int | None,
    confidence: float | None,
    utterance: int,
    first: int,
    last: int,
    parts: Iterable[Sequence[Any]],
) -> DiarizedPiece:
    """Return a piece from the values that `DiarizedPieces.to_bytes` writes."""
    word_range = WordRange(utterance, first, last)
    return DiarizedPiece(
        start, end, speaker, confidence, word_range, tuple(SegmentPart(*part) for part in parts)
    )


def _segment(piece: DiarizedPiece, old_segments: Sequence[Segment]) -> Segment:
    first = old_segments[piece.parts[0].segment]
    words = tuple(
        word
        for part in piece.parts
        for word in old_segments[part.segment].words[part.first : part.last]
    )
    flags = dict.fromkeys(flag for part in piece.parts for flag in old_segments[part.segment].flags)
    sources = {old_segments[part.segment].words_by for part in piece.parts if words}
    return replace(
        first,
        start=piece.start,
        end=piece.end,
        text=_joined(piece.parts, old_segments),
        speaker=piece.speaker,
        words=words,
        words_by=next((way for way in WORDS_BY if way in sources), ""),
        flags=tuple(flags),
        confidence=piece.confidence,
        no_speech_probability=_common_no_speech(piece.parts, old_segments),
    )


def _common_no_speech(
    parts: Iterable[SegmentPart], old_segments: Sequence[Segment]
) -> float | None:
    """Return the probability of parts that have the same; a corrected segment has none."""
    found = {old_segments[part.segment].no_speech_probability for part in parts}
    return found.pop() if len(found) == 1 else None


def _joined(parts: Iterable[SegmentPart], old_segments: Sequence[Segment]) -> str:
    text = ""
    for part in parts:
        piece = old_segments[part.segment].text[part.begin : part.end].strip()
        text += f" {piece}" if text and part.space else piece
    return text


def _print_of(piece: DiarizedPiece, transcript: Transcript) -> SpeakerEmbedding | None:
    """Return the embedding of a segment that is the same as before; None for another one."""
    part, prints = piece.parts[0], transcript.prints
    length = len(transcript.segments[part.segment].text)
    whole = len(piece.parts) == 1 and part.end - part.begin == length
    return prints[part.segment] if whole and part.segment < len(prints) else None
