"""Layout of files as recorders and editors leave them: samples of WAV files, links of streams.

It needs only Python, so the service itself may call it: plain PCM, which most hosts send, is
checked without another process.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from sidecar.audio.audio_format import FLAC, OGG, AudioContainer, id3_length, read_file_at

PCM, FLOAT, A_LAW, MU_LAW = 1, 3, 6, 7
EXTENSIBLE = 0xFFFE
_MAGIC = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}
"""Byte order by the first four bytes."""
_MAX_CHUNKS, _MORE_CHUNKS = 1024, 16
"""Chunks of one file, and how many more with each part; a part has a handful."""
MAX_PARTS = 4096
"""Most WAV files in one; with their chunks they are read in less than a second."""
_USUAL_CHUNKS = {b"fmt ", b"data", b"fact", b"LIST", b"ds64", b"bext", b"PEAK", b"JUNK"}
_UNKNOWN, _UNKNOWN_64 = 0xFFFFFFFF, (1 << 64) - 1
_PLACEHOLDER_SLACK = 1 << 16
"""Recorders that cannot go back to the header write 2 or 4 GiB there, less some headers."""
_MAX_LEADING_ZEROS = 4096


@dataclass(frozen=True, slots=True)
class WavPart:
    """Samples of one header, and the number of their bytes that exist (``present_bytes``).

    ``order``: byte order, ``<`` or ``>``. ``encoding``: the format tag, that of the subformat if it
    is extensible. ``start``: position of the samples.
    """

    order: str
    encoding: int
    channels: int
    rate: int
    frame_bytes: int
    bits: int
    start: int
    claimed_bytes: int
    present_bytes: int

    @property
    def is_short(self) -> bool:
        """Return whether samples are missing at the end."""
        return self.claimed_bytes > self.present_bytes and not _is_placeholder(self.claimed_bytes)

    @property
    def is_continued(self) -> bool:
        """Return whether there are samples behind those that the header claims."""
        return self.claimed_bytes < self.present_bytes

    @property
    def is_plain(self) -> bool:
        """Return whether it is 16-bit PCM with consistent numbers."""
        return self.encoding == PCM and self.bits == 16 and self.sample_bytes == 2

    @property
    def sample_bytes(self) -> int:
        """Return the bytes of a sample of one channel; 0 if the header contradicts itself."""
        if not self.channels or not self.bits or self.frame_bytes % self.channels:
            return 0
        size = self.frame_bytes // self.channels
        return size if size == -(-self.bits // 8) else 0

    @property
    def frames(self) -> int:
        """Return the number of frames that are present; only if there are `sample_bytes`."""
        return self.present_bytes // self.frame_bytes

    @property
    def seconds(self) -> float:
        """Return the seconds that are present; only if there are `sample_bytes`."""
        return self.frames / self.rate


def _is_placeholder(size: int) -> bool:
    return size in (0, _UNKNOWN_64) or any(
        abs(size - round_size) < _PLACEHOLDER_SLACK for round_size in (1 << 31, 1 << 32)
    )


def read_wav_parts(fd: int, max_parts: int = MAX_PARTS) -> list[WavPart]:
    """Return the samples of an open file: one part, or several if WAV files were joined; none if
    its first header has no samples. The last part stands for a rest that cannot be read, or is not
    (behind ``max_parts`` or too many chunks): it has no ``channels``."""
    return list(_WavReader(fd).parts(max_parts))


class _WavReader:
    """Walk over the chunks of an open file, within bounds whatever it contains."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._chunks_left = _MAX_CHUNKS

    def parts(self, max_parts: int) -> Iterator[WavPart]:
        head = read_file_at(self._fd, 0, _MAX_LEADING_ZEROS)
        position: int | None = id3_length(head) or len(head) - len(head.lstrip(b"\0"))
        end = 0
        for _ in range(max_parts):
            part = None if position is None else self._part_at(position)
            if part is None:
                break
            yield part
            self._chunks_left += _MORE_CHUNKS
            end = part.start + part.present_bytes
            position = self._follows(end, part.order)[1]
        if end and (position is not None or self._chunks_left <= 0):
            yield WavPart("<", 0, 0, 0, 0, 0, end, self._size - end, 0)

    def _part_at(self, position: int) -> WavPart | None:
        """Return the part of the header at ``position``."""
        order = self._order_at(position)
        if order is None:
            return None
        position += 12
        layout, data_bytes = (0, 0, 0, 0, 0, 0), _UNKNOWN
        while self._chunks_left > 0:
            name, length, body = self._chunk_at(position, order)
            if position + 8 > self._size:
                return None
            if name == b"ds64" and len(body) >= 16:
                data_bytes = int.from_bytes(body[8:16], "little")
            elif name == b"fmt " and len(body) >= 16:
                layout = struct.unpack_from(f"{order}HHIIHH", body)
                if layout[0] == EXTENSIBLE and len(body) >= 26:
                    layout = struct.unpack_from(f"{order}H", body, 24) + layout[1:]
            elif name == b"data":
                encoding, channels, rate, _, frame_bytes, bits = layout
                start = position + 8
                claimed = data_bytes if length == _UNKNOWN else length
                return WavPart(
                    order, encoding, channels, rate, frame_bytes, bits, start, claimed,
                    self._present(start, claimed, order),
                )  # fmt: skip
            position = self._next(position, length)
        return None

    def _present(self, start: int, claimed: int, order: str) -> int:
        """Return the bytes of samples: those that are claimed if chunks or another file follow
        them, else all up to the end. A recorder may have written the size of its first block."""
        left = self._size - start
        ends = claimed <= left and self._follows(start + claimed, order)[0]
        return claimed if ends else left

    def _follows(self, position: int, order: str) -> tuple[bool, int | None]:
        """Return whether only whole chunks follow, and where another WAV file begins then."""
        while self._size - position >= 8 and self._chunks_left > 0:
            position += read_file_at(self._fd, position, 1) == b"\0"  # the pad byte
            if self._order_at(position) is not None:
                return True, position
            name, length, _ = self._chunk_at(position, order)
            position += 8 + length
            if not _is_chunk_name(name) or position > self._size:
                return False, None
        return True, None

    def _order_at(self, position: int) -> str | None:
        head = read_file_at(self._fd, position, 12)
        return _MAGIC.get(head[:4]) if head[8:12] == b"WAVE" else None

    def _chunk_at(self, position: int, order: str) -> tuple[bytes, int, bytes]:
        """Return the name and the length of a chunk, and the first bytes of its body."""
        self._chunks_left -= 1
        head = read_file_at(self._fd, position, 8 + 26)
        length = int.from_bytes(head[4:8], "little" if order == "<" else "big")
        return head[:4], length, head[8 : 8 + length]

    def _next(self, position: int, length: int) -> int:
        """Return where the chunk behind this one begins; some writers leave the pad byte out."""
        end = position + 8 + length
        return end + (length % 2 and read_file_at(self._fd, end, 4) not in _USUAL_CHUNKS)


def _is_chunk_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)


_FIRST_BYTES = {
    OGG.name: re.compile(rb"OggS\0[\x02\x03\x06\x07]"),  # version, flag: begin of a stream
    FLAC.name: re.compile(rb"fLaC[\0\x80]\0\0\x22"),  # the block STREAMINFO
}
_MAX_LINKS = 64
"""Each costs a process; the last has all the rest."""
_CHUNK_BYTES = 1 << 20
_SIGN_BYTES = 8
_OGG_HEADER_BYTES = 27


def find_links(fd: int, container: AudioContainer, within_s: float) -> list[tuple[int, int]]:
    """Return the byte ranges of the links of an open file: begin, end. Links are streams that were
    joined by writing one behind the other.

    Ogg allows it (RFC 3533, section 3: chained streams), and players play all links of both
    formats; ffmpeg goes on only as long as codec, sample rate and channels stay as they are.
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
