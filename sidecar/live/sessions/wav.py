"""The head of a WAV file, with its length or without. Pure."""

from __future__ import annotations

import struct

from sidecar.interfaces.live import Encoding

SIZE = 44
"""Bytes of the head."""
UNKNOWN = 0xFFFFFFFF
"""A length that nobody knew when the head was written; readers take what is there."""
_PCM, _FLOAT = 1, 3


def head(encoding: Encoding, rate: int, size: int | None = None) -> bytes:
    """Of ``size`` bytes of mono samples."""
    known = UNKNOWN if size is None or size > UNKNOWN - SIZE else size
    width = encoding.width
    form = _FLOAT if encoding is Encoding.FLOAT32 else _PCM
    riff = known if known == UNKNOWN else known + SIZE - 8
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", riff, b"WAVE"),
        *(b"fmt ", 16, form, 1, rate, rate * width, width, 8 * width),
        *(b"data", known),
    )
