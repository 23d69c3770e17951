"""16-bit sound at another rate, a piece at a time."""

from __future__ import annotations

import numpy as np


class Resampler:
    """One stream of mono little-endian samples. It hands out what it was given some milliseconds
    later; `rest` is that, at the end."""

    def __init__(self, rate: int, wanted: int) -> None:
        import soxr

        self._stream = soxr.ResampleStream(rate, wanted, 1, dtype="int16")

    def take(self, pcm: bytes) -> bytes:
        """What is there of it by now."""
        return self._made(np.frombuffer(pcm, "<i2"), last=False)

    def rest(self) -> bytes:
        """What is left."""
        return self._made(np.zeros(0, np.int16), last=True)

    def _made(self, samples: np.ndarray[tuple[int], np.dtype[np.int16]], *, last: bool) -> bytes:
        made = self._stream.resample_chunk(samples.astype(np.int16, copy=False), last=last)
        raw: bytes = made.astype("<i2", copy=False).tobytes()
        return raw
