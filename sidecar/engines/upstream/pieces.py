"""A recording in pieces that an upstream takes, cut where it is quietest; as flac, in memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.audio import Block
from sidecar.audio.quiet import quietest
from sidecar.speech.engine import AudioStream

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SEARCH_S = 60.0
"""The cut lies in the last so many seconds of a piece, or in its last quarter if that is less."""
PAUSE_S = 0.3
_FULL = 32_768


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a recording that begins ``start_s`` into it, 16 bits a sample; ``last``: the
    recording ends with it."""

    start_s: float
    samples: npt.NDArray[np.int16]
    rate: int
    last: bool

    @property
    def duration_s(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate

    @property
    def end_s(self) -> float:
        """Where in the recording it ends."""
        return self.start_s + self.duration_s

    def flac(self) -> bytes:
        """The same without loss, at about half the bytes."""
        import soundfile

        file = io.BytesIO()
        soundfile.write(file, self.samples, self.rate, format="FLAC", subtype="PCM_16")
        return file.getvalue()

    def part(self, start_s: float, end_s: float, *, last: bool = False) -> Piece:
        """What of it lies between two times of the recording."""
        first = max(0, round((start_s - self.start_s) * self.rate))
        samples = self.samples[first : max(first, round((end_s - self.start_s) * self.rate))]
        return Piece(self.start_s + first / self.rate, samples, self.rate, last)

    def halves(self) -> tuple[Piece, Piece]:
        """Two pieces that are each at most three quarters of it."""
        count = len(self.samples)
        cut = count // 4 + _quietest(self.samples[count // 4 : count - count // 4], self.rate)
        at = self.start_s + cut / self.rate
        return self.part(self.start_s, at), self.part(at, self.end_s + 1.0, last=self.last)


def pieces(audio: AudioStream, rate: int, longest_s: float) -> Iterator[Piece]:
    """The recording in pieces of at most ``longest_s`` seconds; one is held here at a time."""
    import numpy as np

    size = max(rate, round(longest_s * rate))
    claimed = round((audio.total_s or 0.0) * rate) + rate
    held = np.empty(min(size, claimed), np.int16)
    count, start = 0, 0
    for block in audio:
        while len(block):
            if count == size:
                zone = min(round(SEARCH_S * rate), size // 4)
                cut = size - zone + _quietest(held[size - zone :], rate)
                rest = held[cut:].copy()
                yield Piece(start / rate, held[:cut], rate, last=False)
                held = np.empty(size, np.int16)  # the piece keeps its own
                held[: len(rest)] = rest
                count, start = len(rest), start + cut
            part, block = block[: size - count], block[size - count :]
            if count + len(part) > len(held):
                held = np.resize(held, min(size, 2 * (count + len(part))))
            held[count : count + len(part)] = to_16_bit(part)
            count += len(part)
    if count:
        yield Piece(start / rate, held[:count], rate, last=True)


def to_16_bit(block: Block) -> npt.NDArray[np.int16]:
    """Samples in [-1, 1] as integers; what came from 16 bits is the same again."""
    import numpy as np

    return np.clip(np.rint(block * _FULL), -_FULL, _FULL - 1).astype(np.int16)


def to_float(samples: npt.NDArray[np.int16]) -> Block:
    """The reverse."""
    import numpy as np

    return samples.astype(np.float32) / np.float32(_FULL)


def quiet_cut(piece: Piece, start_s: float, end_s: float) -> float:
    """The quietest time between two of a piece, all in seconds of the recording."""
    zone = piece.part(start_s, end_s)
    return zone.start_s + _quietest(zone.samples, piece.rate) / piece.rate


def _quietest(samples: npt.NDArray[np.int16], rate: int) -> int:
    return quietest(to_float(samples), rate, PAUSE_S)
