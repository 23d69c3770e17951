"""Whether a file ends where its own structure says it should."""

from __future__ import annotations

import os

from sidecar.audio.sniff import MP4, OGG, WAV, Container
from sidecar.audio.wav import read_at, read_header

_TAIL_BYTES = 65_536
_MAX_BOXES = 4096


def is_truncated(fd: int, container: Container) -> bool:
    """Whether an open file broke off; False where the format does not tell."""
    if container is WAV:
        header = read_header(fd)
        return header is not None and header.is_short
    if container is OGG:
        return _ogg_has_no_end(fd)
    if container is MP4:
        return _mp4_is_short(fd)
    return False


def _ogg_has_no_end(fd: int) -> bool:
    """Whether the last page is not whole, or lacks the end-of-stream flag (RFC 3533, section 6)."""
    size = os.fstat(fd).st_size
    tail = read_at(fd, max(0, size - _TAIL_BYTES), _TAIL_BYTES)
    last = tail.rfind(b"OggS")
    if last < 0 or last + 27 > len(tail):
        return True
    lengths = tail[last + 27 : last + 27 + tail[last + 26]]
    whole = last + 27 + tail[last + 26] + sum(lengths) <= len(tail)
    return not whole or not tail[last + 5] & 0x04


def _mp4_is_short(fd: int) -> bool:
    """Whether a top-level box claims more bytes than there are (ISO 14496-12, section 4.2)."""
    size = os.fstat(fd).st_size
    position = 0
    for _ in range(_MAX_BOXES):
        header = read_at(fd, position, 16)
        length = int.from_bytes(header[:4])
        if length == 1:
            length = int.from_bytes(header[8:])
        if len(header) < 8 or length < 8:  # the end, a box up to the end, or no box at all
            return False
        position += length
        if position > size:
            return True
    return False
