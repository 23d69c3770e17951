"""Container detection by first bytes, media types, WAV headers, completeness of files.

It needs only Python, so the service itself may call it: plain PCM, which most hosts send, is
checked without another process.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

SNIFF_BYTES = 4096


@dataclass(frozen=True, slots=True)
class AudioContainer:
    """Container format.

    ``demuxer`` is ffmpeg's name of the one demuxer that may read it; ``media_type`` and ``suffix``
    (of a file name) are for downloads; ``in_process`` is whether libsndfile is tried first.
    """

    name: str
    demuxer: str
    media_type: str
    suffix: str
    in_process: bool = False


WAV = AudioContainer("wav", "wav", "audio/wav", "wav", in_process=True)
RF64 = AudioContainer("rf64", "wav", "audio/wav", "wav", in_process=True)
W64 = AudioContainer("w64", "w64", "audio/x-w64", "w64", in_process=True)
FLAC = AudioContainer("flac", "flac", "audio/flac", "flac", in_process=True)
OGG = AudioContainer("ogg", "ogg", "audio/ogg", "ogg", in_process=True)
MP3 = AudioContainer("mp3", "mp3", "audio/mpeg", "mp3", in_process=True)
AIFF = AudioContainer("aiff", "aiff", "audio/aiff", "aiff", in_process=True)
AU = AudioContainer("au", "au", "audio/basic", "au", in_process=True)
CAF = AudioContainer("caf", "caf", "audio/x-caf", "caf", in_process=True)
MP4 = AudioContainer("mp4", "mov", "video/mp4", "mp4")
MATROSKA = AudioContainer("matroska", "matroska", "video/x-matroska", "mkv")
ASF = AudioContainer("asf", "asf", "video/x-ms-asf", "wma")
ADTS = AudioContainer("aac", "aac", "audio/aac", "aac")
AMR = AudioContainer("amr", "amr", "audio/amr", "amr")

CONTAINERS = (
    *(WAV, RF64, W64, FLAC, OGG, MP3, AIFF, AU, CAF),
    *(MP4, MATROSKA, ASF, ADTS, AMR),
)

_MAGIC: tuple[tuple[bytes, AudioContainer], ...] = (
    (b"fLaC", FLAC),
    (b"OggS", OGG),
    (b".snd", AU),
    (b"caff", CAF),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00", W64),
    (b"\x1aE\xdf\xa3", MATROSKA),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", ASF),
    (b"#!AMR", AMR),
)
_MP4_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})


def detect_container(head: bytes) -> AudioContainer | None:
    """Return the container that ``head`` (the first `SNIFF_BYTES` of a file) begins, or None."""
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return WAV
    if head[:4] in (b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return RF64
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return AIFF
    if head[4:8] in _MP4_BOXES:
        return MP4
    for magic, container in _MAGIC:
        if head.startswith(magic):
            return container
    return _detect_by_frames(head)


def _detect_by_frames(head: bytes) -> AudioContainer | None:
    """Detect a format without a magic number: a tag, or two consecutive frames that agree."""
    if head[:3] == b"ID3" and len(head) >= 10:
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 0x7F
        behind = head[10 + size :]
        if behind[:4] == b"fLaC":
            return FLAC
        return (_detect_by_frames(behind) if len(behind) >= 4 else None) or MP3
    if length := adts_frame_length(head):
        return ADTS if len(head) <= length or adts_frame_length(head[length:]) else None
    if length := mpeg_frame_length(head):
        return MP3 if len(head) <= length + 3 or mpeg_frame_length(head[length:]) else None
    return None


def adts_frame_length(head: bytes) -> int:
    """Return the bytes of the ADTS frame (ISO 13818-7) that begins here; 0 if there is none."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 0xF > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length >= 7 else 0


