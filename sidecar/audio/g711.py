"""Telephone sound (ITU-T G.711): a byte a sample, spread logarithmically, as 16 bits. Pure."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from functools import cache

RATE = 8_000
"""Samples a second."""


def _mu(byte: int) -> int:
    byte ^= 0xFF
    size = (((byte & 0x0F) << 3) + 0x84 << ((byte & 0x70) >> 4)) - 0x84
    return -size if byte & 0x80 else size


def _a(byte: int) -> int:
    byte ^= 0x55
    size, segment = ((byte & 0x0F) << 4) + 8, (byte & 0x70) >> 4
    if segment:
        size = size + 0x100 << segment - 1
    return size if byte & 0x80 else -size


@cache
def _samples(expand: Callable[[int], int]) -> tuple[bytes, ...]:
    return tuple(expand(byte).to_bytes(2, "little", signed=True) for byte in range(256))


def from_mu_law(raw: bytes) -> bytes:
    """16-bit samples, little-endian, twice as many bytes."""
    return b"".join(map(_samples(_mu).__getitem__, raw))


def from_a_law(raw: bytes) -> bytes:
    """The same of the other law."""
    return b"".join(map(_samples(_a).__getitem__, raw))


def to_mu_law(pcm: bytes) -> bytes:
    """Half as many bytes: of each 16-bit sample the nearest that there is."""
    return _nearest(_mu, pcm)


def to_a_law(pcm: bytes) -> bytes:
    """The same by the other law."""
    return _nearest(_a, pcm)


@cache
def _bytes(expand: Callable[[int], int]) -> bytes:
    """The nearest byte to each sample, from the least on."""
    sizes = sorted((expand(byte), byte) for byte in range(256))
    found, at = bytearray(), 0
    for sample in range(-32768, 32768):
        while at < 255 and abs(sizes[at + 1][0] - sample) <= abs(sizes[at][0] - sample):
            at += 1
        found.append(sizes[at][1])
    return bytes(found)


def _nearest(expand: Callable[[int], int], pcm: bytes) -> bytes:
    table = _bytes(expand)
    samples = array("h", pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    return bytes(table[sample + 32768] for sample in samples)
