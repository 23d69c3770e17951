"""G.711 and Opus codecs of live audio, and encoders of whole files.

Opus of live audio uses libopus (by PyAV, the extra `opus`), which browsers expose to untrusted
packets every day. FFmpeg's own decoder, which PyAV has too, is not used.
"""

from __future__ import annotations

import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.audio.audio_format import wav_head
from sidecar.installation import install_command

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext


G711_RATE = 8_000
"""Samples per second."""

_OPUS_HINT = "Send one whole Opus packet in each binary message, without Ogg or WebM around it."
"""Hint for other input, which would be decoded to noise, or not at all."""
SAMPLE_BYTES = 2
PART_BYTES = 64 << 10
MAX_IN_MEMORY_BYTES = 1 << 20
"""Bytes of a file that is sent at its end; a larger one is a temporary file on disk."""
_MP3 = {"bitrate_mode": "CONSTANT", "compression_level": 0.5}
"""80 kbit/s at 24 kHz. With a variable bitrate readers cannot tell the length without a header that
is written last."""


def _mu_law_sample(byte: int) -> int:
    byte ^= 0xFF
    size = (((byte & 0x0F) << 3) + 0x84 << ((byte & 0x70) >> 4)) - 0x84
    return -size if byte & 0x80 else size


def _a_law_sample(byte: int) -> int:
    byte ^= 0x55
    size, segment = ((byte & 0x0F) << 4) + 8, (byte & 0x70) >> 4
    if segment:
        size = size + 0x100 << segment - 1
    return size if byte & 0x80 else -size


@cache
def _decode_table(expand: Callable[[int], int]) -> tuple[bytes, ...]:
    return tuple(expand(byte).to_bytes(2, "little", signed=True) for byte in range(256))


def decode_mu_law(raw: bytes) -> bytes:
    """Return 16-bit little-endian samples, two bytes for each input byte."""
    return b"".join(map(_decode_table(_mu_law_sample).__getitem__, raw))


def decode_a_law(raw: bytes) -> bytes:
    """Return 16-bit little-endian samples, two bytes for each input byte."""
    return b"".join(map(_decode_table(_a_law_sample).__getitem__, raw))


def encode_mu_law(pcm: bytes) -> bytes:
    """Return one byte for each 16-bit sample: the nearest value of the law."""
    return _encode_samples(_mu_law_sample, pcm)


def encode_a_law(pcm: bytes) -> bytes:
    """Return one byte for each 16-bit sample: the nearest value of the law."""
    return _encode_samples(_a_law_sample, pcm)


@cache
def _encode_table(expand: Callable[[int], int]) -> bytes:
    """Return the nearest byte to each sample, beginning with the lowest sample."""
    sizes = sorted((expand(byte), byte) for byte in range(256))
    found, at = bytearray(), 0
    for sample in range(-32768, 32768):
        while at < 255 and abs(sizes[at + 1][0] - sample) <= abs(sizes[at][0] - sample):
            at += 1
        found.append(sizes[at][1])
    return bytes(found)


def _encode_samples(expand: Callable[[int], int], pcm: bytes) -> bytes:
    table = _encode_table(expand)
    samples = array("h", pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    return bytes(table[sample + 32768] for sample in samples)


OPUS_RATE = 48_000
"""Samples per second of the output, whatever rate the packets were encoded from."""
MAX_OPUS_PACKET_BYTES = 61_298
"""Bytes of a packet at most: 48 frames of 1,275 (RFC 6716), and the bytes before them."""


class OpusDecoder:
    """Decoder of one stream of one or two ``channels``, packet by packet. The first import is slow:
    not for the event loop.

    Raises:
        errors.EncodingUnavailable: the package is not installed.
    """

    def __init__(self, channels: int = 1) -> None:
        try:
            import av
            from av.audio.codeccontext import AudioCodecContext
        except ImportError:
            hint = f"Send pcm16, or install Opus where the service runs: {install_command('opus')}."
            raise errors.EncodingUnavailable(hint=hint) from None
        self._av: Any = av
        self._context: AudioCodecContext = AudioCodecContext.create("libopus", "r")
        self._context.sample_rate = OPUS_RATE
        self._context.layout = "mono" if channels == 1 else "stereo"
        self._frame_bytes = SAMPLE_BYTES * channels

    def samples(self, packet: bytes) -> bytes:
        """Return the samples of one packet: pcm16, interleaved, at `OPUS_RATE`.

        Raises:
            errors.SoundInvalid: it is not a packet.
        """
        if not 0 < len(packet) <= MAX_OPUS_PACKET_BYTES:
            raise errors.SoundInvalid(
                f"A message of {len(packet)} bytes is not an Opus packet.", hint=_OPUS_HINT
            )
        try:
            frames = self._context.decode(self._av.Packet(packet))
        except self._av.error.FFmpegError:
            raise errors.SoundInvalid("A message is not an Opus packet.", hint=_OPUS_HINT) from None
        return b"".join(bytes(one.planes[0])[: self._frame_bytes * one.samples] for one in frames)


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


def audio_encoder(encoded_format: EncodedFormat, rate: int) -> _PlainEncoder | _CompressingEncoder:
    """Return a streaming encoder of mono 16-bit samples, ``rate`` of them a second; only compressed
    formats, which libsndfile makes, take CPU time."""
    if encoded_format in _LIBSNDFILE:
        return _CompressingEncoder(encoded_format, rate)
    return _PlainEncoder(
        wav_head(rate, SAMPLE_BYTES) if encoded_format is EncodedFormat.WAV else b""
    )


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

    def __init__(self, encoded_format: EncodedFormat, rate: int) -> None:
        import soundfile

        container, codec = _LIBSNDFILE[encoded_format]
        constant = _MP3 if encoded_format is EncodedFormat.MP3 else {}
        self._whole = encoded_format is EncodedFormat.FLAC
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
