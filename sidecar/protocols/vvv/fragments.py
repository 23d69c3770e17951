"""A transcript as the queue's clients read it: the text of the model's own JSON list. Pure.

In fragments that follow each other with nothing in between.

What was sent stays sent, so each segment goes out once, as soon as it is closed. What is revised
after that (who said it; a stretch that is heard again after a crash) is not told on this wire.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from sidecar.api.http.unsaid import Unsaid
from sidecar.jobs.record import JobRecord
from sidecar.transcripts.transcript import Segment


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
        self._unsaid = Unsaid()
        self._begun = False

    def more(self, job: JobRecord) -> Iterator[str]:
        """A fragment for each segment that is new in a job, and one for the end of the list."""
        for _, segment in self._unsaid.more(job):
            yield ("," if self._begun else "[") + segment_text(segment)
            self._begun = True
        if job.transcript is not None:
            yield "]" if self._begun else "[]"
