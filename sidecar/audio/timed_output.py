"""Output of ffmpeg, samples with their times: reader of a Matroska stream, finder of holes. Pure.

Only what ffmpeg writes to a pipe is read: one track of PCM, blocks without lacing (RFC 9559).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

_CHANNELS, _CLUSTER_TIME, _BLOCKS = 0x9F, 0xE7, (0xA1, 0xA3)
_WITH_CHILDREN = (0x18538067, 0x1654AE6B, 0xAE, 0xE1, 0x1F43B675, 0xA0)
"""Segment, Tracks, TrackEntry, Audio, Cluster, BlockGroup."""
_BLOCK_HEADER_BYTES = 4
"""Number of the track, time after that of the cluster, flags."""
_TICKS_PER_S = 1000
MAX_JITTER_S = 0.1
"""Deviation of a timestamp that is no hole."""


class TimedOutput:
    """Reader of a stream by ``read``, which returns that many bytes, fewer at the end.

    ``channels``: number of channels; 0 if the stream ends before it says that.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._elements = self._leaves()
        channels = (int.from_bytes(body) for name, body in self._elements if name == _CHANNELS)
        self.channels = next(channels, 0)

    def blocks(self) -> Iterator[tuple[float, bytes]]:
        """Yield the samples of each block behind its time in seconds."""
        cluster = 0
        for name, body in self._elements:
            if name == _CLUSTER_TIME:
                cluster = int.from_bytes(body)
            elif name in _BLOCKS:
                after = int.from_bytes(body[1:3], signed=True)
                yield (cluster + after) / _TICKS_PER_S, body[_BLOCK_HEADER_BYTES:]

    def _leaves(self) -> Iterator[tuple[int, bytes]]:
        """Yield the name and the content of each element that has no others in it."""
        while first := self._read(1):
            name = int.from_bytes(first + self._read(_length(first[0]) - 1))
            first = self._read(1)
            if not first:
                return
            length = _length(first[0])
            size = int.from_bytes(first + self._read(length - 1)) & (1 << 7 * length) - 1
            if name not in _WITH_CHILDREN:
                yield name, self._read(size)


def _length(first: int) -> int:
    """Return the bytes of a number of variable length by its first one."""
    return 9 - first.bit_length()


class HoleFinder:
    """Finder of the silence between blocks, so that times stay those of a film.

    A hole of more than ``max_s`` seconds, and time that goes back, is a clock that was set.
    """

    def __init__(self, rate: int, max_s: float) -> None:
        self._rate, self._max = rate, max_s * rate
        self._end, self._shift = 0, 0

    def before(self, time_s: float, samples: int) -> int:
        """Return the samples of silence before the next block, which has that time and number of
        samples."""
        step = round(time_s * self._rate) + self._shift - self._end
        jitter = MAX_JITTER_S * self._rate
        if step < -jitter or step > self._max:
            self._shift -= step
        hole = step if jitter < step <= self._max else 0
        self._end += hole + samples
        return hole
