"""Protection of recordings (DRM): bought music and audio books, downloads, pay TV."""

import re

from sidecar.audio import audio_format
from sidecar.audio.audio_format import ASF, MATROSKA, MP4, MPEG_TS, SNIFF_BYTES, AudioContainer
from sidecar.audio.stream_links import mp4_boxes

_MAX_MOOV_BYTES = 1 << 25
_PACKETS = 100
_SCRAMBLED = 0x40
_MP4_SIGN = re.compile(rb"stsd.{12}(?:enca|drms|aavd)", re.DOTALL)
"""Audio of Common Encryption, of Apple, of Audible."""
_ASF_SIGN = re.compile(
    rb"\xfb\xb3\x11\x22\x23\xbd\xd2\x11\xb4\xb7\0\xa0\xc9\x55\xfc\x6e"
    rb"|\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c"
    rb"|\x33\x85\x05\x43\x81\x69\xe6\x49\x9b\x74\xad\x12\xcb\x86\xd5\x8c"
)
"""Objects of content encryption: plain, extended, advanced."""
_MATROSKA_SIGN = re.compile(rb"\x6d\x80.{1,8}\x62\x40.{1,60}\x50\x35", re.DOTALL)
"""ContentEncodings, ContentEncoding, ContentEncryption (RFC 9559)."""
_SIGNS = {MP4: _MP4_SIGN, ASF: _ASF_SIGN, MATROSKA: _MATROSKA_SIGN}


def is_protected(fd: int, container: AudioContainer) -> bool:
    """Return whether the audio of an open file is encrypted, as its header says. Decoders take it
    for damaged, or make noise of it."""
    if container is MPEG_TS:
        return _is_scrambled(audio_format.read_file_at(fd, 0, SNIFF_BYTES))
    if container not in _SIGNS:
        return False
    begin, length = audio_format.find_begin(fd, container), SNIFF_BYTES
    if container is MP4:
        moovs = (box for box in mp4_boxes(fd, begin) if box[0] == b"moov")
        _, begin, end = next(moovs, (b"", 0, 0))
        length = min(end - begin, _MAX_MOOV_BYTES)
    head = audio_format.read_file_at(fd, begin, length)
    return _SIGNS[container].search(head) is not None


def _is_scrambled(head: bytes) -> bool:
    """Return whether most packets of a transport stream are, as of pay TV (ISO 13818-1, 2.4.3)."""
    for size in audio_format.TS_PACKET_BYTES:
        for first in range(size):
            if set(head[first::size][-_PACKETS:]) == {ord("G")}:
                flags = head[first + 3 :: size][-_PACKETS:]
                return sum(one >= _SCRAMBLED for one in flags) > len(flags) // 2
    return False
