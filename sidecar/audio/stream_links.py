"""Links of a file, the recordings that follow one another in it, and whether its end is missing.

It needs only Python, so the service itself may call it.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

from sidecar.audio.audio_format import (
    AU,
    AVI,
    MATROSKA,
    MP4,
    OGG,
    RF64,
    SIGN_BYTES,
    SNIFF_BYTES,
    WAV,
    AudioContainer,
    begins_recording,
    container_at,
    find_begin,
    find_beginnings,
    read_file_at,
    signed_container,
)
from sidecar.audio.file_layout import read_wav_parts
from sidecar.audio.open_ended_layout import MAX_RUBBISH_BYTES

_MAX_LINKS = 64
"""Each costs a process; the last has all the rest."""
_CHUNK_BYTES = 1 << 20
_OGG_HEADER_BYTES = 27
_TAIL_BYTES = 65_536
_MAX_BOXES = 1 << 16
_MATROSKA_TOP = (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67")
"""Names of the elements EBML and Segment."""
_MP4_BOXES = (
    *(b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"mfra"),
    *(b"sidx", b"ssix", b"uuid", b"meta", b"udta", b"emsg", b"prft"),
)


@dataclass(frozen=True, slots=True)
class Link:
    """Recording of a file, from byte ``begin`` to ``end``. ``is_continued``: it is a WAV file with
    samples behind those that its header claims."""

    container: AudioContainer
    begin: int
    end: int
    is_continued: bool = False


def find_links(fd: int, container: AudioContainer, within_s: float) -> list[Link]:
    """Return the recordings of an open file that begins with one of a format. They were joined by
    writing one behind the other, which Ogg allows (RFC 3533, section 3: chained streams) and many
    people do.

    ffmpeg goes on only as long as format, codec, sample rate and channels stay as they are. If
    headers do not say where a recording ends, the whole file is read, but for at most ``within_s``
    seconds; the rest is then one link. Whatever is before the first is left out.
    """
    size, continued = os.fstat(fd).st_size, -1
    if container in (WAV, RF64):
        parts = read_wav_parts(fd)
        begins = [part.begin for part in parts] or [0]
        continued = next((part.begin for part in parts if part.is_continued), -1)
    else:
        first = find_begin(fd, container)
        joined = _mp4_begins(fd, first) if container is MP4 else _signs(fd, container, within_s)
        begins = [first, *(at for at in islice(joined, _MAX_LINKS) if at > first)][:_MAX_LINKS]
        begins = sorted({*begins, *_begins_behind_films(fd, container, begins)})[:_MAX_LINKS]
    return [
        Link((at > begins[0] and container_at(fd, at)) or container, at, end, at == continued)
        for at, end in pairwise([*begins, _au_end(fd, begins[-1], size)])
    ]


def _begins_behind_films(fd: int, container: AudioContainer, begins: list[int]) -> Iterator[int]:
    """Yield where recordings of other formats begin behind films, which begin at some places."""
    end = 0
    for begin in begins:
        if begin >= end:  # no part of the film before it
            end = _film_end(fd, container, begin)
            if end and begins_recording(read_file_at(fd, end, SNIFF_BYTES)):
                yield end


def _film_end(fd: int, container: AudioContainer, at: int) -> int:
    """Return where the elements of a Matroska file (RFC 8794), or the RIFF chunks of an AVI file,
    that begin at a position end; 0 if they do not say it, or in other formats."""
    for _ in range(_MAX_BOXES if container in (AVI, MATROSKA) else 0):
        head = read_file_at(fd, at, SIGN_BYTES)
        if container is AVI and head[:4] == b"RIFF" and head[8:11] == b"AVI":
            at += 8 + int.from_bytes(head[4:8], "little")
        elif container is MATROSKA and head[:4] in _MATROSKA_TOP and len(head) > 12:
            if not head[4]:  # no size of up to eight bytes (RFC 8794, 4)
                return 0
            bits = 7 * (9 - head[4].bit_length())
            size = int.from_bytes(head[4 : 4 + bits // 7]) & (1 << bits) - 1
            if size == (1 << bits) - 1:  # unknown, as in a live stream
                return 0
            at += 4 + bits // 7 + size
        else:
            return at
    return 0


def _au_end(fd: int, begin: int, size: int) -> int:
    """Return where the last recording of a file ends: an AU file, behind which ffmpeg reads on, at
    the length in its header, unless more follows than that; all others with the file."""
    head = read_file_at(fd, begin, SIGN_BYTES)
    samples, claimed = int.from_bytes(head[4:8]), int.from_bytes(head[8:12])
    is_au = signed_container(head) is AU
    most = claimed + min(claimed, MAX_RUBBISH_BYTES)
    whole = is_au and claimed <= size - begin - samples <= most
    return begin + samples + claimed if whole else size


def _signs(fd: int, container: AudioContainer, within_s: float) -> Iterator[int]:
    """Yield where recordings begin, by their first bytes."""
    deadline = time.monotonic() + within_s
    position, page_end, rest = 0, -1, b""
    while data := read_file_at(fd, position, _CHUNK_BYTES):
        window, start = rest + data, position - len(rest)
        position += len(data)
        last = position if len(data) < _CHUNK_BYTES else position - SIGN_BYTES
        for at in find_beginnings(window, container):
            begin = start + at
            if begin >= last:
                break  # it is found again, whole
            # Streams that run in parallel (of a film) begin in adjacent pages: they are one link.
            if begin != page_end:
                yield begin
            if container is OGG:
                page_end = begin + _ogg_page_bytes(fd, begin)
        if time.monotonic() > deadline:
            return
        rest = window[-SIGN_BYTES:]


def _ogg_page_bytes(fd: int, position: int) -> int:
    head = read_file_at(fd, position, _OGG_HEADER_BYTES + 255)
    if len(head) < _OGG_HEADER_BYTES:
        return 0
    count = head[_OGG_HEADER_BYTES - 1]
    return _OGG_HEADER_BYTES + count + sum(head[_OGG_HEADER_BYTES : _OGG_HEADER_BYTES + count])


def _mp4_boxes(fd: int, at: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, begin and end of the boxes at top level (ISO 14496-12, section 4.2), and of what
    follows them. The end may be behind that of the file."""
    size = os.fstat(fd).st_size
    for _ in range(_MAX_BOXES):
        header = read_file_at(fd, at, 16)
        length = int.from_bytes(header[:4])
        if length == 1:
            length = int.from_bytes(header[8:])
        if length < 8 or header[4:8] not in _MP4_BOXES:  # up to the end, or no box: a tag
            yield b"", at, size
            return
        yield header[4:8], at, at + length
        at += length
        if at >= size:
            return


