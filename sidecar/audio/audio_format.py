"""Container detection by first bytes, media types, headers of WAV files, completeness of files.

It needs only Python, so the service itself may call it: plain PCM, which most hosts send, is
checked without another process.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

SNIFF_BYTES = 16_384
"""Enough for four frames of any MPEG audio, wherever a piece of it begins."""


@dataclass(frozen=True, slots=True)
class AudioContainer:
    """Container format.

    ``demuxer`` is ffmpeg's name of the one demuxer that may read it; ``media_type`` and ``suffix``
    (of a file name) are for downloads; ``max_hole_s`` is the longest time between two timestamps
    that is silence; 0: its timestamps do not say where audio belongs.
    """

    name: str
    demuxer: str
    media_type: str
    suffix: str
    max_hole_s: int = 0


_DAY_S = 86_400
_SPLICED_S = 3600
"""Recordings of broadcasts are joined of others, whose clocks are anywhere in 26 hours."""

WAV = AudioContainer("wav", "wav", "audio/wav", "wav")
RF64 = AudioContainer("rf64", "wav", "audio/wav", "wav")
W64 = AudioContainer("w64", "w64", "audio/x-w64", "w64")
FLAC = AudioContainer("flac", "flac", "audio/flac", "flac")
OGG = AudioContainer("ogg", "ogg", "audio/ogg", "ogg", max_hole_s=_DAY_S)
MP3 = AudioContainer("mp3", "mp3", "audio/mpeg", "mp3")
AIFF = AudioContainer("aiff", "aiff", "audio/aiff", "aiff")
AU = AudioContainer("au", "au", "audio/basic", "au")
CAF = AudioContainer("caf", "caf", "audio/x-caf", "caf")
MP4 = AudioContainer("mp4", "mov", "video/mp4", "mp4", max_hole_s=_DAY_S)
MATROSKA = AudioContainer("matroska", "matroska", "video/x-matroska", "mkv", max_hole_s=_DAY_S)
ASF = AudioContainer("asf", "asf", "video/x-ms-asf", "wma", max_hole_s=_DAY_S)
AVI = AudioContainer("avi", "avi", "video/x-msvideo", "avi", max_hole_s=_DAY_S)
FLV = AudioContainer("flv", "flv", "video/x-flv", "flv", max_hole_s=_DAY_S)
MPEG_TS = AudioContainer("mpegts", "mpegts", "video/mp2t", "ts", max_hole_s=_SPLICED_S)
MPEG_PS = AudioContainer("mpeg", "mpeg", "video/mpeg", "mpg", max_hole_s=_SPLICED_S)
MXF = AudioContainer("mxf", "mxf", "application/mxf", "mxf", max_hole_s=_DAY_S)
ADTS = AudioContainer("aac", "aac", "audio/aac", "aac")
AMR = AudioContainer("amr", "amr", "audio/amr", "amr")
AC3 = AudioContainer("ac3", "ac3", "audio/ac3", "ac3")
EAC3 = AudioContainer("eac3", "eac3", "audio/eac3", "eac3")
DTS = AudioContainer("dts", "dts", "audio/vnd.dts", "dts")
WAVPACK = AudioContainer("wavpack", "wv", "audio/x-wavpack", "wv")
APE = AudioContainer("ape", "ape", "audio/x-ape", "ape")
TTA = AudioContainer("tta", "tta", "audio/x-tta", "tta")
DSS = AudioContainer("dss", "dss", "audio/x-dss", "dss")
VOC = AudioContainer("voc", "voc", "audio/x-voc", "voc")
SPHERE = AudioContainer("sphere", "nistsphere", "audio/x-nist", "sph")

CONTAINERS = (
    *(WAV, RF64, W64, FLAC, OGG, MP3, AIFF, AU, CAF),
    *(MP4, MATROSKA, ASF, AVI, FLV, MPEG_TS, MPEG_PS, MXF),
    *(ADTS, AMR, AC3, EAC3, DTS, WAVPACK, APE, TTA, DSS, VOC, SPHERE),
)

_PS_PACK = b"\x00\x00\x01\xba"
_MAGIC: tuple[tuple[bytes, AudioContainer], ...] = (
    (b"fLaC", FLAC),
    (b"OggS", OGG),
    (b".snd", AU),
    (b"caff", CAF),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00", W64),
    (b"\x1aE\xdf\xa3", MATROSKA),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", ASF),
    (b"#!AMR", AMR),
    (b"FLV\x01", FLV),
    (_PS_PACK, MPEG_PS),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02", MXF),
    (b"\x7f\xfe\x80\x01", DTS),
    (b"wvpk", WAVPACK),
    (b"MAC ", APE),
    (b"TTA1", TTA),
    (b"\x02dss", DSS),
    (b"\x03ds2", DSS),
    (b"Creative Voice File\x1a", VOC),
    (b"NIST_1A\n", SPHERE),
)
_MP4_FIRST_BOXES = frozenset(
    {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp"}
)
_MP4_BOXES = _MP4_FIRST_BOXES | {
    b"moof",
    b"mfra",
    b"sidx",
    b"ssix",
    b"uuid",
    b"meta",
    b"udta",
    b"emsg",
    b"prft",
}


def detect_container(head: bytes) -> AudioContainer | None:
    """Return the container that ``head`` (the first `SNIFF_BYTES` of a file) begins, or None."""
    if head[:1] == b"\0" and head.lstrip(b"\0")[:4] == b"RIFF":  # space reserved for a header
        head = head.lstrip(b"\0")
    if head[:4] in (b"RIFF", b"RIFX") and head[8:12] == b"WAVE":
        return WAV
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return AVI
    if head[:4] in (b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return RF64
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return AIFF
    if head[4:8] in _MP4_FIRST_BOXES:
        return MP4
    for magic, container in _MAGIC:
        if head.startswith(magic):
            return container
    return _detect_by_frames(head)


def _detect_by_frames(head: bytes) -> AudioContainer | None:
    """Detect a format without a magic number: a tag, packets, or frames that agree."""
    if size := id3_length(head):
        return (_detect_by_frames(head[size:]) if len(head) >= size + 4 else None) or MP3
    if head.startswith(b"fLaC"):
        return FLAC
    for container, frame_length in _FRAMED:
        length = frame_length(head)
        if length and (len(head) <= length + 3 or frame_length(head[length:])):
            return container
    if head[:2] == b"\x0b\x77" and len(head) > 5:
        return AC3 if head[5] >> 3 <= 10 else EAC3
    if _has_ts_packets(head):
        return MPEG_TS
    return _detect_behind_first_frame(head) or (MPEG_PS if _PS_PACK in head else None)


def id3_length(head: bytes) -> int:
    """Return the bytes of the ID3 tag that begins here; 0 if there is none."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


