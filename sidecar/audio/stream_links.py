"""Links of a file, the recordings that follow one another in it, and whether its end is missing.

It needs only Python, so the service itself may call it.
"""

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import islice, pairwise

from sidecar.audio.audio_format import (
    ADTS,
    ASF,
    AU,
    AVI,
    FLAC,
    FLV,
    MATROSKA,
    MP3,
    MP4,
    MPEG_PS,
    MPEG_TS,
    OGG,
    RF64,
    SIGN_BYTES,
    SNIFF_BYTES,
    VOC,
    WAV,
    AudioContainer,
    adts_frame_length,
    begins_recording,
    container_at,
    find_begin,
    find_beginnings,
    find_tags,
    id3_length,
    mpeg_frame_length,
    read_file_at,
    signed_container,
)
from sidecar.audio.file_layout import read_wav_parts
from sidecar.audio.open_ended_layout import MAX_RUBBISH_BYTES

_MAX_LINKS = 64
"""Each costs a process; the last has all the rest."""
_CHUNK_BYTES = 1 << 20
_OGG_HEADER_BYTES = 27
_ID3V1_BYTES, _ID3V1_MORE_BYTES, _APE_BYTES = 128, 227, 32
_FRAMES = (MP3, ADTS)
_TAIL_BYTES = 65_536
_MAX_BOXES, _MAX_HEADER_BLOCKS = 1 << 16, 1 << 10
_AVI_CHUNK = re.compile(
    rb"\d\d[a-z]{2}|ix\d\d|idx1|indx|JUNK|avih|str[hfdn]|vprp|odml|dmlh|I[A-Z]{3}"
)
_LAST_VOC_BLOCK = 9
_STEP_BYTES = 51 * 4 * 188 * 16
"""Read at a time of a film: whole packets of MPEG-TS, of any size."""
_MP4_BOXES = (
    *(b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"mfra"),
    *(b"sidx", b"ssix", b"uuid", b"meta", b"udta", b"emsg", b"prft"),
)

_MATROSKA_ELEMENTS = {
    *(0x1A45DFA3, 0x18538067, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1F43B675, 0x1C53BB6B),
    *(0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF, 0xE7, 0xA3, 0xA0, 0xA7, 0xAB),
}
"""At top level, and below a Segment and a Cluster, which may have no size in a live stream."""
_ASF_OBJECTS = (b"\x30\x26\xb2\x75", b"\x36\x26\xb2\x75", b"\x90\x08\0\x33", b"\xd3\x29\xe2\xd6")
"""First bytes of the names of header, data and indexes."""


_HEAD_CHANNELS = re.compile(rb"(?:OpusHead.|\x01vorbis.{4})(.)|fLaC.{16}(.)", re.DOTALL)
"""Byte with the channels: RFC 7845, section 5.1; Vorbis I, section 4.2.2; RFC 9639, section 8.2."""


@dataclass(frozen=True, slots=True)
class Link:
    """Recording of a file, from byte ``begin`` to ``end``. ``is_continued``: it is a WAV file with
    samples behind those that its header claims."""

    container: AudioContainer
    begin: int
    end: int
    is_continued: bool = False


def channels_claimed(fd: int, link: Link) -> int:
    """Return the channels in the header of a link of Ogg or FLAC; 0 if it does not tell, or no
    audio follows it."""
    has_audio = {OGG: _has_ogg_audio, FLAC: _has_flac_audio}.get(link.container)
    found = has_audio and _HEAD_CHANNELS.search(read_file_at(fd, link.begin, SIGN_BYTES))
    if not has_audio or not found or not has_audio(fd, link):
        return 0
    return found[1][0] if found[1] else (found[2][0] >> 1 & 7) + 1


def _has_ogg_audio(fd: int, link: Link) -> bool:
    """Return whether a whole page ends behind the first sample (RFC 3533, section 6)."""
    at = link.begin
    for _ in range(_MAX_HEADER_BLOCKS):
        head = read_file_at(fd, at, _STEPS[OGG][1])
        at += (length := ogg_step(head))
        if not length or at > link.end:
            break
        if int.from_bytes(head[6:14], "little", signed=True) > 0:
            return True
    return False


def _has_flac_audio(fd: int, link: Link) -> bool:
    return _flac_audio_begin(fd, link.begin) < link.end


