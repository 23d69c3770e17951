"""Signal conditioning: mix-down in which no channel cancels another, resampling, DC offsets."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.audio.channel_layout import ChannelLayout

Frames: TypeAlias = npt.NDArray[np.float32]
"""Samples of channels, shape (samples, channels)."""

_OPPOSITE_CORRELATION = -0.5
"""Below it the mean of two channels has less than a quarter of their energy."""
_DEAD_ENERGY = 1e-6
"""A channel that was never above -60 dB of the loudest is an input without a microphone."""
_OTHER_REFERENCE_GAIN = 2.0
"""Energy that another channel must have to become the reference: equal ones do not take turns."""
_FADE_S = 0.01
_PIECE_S = 0.25
"""Least time for which channels are weighed: a cable may turn them over for a word."""
_BESIDE_CENTRE = 0.35
"""Weight of the others beside a channel for the dialogue. With music or noise as loud in left and
right, and half as loud behind, 92 to 100 % of the words are heard, 4 dB louder 88 to 96 %; by the
mean 33 to 46 % and 0 to 4 %, by ffmpeg's mix 79 to 83 % and 62 to 75 %."""
_BASS_HZ = 300.0
"""A channel for low effects that has more than these has words: it is somebody's microphone."""

ACTIVE_ENERGY = 1e-4
"""Share of the loudest piece from which one has speech: -40 dB."""
_MEASURED_S = 0.25
_DOMINANCE = 10.0
"""Ratio of the energies of two microphones, one of which the speaker wears."""
_MIN_DOMINATED_S, _MIN_DOMINATED_SHARE = 1.0, 0.6
"""Seconds in which each of two channels dominates, and the share of all speech in which one does:
in music and in a room with two microphones it is less."""

_MIN_OFFSET = 0.05
"""Share of full scale. Less changes no words, and recordings without a fault stay as they are."""
_MIN_MEAN_S = 0.1
"""The mean of less says nothing."""
_MIN_VARIANCE = 1e-10
"""Of samples behind a microphone, by its noise; without any they are not a signal at an offset."""

_LOUDEST_FLOAT, INTEGER_SCALE = 100.0, 32768.0
"""Full scale is 1. No recording is 40 dB louder; some programs write integers as floats."""
_LEVEL_SHARE = 0.99
"""Share of samples that may not be louder."""


