"""Decoder of the samples of WAV files inside a worker: numpy, and soxr for the rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from sidecar import errors
from sidecar.audio import Block, audio_format, file_layout
from sidecar.audio.audio_info import MAX_CHANNELS, MAX_RATE, MIN_RATE, is_plausible
from sidecar.audio.channel_layout import ChannelLayout, masked_layout
from sidecar.audio.codecs import decode_a_law, decode_mu_law
from sidecar.audio.ffmpeg_output import LostAudio, RecordingHeader
from sidecar.audio.file_layout import A_LAW, FLOAT, MU_LAW, PCM, SCALED_FLOAT, WavPart
from sidecar.audio.open_ended_layout import read_open_ended_part
from sidecar.audio.signal_conditioning import (
    Frames,
    MakeMixer,
    Resampler,
    float_scale,
    loudest_level,
)

_BLOCK_SAMPLES = 1 << 16
"""Samples times channels that are decoded at once: 256 KiB, which stay in a processor's cache (ten
seconds take 0.6 ms; with 1 MiB 1.5 ms)."""


_FLOAT_WINDOWS, _FLOAT_WINDOW_BYTES = 16, 1 << 16
"""Samples of floats that are looked at for their range, evenly spread."""
_SOFTEST_INTEGER = 2.0**-10
"""A thousandth of a step of integers: few floats in their range are below it, but for 0."""


class ImplausibleHeader(errors.AudioUndecodable):
    """Valid header with values that no recording can have."""


def readable_parts(fd: int, container: audio_format.AudioContainer) -> list[WavPart]:
    """Return the parts of an open WAV file, or the samples of another one that ffmpeg would not
    decode to their end, if `WavDecoder` can decode all of them.

    Raises:
        ImplausibleHeader: the first cannot be a recording.
    """
    if container in (audio_format.WAV, audio_format.RF64):
        parts = [
            _with_floats(fd, part) if part.frame_bytes == 4 * part.channels else part
            for part in file_layout.read_wav_parts(fd)
        ]
    else:
        part = read_open_ended_part(fd, container)
        parts = [] if part is None else [part]
    if not parts or not parts[0].sample_bytes or _reader(parts[0]) is None:
        return []
    rate, channels = parts[0].rate, parts[0].channels
    if not is_plausible(rate, channels):
        raise ImplausibleHeader(
            f"The audio claims {rate} Hz and {channels} channels.",
            hint=f"{MIN_RATE} to {MAX_RATE} Hz and up to {MAX_CHANNELS} channels work.",
        )
    return parts if all(map(_is_readable, parts)) else []


def _with_floats(fd: int, part: WavPart) -> WavPart:
    """Return a part of 16 or 24 bits in four bytes as one of floats if it has those, which Cool
    Edit wrote in the range of integers. Most integers would be tiny or NaN as floats."""
    if part.encoding != PCM or part.bits not in (16, 24) or not part.channels:
        return part
    with np.errstate(invalid="ignore"):
        samples = np.abs(np.frombuffer(b"".join(_windows(fd, part)), f"{part.order}f4"))
        samples = samples[samples != 0]
        usual = (samples > _SOFTEST_INTEGER) & (samples <= 2 ** (part.bits - 1))
    floats = len(samples) > 0 and usual.mean() > 0.5
    return replace(part, encoding=SCALED_FLOAT) if floats else part


def _windows(fd: int, part: WavPart) -> Iterator[bytes]:
    """Yield whole frames of some places of a part."""
    window = part.frame_bytes * (_FLOAT_WINDOW_BYTES // part.frame_bytes)
    size = part.frames * part.frame_bytes
    step = max(window, size // _FLOAT_WINDOWS // part.frame_bytes * part.frame_bytes)
    for position in range(0, size, step) if step else ():
        count = min(window, size - position)
        data = audio_format.read_file_at(fd, part.start + position, count)
        yield data[: len(data) - len(data) % part.frame_bytes]


class WavDecoder:
    """Decoder of the samples of WAV files, one part behind the other, whatever rate each has."""

    def __init__(self, fd: int, parts: Sequence[WavPart], rate: int, make_mixer: MakeMixer) -> None:
        self._fd, self._rate = fd, rate
        self._parts, self._make_mixer = parts, make_mixer
        self.channels = max(part.channels for part in parts)
        """Number of channels of the part with the most."""
        self.lost = LostAudio(parts[-1].missing_s) if parts[-1].is_short else None
        """Samples that are missing."""
        self.header = RecordingHeader(sum(part.seconds for part in self._parts))
        self.track = 0

    def __iter__(self) -> Iterator[Block]:
        for part in self._parts:
            scale = self._scale_of(part)
            layout = ChannelLayout(part.channels)
            if part.channels > 2:
                layout = masked_layout(part.mask, part.channels)
            mixer = self._make_mixer(part.rate, layout)
            resampler = Resampler(part.rate, self._rate)
            for frames in self._frames_of(part):
                yield resampler.take(mixer.mix(frames if scale == 1 else frames * scale))
            yield resampler.rest()

    def _scale_of(self, part: WavPart) -> np.float32:
        """Return the factor for samples: 1, or that of floats in the range of integers."""
        read = _reader(part)
        if part.encoding == SCALED_FLOAT:
            return np.float32(2.0 ** (1 - part.bits))
        if part.encoding != FLOAT or read is None:
            return np.float32(1)
        loudest = 0.0
        for data in _windows(self._fd, part):
            samples = read(data)
            if len(samples):
                peaks = np.nan_to_num(np.abs(samples)).reshape(-1, part.channels).max(axis=1)
                loudest = max(loudest, loudest_level(peaks))
        return float_scale(loudest)

    def _frames_of(self, part: WavPart) -> Iterator[Frames]:
        read = _reader(part)
        assert read is not None
        size = max(1, _BLOCK_SAMPLES // part.channels) * part.frame_bytes
        position, left = part.start, part.frames * part.frame_bytes
        while left:
            data = audio_format.read_file_at(self._fd, position, min(size, left))
            whole = len(data) - len(data) % part.frame_bytes
            if not whole:
                self.lost = LostAudio()  # another process has shortened the file
                return
            position, left = position + whole, left - whole
            yield read(data[:whole]).reshape(-1, part.channels)

    def close(self) -> None:
        """Do nothing: the file belongs to the caller."""


def _is_readable(part: WavPart) -> bool:
    plausible = is_plausible(part.rate, part.channels)
    return plausible and part.sample_bytes > 0 and _reader(part) is not None


def _reader(part: WavPart) -> Callable[[bytes], Block] | None:
    """Return the function that makes samples, full scale 1, of the bytes of a part."""
    return _readers().get((part.encoding, part.sample_bytes, part.order))


@cache
def _readers() -> dict[tuple[int, int, str], Callable[[bytes], Block]]:
    def integers(order: str, size: int) -> Callable[[bytes], Block]:
        kind, scale = np.dtype(f"{order}i{size}"), np.float32(2.0 ** (1 - 8 * size))
        return lambda data: np.frombuffer(data, kind).astype(np.float32) * scale

    def of_three_bytes(order: str) -> Callable[[bytes], Block]:
        def read(data: bytes) -> Block:
            padded = np.zeros((len(data) // 3, 4), np.uint8)
            columns = slice(1, 4) if order == "<" else slice(0, 3)
            padded[:, columns] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            return integers(order, 4)(padded.tobytes())

        return read

    def floats(order: str, size: int) -> Callable[[bytes], Block]:
        def read(data: bytes) -> Block:
            with np.errstate(over="ignore", invalid="ignore"):
                return np.frombuffer(data, f"{order}f{size}").astype(np.float32)

        return read

    def of_bytes(data: bytes) -> Block:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(128)

    def of_law(decode: Callable[[bytes], bytes]) -> Callable[[bytes], Block]:
        table = integers("<", 2)(decode(bytes(range(256))))
        return lambda data: table[np.frombuffer(data, np.uint8)]

    found: dict[tuple[int, int, str], Callable[[bytes], Block]] = {}
    for order in "<>":
        found |= {
            (PCM, 1, order): of_bytes,
            (PCM, 2, order): integers(order, 2),
            (PCM, 3, order): of_three_bytes(order),
            (PCM, 4, order): integers(order, 4),
            (FLOAT, 4, order): floats(order, 4),
            (SCALED_FLOAT, 4, order): floats(order, 4),
            (FLOAT, 8, order): floats(order, 8),
            (A_LAW, 1, order): of_law(decode_a_law),
            (MU_LAW, 1, order): of_law(decode_mu_law),
        }
    return found
