"""Samples of WAV files as recorders and editors leave them: joined, with sizes that are false.

It needs only Python, so the service itself may call it: plain PCM, which most hosts send, is
checked without another process.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.audio import audio_format

PCM, FLOAT, A_LAW, MU_LAW = 1, 3, 6, 7
SCALED_FLOAT = -1
"""Floats of 32 bits under the format tag of PCM: full scale is that of integers of ``bits``."""
EXTENSIBLE = 0xFFFE
_MAGIC = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}
"""Byte order by the first four bytes."""
_MAX_CHUNKS, _MORE_CHUNKS = 1024, 16
"""Chunks of one file, and how many more with each part; a part has a handful."""
MAX_PARTS = 4096
"""Most WAV files in one; with their chunks they are read in less than a second."""
_USUAL_CHUNKS = {b"fmt ", b"data", b"fact", b"LIST", b"ds64", b"bext", b"PEAK", b"JUNK"}
_METADATA = {
    *(b"list", b"id3 ", b"bext", b"ixml", b"axml", b"_pmx", b"cart", b"junk", b"peak", b"levl"),
    *(b"afsp", b"appl", b"anno", b"comt", b"info", b"free", b"uuid"),
}
"""Chunks of WAV, AIFF, CAF and Wave64 that may be long, with a picture for example."""
_SEARCH_BYTES, _MAX_SEARCHED_BYTES = 1 << 16, 1 << 25
"""Read at a time of chunks whose end is missing, and at most of those of one file."""
_UNKNOWN, _UNKNOWN_64 = 0xFFFFFFFF, (1 << 64) - 1
_PLACEHOLDER_SLACK = 1 << 16
"""Recorders that cannot go back to the header write 2 or 4 GiB there, less some headers."""


@dataclass(frozen=True, slots=True)
class WavPart:
    """Samples of one header, and the number of their bytes that exist (``present_bytes``).

    ``order``: byte order, ``<`` or ``>``. ``encoding``: the format tag, that of the subformat if it
    is extensible; or `SCALED_FLOAT`. ``begin``, ``start``: position of the header and of the
    samples. ``mask``: the speakers of the channels, 0 if the header does not name them.
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
    begin: int = 0
    mask: int = 0

    @property
    def is_short(self) -> bool:
        """Return whether samples are missing at the end."""
        return self.claimed_bytes > self.present_bytes and not _is_placeholder(self.claimed_bytes)

    @property
    def missing_s(self) -> float:
        """Return the seconds that are missing if it `is_short`."""
        return (self.claimed_bytes - self.present_bytes) / self.frame_bytes / self.rate

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
        wide = self.encoding == SCALED_FLOAT or (self.encoding, self.bits) == (PCM, 24)
        return size if size == -(-self.bits // 8) or (wide and size == 4) else 0

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
        self._chunks_left, self._unsearched_bytes = _MAX_CHUNKS, _MAX_SEARCHED_BYTES
        self._signs: dict[int, int | None] = {}
        """Where recordings begin in chunks whose end is missing, by the begin of the search."""

    def parts(self, max_parts: int) -> Iterator[WavPart]:
        position: int | None = audio_format.find_begin(
            self._fd, audio_format.WAV, audio_format.RF64
        )
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
            rest = position or end
            yield WavPart("<", 0, 0, 0, 0, 0, rest, self._size - rest, 0, rest)

    def _part_at(self, position: int) -> WavPart | None:
        """Return the part of the header at ``position``."""
        begin, head = position, audio_format.read_file_at(self._fd, position, 12)
        order = _MAGIC.get(head[:4])
        if order is None or head[8:] != b"WAVE":
            return None
        position += 12
        layout, mask, data_bytes = (0, 0, 0, 0, 0, 0), 0, _UNKNOWN
        while self._chunks_left > 0:
            name, length, body = self._chunk_at(position, order)
            if position + 8 > self._size:
                return None
            if name == b"ds64" and len(body) >= 16:
                data_bytes = int.from_bytes(body[8:16], "little")
            elif name == b"fmt " and len(body) >= 16:
                layout = struct.unpack_from(f"{order}HHIIHH", body)
                if layout[0] == EXTENSIBLE and len(body) >= 26:
                    (mask,) = struct.unpack_from(f"{order}I", body, 20)
                    layout = struct.unpack_from(f"{order}H", body, 24) + layout[1:]
            elif name == b"data":
                encoding, channels, rate, _, frame_bytes, bits = layout
                start = position + 8
                claimed = data_bytes if length == _UNKNOWN else length
                return WavPart(
                    order, encoding, channels, rate, frame_bytes, bits, start, claimed,
                    self._present(start, claimed, order), begin, mask,
                )  # fmt: skip
            end = position + 8 + length
            padded = length % 2 and audio_format.read_file_at(self._fd, end, 4) not in _USUAL_CHUNKS
            position = end + padded  # some writers leave the pad byte out
        return None

    def _present(self, start: int, claimed: int, order: str) -> int:
        """Return the bytes of samples: those that are claimed if chunks or another file follow
        them, else all up to the end. A recorder may have written the size of its first block."""
        left = self._size - start
        ends = claimed <= left and self._follows(start + claimed, order)[0]
        return claimed if ends else left

    def _follows(self, position: int, order: str) -> tuple[bool, int | None]:
        """Return whether only chunks follow, and where another recording begins then. The end of
        the last chunk may be missing if it is metadata (the other recording begins within its
        length), and one byte of any: a pad byte that the length counts, and is not there."""
        while self._size - position >= 8 and self._chunks_left > 0:
            head = audio_format.read_file_at(self._fd, position - 1, audio_format.SIGN_BYTES)
            padded = position + head.startswith(b"\0", 1)
            for at in (position - 1, position, padded):
                if audio_format.signed_container(head, at - position + 1):
                    return True, at
            position = padded
            name, length, _ = self._chunk_at(position, order)
            missing = position + 8 + length - self._size
            if not _is_chunk_name(name) or (missing > 1 and not is_metadata(name)):
                other = audio_format.begins_recording(
                    audio_format.read_file_at(self._fd, position, audio_format.SNIFF_BYTES)
                )
                return other, position if other else None
            if missing > 1:
                return True, self._sign_behind(position + 8)
            position += 8 + length
        return True, None

    def _sign_behind(self, position: int) -> int | None:
        """Return where another recording begins in a chunk whose end is missing, or where its rest
        that is not searched begins; `None` if there is neither."""
        begin = position
        while begin not in self._signs and position < self._size and self._unsearched_bytes > 0:
            count = _SEARCH_BYTES + audio_format.SIGN_BYTES
            data = audio_format.read_file_at(self._fd, position, count)
            at = next(audio_format.find_beginnings(data), None)
            self._unsearched_bytes -= _SEARCH_BYTES if at is None else at
            if at is not None:
                self._signs[begin] = position + at
            position += _SEARCH_BYTES
        return self._signs.setdefault(begin, position if position < self._size else None)

    def _chunk_at(self, position: int, order: str) -> tuple[bytes, int, bytes]:
        """Return the name and the length of a chunk, and the first bytes of its body."""
        self._chunks_left -= 1
        head = audio_format.read_file_at(self._fd, position, 8 + 26)
        length = int.from_bytes(head[4:8], "little" if order == "<" else "big")
        return head[:4], length, head[8 : 8 + length]


def is_metadata(name: bytes) -> bool:
    """Return whether a chunk's name is one of those behind samples, so that samples hardly look so:
    its end may be missing, as in a download that was cut off."""
    return name.lower() in _METADATA


def _is_chunk_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)
