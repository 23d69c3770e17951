"""Bytes as clients send them → samples as live engines hear them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sidecar.audio import Block
from sidecar.interfaces.live import LIVE_RATE, Encoding

if TYPE_CHECKING:
    import soxr


class Intake:
    """One session's sound; its rate may change between two pieces of it.

    A resampler hands out what it was given some milliseconds later; `rest` is that, at the end.
    """

    def __init__(self) -> None:
        self._rate = LIVE_RATE
        self._resampler: soxr.ResampleStream | None = None

    def take(self, raw: bytes, encoding: Encoding, rate: int) -> Block:
        """Samples at `LIVE_RATE`, shape (samples,), of whole samples at ``rate``."""
        if encoding is Encoding.PCM16:
            block: Block = np.frombuffer(raw, "<i2").astype(np.float32) / np.float32(32768)
        else:
            block = np.nan_to_num(np.frombuffer(raw, "<f4"), posinf=0, neginf=0).clip(-1, 1)
            block = block.astype(np.float32, copy=False)
        if rate == self._rate and self._resampler is None:
            return block
        before = self.rest() if rate != self._rate else None
        if rate == LIVE_RATE:
            self._rate = rate
            return block if before is None else np.concatenate([before, block])
        if self._resampler is None:
            import soxr

            self._rate = rate
            self._resampler = soxr.ResampleStream(rate, LIVE_RATE, 1, dtype="float32")
        found: Block = self._resampler.resample_chunk(block)
        return found if before is None else np.concatenate([before, found])

    def rest(self) -> Block:
        """What the resampler still has; the next sound begins anew."""
        resampler, self._resampler = self._resampler, None
        self._rate = LIVE_RATE
        if resampler is None:
            return np.zeros(0, np.float32)
        found: Block = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        return found
