"""What a file is, by its first bytes: names and declared types are not believed."""

from __future__ import annotations

from dataclasses import dataclass

HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Container:
    """A container format.

    ``demuxer`` is ffmpeg's name of the one demuxer that may read it; ``in_process`` whether
    libsndfile is tried first.
    """

    name: str
    demuxer: str
    in_process: bool = False


WAV = Container("wav", "wav", in_process=True)
RF64 = Container("rf64", "wav", in_process=True)
W64 = Container("w64", "w64", in_process=True)
FLAC = Container("flac", "flac", in_process=True)
OGG = Container("ogg", "ogg", in_process=True)
MP3 = Container("mp3", "mp3", in_process=True)
AIFF = Container("aiff", "aiff", in_process=True)
AU = Container("au", "au", in_process=True)
CAF = Container("caf", "caf", in_process=True)
MP4 = Container("mp4", "mov")
MATROSKA = Container("matroska", "matroska")
ASF = Container("asf", "asf")
ADTS = Container("aac", "aac")
AMR = Container("amr", "amr")

CONTAINERS = (
    *(WAV, RF64, W64, FLAC, OGG, MP3, AIFF, AU, CAF),
    *(MP4, MATROSKA, ASF, ADTS, AMR),
)

_MAGIC: tuple[tuple[bytes, Container], ...] = (
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


def sniff(head: bytes) -> Container | None:
    """The container that ``head`` (the first `HEAD_BYTES` of a file) begins, None for none."""
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
    return _sniff_frames(head)


def _sniff_frames(head: bytes) -> Container | None:
    """Formats without a magic number: a tag, or two frames in a row that agree."""
    if head[:3] == b"ID3" and len(head) >= 10:
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 0x7F
        behind = head[10 + size :]
        if behind[:4] == b"fLaC":
            return FLAC
        return (_sniff_frames(behind) if len(behind) >= 4 else None) or MP3
    if length := adts_frame_length(head):
        return ADTS if len(head) <= length or adts_frame_length(head[length:]) else None
    if length := mpeg_frame_length(head):
        return MP3 if len(head) <= length + 3 or mpeg_frame_length(head[length:]) else None
    return None


def adts_frame_length(head: bytes) -> int:
    """Bytes of the ADTS frame (ISO 13818-7) that begins here, 0 for none."""
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
    """Bytes of the MPEG audio frame that begins here, 0 for none."""
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
