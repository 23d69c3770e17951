"""Samples of AIFF, CAF and Wave64 files whose header does not say how many there are.

A recorder wrote the size of its first block, or none, and went on. ffmpeg would stop at that size,
as it has to where less follows than the header claims: that is rubbish.

It needs only Python. Headers: Apple's specifications of AIFF-C and CAF, Sony's of Wave64.
"""

import os
import struct
from dataclasses import dataclass

from sidecar.audio import audio_format
from sidecar.audio.file_layout import (
    A_LAW,
    EXTENSIBLE,
    FLOAT,
    MU_LAW,
    PCM,
    WavPart,
    is_metadata,
)

_MAX_CHUNKS = 64
MAX_RUBBISH_BYTES = 1 << 16
"""Most bytes of rubbish behind the counted samples; more is what a recorder had not counted yet."""
_BODY_BYTES = 40
_MAX_CLAIM = 1 << 62
"""Larger sizes, and negative ones, are unknown."""
_ENCODINGS = {
    b"NONE": (PCM, ">", 0),
    b"twos": (PCM, ">", 0),
    b"sowt": (PCM, "<", 0),
    b"in24": (PCM, ">", 24),
    b"in32": (PCM, ">", 32),
    b"fl32": (FLOAT, ">", 32),
    b"fl64": (FLOAT, ">", 64),
    b"alaw": (A_LAW, ">", 8),
    b"ulaw": (MU_LAW, ">", 8),
}
"""Encoding, byte order and bits (0: those of the header) by the name in AIFF-C and CAF."""


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Chunks of a format: where the first is, bytes of a name and of a size, byte order, whether a
    size counts its header, and the multiple at which a chunk begins."""

    first: int
    name_bytes: int
    size_bytes: int
    order: str
    counts_header: bool
    align: int

    @property
    def header_bytes(self) -> int:
        return self.name_bytes + self.size_bytes


_FORMS = {
    audio_format.AIFF.name: _Chunks(12, 4, 4, ">", False, 2),
    audio_format.CAF.name: _Chunks(8, 4, 8, ">", False, 1),
    audio_format.W64.name: _Chunks(40, 16, 8, "<", True, 8),
}


def read_open_ended_part(fd: int, container: audio_format.AudioContainer) -> WavPart | None:
    """Return the samples of an open file, up to its end, if its header has another number of them
    and they are not compressed; else None."""
    form, size = _FORMS.get(container.name), os.fstat(fd).st_size
    if form is None:
        return None
    layout, at = None, form.first
    for _ in range(_MAX_CHUNKS):
        name, length, body = _chunk(fd, at, form)
        if name in (b"COMM", b"desc", b"fmt "):
            layout = _layout(container, body)
        elif name in (b"SSND", b"data"):
            skipped = {audio_format.AIFF.name: 8, audio_format.CAF.name: 4}.get(container.name, 0)
            start = at + form.header_bytes + skipped
            claimed = length - skipped
            if layout is None or start > size or _ends(fd, start + claimed, form, size):
                return None
            if claimed <= size - start <= claimed + min(claimed, MAX_RUBBISH_BYTES):
                return None
            known = 0 < claimed < _MAX_CLAIM
            return WavPart(*layout, start, claimed if known else size - start, size - start)
        elif not name or length < 0:
            return None
        at += form.header_bytes + length
        at += -at % form.align
    return None


def _chunk(fd: int, at: int, form: _Chunks) -> tuple[bytes, int, bytes]:
    """Return the name, the length without its header, and the first bytes of a chunk."""
    head = audio_format.read_file_at(fd, at, form.header_bytes + _BODY_BYTES)
    sizes = head[form.name_bytes : form.header_bytes]
    length = int.from_bytes(sizes, "big" if form.order == ">" else "little", signed=True)
    if form.size_bytes == 4:
        length &= 0xFFFFFFFF
    length -= form.counts_header * form.header_bytes
    return head[:4], length, head[form.header_bytes :][: max(0, length)]


def _ends(fd: int, at: int, form: _Chunks, size: int) -> bool:
    """Return whether the recording ends here, or behind whole chunks."""
    for _ in range(_MAX_CHUNKS):
        at += -at % form.align
        if audio_format.begins_recording(
            audio_format.read_file_at(fd, at, audio_format.SNIFF_BYTES)
        ):
            return True
        if not 0 <= size - at >= form.header_bytes:
            return size - at >= 0 or at - size < form.align
        name, length, _ = _chunk(fd, at, form)
        if not (len(name) == 4 and name.isascii() and name.decode().isprintable() and length >= 0):
            return False
        at += form.header_bytes + length
        if at > size and is_metadata(name):
            return True
    return False


def _layout(
    container: audio_format.AudioContainer, body: bytes
) -> tuple[str, int, int, int, int, int] | None:
    """Return byte order, encoding, channels, rate, bytes of a frame and bits of a sample."""
    if len(body) < (
        18 if container is audio_format.AIFF else 32 if container is audio_format.CAF else 16
    ):
        return None
    if container is audio_format.W64:
        encoding, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", body)
        if encoding == EXTENSIBLE and len(body) >= 26:
            encoding = int.from_bytes(body[24:26], "little")
        return "<", encoding, channels, rate, frame_bytes, bits
    if container is audio_format.CAF:
        hertz, name, flags, _, _, channels, bits = struct.unpack_from(">d4s5I", body)
        lpcm = FLOAT if flags & 1 else PCM, "<" if flags & 2 else ">", 0
        found = lpcm if name == b"lpcm" else _ENCODINGS.get(name)
    else:
        channels, _, bits, exponent, mantissa = struct.unpack_from(">HIHHQ", body)
        hertz = mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63) if exponent < 16383 + 32 else 0
        found = _ENCODINGS.get(body[18:22] or b"NONE") or _ENCODINGS.get(body[18:22].lower())
    if found is None or not 0 < hertz < 1e6:
        return None
    encoding, order, own_bits = found
    bits = own_bits or bits
    if encoding == PCM and bits <= 8:  # signed, unlike those of a WAV file
        return None
    return order, encoding, channels, round(hertz), channels * -(-bits // 8), bits