def _mp4_begins(fd: int, begin: int) -> Iterator[int]:
    for name, at, _ in _mp4_boxes(fd, begin):
        if name == b"ftyp":
            begin = at
        if name == b"moov":
            yield begin
        elif not name and begins_recording(read_file_at(fd, at, SNIFF_BYTES)):
            yield at


def is_truncated(fd: int, container: AudioContainer) -> bool:
    """Return whether an open file is incomplete; False if the format does not show that."""
    if container is OGG:
        return _is_ogg_truncated(fd)
    if container is WAV:
        return any(part.channels and part.is_short for part in read_wav_parts(fd))
    if container is MP4:
        size = os.fstat(fd).st_size
        return any(end > size for _, _, end in _mp4_boxes(fd, find_begin(fd, MP4)))
    return False


def _is_ogg_truncated(fd: int) -> bool:
    """Return whether the last page is incomplete, or lacks the end-of-stream flag (RFC 3533,
    section 6)."""
    size = os.fstat(fd).st_size
    start = max(0, size - _TAIL_BYTES)
    tail = read_file_at(fd, start, _TAIL_BYTES)
    last = tail.rfind(b"OggS")
    if last < 0 or last + _OGG_HEADER_BYTES > len(tail):
        return True
    whole = start + last + _ogg_page_bytes(fd, start + last) <= size
    return not whole or not tail[last + 5] & 0x04
