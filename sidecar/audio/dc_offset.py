"""Removal of the constant offset that a faulty input adds to all samples."""

from __future__ import annotations

from sidecar.audio import Block

_MIN_OFFSET = 0.05
"""Share of full scale. Less changes no words, and recordings without a fault stay as they are."""
_MIN_BLOCK_S = 0.1
"""The mean of a shorter block says nothing."""


class DcOffsetRemover:
    """Remover for the blocks of one recording at ``rate``, in order; samples in [-1, 1]."""

    def __init__(self, rate: int) -> None:
        self._min_samples = round(_MIN_BLOCK_S * rate)
        self._offset: float | None = None

    def remove(self, block: Block) -> Block:
        """Return the block without its offset, which changes from the last one's evenly."""
        import numpy as np

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
