"""The jobs of this wire that its status lists for a moment although they have ended.

Nothing of what was said is kept for it.
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
    """Those that have ended, in that order."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._jobs: dict[str, Over] = {}

    def over(self, job: Job) -> None:
        """Note a job that has ended, or that its client has left, which ends it."""
        self._forget_old()
        until = self._now() + LISTED_S
        status = status_of(job.record) if job.ended else "failed"
        self._jobs[job.id] = Over(job.id, job.record.owner, status, until)

    def of(self, owner: str) -> Iterator[Over]:
        """Those of one owner."""
        self._forget_old()
        return (job for job in self._jobs.values() if job.owner == owner)

    def _forget_old(self) -> None:
        now = self._now()
        self._jobs = {name: job for name, job in self._jobs.items() if job.until > now}