_BITRATES = {  # kbit/s by (MPEG-1?, layer), ISO 11172-3 / 13818-3
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def mpeg_frame_length(head: bytes) -> int:
    """Return the bytes of the MPEG audio frame that begins here; 0 if there is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate_index, rate_index, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate_index in (0, 15) or rate_index == 3:
        return 0
    bitrate = _BITRATES[version == 3, layer][bitrate_index] * 1000
    rate = _RATES[version][rate_index]
    if layer == 1:
        return (12 * bitrate // rate + padding) * 4
    samples_per_byte = 72 if layer == 3 and version != 3 else 144
    return samples_per_byte * bitrate // rate + padding


UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFF000, 0xFFFFF000)
"""Data sizes that recorders write when they cannot go back to correct the header."""
_PCM, _FLOAT = 1, 3
_FORMAT = struct.Struct("<HHIIHH")
_MAX_CHUNKS = 64
WAV_HEAD_BYTES = 44
_UNKNOWN_BYTES = 0xFFFFFFFF


def wav_head(
    rate: int, width: int, size: int | None = None, *, channels: int = 1, floats: bool = False
) -> bytes:
    """Return the header of a WAV file with ``size`` bytes of samples of ``width`` bytes each.

    If the size is unknown (None) or at least 4 GiB the header marks that: readers take all bytes.
    """
    data = _UNKNOWN_BYTES if size is None else min(size, _UNKNOWN_BYTES)
    riff = min(WAV_HEAD_BYTES - 8 + data, _UNKNOWN_BYTES)
    frame = width * channels
    form = _FORMAT.pack(_FLOAT if floats else _PCM, channels, rate, rate * frame, frame, 8 * width)
    return struct.pack("<4sI8sI16s4sI", b"RIFF", riff, b"WAVEfmt ", 16, form, b"data", data)


@dataclass(frozen=True, slots=True)
class WavHeader:
    """Header of a WAV file, and the number of its bytes that exist."""

    encoding: int
    channels: int
    rate: int
    frame_bytes: int
    bits: int
    claimed_bytes: int
    present_bytes: int

    @property
    def is_short(self) -> bool:
        """Return whether samples are missing at the end."""
        return self.claimed_bytes not in UNKNOWN_SIZES and self.claimed_bytes > self.present_bytes

    @property
    def is_plain(self) -> bool:
        """Return whether it is 16-bit PCM with consistent numbers."""
        return (
            self.encoding == _PCM
            and self.bits == 16
            and self.channels > 0
            and self.frame_bytes == 2 * self.channels
            and self.claimed_bytes not in UNKNOWN_SIZES
        )

    @property
    def seconds(self) -> float:
        """Return the seconds that are present; only of a file that `is_plain`."""
        frames = min(self.claimed_bytes, self.present_bytes) // self.frame_bytes
        return frames / self.rate


def read_file_at(fd: int, position: int, count: int) -> bytes:
    """Return bytes of an open file, if possible without moving its position."""
    if hasattr(os, "pread"):
        return os.pread(fd, count, position)
    os.lseek(fd, position, os.SEEK_SET)
    return os.read(fd, count)


def read_wav_header(fd: int) -> WavHeader | None:
    """Return the header of an open file, or None."""
    size = os.fstat(fd).st_size
    head = read_file_at(fd, 0, 12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    position, layout = 12, (0, 0, 0, 0, 0, 0)
    for _ in range(_MAX_CHUNKS):
        chunk = read_file_at(fd, position, 8 + _FORMAT.size)
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


_TAIL_BYTES = 65_536
_MAX_BOXES = 4096


def is_truncated(fd: int, container: AudioContainer) -> bool:
    """Return whether an open file is incomplete; False if the format does not show that."""
    if container is WAV:
        header = read_wav_header(fd)
        return header is not None and header.is_short
    if container is OGG:
        return _is_ogg_truncated(fd)
    if container is MP4:
        return _is_mp4_truncated(fd)
    return False


def _is_ogg_truncated(fd: int) -> bool:
    """Return whether the last page is incomplete, or lacks the end-of-stream flag (RFC 3533,
    section 6)."""
    size = os.fstat(fd).st_size
    tail = read_file_at(fd, max(0, size - _TAIL_BYTES), _TAIL_BYTES)
    last = tail.rfind(b"OggS")
    if last < 0 or last + 27 > len(tail):
        return True
    lengths = tail[last + 27 : last + 27 + tail[last + 26]]
    whole = last + 27 + tail[last + 26] + sum(lengths) <= len(tail)
    return not whole or not tail[last + 5] & 0x04


def _is_mp4_truncated(fd: int) -> bool:
    """Return whether a top-level box claims more bytes than exist (ISO 14496-12, section 4.2)."""
    size = os.fstat(fd).st_size
    position = 0
    for _ in range(_MAX_BOXES):
        header = read_file_at(fd, position, 16)
        length = int.from_bytes(header[:4])
        if length == 1:
            length = int.from_bytes(header[8:])
        if len(header) < 8 or length < 8:  # the end, a box up to the end, or no box at all
            return False
        position += length
        if position > size:
            return True
    return False


def media_type_of(head: bytes) -> tuple[str, str]:
    """Return the media type of a recording by its first bytes, and a file name suffix."""
    container = detect_container(head)
    if container is None:
        return "application/octet-stream", "bin"
    if container is MATROSKA and b"webm" in head[:64]:
        return "audio/webm", "webm"
    if container is MP4 and head[4:11] in (b"ftypM4A", b"ftypM4B"):
        return "audio/mp4", "m4a"
    if container is AMR and head.startswith(b"#!AMR-WB"):
        return "audio/amr-wb", "awb"
    return container.media_type, container.suffix
