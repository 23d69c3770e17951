"""Streaming encoder of mono 16-bit samples: raw, WAV, FLAC, MP3, Opus (libsndfile)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from enum import StrEnum

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


def audio_encoder(form: EncodedFormat, rate: int) -> _PlainEncoder | _CompressingEncoder:
    """Return an encoder of ``rate`` samples a second; only compressed formats take CPU time."""
    if form in _LIBSNDFILE:
        return _CompressingEncoder(form, rate)
    return _PlainEncoder(wav_head(rate, SAMPLE_BYTES) if form is EncodedFormat.WAV else b"")


class _PlainEncoder:
    """Encoder that passes samples on, behind a header."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    def add(self, pcm: bytes) -> bytes:
        """Add whole samples; return the bytes that are complete."""
        head, self._head = self._head, b""
        return head + pcm

    def end(self) -> Iterator[bytes]:
        """Yield the remaining bytes, in chunks that are not empty."""
        if self._head:
            yield self.add(b"")


class _CompressingEncoder:
    """Encoder of libsndfile. A FLAC is sent at the end: readers use the length at its beginning."""

    def __init__(self, form: EncodedFormat, rate: int) -> None:
        import soundfile

        container, codec = _LIBSNDFILE[form]
        constant = _MP3 if form is EncodedFormat.MP3 else {}
        self._whole = form is EncodedFormat.FLAC
        in_memory = MAX_IN_MEMORY_BYTES if self._whole else 0  # 0: always
        self._made = tempfile.SpooledTemporaryFile(in_memory)  # noqa: SIM115
        self._sent = 0
        self._file = soundfile.SoundFile(
            self._made,
            "w",
            samplerate=rate,
            channels=1,
            format=container,
            subtype=codec,
            **constant,
        )

    def add(self, pcm: bytes) -> bytes:
        """Add whole samples; return the bytes that are complete."""
        self._file.buffer_write(pcm, "int16")
        return b"" if self._whole else b"".join(self._unsent())

    def end(self) -> Iterator[bytes]:
        """Yield the remaining bytes, in chunks that are not empty."""
        self._file.close()
        yield from self._unsent()
        self._made.close()

    def _unsent(self) -> Iterator[bytes]:
        """Yield the new bytes. What libsndfile changes before them, the length at the beginning,
        is already sent."""
        at = self._made.tell()
        self._made.seek(self._sent)
        while part := self._made.read(PART_BYTES):
            self._sent += len(part)
            yield part
        self._made.seek(at)
