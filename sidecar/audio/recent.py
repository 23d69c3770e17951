"""The last minutes of a recording, by time."""

from __future__ import annotations

from collections import deque

from sidecar.audio import Block


class RecentAudio:
    """Blocks in order; what lies behind `forget` is gone. Times in seconds from the start."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._blocks: deque[tuple[int, Block]] = deque()
        self._samples = 0

    @property
    def end_s(self) -> float:
        """Where the recording stands."""
        return self._samples / self._rate

    def append(self, block: Block) -> None:
        """More audio, shape (samples,)."""
        self._blocks.append((self._samples, block))
        self._samples += len(block)

    def between(self, start_s: float, end_s: float) -> Block:
        """The samples from ``start_s`` to ``end_s``, as far as they are here: a copy."""
        import numpy as np

        start, end = round(start_s * self._rate), round(end_s * self._rate)
        parts = [
            block[max(0, start - first) : max(0, end - first)]
            for first, block in self._blocks
            if first < end and first + len(block) > start
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def forget(self, before_s: float) -> None:
        """Let go of what ended before ``before_s``."""
        while self._blocks:
            first, block = self._blocks[0]
            if first + len(block) > before_s * self._rate:
                return
            self._blocks.popleft()
