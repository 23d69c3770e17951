"""Telephone sound (ITU-T G.711): a byte a sample, spread logarithmically, as 16 bits. Pure."""

from __future__ import annotations

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
