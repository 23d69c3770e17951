"""Reads of recordings that are in progress in a worker: a disk that hangs does not end them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sidecar.audio import Block
from sidecar.interfaces.engine_interface import AudioStream


class ReadWatch:
    """Reads in progress, of all threads of a worker."""

    def __init__(self) -> None:
        self._begun: dict[object, float] = {}

    @property
    def longest_s(self) -> float:
        """Return the seconds that the longest read in progress has taken; 0 without one."""
        begun = list(self._begun.values())
        return time.monotonic() - min(begun) if begun else 0.0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count what happens in this context as a read."""
        read = object()
        self._begun[read] = time.monotonic()
        try:
            yield
        finally:
            del self._begun[read]


class WatchedAudio:
    """Audio each block of which is a read."""

    def __init__(self, audio: AudioStream, reads: ReadWatch) -> None:
        self._audio, self._reads = audio, reads

    @property
    def total_s(self) -> float | None:
        """Return the total seconds of the audio; None if not known yet."""
        return self._audio.total_s

    def __iter__(self) -> Iterator[Block]:
        blocks = iter(self._audio)
        while True:
            with self._reads.reading():
                block = next(blocks, None)
            if block is None:
                return
            yield block
