"""Buffers of recent samples: by number, by time, and at two rates."""

from __future__ import annotations

import math
from collections import deque

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.signal_conditioning import Resampler


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


class SessionAudio(SampleRingBuffer):
    """Audio of a live session at the ``rate`` of its engine, which is `SAMPLE_RATE`."""

    rate = SAMPLE_RATE
    push = SampleRingBuffer.append
    for_engine = SampleRingBuffer.cut

    def complete(self) -> None:
        """End the stretch of audio here."""


class ResampledSessionAudio(SessionAudio):
    """The same for an engine of another ``rate``: samples at `SAMPLE_RATE`, made of those at the
    engine's rate, which are kept beside them as they came."""

    def __init__(self, start: int, rate: int) -> None:
        super().__init__(start)
        self.rate = rate
        self._engine = SampleRingBuffer(self._engine_position(start))
        self._resampler = Resampler(rate, SAMPLE_RATE)

    def _engine_position(self, at: int) -> int:
        return at * self.rate // SAMPLE_RATE

    def push(self, block: Block) -> None:
        """Append samples at the engine's rate, shape (samples,)."""
        self._engine.append(block)
        self.append(self._resampler.take(block))

    def complete(self) -> None:
        """End the stretch of audio here: no sample is left in the resampler. What comes next begins
        at a whole sample of both rates, behind silence of a sample or two where this one ends
        between two."""
        import numpy as np

        self.append(self._resampler.rest())
        self._resampler = Resampler(self.rate, SAMPLE_RATE)
        step = SAMPLE_RATE // math.gcd(SAMPLE_RATE, self.rate)
        ends = max(self.end, math.ceil(self._engine.end * SAMPLE_RATE / self.rate))
        ends = -(-ends // step) * step
        self.append(np.zeros(ends - self.end, np.float32))
        self._engine.append(np.zeros(self._engine_position(ends) - self._engine.end, np.float32))

    def for_engine(self, begin: int, end: int) -> Block:
        """Return a copy of the samples at the engine's rate between two at `SAMPLE_RATE`."""
        return self._engine.cut(self._engine_position(begin), self._engine_position(end))

    def drop(self, before: float) -> None:
        """Drop the blocks that end before a sample at `SAMPLE_RATE`."""
        super().drop(before)
        self._engine.drop(self._engine_position(math.floor(before)))

    def silence(self, begin: int, end: int) -> None:
        """Silence the samples from ``begin`` up to ``end``, as far as they are stored."""
        super().silence(begin, end)
        self._engine.silence(self._engine_position(begin), self._engine_position(end))


def session_audio(start: int, rate: int) -> SessionAudio:
    """Return the audio of a live session from the sample ``start`` on, for an engine's rate."""
    return SessionAudio(start) if rate == SAMPLE_RATE else ResampledSessionAudio(start, rate)
