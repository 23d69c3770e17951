"""Opus packets, as browsers and telephones send them, into samples.

libopus does it (by PyAV, the extra `opus`), to which every browser gives packets of strangers all
day. FFmpeg's own decoder, which PyAV has too, is not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar import errors

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext

RATE = 48_000
"""Samples a second of what comes out, whatever the packets were made from."""
LONGEST = 61_298
"""Bytes of a packet: 48 frames of 1,275 (RFC 6716), and what stands before them."""


class OpusDecoder:
    """One stream, packet by packet. The first import takes a moment: not for the event loop.

    Raises:
        errors.EncodingUnavailable: the package is not installed.
    """

    def __init__(self) -> None:
        try:
            import av
            from av.audio.codeccontext import AudioCodecContext
        except ImportError:
            raise errors.EncodingUnavailable() from None
        self._av: Any = av
        self._context: AudioCodecContext = AudioCodecContext.create("libopus", "r")
        self._context.sample_rate = RATE
        self._context.layout = "mono"

    def samples(self, packet: bytes) -> bytes:
        """What one packet sounds like: pcm16, mono, at `RATE`.

        Raises:
            errors.SoundInvalid: it is no packet.
        """
        if not 0 < len(packet) <= LONGEST:
            raise errors.SoundInvalid(f"{len(packet)} bytes are no Opus packet.", hint=_HINT)
        try:
            frames = self._context.decode(self._av.Packet(packet))
        except self._av.error.FFmpegError:
            raise errors.SoundInvalid("A message is no Opus packet.", hint=_HINT) from None
        return b"".join(bytes(one.planes[0])[: 2 * one.samples] for one in frames)


_HINT = "Send one whole Opus packet in each binary message, without Ogg or WebM around it."
"""Anything else would be decoded to noise, or not at all."""
