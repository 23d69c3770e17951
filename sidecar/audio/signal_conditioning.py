"""Signal conditioning: mix-down in which no channel cancels another, resampling, DC offsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block

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

_MIN_OFFSET = 0.05
"""Share of full scale. Less changes no words, and recordings without a fault stay as they are."""
_MIN_BLOCK_S = 0.1
"""The mean of a shorter block says nothing."""


class ChannelMixer:
    """Mixer of blocks of one recording at ``rate``: the mean of its channels, without those that
    are the loudest one upside down, and without those that have had no signal yet.

    One channel of a pair upside down (a balanced cable on a stereo input) would cancel the other:
    what was said is on each of them.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self._fade, self._piece = max(1, round(_FADE_S * rate)), round(_PIECE_S * rate)
        self._loudest = 0.0
        self._live = np.zeros(channels, np.bool_)
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
            weights = self._weights_of(bounded.T @ bounded * share - np.outer(mean, mean))
            mono: Block = frames @ weights
            if self._weights is not None and not np.array_equal(weights, self._weights):
                before = frames[: self._fade] @ self._weights
                fade = np.linspace(0.0, 1.0, len(before), dtype=np.float32)
                mono[: len(before)] = before + fade * (mono[: len(before)] - before)
        self._weights = weights
        return mono

    def _weights_of(self, products: Frames) -> Block:
        """Return the weight of each channel by the covariances of all pairs (``products``)."""
        products = np.nan_to_num(products.astype(np.float64))
        energy = np.diag(products)
        self._loudest = max(self._loudest, float(energy.max()))
        self._live |= energy > _DEAD_ENERGY * self._loudest
        if energy.max() > _OTHER_REFERENCE_GAIN * energy[self._reference]:
            self._reference = int(energy.argmax())
        scale = np.sqrt(energy) * np.sqrt(energy[self._reference])
        taken = self._live & (products[self._reference] >= _OPPOSITE_CORRELATION * scale)
        if not taken.any():
            taken[:] = True
        weights: Block = (taken / taken.sum()).astype(np.float32)
        return weights


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


class DcOffsetRemover:
    """Remover of the constant offset that a faulty input adds to all samples: for the blocks of one
    recording at ``rate``, in order; samples in [-1, 1]."""

    def __init__(self, rate: int) -> None:
        self._min_samples = round(_MIN_BLOCK_S * rate)
        self._offset: float | None = None

    def remove(self, block: Block) -> Block:
        """Return the block without its offset, which changes from the last one's evenly."""
        before = self._offset
        if len(block) >= self._min_samples:
            mean = float(block.mean())
            self._offset = mean if abs(mean) >= _MIN_OFFSET else 0.0
        after = self._offset or 0.0
        if not before and not after:
            return block
        first = after if before is None else before
        offsets = np.linspace(first, after, len(block), dtype=np.float32)
        found: Block = np.clip(block - offsets, -1.0, 1.0)
        return found
