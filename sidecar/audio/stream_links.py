"""Links of a file: streams that were joined by writing one behind the other.

Ogg allows it (RFC 3533, section 3: chained streams), and players play all links of both formats;
ffmpeg goes on only as long as the codec, the sample rate and the channels stay as they are.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator
from itertools import islice

from sidecar.audio.audio_format import FLAC, OGG, AudioContainer, read_file_at

_FIRST_BYTES = {
    OGG.name: re.compile(rb"OggS\0[\x02\x03\x06\x07]"),  # version, flag: begin of a stream
    FLAC.name: re.compile(rb"fLaC[\0\x80]\0\0\x22"),  # the block STREAMINFO
}
_MAX_LINKS = 64
"""Each costs a process; the last has all the rest."""
_CHUNK_BYTES = 1 << 20
_SIGN_BYTES = 8
_OGG_HEADER_BYTES = 27


def find_links(
    fd: int, container: AudioContainer, within_s: float = math.inf
) -> list[tuple[int, int]]:
    """Return the byte ranges of the links of an open file: begin, end.

    The whole file is read, but for at most ``within_s`` seconds; the rest is then one link.
    """
    deadline = time.monotonic() + within_s
    known = container.name in _FIRST_BYTES
    found = list(islice(_starts(fd, container, deadline), _MAX_LINKS)) if known else []
    # Whatever is before the first sign, a tag for example, belongs to the first link.
    starts = [0, *found[1:]]
    return list(zip(starts, [*starts[1:], os.fstat(fd).st_size], strict=True))


def _starts(fd: int, container: AudioContainer, deadline: float) -> Iterator[int]:
    page_end = -1
    for position in _signs(fd, _FIRST_BYTES[container.name], deadline):
        # Streams that run in parallel (of a film) begin in adjacent pages: they are one link.
        if position != page_end:
            yield position
        if container is OGG:
            page_end = position + _ogg_page_bytes(fd, position)


def _signs(fd: int, sign: re.Pattern[bytes], deadline: float) -> Iterator[int]:
    position, rest = 0, b""
    while data := read_file_at(fd, position, _CHUNK_BYTES):
        window, start = rest + data, position - len(rest)
        position += len(data)
        for found in sign.finditer(window):
            yield start + found.start()
        if time.monotonic() > deadline:
            return
        rest = _behind_last(sign, window)


def _behind_last(sign: re.Pattern[bytes], window: bytes) -> bytes:
    """Return the end of ``window`` in which a sign may begin that is not found yet."""
    rest = window[1 - _SIGN_BYTES :]
    found = sign.search(rest)
    return rest[found.end() :] if found else rest


def _ogg_page_bytes(fd: int, position: int) -> int:
    head = read_file_at(fd, position, _OGG_HEADER_BYTES + 255)
    if len(head) < _OGG_HEADER_BYTES:
        return 0
    count = head[_OGG_HEADER_BYTES - 1]
    return _OGG_HEADER_BYTES + count + sum(head[_OGG_HEADER_BYTES : _OGG_HEADER_BYTES + count])
