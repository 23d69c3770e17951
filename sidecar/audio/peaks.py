"""How loud a recording is, tenth of a second by tenth: what a picture of it is drawn from."""

from __future__ import annotations

from sidecar.audio import Block

PER_SECOND = 10
LOUDEST = 255


class Peaks:
    """The loudest sample of each tenth of a second, 0 to 255, as the blocks come."""

    def __init__(self, rate: int) -> None:
        """``rate``: samples in a second."""
        self._each = max(1, rate // PER_SECOND)
        self._rest: Block | None = None
        self._levels = bytearray()

    def hear(self, block: Block) -> None:
        """The next samples, in [-1, 1]."""
        import numpy as np

        if self._rest is not None:
            block = np.concatenate([self._rest, block])
        whole = len(block) // self._each
        parts = block[: whole * self._each].reshape(whole, self._each)
        loudest = np.maximum(parts.max(axis=1, initial=0.0), -parts.min(axis=1, initial=0.0))
        self._levels += np.rint(loudest * LOUDEST).astype(np.uint8).tobytes()
        self._rest = block[whole * self._each :].copy()

    def end(self) -> None:
        """No more comes: what is left is a tenth of a second, too."""
        if self._rest is not None and len(self._rest):
            loudest = float(abs(self._rest).max())
            self._levels.append(round(loudest * LOUDEST))
            self._rest = None

    def since(self, first: int) -> bytes:
        """Those from number ``first`` on."""
        return bytes(self._levels[first:])
