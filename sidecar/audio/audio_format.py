"""Container detection by first bytes, media types, headers of WAV files.

It needs only Python, so the service itself may call it: plain PCM, which most hosts send, is
checked without another process.
"""

import os
import re
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from sidecar import windows_files

SNIFF_BYTES = 65_536
"""Enough for four frames of any stream, wherever a piece of it begins."""

_DAY_S = 86_400
_SPLICED_S = 3600
"""Recordings of broadcasts are joined of others, whose clocks are anywhere in 26 hours."""
SIGN_BYTES = 64
_MAX_TAGS = 4
"""A program that knows not the version of the tag puts its own before it."""
_MAX_POSITION = (1 << 63) - 1
_PS_PACK = b"\x00\x00\x01\xba"
_MP4_FIRST_BOXES = frozenset(
    {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp"}
)
_TS_PACKETS = 5
TS_PACKET_BYTES = (188, 192, 204)
"""Packets of MPEG-TS: plain, with a time code (cameras, Blu-ray), with a checksum (broadcast)."""
_AGREEING_FRAMES = 4
_FIRST_FRAMES_BYTES = SNIFF_BYTES // 2
"""Bytes in which a frame has to begin in a piece of a stream, or behind rubbish."""
_SYNC_WORD = re.compile(rb"\xff|\x0b\x77|\x7f\xfe\x80\x01")
_BITRATES = {  # kbit/s by (MPEG-1?, layer), ISO 11172-3 / 13818-3
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_AC3_KBIT_S = (
    *(32, 40, 48, 56, 64, 80, 96, 112, 128, 160),
    *(192, 224, 256, 320, 384, 448, 512, 576, 640),
)
_PCM, _FLOAT = 1, 3
_FORMAT = struct.Struct("<HHIIHH")
WAV_HEAD_BYTES = 44
_UNKNOWN_BYTES = 0xFFFFFFFF


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

_SIGNS: dict[AudioContainer, bytes] = {
    WAV: rb"RIF[FX].{4}WAVE",
    RF64: rb"RF64.{4}WAVE|BW64.{4}WAVE",
    W64: rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0",
    AIFF: rb"FORM.{4}AIF[FC]",
    CAF: rb"caff\0\x01..desc",
    AU: rb"\.snd\0\0.{6}\0\0\0[\1-\x1b]\0[\0-\x0b]",
    VOC: rb"Creative Voice File\x1a",
    SPHERE: rb"NIST_1A\n",
    AMR: rb"#!AMR\n|#!AMR-WB\n",
    TTA: rb"TTA1[\1\2]\0[\1-\x10]\0",
    OGG: rb"OggS\0[\2\3\6\7]",  # version, flag: begin of a stream
    FLAC: rb"fLaC[\0\x80]\0\0\x22",  # the block STREAMINFO
    APE: rb"MAC .\x0f\0\0\x34\0\0\0",
    WAVPACK: rb"wvpk.{4}[\2-\x10]\x04.{6}\0{4}(?!\0{4}).{4}",  # samples from the first on
    MP4: rb"ftyp(?<=\0\0\0[\x10-\x60]ftyp)[ -~]{4}",
    ASF: rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c",
    FLV: rb"FLV\x01[\1\4\5]\0\0\0\x09",
    AVI: rb"RIFF.{4}AVI[ \x19]",
    MATROSKA: rb"\x1aE\xdf\xa3(?=.{0,40}(?:matroska|webm))",
}
"""Beginnings of files that chance does not make. A literal is first in each, for speed."""
_TAG = re.compile(rb"ID3[\2-\4]|APETAGEX.{15}[\x20-\x3f\xa0-\xbf]", re.DOTALL)
"""Header of a tag; APEv2 has a footer of nearly the same bytes."""
_FILMS = (OGG, ASF, FLV, AVI, MP4, MATROSKA)
"""Formats that may have any other in them."""
_COMPRESSED = (FLAC, WAVPACK, APE)
"""Formats that may keep the header of what they were made of: `_PCM_FILES`."""
_PCM_FILES = (WAV, RF64, W64, AIFF, CAF)


@cache
def _pattern(*containers: AudioContainer) -> re.Pattern[bytes]:
    signs = b"|".join(_SIGNS[one] for one in containers)
    return re.compile(signs, re.DOTALL)


@cache
def _following(container: AudioContainer | None) -> re.Pattern[bytes] | None:
    """Return the signs that may follow in a file of a format; None if none may."""
    if container in _FILMS:
        return _pattern(container)
    if container in _COMPRESSED:
        return _pattern(*(one for one in _SIGNS if one not in _PCM_FILES))
    if container in (None, *_SIGNS, *(framed for framed, *_ in _FRAMED)):
        return _pattern(*_SIGNS)
    return None


def find_beginnings(data: bytes, container: AudioContainer | None = None) -> Iterator[int]:
    """Yield where other recordings begin that may follow in a file of a format (``None``: any)."""
    if (signs := _following(container)) is not None:
        for found in signs.finditer(data):
            yield found.start() - 4 * found[0].startswith(b"ftyp")


def find_tags(data: bytes) -> list[int]:
    """Return where ID3 and APEv2 tags may begin: by a search for bytes, ten times as fast."""
    found = []
    for sign in (b"ID3", b"APETAGEX"):
        at = data.find(sign)
        while at >= 0:
            found.append(at)
            at = data.find(sign, at + 1)
    return sorted(at for at in found if _TAG.match(data, at))


def signed_container(head: bytes, at: int = 0) -> AudioContainer | None:
    """Return the format whose sign is at a position."""
    for container in _SIGNS:
        if _pattern(container).match(head, at + 4 * (container is MP4)):
            return container
    return None


_MAGIC: tuple[tuple[bytes, AudioContainer], ...] = (
    (b"fLaC", FLAC),
    (b"OggS", OGG),
    (b".snd", AU),
    (b"caff", CAF),
    (b"\x1aE\xdf\xa3", MATROSKA),
    (b"#!AMR", AMR),
    (_PS_PACK, MPEG_PS),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02", MXF),
    (b"\x7f\xfe\x80\x01", DTS),
    (b"wvpk", WAVPACK),
    (b"MAC ", APE),
    (b"TTA1", TTA),
    (b"FLV\x01", FLV),
    (b"\x02dss", DSS),
    (b"\x03ds2", DSS),
)


def detect_container(head: bytes) -> AudioContainer | None:
    """Return the container that ``head`` (the first `SNIFF_BYTES` of a file) begins, or None."""
    if found := signed_container(head):
        return found
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
    for container, frame_length, _ in _FRAMED:
        length = frame_length(head)
        if length and (len(head) <= length + 3 or frame_length(head[length:])):
            return container
    if _has_ts_packets(head):
        return MPEG_TS
    for at in find_beginnings(head):  # behind rubbish
        return signed_container(head, at)
    return _detect_behind_first_frame(head) or (MPEG_PS if _PS_PACK in head else None)


def id3_length(head: bytes) -> int:
    """Return the bytes of the ID3 tag that begins here; 0 if there is none."""
    if head[:3] != b"ID3" or len(head) < 10 or head[3] > 4:  # "ID3 " is a chunk of a WAV file
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    footer = 10 * bool(head[5] & 0x10)
    return 10 + size + footer


def _has_ts_packets(head: bytes) -> bool:
    """Return whether packets follow one another from somewhere in the first one on."""
    return any(
        all(
            head[first + size * count : first + size * count + 1] == b"G"
            for count in range(_TS_PACKETS)
        )
        for size in TS_PACKET_BYTES
        for first in range(size)
    )


def _detect_behind_first_frame(head: bytes) -> AudioContainer | None:
    """Detect a piece of a stream, which begins inside a frame: players go on at the next one."""
    for sync in _SYNC_WORD.finditer(head, 0, _FIRST_FRAMES_BYTES):
        if found := frames_at(head, sync.start()):
            return found
    return None


def find_frames(head: bytes, container: AudioContainer) -> int | None:
    """Return where frames of a format begin."""
    syncs = (sync.start() for sync in _SYNC_WORD.finditer(head))
    return next((at for at in syncs if frames_at(head, at) is container), None)


def frames_at(head: bytes, first: int = 0) -> AudioContainer | None:
    """Return the format of which frames of the same kind and sample rate follow one another."""
    for container, frame_length, mask in _FRAMED:
        kinds, at = set(), first
        for _ in range(_AGREEING_FRAMES):
            frame = head[at : at + 16]
            kinds.add(int.from_bytes(frame[:6]) & mask)
            length = frame_length(frame)
            if not length or len(kinds) > 1:
                break
            at += length
        else:
            return container
    return None


def adts_frame_length(head: bytes) -> int:
    """Return the bytes of the ADTS frame (ISO 13818-7) that begins here; 0 if there is none."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 0xF > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length >= 7 else 0


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


def ac3_frame_length(head: bytes) -> int:
    """Return the bytes of the AC-3 frame (ATSC A/52) that begins here; 0 if there is none."""
    if len(head) < 6 or head[:2] != b"\x0b\x77" or head[5] >> 3 > 10:
        return 0
    rate, size = head[4] >> 6, head[4] & 0x3F
    if rate == 3 or size >= 2 * len(_AC3_KBIT_S):
        return 0
    kbit_s = _AC3_KBIT_S[size >> 1]
    return (4 * kbit_s, 2 * (kbit_s * 320 // 147 + size % 2), 6 * kbit_s)[rate]


def eac3_frame_length(head: bytes) -> int:
    """Return the bytes of the E-AC-3 frame (ATSC A/52, annex E) that begins here, or 0."""
    if len(head) < 6 or head[:2] != b"\x0b\x77" or not 11 <= head[5] >> 3 <= 16:
        return 0
    return 2 * ((head[2] & 7) << 8 | head[3]) + 2


def dts_frame_length(head: bytes) -> int:
    """Return the bytes of the DTS core frame (ETSI TS 102 114) that begins here, or 0."""
    if len(head) < 8 or head[:4] != b"\x7f\xfe\x80\x01":
        return 0
    length = ((head[5] & 3) << 12 | head[6] << 4 | head[7] >> 4) + 1
    return length if length > 95 else 0


_FRAMED: tuple[tuple[AudioContainer, Callable[[bytes], int], int], ...] = (
    (ADTS, adts_frame_length, 0xFFFF0C000000),
    (MP3, mpeg_frame_length, 0xFFFF0C000000),
    (AC3, ac3_frame_length, 0xFFFF0000C0F8),
    (EAC3, eac3_frame_length, 0xFFFF0000C0F8),
    (DTS, dts_frame_length, 0xFFFFFFFF0000),
)
"""Formats without a container: the length of a frame, and the bits in which all frames agree."""
FRAME_LENGTHS = {container: frame_length for container, frame_length, _ in _FRAMED}


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
    """Return bytes of an open file, whatever its position is; none of a place that no file can
    have, as a damaged header names one."""
    if not 0 <= position <= _MAX_POSITION - count:
        return b""
    if sys.platform == "win32":
        return windows_files.read_at(fd, position, count)
    return os.pread(fd, count, position)


def begins_recording(head: bytes) -> bool:
    """Return whether bytes behind a recording are the first ones of another, beyond doubt."""
    tag = id3_length(head)
    return bool(signed_container(head) or frames_at(head, tag)) or tag > len(head)


def container_at(fd: int, at: int) -> AudioContainer | None:
    """Return the format of an open file that begins at a position."""
    begin = at
    for _ in range(_MAX_TAGS):  # a picture in one may be longer than the head
        at += id3_length(read_file_at(fd, at, 10))
    return detect_container(read_file_at(fd, at, SNIFF_BYTES)) or (MP3 if at > begin else None)


def find_begin(fd: int, *containers: AudioContainer) -> int:
    """Return where the recording of one of these formats begins in an open file: a tag, zeros or
    rubbish may be before it; 0 if its beginning has no sign."""
    at = 0
    for _ in range(_MAX_TAGS):
        at += id3_length(read_file_at(fd, at, 10))
    head = read_file_at(fd, at, SNIFF_BYTES)
    for begin in find_beginnings(head, containers[0]):
        if signed_container(head, begin) in containers:
            return at + begin
    return 0


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
