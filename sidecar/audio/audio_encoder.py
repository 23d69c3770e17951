"""Streaming encoder of mono 16-bit samples: raw, WAV, FLAC, MP3, Opus (libsndfile)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol

from sidecar.audio.audio_format import wav_head

SAMPLE_BYTES = 2
PART_BYTES = 64 << 10
MAX_IN_MEMORY_BYTES = 1 << 20
"""Bytes of a file that is sent at its end; a larger one is a temporary file on disk."""


class EncodedFormat(StrEnum):
    """Format of encoded audio."""

    MP3 = "mp3"
    OPUS = "opus"
    FLAC = "flac"
    WAV = "wav"
    PCM = "pcm"

    @property
    def media_type(self) -> str:
        """Return the Content-Type."""
        return _MEDIA_TYPES[self]


_MEDIA_TYPES = {
    EncodedFormat.MP3: "audio/mpeg",
    EncodedFormat.OPUS: "audio/ogg",
    EncodedFormat.FLAC: "audio/flac",
    EncodedFormat.WAV: "audio/wav",
    EncodedFormat.PCM: "audio/pcm",
}
_LIBSNDFILE = {
    EncodedFormat.MP3: ("MP3", "MPEG_LAYER_III"),
    EncodedFormat.OPUS: ("OGG", "OPUS"),
    EncodedFormat.FLAC: ("FLAC", "PCM_16"),
}

_MP3 = {"bitrate_mode": "CONSTANT", "compression_level": 0.5}
"""80 kbit/s at 24 kHz. With a variable bitrate readers cannot tell the length without a header that
is written last."""


class AudioEncoder(Protocol):
    """Encoder that takes samples and returns the bytes of a file as they become available."""

    def add(self, pcm: bytes) -> bytes:
        """Add whole samples; return the bytes that are complete."""

    def end(self) -> Iterator[bytes]:
        """Yield the remaining bytes, in chunks that are not empty."""


def audio_encoder(form: EncodedFormat, rate: int) -> AudioEncoder:
    """Return an encoder of ``rate`` samples a second; only compressed formats take CPU time."""
    if form in _LIBSNDFILE:
        return _CompressingEncoder(form, rate)
    return _PlainEncoder(wav_head(rate, SAMPLE_BYTES) if form is EncodedFormat.WAV else b"")


class _PlainEncoder:
    """Encoder that passes samples on, behind a header."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    def add(self, pcm: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + pcm

    def end(self) -> Iterator[bytes]:
        if self._head:
            yield self.add(b"")


class _ForwardOnlyFile:
    """File for libsndfile that only appends. When libsndfile returns to write the length at the
    beginning, that is already sent, and the write has no effect."""

    def __init__(self) -> None:
        self._at = self._end = 0
        self._new = bytearray()

    def take(self) -> bytes:
        """Return the new bytes."""
        taken, self._new = bytes(self._new), bytearray()
        return taken

    def write(self, data: bytes) -> int:
        data = bytes(data)
        begin = self._end - len(self._new)
        """Position of the first byte that was not taken yet; from there bytes may still change."""
        at = self._at - begin
        if at >= 0:
            self._new[at : at + len(data)] = data
        self._at += len(data)
        self._end = max(self._end, self._at)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._end)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        pass


class _CompressingEncoder:
    """Encoder of libsndfile. A FLAC is sent at the end: readers use the length at its beginning."""

    def __init__(self, form: EncodedFormat, rate: int) -> None:
        import soundfile

        container, codec = _LIBSNDFILE[form]
        constant = _MP3 if form is EncodedFormat.MP3 else {}
        whole = form is EncodedFormat.FLAC
        self._sent = _ForwardOnlyFile()
        self._kept = tempfile.SpooledTemporaryFile(MAX_IN_MEMORY_BYTES)  # noqa: SIM115
        self._file = soundfile.SoundFile(
            self._kept if whole else self._sent,
            "w",
            samplerate=rate,
            channels=1,
            format=container,
            subtype=codec,
            **constant,
        )

    def add(self, pcm: bytes) -> bytes:
        self._file.buffer_write(pcm, "int16")
        return self._sent.take()

    def end(self) -> Iterator[bytes]:
        self._file.close()
        if rest := self._sent.take():
            yield rest
        self._kept.seek(0)
        while part := self._kept.read(PART_BYTES):
            yield part
        self._kept.close()
