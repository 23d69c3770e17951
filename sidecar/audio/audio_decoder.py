"""Streaming decoder of any file into mono blocks: libsndfile and soxr, and an ffmpeg subprocess.

The length in a header is only a claim until the samples have been counted: nothing is allocated by
it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sidecar import errors
from sidecar.audio import SAMPLE_RATE, Block, audio_format, ffmpeg
from sidecar.audio.loudness import PeakMeter
from sidecar.serialization import WireValues

MIN_RATE, MAX_RATE = 2_000, 768_000
"""Hz. Below it no speech survives; above it no recorder exists."""
MAX_CHANNELS = 256
DURATION_SCAN_BUDGET_S = 2.0
"""Time limit for counting the samples of a file with a header above the limit."""
_BLOCK_SAMPLES = 1 << 16
"""Samples times channels that are decoded at once: 256 KiB, which stay in a processor's cache (ten
seconds take 0.6 ms; with 1 MiB 1.5 ms)."""


@dataclass(frozen=True, slots=True)
class AudioInfo(WireValues):
    """Result of `probe_audio`. ``total_s`` is the header's claim, None if it makes none."""

    container: str
    decoder: str
    total_s: float | None


def probe_plain_wav(fd: int, max_s: float) -> AudioInfo | None:
    """Return the facts of a recording that needs no decoder: plain WAV within the limits."""
    header = audio_format.read_wav_header(fd)
    if (
        header is None
        or not header.is_plain
        or not MIN_RATE <= header.rate <= MAX_RATE
        or header.channels > MAX_CHANNELS
        or not 0 < header.seconds <= max_s
    ):
        return None
    return AudioInfo(audio_format.WAV.name, "sndfile", header.seconds)


def preload_decoders() -> None:
    """Import the decoders, so that the first file does not wait for that."""
    import ffmpeg  # noqa: F401
    import soundfile  # noqa: F401


def probe_audio(fd: int, max_s: float) -> AudioInfo:
    """Return the facts of an open file, after decoding its first samples.

    Raises:
        errors.BadAudio: it is empty, no audio, undecodable, or longer than ``max_s`` seconds.
    """
    container = _detect_container(fd)
    deadline = time.monotonic() + DURATION_SCAN_BUDGET_S
    for decoder in ("sndfile", "ffmpeg") if container.in_process else ("ffmpeg",):
        facts = AudioInfo(container.name, decoder, None)
        try:
            with open_audio(fd, facts, rate=SAMPLE_RATE, max_s=max_s) as audio:
                blocks = iter(audio)
                if next(blocks, None) is None:
                    continue
                claimed = audio.total_s
                if claimed is not None and claimed > max_s:
                    claimed = _measured_duration(audio, blocks, deadline)
                return AudioInfo(container.name, decoder, claimed)
        except _ImplausibleHeader:
            raise  # ffmpeg would make hours of audio of it
        except errors.AudioUndecodable:
            continue
    raise errors.AudioUndecodable()


def _measured_duration(audio: DecodedAudio, blocks: Iterator[Block], deadline: float) -> float:
    """Return the real seconds of a file with a header above the limit.

    Raises:
        errors.AudioTooLong: it is too long, or could not be counted in time.
    """
    for _ in blocks:
        if time.monotonic() > deadline:
            raise errors.AudioTooLong()
    return audio.done_s


def _detect_container(fd: int) -> audio_format.AudioContainer:
    if os.fstat(fd).st_size == 0:
        raise errors.AudioEmpty()
    os.lseek(fd, 0, os.SEEK_SET)
    container = audio_format.detect_container(os.read(fd, audio_format.SNIFF_BYTES))
    if container is None:
        raise errors.AudioFormatUnsupported()
    return container


class DecodedAudio(AbstractContextManager["DecodedAudio"]):
    """Audio of a decoder (`interfaces.engine_interface.AudioStream`); iterate it once.

    Raises (while iterating):
        errors.AudioTooLong: there are more than ``max_s`` seconds of audio.
        errors.AudioUndecodable: there is no audio.
    """

    def __init__(
        self, decoder: _SndfileDecoder | ffmpeg.FfmpegProcess, rate: int, max_s: float
    ) -> None:
        self._decoder = decoder
        self._rate = rate
        self._max_samples = int(max_s * rate)
        self._samples = 0
        self.peaks = PeakMeter(rate)
        """Peak meter of the decoded audio."""

    @property
    def total_s(self) -> float | None:
        """Return the seconds that the header claims."""
        return self._decoder.total_s

    @property
    def done_s(self) -> float:
        """Return the seconds that are decoded so far."""
        return self._samples / self._rate

    @property
    def truncated(self) -> bool:
        """Return whether the recording is incomplete."""
        return self._decoder.truncated

    def __iter__(self) -> Iterator[Block]:
        import numpy as np

        for block in self._decoder:
            self._samples += len(block)
            if self._samples > self._max_samples:
                raise errors.AudioTooLong()
            finite = np.isfinite(block)
            if not finite.all():
                block = np.where(finite, block, np.float32(0))
            block = np.clip(block, -1.0, 1.0)
            self.peaks.hear(block)
            yield block
        self.peaks.end()
        if not self._samples:
            raise errors.AudioUndecodable()

    def __exit__(self, *_: object) -> None:
        self._decoder.close()


