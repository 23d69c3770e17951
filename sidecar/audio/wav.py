"""The header of a wav file (RIFF, little-endian), read without trusting it.

Pure Python, so the service itself may look: plain PCM, which is what most hosts send, needs no
process of its own to be judged.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFF000, 0xFFFFF000)
"""Data sizes that recorders write when they cannot go back to correct the header."""
_PCM = 1
_FORMAT = struct.Struct("<HHIIHH")
_MOST_CHUNKS = 64


@dataclass(frozen=True, slots=True)
class WavHeader:
    """What a wav file says of itself, and what is there."""

    encoding: int
    channels: int
    rate: int
    frame_bytes: int
    bits: int
    claimed_bytes: int
    present_bytes: int

    @property
    def is_short(self) -> bool:
        """Whether samples are missing at the end."""
        return self.claimed_bytes not in UNKNOWN_SIZES and self.claimed_bytes > self.present_bytes

    @property
    def is_plain(self) -> bool:
        """Whether it is 16-bit PCM whose numbers agree with each other."""
        return (
            self.encoding == _PCM
            and self.bits == 16
            and self.channels > 0
            and self.frame_bytes == 2 * self.channels
            and self.claimed_bytes not in UNKNOWN_SIZES
        )

    @property
    def seconds(self) -> float:
        """Length of what is there; only of a file that `is_plain`."""
        frames = min(self.claimed_bytes, self.present_bytes) // self.frame_bytes
        return frames / self.rate


def read_at(fd: int, position: int, count: int) -> bytes:
    """Bytes of an open file, without moving its position where the system can."""
    if hasattr(os, "pread"):
        return os.pread(fd, count, position)
    os.lseek(fd, position, os.SEEK_SET)
    return os.read(fd, count)


def read_header(fd: int) -> WavHeader | None:
    """The header of an open file, None where it has none."""
    size = os.fstat(fd).st_size
    head = read_at(fd, 0, 12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    position, layout = 12, (0, 0, 0, 0, 0, 0)
    for _ in range(_MOST_CHUNKS):
        chunk = read_at(fd, position, 8 + _FORMAT.size)
        if len(chunk) < 8:
            return None
        length = int.from_bytes(chunk[4:8], "little")
        if chunk[:4] == b"fmt " and len(chunk) == 8 + _FORMAT.size:
            layout = _FORMAT.unpack_from(chunk, 8)
        if chunk[:4] == b"data":
            encoding, channels, rate, _, frame_bytes, bits = layout
            return WavHeader(
                encoding, channels, rate, frame_bytes, bits, length, size - position - 8
            )
        position += 8 + length + length % 2
    return None
