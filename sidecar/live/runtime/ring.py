"""The last of a stream of samples, by its own clock."""

from __future__ import annotations

from collections import deque

import numpy as np

from sidecar.audio import Block


class Ring:
    """Samples from `start` up to `end`; whole blocks are let go of."""

    def __init__(self, start: int = 0) -> None:
        self.start = self.end = start
        self._blocks: deque[Block] = deque()

    def append(self, block: Block) -> None:
        """More of it, shape (samples,)."""
        if len(block):
            self._blocks.append(block)
            self.end += len(block)

    def drop(self, before: int) -> None:
        """Let go of blocks that lie before a sample."""
        while self._blocks and self.start + len(self._blocks[0]) <= before:
            self.start += len(self._blocks.popleft())

    def silence(self, begin: int) -> None:
        """Nothing is to be heard from a sample on, of what is there."""
        at = self.start
        for number, block in enumerate(self._blocks):
            if at + len(block) > begin:
                quiet = block.copy()
                quiet[max(0, begin - at) :] = 0.0
                self._blocks[number] = quiet
            at += len(block)

    def cut(self, begin: int, end: int) -> Block:
        """The samples from ``begin`` up to ``end``, as far as they are there: a copy."""
        parts, at = [], self.start
        for block in self._blocks:
            after = at + len(block)
            if after > begin and at < end:
                parts.append(block[max(0, begin - at) : end - at])
            at = after
        found: Block = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return found
