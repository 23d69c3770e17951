"""What of a running job its client has not been told yet, on wires where what was said stays said.

Pure. Each segment goes out once, as soon as it is closed; a stretch that is heard again after a
crash, or whose borders the whole transcript has a little elsewhere, is not told again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sidecar.jobs.record import JobRecord
from sidecar.speech.transcript import Segment


class Unsaid:
    """What is still to be said of one job."""

    def __init__(self) -> None:
        self._said: list[Segment] = []
        self._before: Sequence[Segment] = ()
        """Said in an attempt that came to nothing."""
        self._next = 0
        self._attempt = 0

    def more(self, job: JobRecord) -> Iterator[tuple[int, Segment]]:
        """The segments that are new in a job, each with its index there."""
        again = job.attempts != self._attempt or len(job.segments) < self._next
        if again or job.transcript is not None:
            self._attempt, self._next, self._before = job.attempts, 0, tuple(self._said)
        for index in range(self._next, len(job.segments)):
            self._next = index + 1
            segment = job.segments[index]
            if not self._was_said(segment):
                self._said.append(segment)
                yield index, segment

    def _was_said(self, segment: Segment) -> bool:
        """Whether most of its time was told of before; an attempt begins anew, and at its end some
        borders may lie a little elsewhere."""
        overlap = sum(
            max(0.0, min(segment.end, one.end) - max(segment.start, one.start))
            for one in self._before
        )
        return bool(self._before) and overlap >= (segment.end - segment.start) / 2
