"""What of a running job its client has not been told yet, on wires where what was said stays said.

Pure. Each segment goes out once, as soon as it is closed; a stretch that is heard again after a
crash, or whose borders the whole transcript has a little elsewhere, is not told again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice
from math import inf

from sidecar.jobs.record import JobRecord
from sidecar.transcripts.transcript import Segment, joined


class Unsaid:
    """What is still to be said of one job."""

    def __init__(self) -> None:
        self._said: list[Segment] = []
        self._before: list[tuple[float, float]] = []
        """When it was spoken, what was said in an attempt that came to nothing; apart, in order."""
        self._next = 0
        self._attempt = 0

    def more(self, job: JobRecord) -> Iterator[tuple[int, Segment]]:
        """The segments that are new in a job, each with its index there."""
        again = job.attempts != self._attempt or len(job.segments) < self._next
        if again or job.transcript is not None:
            self._attempt, self._next, self._before = job.attempts, 0, covered(self._said)
        for index in range(self._next, len(job.segments)):
            self._next = index + 1
            segment = job.segments[index]
            if not self._was_said(segment):
                self._said.append(segment)
                yield index, segment

    def _was_said(self, segment: Segment) -> bool:
        """Whether most of its time was told of before; an attempt begins anew, and at its end some
        borders may lie a little elsewhere."""
        first = max(0, bisect_right(self._before, (segment.start, inf)) - 1)
        overlap = 0.0
        for start, end in islice(self._before, first, None):
            if start >= segment.end:
                break
            overlap += max(0.0, min(segment.end, end) - max(segment.start, start))
        return bool(self._before) and overlap >= (segment.end - segment.start) / 2


class Saying:
    """A text that goes out in pieces, which in a row are the whole of it."""

    def __init__(self) -> None:
        self._last = ""
        """Where it stands: its last character."""

    def add(self, piece: str) -> str:
        """What to say for one more piece; "" where nothing is."""
        text = joined((self._last, piece))
        said, self._last = text[len(self._last) :], text[-1:]
        return said


def covered(segments: Iterable[Segment]) -> list[tuple[float, float]]:
    """The time that segments take, as stretches that do not touch, in order."""
    found: list[tuple[float, float]] = []
    for start, end in sorted((one.start, one.end) for one in segments):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found
