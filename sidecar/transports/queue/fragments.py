"""A transcript as the queue's clients read it: the text of the model's own JSON list, in fragments
that follow each other with nothing in between. Pure.

What was sent stays sent, so each segment goes out once, as soon as it is closed. What is revised
after that (who said it; a stretch that is heard again after a crash) is not told on this wire.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from sidecar.jobs.record import JobRecord
from sidecar.speech.transcript import Segment


def segment_text(segment: Segment) -> str:
    """One segment as the model writes it; what nobody says has no speaker."""
    body: dict[str, object] = {"Start": round(segment.start, 2), "End": round(segment.end, 2)}
    if segment.is_speech:
        body["Speaker"] = segment.speaker or 0
    body["Content"] = segment.text
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Fragments:
    """What is still to be said of one job."""

    def __init__(self) -> None:
        self._said: list[Segment] = []
        self._before: Sequence[Segment] = ()
        """Said in an attempt that came to nothing."""
        self._next = 0
        self._attempt = 0

    def more(self, job: JobRecord) -> Iterator[str]:
        """A fragment for each segment that is new in a job, and one for the end of the list."""
        again = job.attempts != self._attempt or len(job.segments) < self._next
        if again or job.transcript is not None:
            self._attempt, self._next, self._before = job.attempts, 0, tuple(self._said)
        for segment in job.segments[self._next :]:
            self._next += 1
            if not self._was_said(segment):
                yield ("," if self._said else "[") + segment_text(segment)
                self._said.append(segment)
        if job.transcript is not None:
            yield "]" if self._said else "[]"

    def _was_said(self, segment: Segment) -> bool:
        """Whether most of its time was told of before; an attempt begins anew, and at its end some
        borders may lie a little elsewhere."""
        overlap = sum(
            max(0.0, min(segment.end, one.end) - max(segment.start, one.start))
            for one in self._before
        )
        return bool(self._before) and overlap >= (segment.end - segment.start) / 2