class _ImplausibleHeader(errors.AudioUndecodable):
    """Valid header with values that no recording can have."""


class _SndfileDecoder:
    """Decoder with libsndfile, and soxr for the rate; returns the mean of all channels."""

    def __init__(self, fd: int, container: audio_format.AudioContainer, rate: int) -> None:
        import soundfile

        os.lseek(fd, 0, os.SEEK_SET)
        try:
            self._file = soundfile.SoundFile(os.dup(fd), closefd=True)
        except (soundfile.LibsndfileError, RuntimeError, ValueError):
            raise errors.AudioUndecodable() from None
        source_rate, channels = self._file.samplerate, self._file.channels
        if not (MIN_RATE <= source_rate <= MAX_RATE and 1 <= channels <= MAX_CHANNELS):
            self._file.close()
            raise _ImplausibleHeader(
                f"The audio claims {source_rate} Hz and {channels} channels.",
                hint=f"{MIN_RATE} to {MAX_RATE} Hz and up to {MAX_CHANNELS} channels work.",
            )
        self._fd, self._container, self._rate = fd, container, rate
        self._frames, self._damaged = 0, False
        self.total_s: float | None = self._file.frames / source_rate

    @property
    def truncated(self) -> bool:
        short = self._damaged or self._frames < self._file.frames
        return short or audio_format.is_truncated(self._fd, self._container)

    def __iter__(self) -> Iterator[Block]:
        import numpy as np
        import soundfile
        import soxr

        source_rate, channels = self._file.samplerate, self._file.channels
        resample: Callable[..., Block] | None = None
        if source_rate != self._rate:
            stream = soxr.ResampleStream(source_rate, self._rate, 1, dtype="float32")
            resample = stream.resample_chunk
        buffer = np.empty((max(1, _BLOCK_SAMPLES // channels), channels), dtype=np.float32)
        while not self._damaged:
            try:
                frames = self._file.read(out=buffer)
            except (soundfile.LibsndfileError, RuntimeError):
                # Samples before the damage count, up to the last frame; `truncated` reports it.
                self._damaged, frames = True, buffer[: self._read_since()]
            self._frames += len(frames)
            if not len(frames):
                break
            # A mean over one channel is a copy too; the buffer is reused.
            mono = frames.mean(axis=1) if channels > 1 else frames[:, 0].copy()
            yield resample(mono) if resample else mono
        if resample:
            yield resample(np.empty(0, np.float32), last=True)

    def _read_since(self) -> int:
        """Return the frames that a failed read had put into its buffer."""
        import soundfile

        try:
            return max(0, int(self._file.tell()) - self._frames)
        except (soundfile.LibsndfileError, RuntimeError):
            return 0

    def close(self) -> None:
        self._file.close()


def open_audio(fd: int, facts: AudioInfo, *, rate: int, max_s: float) -> DecodedAudio:
    """Decode an open file that `probe_audio` described, at ``rate`` Hz, up to ``max_s`` seconds.

    Raises:
        errors.AudioUndecodable: the decoder cannot open it.
    """
    container = next(item for item in audio_format.CONTAINERS if item.name == facts.container)
    if facts.decoder == "sndfile":
        return DecodedAudio(_SndfileDecoder(fd, container, rate), rate, max_s)
    return DecodedAudio(ffmpeg.FfmpegProcess(fd, container, rate, max_s + 1.0), rate, max_s)


def equal_blocks(blocks: Iterable[Block], samples: int) -> Iterator[Block]:
    """Yield the audio in blocks of ``samples``; the last may be shorter."""
    import numpy as np

    rest: Block = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= samples:
            yield rest[:samples]
            rest = rest[samples:]
    if len(rest):
        yield rest


def decode_audio_file(path: str | os.PathLike[str], rate: int, max_s: float = 5 * 3600) -> Block:
    """Return a whole file, shape (samples,): for tools and tests, not for the service."""
    import numpy as np

    with open(path, "rb", buffering=0) as file:
        facts = probe_audio(file.fileno(), max_s)
        with open_audio(file.fileno(), facts, rate=rate, max_s=max_s) as audio:
            return np.concatenate(list(audio))