def _flac_audio_begin(fd: int, begin: int) -> int:
    """Return where the metadata blocks of a FLAC file end (RFC 9639, section 8.1)."""
    at = begin + len(b"fLaC")
    for _ in range(_MAX_HEADER_BLOCKS):
        head = read_file_at(fd, at, 4)
        at += 4 + int.from_bytes(head[1:])
        if len(head) < 4 or head[0] > 0x7F:  # the last one
            break
    return at


def find_links(fd: int, container: AudioContainer, within_s: float) -> list[Link]:
    """Return the recordings of an open file that begins with one of a format. They were joined by
    writing one behind the other, which Ogg allows (RFC 3533, section 3: chained streams) and many
    people do.

    ffmpeg goes on only as long as format, codec, sample rate and channels stay as they are. If
    headers do not say where a recording ends, the whole file is read, but for at most ``within_s``
    seconds; the rest is then one link. Whatever is before the first is left out.
    """
    size, continued = os.fstat(fd).st_size, -1
    deadline = time.monotonic() + within_s / 2
    if container in (WAV, RF64):
        parts = read_wav_parts(fd)
        begins = [part.begin for part in parts] or [0]
        continued = next((part.begin for part in parts if part.is_continued), -1)
        walked = begins[1:]
    else:
        first = find_begin(fd, container)
        joined = _mp4_begins(fd, first) if container is MP4 else _signs(fd, container, deadline)
        begins = [first, *(at for at in islice(joined, _MAX_LINKS) if at > first)][:_MAX_LINKS]
        walked = begins
    until = time.monotonic() + within_s / 2  # its own: the search may have used all of that
    begins = sorted({*begins, *_begins_behind(fd, container, walked, until)})[:_MAX_LINKS]
    return [
        Link((at > begins[0] and container_at(fd, at)) or container, at, end, at == continued)
        for at, end in pairwise([*begins, _au_end(fd, begins[-1], size)])
    ]


def _begins_behind(
    fd: int, container: AudioContainer, begins: list[int], deadline: float
) -> Iterator[int]:
    """Yield where recordings begin behind those, the first of that format, whose elements say
    where they end; and behind what follows them."""
    waiting, end, searched = deque(begins), 0, False
    while waiting:
        begin = waiting.popleft()
        if begin < end:  # within the one before it
            continue
        signed = container in (WAV, RF64) or begin != begins[0]
        form = container_at(fd, begin) if signed else container
        while form in _STEPS and (end := _end(fd, form, begin, deadline)) > begin:
            head = read_file_at(fd, end, SNIFF_BYTES)
            form = container_at(fd, end)
            packets = form in (MPEG_TS, MPEG_PS) and _STEPS[form][0](head)
            if not (begins_recording(head) or packets):  # rubbish, such as a damaged packet
                break
            begin = end
            yield begin
            if form in _FRAMES:
                if searched:  # for every sign, up to the end of the file
                    continue
                searched = True
            joined = _mp4_begins(fd, begin) if form is MP4 else _signs(fd, form, deadline, begin)
            for found in islice(joined, _MAX_LINKS):
                yield found
                waiting.append(found)


def _end(fd: int, container: AudioContainer | None, at: int, deadline: float) -> int:
    """Return where the elements of a recording end that begin at a position, by the sizes in them;
    0 if they are not all read in time."""
    step, count = _STEPS[container]
    while time.monotonic() < deadline:
        length = step(read_file_at(fd, at, count))
        at += length
        # A second WAV file, and packets of another size, are another recording.
        if not length or container is WAV or (container is MPEG_TS and length < count):
            return at
    return 0


def _riff_step(head: bytes, form: bytes) -> int:
    is_file = head[:4] == b"RIFF" and head[8:11] == form
    return 8 + int.from_bytes(head[4:8], "little") if is_file else 0


def _avi_step(head: bytes) -> int:
    """Return the bytes of a chunk of an AVI film, of those that have others the header."""
    if head[:4] in (b"RIFF", b"LIST"):
        return 12
    size = int.from_bytes(head[4:8], "little")
    return 8 + size + size % 2 if _AVI_CHUNK.match(head) else 0


def _voc_step(head: bytes) -> int:
    """Return the bytes of the header of a VOC file, or of a block."""
    if head[:8] == b"Creative":
        return int.from_bytes(head[20:22], "little")
    is_block = 0 < int.from_bytes(head[:1]) <= _LAST_VOC_BLOCK
    return 4 + int.from_bytes(head[1:4], "little") if is_block else 0


