"""Result of another diarization, as pieces of the transcript that it was made for. Pure.

A diarization that is done again cuts and joins segments, and changes no word: each new segment is
made of parts of the texts as they are, edits included. So the result is small, needs no numpy where
it is applied, and can be stored as one operation among the edits.
"""

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

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

    ``line``: the recognized utterance it belongs to, and ``first`` to before ``last`` the words of
    that (`diarization.kept_diarization`), for a diarization after this one.
    """

    start: float
    end: float
    speaker: int | None
    confidence: float | None
    line: int
    first: int
    last: int
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
                *(one.start, one.end, one.speaker, one.confidence, one.line, one.first, one.last),
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
            pieces = tuple(
                DiarizedPiece(*(*one[:-1], tuple(SegmentPart(*part) for part in one[-1])))
                for one in values["pieces"]
            )
            voices = tuple(from_plain(SpeakerProfile, one) for one in values["voices"])
        except (zlib.error, KeyError, TypeError) as error:
            raise ValueError(f"no result of a diarization: {error}") from None
        return cls(pieces, voices)

    @property
    def places(self) -> list[tuple[int, int, int]]:
        """Return the line of each segment, and which of its words the segment has."""
        return [(one.line, one.first, one.last) for one in self.pieces]

    def applied(self, transcript: Transcript) -> Transcript:
        """Return the transcript with these segments.

        Raises:
            ValueError: it was made for another transcript.
        """
        old = transcript.segments
        if any(not 0 <= part.segment < len(old) for one in self.pieces for part in one.parts):
            raise ValueError("the segments of another transcript")
        segments = tuple(_segment(one, old) for one in self.pieces)
        prints: Sequence[SpeakerEmbedding | None] = ()
        if transcript.prints:
            prints = [_print_of(one, old, transcript.prints) for one in self.pieces]
        return replace(
            transcript, segments=segments, voices=self.voices, prints=tuple(prints), diarized=True
        )


def _segment(piece: DiarizedPiece, old: Sequence[Segment]) -> Segment:
    first = old[piece.parts[0].segment]
    words = tuple(
        word for part in piece.parts for word in old[part.segment].words[part.first : part.last]
    )
    sources = {old[part.segment].words_by for part in piece.parts if words}
    return replace(
        first,
        start=piece.start,
        end=piece.end,
        text=_joined(piece.parts, old),
        speaker=piece.speaker,
        words=words,
        words_by=next((way for way in WORDS_BY if way in sources), ""),
        confidence=piece.confidence,
    )


def _joined(parts: Iterable[SegmentPart], old: Sequence[Segment]) -> str:
    text = ""
    for part in parts:
        piece = old[part.segment].text[part.begin : part.end].strip()
        text += f" {piece}" if text and part.space else piece
    return text


def _print_of(
    piece: DiarizedPiece, old: Sequence[Segment], prints: Sequence[SpeakerEmbedding | None]
) -> SpeakerEmbedding | None:
    """Return the embedding of a segment that is the same as before; None for another one."""
    part = piece.parts[0]
    whole = len(piece.parts) == 1 and part.end - part.begin == len(old[part.segment].text)
    return prints[part.segment] if whole and part.segment < len(prints) else None
