"""How much of a call may be on its way and not yet read: each side grants the other bytes.

Without it one call that nobody reads would fill the line for all. A frame may be larger than the
window: it goes when less than half a window is on its way.
"""

from __future__ import annotations

import json
from typing import Any

WINDOW = 1 << 20
"""Bytes of one call in one direction: half a minute of sound as 16-bit samples at 16 kHz."""
FRAME_BYTES = 512
"""What a frame costs in memory besides what is in it, however small it is."""


def told_size(message: dict[str, Any], raw: bytes) -> int:
    """Return what a message to a worker counts, on both sides, with the bytes behind it."""
    return FRAME_BYTES + len(json.dumps(message)) + len(raw)


class Outgoing:
    """What was sent and not yet read."""

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._unread = 0

    def allows(self, size: int) -> bool:
        """Whether a frame of ``size`` bytes may go now."""
        owed = self._window // 2  # so much may be read and not yet granted: who waited for it would
        return self._unread < owed or self._unread + size <= self._window  # do so for ever

    def sent(self, size: int) -> None:
        """A frame went."""
        self._unread += size

    def granted(self, size: int) -> None:
        """The other side has read so many bytes."""
        self._unread = max(0, self._unread - size)


class Incoming:
    """What was read and not yet said to be."""

    def __init__(self, window: int = WINDOW) -> None:
        self._step = window // 2
        self._owed = 0

    def read(self, size: int) -> int:
        """A frame was read; the bytes to grant now, 0 while it is not worth a frame."""
        self._owed += size
        if self._owed < self._step:
            return 0
        owed, self._owed = self._owed, 0
        return owed
