"""Resampling of streamed audio: client bytes to samples, rate conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sidecar.audio import Block
from sidecar.interfaces.live_options import LIVE_RATE, SampleEncoding

if TYPE_CHECKING:
    import soxr


class SampleInput:
    """Audio input of one session; its rate may change between two chunks.

    A resampler delays its output by some milliseconds; `rest` returns what is left at the end.
    """

    def __init__(self) -> None:
        self._rate = LIVE_RATE
        self._resampler: soxr.ResampleStream | None = None

    def take(self, raw: bytes, encoding: SampleEncoding, rate: int) -> Block:
        """Return samples at `LIVE_RATE`, shape (samples,), from whole samples at ``rate``."""
        if encoding is SampleEncoding.PCM16:
            block: Block = np.frombuffer(raw, "<i2").astype(np.float32) / np.float32(32768)
        else:
            block = np.nan_to_num(np.frombuffer(raw, "<f4"), posinf=0, neginf=0).clip(-1, 1)
            block = block.astype(np.float32, copy=False)
        if rate != self._rate:
            before = self.rest()
            if rate != LIVE_RATE:
                import soxr

                self._rate = rate
                self._resampler = soxr.ResampleStream(rate, LIVE_RATE, 1, dtype="float32")
            return np.concatenate([before, self._resampled(block)])
        return self._resampled(block)

    def _resampled(self, block: Block) -> Block:
        if self._resampler is None:
            return block
        found: Block = self._resampler.resample_chunk(block)
        return found

    def rest(self) -> Block:
        """Return the samples left in the resampler; the next audio begins a new stream."""
        resampler, self._resampler = self._resampler, None
        self._rate = LIVE_RATE
        if resampler is None:
            return np.zeros(0, np.float32)
        found: Block = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        return found


class StreamResampler:
    """Resampler of one stream of mono little-endian samples. It delays its output by some
    milliseconds; `rest` returns what is left at the end."""

    def __init__(self, rate: int, wanted: int) -> None:
        import soxr

        self._stream = soxr.ResampleStream(rate, wanted, 1, dtype="int16")

    def take(self, pcm: bytes) -> bytes:
        """Return the samples that are resampled so far."""
        return self._made(np.frombuffer(pcm, "<i2"), last=False)

    def rest(self) -> bytes:
        """Return the samples that are left at the end."""
        return self._made(np.zeros(0, np.int16), last=True)

    def _made(self, samples: np.ndarray[tuple[int], np.dtype[np.int16]], *, last: bool) -> bytes:
        made = self._stream.resample_chunk(samples.astype(np.int16, copy=False), last=last)
        raw: bytes = made.astype("<i2", copy=False).tobytes()
        return raw