_TS_PACKETS = 5
_TS_PACKET_BYTES = (188, 192, 204)
"""Packets of MPEG-TS: plain, with a time code (cameras, Blu-ray), with a checksum (broadcast)."""


def _has_ts_packets(head: bytes) -> bool:
    """Return whether packets follow one another from somewhere in the first one on."""
    return any(
        all(
            head[first + size * count : first + size * count + 1] == b"G"
            for count in range(_TS_PACKETS)
        )
        for size in _TS_PACKET_BYTES
        for first in range(size)
    )


_AGREEING_FRAMES = 4
_FIRST_FRAMES_BYTES = 8192
"""Bytes in which a frame has to begin in a piece of a stream."""


def _detect_behind_first_frame(head: bytes) -> AudioContainer | None:
    """Detect a piece of a stream, which begins inside a frame: players go on at the next one."""
    at = head.find(b"\xff")
    while 0 <= at < _FIRST_FRAMES_BYTES:
        for container, frame_length in _FRAMED:
            if _frames_agree(head, at, frame_length):
                return container
        at = head.find(b"\xff", at + 1)
    return None


def _frames_agree(head: bytes, at: int, frame_length: Callable[[bytes], int]) -> bool:
    """Return whether frames of the same kind and sample rate follow one another."""
    kind = head[at + 1 : at + 2] + bytes(byte & 0x0C for byte in head[at + 2 : at + 3])
    for _ in range(_AGREEING_FRAMES):
        found = head[at + 1 : at + 2] + bytes(byte & 0x0C for byte in head[at + 2 : at + 3])
        length = frame_length(head[at : at + 16])
        if not length or found != kind:
            return False
        at += length
    return True


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


_FRAMED = ((ADTS, adts_frame_length), (MP3, mpeg_frame_length))


_PCM, _FLOAT = 1, 3
_FORMAT = struct.Struct("<HHIIHH")
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


def read_file_at(fd: int, position: int, count: int) -> bytes:
    """Return bytes of an open file, if possible without moving its position."""
    if hasattr(os, "pread"):
        return os.pread(fd, count, position)
    os.lseek(fd, position, os.SEEK_SET)
    return os.read(fd, count)


_TAIL_BYTES = 65_536
_MAX_BOXES = 4096


def is_truncated(fd: int, container: AudioContainer) -> bool:
    """Return whether an open file is incomplete; False if the format does not show that."""
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
        if length < 8 or header[4:8] not in _MP4_BOXES:  # up to the end, or no box: a tag
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
