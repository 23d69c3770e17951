"""Kaldi's log mel energies, as the speaker encoder was trained on them; numpy only."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block

RATE = 16_000
FRAME, HOP = 400, 160
MELS = 80
_FFT = 512
_LOWEST_HZ, _HIGHEST_HZ = 20.0, 8000.0
_PREEMPHASIS = 0.97
_FLOOR = 1.1920929e-07
_FULL_SCALE = 32768.0

Features = npt.NDArray[np.float32]
"""Shape (frames, 80)."""


def fbank(samples: Block) -> Features:
    """Log mel energies less their mean over the stretch, a frame every 10 ms.

    ``samples``: shape (samples,) at `RATE`, at least `FRAME` of them.
    """
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP] * np.float32(
        _FULL_SCALE
    )
    frames -= frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    window, filters = _tables()
    spectrum = np.fft.rfft((frames - _PREEMPHASIS * before) * window, _FFT)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    energies = np.log(np.maximum(power.astype(np.float32) @ filters, _FLOOR))
    features: Features = energies - energies.mean(axis=0)
    return features


@cache
def _tables() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The window, shape (400,), and the mel filters, shape (257, 80)."""
    lowest, highest = _mel(_LOWEST_HZ), _mel(_HIGHEST_HZ)
    edges = np.linspace(lowest, highest, MELS + 2)
    bins = _mel(np.arange(_FFT // 2 + 1) * (RATE / _FFT))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    return np.hamming(FRAME).astype(np.float32), filters.astype(np.float32)


def _mel(hertz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)