class ChannelMixer:
    """Mixer of blocks of one recording at ``rate``: the mean of its channels, without those that
    are the loudest one upside down, and without those that have had no signal yet. In a film the
    channel with the dialogue counts most, and that with the bass not at all.

    One channel of a pair upside down (a balanced cable on a stereo input) would cancel the other:
    what was said is on each of them.
    """

    def __init__(self, rate: int, layout: ChannelLayout) -> None:
        self._fade, self._piece = max(1, round(_FADE_S * rate)), round(_PIECE_S * rate)
        self._loudest = 0.0
        self._live = np.zeros(layout.channels, np.bool_)
        self._shares = np.ones(layout.channels, np.float32)
        if layout.centre is not None:
            self._shares[:] = _BESIDE_CENTRE
            self._shares[layout.centre] = 1.0
        self._bass = layout.bass
        self._low_slope = 4 * math.sin(math.pi * _BASS_HZ / rate) ** 2
        self._reference = 0
        self._weights: Block | None = None

    def mix(self, frames: Frames) -> Block:
        """Return the next block, shape (samples,), of ``frames``, shape (samples, channels)."""
        if frames.shape[1] == 1:
            return frames[:, 0].copy()
        pieces = np.array_split(frames, max(1, len(frames) // self._piece))
        return np.concatenate([self._mix(piece) for piece in pieces])

    def _mix(self, frames: Frames) -> Block:
        if not len(frames):
            return np.zeros(0, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # floats of a file may be anything
            share = np.float32(1 / len(frames))
            bounded = np.clip(frames, -1.0, 1.0)  # one sample of a million decides nothing
            mean = np.full(len(frames), share) @ bounded
            steps = np.diff(bounded[:, self._bass]) if self._bass is not None else mean[:0]
            products = bounded.T @ bounded * share - np.outer(mean, mean)
            weights = self._weights_of(products, float(steps @ steps * share))
            mono: Block = frames @ weights
            if self._weights is not None and not np.array_equal(weights, self._weights):
                before = frames[: self._fade] @ self._weights
                fade = np.linspace(0.0, 1.0, len(before), dtype=np.float32)
                mono[: len(before)] = before + fade * (mono[: len(before)] - before)
        self._weights = weights
        return mono

    def _weights_of(self, products: Frames, bass_slope: float) -> Block:
        """Return the weight of each channel by the covariances of all pairs (``products``), and by
        the mean energy of the steps of the channel for the bass."""
        products = np.nan_to_num(products.astype(np.float64))
        energy = np.diag(products)
        self._loudest = max(self._loudest, float(energy.max()))
        self._live |= energy > _DEAD_ENERGY * self._loudest
        if energy.max() > _OTHER_REFERENCE_GAIN * energy[self._reference]:
            self._reference = int(energy.argmax())
        scale = np.sqrt(energy) * np.sqrt(energy[self._reference])
        taken = self._live & (products[self._reference] >= _OPPOSITE_CORRELATION * scale)
        if self._bass is not None:
            own = energy[self._bass]
            if own > ACTIVE_ENERGY * self._loudest and bass_slope > self._low_slope * own:
                self._bass = None
            else:
                taken[self._bass] = False
        if not taken.any():
            taken[:] = True
        shares = taken * self._shares
        weights: Block = (shares / shares.sum()).astype(np.float32)
        return weights


def bounded(frames: Frames) -> Frames:
    """Return finite samples in [-1, 1]."""
    bounded: Frames = np.clip(np.nan_to_num(frames, posinf=0.0, neginf=0.0), -1.0, 1.0)
    return bounded


class Mixer(Protocol):
    """Mixer of the blocks of one part of a recording."""

    def mix(self, frames: Frames) -> Block:
        """Return the next block, shape (samples,), of ``frames``, shape (samples, channels)."""


MakeMixer = Callable[[int, ChannelLayout], Mixer]
"""Maker of the mixer of a part by its sample rate and channels."""


class ChannelMix:
    """Mix of all channels, which measures whether two of them have different speakers."""

    def __init__(self) -> None:
        self._energies = array("f")
        """Energies of the first channel and the second, for each `_MEASURED_S` seconds."""

    def __call__(self, rate: int, layout: ChannelLayout) -> Mixer:
        """Return the mixer of a part."""
        mixer = ChannelMixer(rate, layout)
        return _MeasuredPair(mixer, rate, self._energies) if layout.channels == 2 else mixer

    @property
    def different_speakers(self) -> bool:
        """Return whether now one channel has the speech, now the other, as if each were the
        microphone of one speaker."""
        least = ACTIVE_ENERGY * max(self._energies, default=0.0)
        pairs = zip(self._energies[::2], self._energies[1::2], strict=True)
        active = [pair for pair in pairs if max(pair) > least]
        dominated = [
            sum(pair[one] > _DOMINANCE * pair[1 - one] for pair in active) for one in (0, 1)
        ]
        enough = min(dominated) * _MEASURED_S >= _MIN_DOMINATED_S
        return enough and sum(dominated) >= _MIN_DOMINATED_SHARE * len(active)


class _MeasuredPair:
    """Mixer of two channels whose energies are measured."""

    def __init__(self, mixer: Mixer, rate: int, energies: array[float]) -> None:
        self._mixer, self._energies = mixer, energies
        self._piece = max(1, round(_MEASURED_S * rate))

    def mix(self, frames: Frames) -> Block:
        """Mix, and add the energies of the pieces."""
        if len(frames):
            for piece in np.array_split(bounded(frames), max(1, len(frames) // self._piece)):
                self._energies.extend(piece.var(axis=0).tolist())
        return self._mixer.mix(frames)


class Resampler:
    """Resampler of one stream of mono samples, from ``source_rate`` to ``rate``. It delays its
    output by some milliseconds."""

    def __init__(self, source_rate: int, rate: int) -> None:
        self._resample: Callable[..., Block] | None = None
        if source_rate != rate:
            import soxr

            stream = soxr.ResampleStream(source_rate, rate, 1, dtype="float32")
            self._resample = stream.resample_chunk

    def take(self, block: Block, *, last: bool = False) -> Block:
        """Return the output for samples, shape (samples,); all of it if they are the ``last``."""
        return self._resample(block, last=last) if self._resample else block

    def rest(self) -> Block:
        """End the stream; return the samples that are left."""
        return self.take(np.zeros(0, np.float32), last=True)


def loudest_level(peaks: Block) -> float:
    """Return the level that few of some absolute samples exceed: bad ones say nothing of the
    rest."""
    return float(np.quantile(peaks, _LEVEL_SHARE, method="lower")) if len(peaks) else 0.0


def float_scale(loudest: float) -> np.float32:
    """Return the factor for floats that are as loud as this: 1, or that of floats in the range of
    integers."""
    integers = _LOUDEST_FLOAT < loudest <= INTEGER_SCALE
    return np.float32(1 / INTEGER_SCALE if integers else 1)


class DcOffsetRemover:
    """Remover of the constant offset that a faulty input adds to all samples: for the blocks of one
    recording at ``rate``, in order, however short they are. ``alike``: the number of successive
    blocks that have to have it, so that a puff is none."""

    def __init__(self, rate: int, alike: int = 1) -> None:
        self._min_samples = round(_MIN_MEAN_S * rate)
        self._means = deque([0.0] * alike, alike)
        self._offset: float | None = None
        self._sum, self._squares, self._samples = 0.0, 0.0, 0

    def remove(self, block: Block) -> Block:
        """Return the block as finite samples in [-1, 1] without its offset, which changes from the
        last one's evenly."""
        block = np.clip(np.nan_to_num(block, posinf=0.0, neginf=0.0), -1.0, 1.0)
        before = self._offset
        self._sum += float(block.sum(dtype=np.float64))
        self._squares += float(np.square(block, dtype=np.float64).sum())
        self._samples += len(block)
        if self._samples >= self._min_samples:
            mean = self._sum / self._samples
            varies = self._squares / self._samples - mean**2 > _MIN_VARIANCE
            self._means.append(mean if varies else 0.0)
            offset = min(self._means, key=abs)
            self._offset = offset if abs(offset) >= _MIN_OFFSET else 0.0
            self._sum, self._squares, self._samples = 0.0, 0.0, 0
        after = self._offset or 0.0
        if not before and not after:
            return block
        first = after if before is None else before
        offsets = np.linspace(first, after, len(block), dtype=np.float32)
        found: Block = np.clip(block - offsets, -1.0, 1.0)
        return found