def _matroska_step(head: bytes) -> int:
    """Return the bytes of an element (RFC 8794), those of its header if it has no size."""
    name = 9 - head[0].bit_length() if head else 0
    if int.from_bytes(head[:name]) not in _MATROSKA_ELEMENTS or not any(head[name : name + 1]):
        return 0
    length = 9 - head[name].bit_length()
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(head[name : name + length]) & unknown
    return name + length + (size if size < unknown else 0)


def _flv_step(head: bytes) -> int:
    """Return the bytes of the header, or of a tag, with the size behind it."""
    if head[:4] == b"FLV\1":
        return 13
    is_tag = head[:1] in (b"\x08", b"\x09", b"\x12") and head[8:11] == bytes(3)
    return 15 + int.from_bytes(head[1:4]) if is_tag else 0


def _asf_step(head: bytes) -> int:
    return int.from_bytes(head[16:24], "little") if head[:4] in _ASF_OBJECTS else 0


def _ps_step(head: bytes) -> int:
    """Return the bytes of a pack's header, or of a packet (ISO 11172-1, 13818-1)."""
    if head[:3] != b"\0\0\1" or len(head) < 14 or head[3] < 0xB9:
        return 4 * (head[:4] == b"\0\0\1\xb9")
    if head[3] == 0xBA:
        return 12 if head[4] >> 6 == 0 else 14 + (head[13] & 7)
    return 6 + int.from_bytes(head[4:6])


def _ts_step(head: bytes) -> int:
    """Return the bytes of the packets, of one size, in which nothing is missing."""
    sizes = ((188, head[::188]), (192, head[4::192]), (204, head[::204]))
    return max(size * (len(signs) - len(signs.lstrip(b"G"))) for size, signs in sizes)


def _mp4_step(head: bytes) -> int:
    length = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4])
    return length if length >= 8 and head[4:8] in _MP4_BOXES else 0


def ogg_step(head: bytes) -> int:
    """Return the bytes of the page of Ogg that begins here, 0 if none does (RFC 3533)."""
    count = head[_OGG_HEADER_BYTES - 1] if len(head) >= _OGG_HEADER_BYTES else 0
    sizes = sum(head[_OGG_HEADER_BYTES : _OGG_HEADER_BYTES + count])
    return (head[:4] == b"OggS") * (_OGG_HEADER_BYTES + count + sizes)


def _frames_step(head: bytes, frame_length: Callable[[bytes], int]) -> int:
    """Return how many bytes the frames, and the tags between them, take that begin here."""
    at = 0
    while length := frame_length(head[at : at + 8]) or tag_length(head[at : at + _APE_BYTES]):
        at += length
    return at


def tag_length(head: bytes) -> int:
    """Return the bytes of the tag of an MP3 or AAC file that begins here: ID3, ID3v1 with its
    extension, or APEv2 (https://wiki.hydrogenaud.io/index.php?title=APEv2_specification)."""
    if head[:8] == b"APETAGEX" and len(head) == _APE_BYTES:
        return _APE_BYTES + int.from_bytes(head[12:16], "little")
    if head[:4] == b"TAG+":
        return _ID3V1_MORE_BYTES
    return id3_length(head) or _ID3V1_BYTES * (head[:3] == b"TAG")


_STEPS: dict[AudioContainer | None, tuple[Callable[[bytes], int], int]] = {
    AVI: (lambda head: _riff_step(head, b"AVI"), SIGN_BYTES),
    WAV: (lambda head: _riff_step(head, b"WAV"), SIGN_BYTES),
    MATROSKA: (_matroska_step, SIGN_BYTES),
    FLV: (_flv_step, SIGN_BYTES),
    ASF: (_asf_step, SIGN_BYTES),
    MPEG_PS: (_ps_step, SIGN_BYTES),
    MPEG_TS: (_ts_step, _STEP_BYTES),
    MP4: (_mp4_step, SIGN_BYTES),
    OGG: (ogg_step, _OGG_HEADER_BYTES + 255),
    MP3: (lambda head: _frames_step(head, mpeg_frame_length), _TAIL_BYTES),
    ADTS: (lambda head: _frames_step(head, adts_frame_length), _TAIL_BYTES),
}
"""Bytes of the element with which a recording goes on, 0 at its end, by its first bytes; and how
many of these that needs."""
_HOLE_STEPS = {**_STEPS, AVI: (_avi_step, SIGN_BYTES), VOC: (_voc_step, SIGN_BYTES)}
"""The same, but within the films of AVI, which may have a chunk for each frame, and in VOC."""


