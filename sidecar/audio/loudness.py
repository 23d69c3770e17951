"""Loudness of audio: waveform peaks, quietest cut points."""

from __future__ import annotations

from sidecar.audio import Block

PEAKS_PER_SECOND = 10
MAX_PEAK = 255

_FRAME_S = 0.02


class PeakMeter:
    """Meter of the loudest sample of each tenth of a second, 0 to 255, block by block."""

    def __init__(self, rate: int) -> None:
        """``rate``: samples per second."""
        self._each = max(1, rate // PEAKS_PER_SECOND)
        self._rest: Block | None = None
        self._levels = bytearray()

    def hear(self, block: Block) -> None:
        """Add samples, in [-1, 1]."""
        import numpy as np

        if self._rest is not None:
            block = np.concatenate([self._rest, block])
        whole = len(block) // self._each
        parts = block[: whole * self._each].reshape(whole, self._each)
        loudest = np.maximum(parts.max(axis=1, initial=0.0), -parts.min(axis=1, initial=0.0))
        self._levels += np.rint(loudest * MAX_PEAK).astype(np.uint8).tobytes()
        self._rest = block[whole * self._each :].copy()

    def end(self) -> None:
        """End the audio; the rest counts as a tenth of a second, too."""
        if self._rest is not None and len(self._rest):
            loudest = float(abs(self._rest).max())
            self._levels.append(round(loudest * MAX_PEAK))
            self._rest = None

    def since(self, first: int) -> bytes:
        """Return the peaks from number ``first`` on."""
        return bytes(self._levels[first:])


def quietest_sample(samples: Block, rate: int, over_s: float) -> int:
    """Return the sample in the middle of the ``over_s`` seconds with the least energy.

    ``samples``: shape (samples,). If they are too short, return their middle.
    """
    import numpy as np

    frame = max(1, round(_FRAME_S * rate))
    frames, over = len(samples) // frame, round(over_s / _FRAME_S)
    if frames < over:
        return len(samples) // 2
    energy = np.square(samples[: frames * frame].reshape(frames, frame)).mean(axis=1)
    smooth = np.convolve(energy, np.ones(over), mode="valid")
    return (int(smooth.argmin()) * 2 + over) * frame // 2
