"""A recording longer than a window: pieces that overlap, with borders where nobody speaks.

No torch in here: the benchmarks cut for another engine with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sidecar.audio import Block
from sidecar.audio.quiet import quietest
from sidecar.interfaces.engine import AudioStream

Stretches = Sequence[tuple[float, float]]
"""Where there is speech: (start, end) in seconds, in order."""
Listen = Callable[[Block, int], Stretches]
"""Finds them in samples, shape (samples,), at a rate."""

OVERLAP_S = 10.0
"""What two windows both hear: room for a sentence on either side of the border."""
SEARCH_S = 120.0
"""A border lies in the last so many seconds of a window."""
LEAD_S = 3.0
"""Sound before that, for the detector to get used to."""
MIN_PAUSE_S = 0.2
"""A shorter gap lies inside a word as often as between two."""
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a recording, shape (samples,), that begins ``start_s`` into it.

    What is said from ``border_s`` on is the next window's; None in the last one.
    """

    start_s: float
    samples: Block
    border_s: float | None


class Windows:
    """Iterate it: the windows of a recording at ``rate``, each at most ``window_s`` long.

    Holds one window; its samples are good until the next is asked for. ``listen`` finds the speech
    at a window's end; where it is None, or finds no pause, the border is where the sound is least.
    """

    def __init__(
        self, audio: AudioStream, rate: int, window_s: float, listen: Listen | None = None
    ) -> None:
        self._blocks = iter(audio)
        self._rate = rate
        self._size = max(1, round(window_s * rate))
        self._listen = listen
        claimed = round((audio.total_s or 0.0) * rate) + rate
        self._held = np.empty(min(self._size, claimed), np.float32)
        self._count = 0
        self._rest: Block = self._held[:0]
        self._start = 0
        self._used = 0

    @property
    def end_s(self) -> float:
        """How long the recording is, as far as it was taken in."""
        return (self._start + self._count) / self._rate

    def again(self, window_s: float) -> None:
        """The last window was too long: begin anew where it began, in windows of ``window_s``."""
        self._used = 0
        self._size = max(1, round(window_s * self._rate))

    def __iter__(self) -> Iterator[Window]:
        while True:
            self._forget()
            ended = not self._fill()
            if not self._count:
                return
            last = ended and self._count <= self._size
            samples = self._held[: min(self._count, self._size)]
            border = None if last else self._border(samples)
            self._used = self._count if border is None else border - self._overlap // 2
            start_s = self._start / self._rate
            yield Window(start_s, samples, border and start_s + border / self._rate)
            if self._used == self._count and ended:
                return

    @property
    def _overlap(self) -> int:
        return min(round(OVERLAP_S * self._rate), self._size // 6)

    def _forget(self) -> None:
        """Let go of what lies before the next window."""
        left = self._count - self._used
        self._held[:left] = self._held[self._used : self._count]
        self._start, self._count, self._used = self._start + self._used, left, 0

    def _fill(self) -> bool:
        """Take in what the window lacks; False if the recording ends with what is held."""
        while self._count < self._size or not len(self._rest):
            if not len(self._rest):
                following = next(self._blocks, None)
                if following is None:
                    return False
                self._rest = following
            part = self._rest[: max(0, self._size - self._count)]
            self._rest = self._rest[len(part) :]
            needed = self._count + len(part)
            if needed > len(self._held):
                self._held = np.resize(self._held, max(needed, min(self._size, 2 * needed)))
            self._held[self._count : needed] = part
            self._count = needed
        return True

    def _border(self, samples: Block) -> int:
        """Where to cut, in samples: late enough for a long window, early enough to overlap."""
        end = len(samples) - self._overlap // 2
        begin = end - min(round(SEARCH_S * self._rate), self._size // 4)
        first = max(0, begin - round(LEAD_S * self._rate))
        zone = (begin - first) / self._rate, (end - first) / self._rate
        pause = None
        if self._listen is not None:
            pause = longest_pause(self._listen(samples[first:end], self._rate), *zone)
        if pause is None:
            return begin + quietest(samples[begin:end], self._rate, _PAUSE_S)
        return first + round(pause * self._rate)


def longest_pause(speech: Stretches, begin_s: float, end_s: float) -> float | None:
    """The middle of the longest gap between ``begin_s`` and ``end_s``; None if there is none.

    The latest of equally long ones; what reaches beyond counts as far as it lies inside.
    """
    gaps: list[tuple[float, float]] = []
    at = begin_s
    for start, end in sorted(speech):
        gaps.append((at, min(start, end_s)))
        at = max(at, end)
    gaps.append((at, end_s))
    best = max(gaps, key=lambda gap: (round(gap[1] - gap[0], 3), gap[1]))
    return sum(best) / 2 if best[1] - best[0] >= MIN_PAUSE_S else None
