"""Loudness of audio, and buffers of recent audio: waveform peaks, quietest cut points."""

from __future__ import annotations

from collections import deque

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


class SampleRingBuffer:
    """Samples from `start` up to `end`; only whole blocks are dropped."""

    def __init__(self, start: int = 0) -> None:
        self.start = self.end = start
        self._blocks: deque[Block] = deque()

    def append(self, block: Block) -> None:
        """Append samples, shape (samples,)."""
        if len(block):
            self._blocks.append(block)
            self.end += len(block)

    def drop(self, before: float) -> None:
        """Drop the blocks that end before a sample."""
        while self._blocks and self.start + len(self._blocks[0]) <= before:
            self.start += len(self._blocks.popleft())

    def silence(self, begin: int, end: int) -> None:
        """Silence the samples from ``begin`` up to ``end``, as far as they are stored."""
        at = self.start
        for number, block in enumerate(self._blocks):
            if at >= end:
                break
            if at + len(block) > begin:
                quiet = block.copy()
                quiet[max(0, begin - at) : end - at] = 0.0
                self._blocks[number] = quiet
            at += len(block)

    def cut(self, begin: int, end: int) -> Block:
        """Return a copy of the samples from ``begin`` up to ``end``, as far as they are stored."""
        import numpy as np

        parts, at = [], self.start
        for block in self._blocks:
            if at >= end:
                break
            after = at + len(block)
            if after > begin:
                parts.append(block[max(0, begin - at) : end - at])
            at = after
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


class AudioHistoryBuffer(SampleRingBuffer):
    """Buffer of recent audio by times, in seconds from the start of the recording."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self._rate = sample_rate

    @property
    def start_s(self) -> float:
        """Return the start of the stored samples, in seconds."""
        return self.start / self._rate

    @property
    def end_s(self) -> float:
        """Return the end of the recording so far, in seconds."""
        return self.end / self._rate

    def between(self, start_s: float, end_s: float) -> Block:
        """Return a copy of the samples from ``start_s`` to ``end_s``, as far as they are stored."""
        return self.cut(round(start_s * self._rate), round(end_s * self._rate))

    def forget(self, before_s: float) -> None:
        """Drop blocks that ended before ``before_s``."""
        self.drop(before_s * self._rate)
