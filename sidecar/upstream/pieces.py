"""A recording in pieces that an upstream takes, cut where it is quietest; as flac, in memory."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.audio import Block
from sidecar.audio.quiet import quietest
from sidecar.interfaces.engine import AudioStream
from sidecar.transcripts.local_voices import BEYOND_S, BLOCK_S, LEAST_LAST_S, VoicesAsked

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SEARCH_S = 60.0
"""The cut lies in the last so many seconds of a piece, or in its last quarter if that is less."""
AIM_S = 10.0
"""Where pieces are to be of one length, a cut lies so near to where it would be then."""
LEAST_S = 180.0
"""Pieces that are chosen here are no shorter: each costs a request, and an engine its context."""
ROUNDS = 3
"""So many pieces each upstream gets of a long recording: who is slower, or falls out, then holds
up the others by a third of its part."""
GRID_S = 0.01
"""Pieces begin at multiples of it, which are whole samples at every rate that anybody hears at."""
MARGIN_S = BLOCK_S + LEAST_LAST_S
"""Of a piece's length that is not cut into: what its voices are made of goes on behind its words
up to the next border of a block and a block further, and the last piece has enough of its own."""
SHORTEST_WITH_MARGIN_S = 4 * MARGIN_S
"""In shorter pieces the voices are not worth their margin."""
PAUSE_S = 0.3
_FULL = 32_768


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a recording that begins ``start_s`` into it, 16 bits a sample; ``last``: the
    recording ends with it. ``margin``: the sound behind it that its voices are made of as well,
    None where nobody asks for them."""

    start_s: float
    samples: npt.NDArray[np.int16]
    rate: int
    last: bool
    margin: npt.NDArray[np.int16] | None = None

    @property
    def duration_s(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate

    @property
    def end_s(self) -> float:
        """Where in the recording it ends."""
        return self.start_s + self.duration_s

    @property
    def voices(self) -> VoicesAsked | None:
        """What is to be asked of its voices; None where they have no margin."""
        if self.margin is None:
            return None
        until_s = None if self.last else _border_s(self.end_s) - self.start_s
        first_s = _border_s(self.start_s) - self.start_s
        return VoicesAsked(
            self.duration_s, round(first_s, 2), until_s and round(until_s, 2), not self.start_s
        )

    @property
    def with_margin(self) -> npt.NDArray[np.int16]:
        """All that its voices are made of."""
        import numpy as np

        if self.margin is None:
            return self.samples
        return np.concatenate([self.samples, self.margin])

    def flac(self, *, margin: bool = False) -> bytes:
        """The same without loss, at about half the bytes."""
        import soundfile

        file = io.BytesIO()
        samples = self.with_margin if margin else self.samples
        soundfile.write(file, samples, self.rate, format="FLAC", subtype="PCM_16")
        return file.getvalue()

    def silent(self) -> Piece:
        """The same stretch without its sound, which is let go of."""
        import numpy as np

        nothing = np.broadcast_to(np.zeros(1, np.int16), len(self.samples))
        return Piece(self.start_s, nothing, self.rate, self.last)

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


def even_s(total_s: float | None, upstreams: int, longest_s: float) -> float | None:
    """How long pieces of a recording are to be, so that all upstreams have work to its end; None
    where it is to be cut only where it has to."""
    most_s = longest_s - 2 * AIM_S - MARGIN_S
    if upstreams < 2 or total_s is None or most_s < LEAST_S:
        return None
    count = min(max(1, int(total_s / LEAST_S)), ROUNDS * upstreams)
    if count > upstreams:
        count -= count % upstreams
    if count * most_s < total_s:
        count = math.ceil(total_s / most_s / upstreams) * upstreams
    return total_s / count if count > 1 else None


def pieces(
    audio: AudioStream,
    rate: int,
    longest_s: float,
    *,
    even: float | None = None,
    margin: bool = False,
) -> Iterator[Piece]:
    """The recording in pieces of at most ``longest_s`` seconds; one is held here at a time.

    ``even``: how long they are to be, as far as pauses allow. ``margin``: with what their voices
    are made of; it is within the longest.
    """
    import numpy as np

    kept = round(MARGIN_S * rate) if margin else 0
    held = np.empty(rate, np.int16)
    count, start, number = 0, 0, 1
    size = zone = 0

    def sized() -> None:
        """How much is to be there before the next cut, and where in it that may be."""
        nonlocal size, zone
        if even is None:
            size = max(rate, round(longest_s * rate))
            zone = min(round(SEARCH_S * rate), (size - kept) // 4)
        else:
            size = round((number * even + AIM_S) * rate) - start + kept
            zone = round(2 * AIM_S * rate)

    sized()
    for block in audio:
        while len(block):
            if count == size:
                least = size - kept - zone
                cut = least + _quietest(held[least : size - kept], rate)
                if margin or even is not None:
                    cut -= (start + cut) % max(1, round(GRID_S * rate))
                rest = held[cut:count].copy()
                behind = _margin(start + cut, rest, rate) if margin else None
                yield Piece(start / rate, held[:cut], rate, last=False, margin=behind)
                held = rest  # the piece keeps its own
                count, start, number = len(rest), start + cut, number + 1
                sized()
            part, block = block[: size - count], block[size - count :]
            if count + len(part) > len(held):
                held = np.resize(held, min(size, 2 * (count + len(part))))
            held[count : count + len(part)] = to_16_bit(part)
            count += len(part)
    if count:
        over = held[:0] if margin else None
        yield Piece(start / rate, held[:count], rate, last=True, margin=over)


def _margin(cut: int, rest: npt.NDArray[np.int16], rate: int) -> npt.NDArray[np.int16]:
    """What of the sound behind a cut the voices before it are made of."""
    end = round((_border_s(cut / rate) + BEYOND_S) * rate)
    return rest[: end - cut].copy()


def _border_s(time_s: float) -> float:
    """The border of blocks at a time, or next behind it."""
    return math.ceil(round(time_s / BLOCK_S, 6)) * BLOCK_S


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
