"""The jobs of this wire that its status lists.

Those on their way, and for a moment those that have ended. Nothing of what was said is kept for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sidecar.jobs.job import Job
from sidecar.jobs.record import JobRecord, JobState

LISTED_S = 30.0
"""As the original lists them."""


def status_of(job: JobRecord) -> str:
    """A job's state in this wire's words."""
    match job.state:
        case JobState.QUEUED:
            return "queued"
        case JobState.RUNNING:
            return "streaming" if job.segments else "processing"
        case JobState.DONE:
            return "completed"
    return "failed"


@dataclass(frozen=True, slots=True)
class Over:
    """A job that has ended."""

    id: str
    owner: str
    status: str
    until: float


class Recent:
    """By their ids, in the order in which they came."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._jobs: dict[str, Job | Over] = {}

    def add(self, job: Job) -> None:
        """One more is on its way."""
        self._forget_old()
        self._jobs[job.id] = job

    def over(self, job: Job) -> None:
        """One has ended."""
        self._forget_old()
        until = self._now() + LISTED_S
        self._jobs[job.id] = Over(job.id, job.record.owner, status_of(job.record), until)

    def of(self, owner: str) -> Iterator[JobRecord | Over]:
        """Those of one owner."""
        self._forget_old()
        for job in self._jobs.values():
            known = job if isinstance(job, Over) else job.record
            if known.owner == owner:
                yield known

    def _forget_old(self) -> None:
        now = self._now()
        for name, job in list(self._jobs.items()):
            if isinstance(job, Over) and job.until <= now:
                del self._jobs[name]
