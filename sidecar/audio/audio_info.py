"""Facts of a recording, which the service reads from a plain WAV itself: it imports no numpy."""

from dataclasses import dataclass
from typing import Any

from sidecar.audio import audio_format, file_layout
from sidecar.audio.audio_format import read_file_at
from sidecar.audio.ffmpeg_output import AudioTrack
from sidecar.serialization import WireValues, to_plain

PCM_DECODER, FFMPEG_DECODER = "pcm", "ffmpeg"
PLAIN_PARTS = 64
"""Joined WAV files of a plain one: the event loop reads their headers, in at most some 10 ms."""
MIN_RATE, MAX_RATE = 2_000, 768_000
"""Hz. Below it no speech survives; above it no recorder exists."""
MAX_CHANNELS = 256


@dataclass(frozen=True, slots=True)
class AudioInfo(WireValues):
    """Result of `probe_audio`. ``total_s`` is the header's claim, None if it makes none.
    ``channels``: those of a probe are the recording's, and those of a job the ones that are
    transcribed one by one; 1: it is mixed. ``tracks``: those of a container, only of a probe."""

    container: str
    decoder: str
    total_s: float | None
    channels: int = 1
    tracks: tuple[AudioTrack, ...] = ()

    @property
    def work_s(self) -> float | None:
        """Return the seconds of audio that an engine has to transcribe, in all channels."""
        return self.total_s and self.total_s * self.channels

    def to_wire(self) -> dict[str, Any]:
        """Return plain values, without the channels if there is one, and without tracks if there
        are none: a node of the release before does not know them."""
        values: dict[str, Any] = to_plain(self)
        if self.channels == 1:
            del values["channels"]
        if not self.tracks:
            del values["tracks"]
        return values


def probe_plain_wav(fd: int, max_s: float) -> AudioInfo | None:
    """Return the facts of a recording that needs no decoder: plain WAV within the limits."""
    parts = file_layout.read_wav_parts(fd, PLAIN_PARTS)
    if not parts or read_file_at(fd, 0, 4) != b"RIFF":
        return None
    if not all(part.is_plain and is_plausible(part.rate, part.channels) for part in parts):
        return None
    seconds = sum(part.seconds for part in parts)
    if not 0 < seconds <= max_s:
        return None
    channels = max(part.channels for part in parts)
    return AudioInfo(audio_format.WAV.name, PCM_DECODER, seconds, channels)


def is_plausible(rate: int, channels: int) -> bool:
    """Return whether a recording can have this sample rate (Hz) and these channels."""
    return MIN_RATE <= rate <= MAX_RATE and 1 <= channels <= MAX_CHANNELS