def _au_end(fd: int, begin: int, size: int) -> int:
    """Return where the last recording of a file ends: an AU file, behind which ffmpeg reads on, at
    the length in its header, unless more follows than that; all others with the file."""
    head = read_file_at(fd, begin, SIGN_BYTES)
    samples, claimed = int.from_bytes(head[4:8]), int.from_bytes(head[8:12])
    is_au = signed_container(head) is AU
    most = claimed + min(claimed, MAX_RUBBISH_BYTES)
    whole = is_au and claimed <= size - begin - samples <= most
    return begin + samples + claimed if whole else size


def _signs(
    fd: int, container: AudioContainer | None, deadline: float, position: int = 0
) -> Iterator[int]:
    """Yield where recordings begin from a position on, by their first bytes. Those in tags and in
    the header of a FLAC file are pictures: a phone's has a film inside."""
    page_end, header_end, rest = -1, 0, b""
    while data := read_file_at(fd, position, _CHUNK_BYTES):
        window, start = rest + data, position - len(rest)
        position += len(data)
        last = position if len(data) < _CHUNK_BYTES else position - SIGN_BYTES
        for at in merge(find_beginnings(window, container), find_tags(window)):
            begin = start + at
            if begin >= last:
                break  # it is found again, whole
            if begin < header_end:
                continue
            form = signed_container(window, at)
            if form is FLAC:
                header_end = _flac_audio_begin(fd, begin)
            elif form is None:
                header_end = begin + tag_length(read_file_at(fd, begin, _APE_BYTES))
                continue
            # Streams that run in parallel (of a film) begin in adjacent pages: they are one link.
            if begin != page_end:
                yield begin
            if container is OGG:
                page_end = begin + ogg_step(read_file_at(fd, begin, _STEPS[OGG][1]))
        if time.monotonic() > deadline:
            return
        rest = window[-SIGN_BYTES:]


def mp4_boxes(fd: int, at: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, begin and end of the boxes at top level (ISO 14496-12, section 4.2), and of what
    follows them. The end may be behind that of the file."""
    size = os.fstat(fd).st_size
    for _ in range(_MAX_BOXES):
        header = read_file_at(fd, at, SIGN_BYTES)
        length = _mp4_step(header)
        if not length:  # up to the end, or no box: a tag
            yield b"", at, size
            return
        yield header[4:8], at, at + length
        at += length
        if at >= size:
            return


def _mp4_begins(fd: int, begin: int) -> Iterator[int]:
    for name, at, _ in mp4_boxes(fd, begin):
        if name == b"ftyp":
            begin = at
        if name == b"moov":
            yield begin


def is_truncated(fd: int, container: AudioContainer, end: int) -> bool:
    """Return whether an open file is incomplete, or its link up to a byte in Ogg; False if the
    format does not show that."""
    if container is OGG:
        return _is_ogg_truncated(fd, end)
    if container is WAV:
        return any(part.channels and part.is_short for part in read_wav_parts(fd))
    if container is MP4:
        size = os.fstat(fd).st_size
        return any(end > size for _, _, end in mp4_boxes(fd, find_begin(fd, MP4)))
    return False


def has_hole(fd: int, container: AudioContainer, begin: int, end: int) -> bool:
    """Return whether the elements of an open file do not follow one another from a byte to another;
    False if the format has none."""
    if container not in _HOLE_STEPS:
        return False
    (step, count), at = _HOLE_STEPS[container], begin
    while length := step(read_file_at(fd, at, count)):
        at += length
    return begin < at < end - _TAIL_BYTES


def _is_ogg_truncated(fd: int, size: int) -> bool:
    """Return whether the last page is incomplete, or lacks the end-of-stream flag (RFC 3533,
    section 6)."""
    start = max(0, size - _TAIL_BYTES)
    tail = read_file_at(fd, start, size - start)
    last = tail.rfind(b"OggS")
    if last < 0 or last + _OGG_HEADER_BYTES > len(tail):
        return True
    page_end = start + last + ogg_step(read_file_at(fd, start + last, _STEPS[OGG][1]))
    whole = page_end <= size
    return not whole or not tail[last + 5] & 0x04
