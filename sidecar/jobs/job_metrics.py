"""Metrics of job events."""

from __future__ import annotations

from sidecar.jobs.job_record import (
    CancelledChange,
    CrashedChange,
    FailedChange,
    JobEvent,
    JobRecord,
    ReportedChange,
    StartedChange,
)
from sidecar.observability.metrics import JobMetrics, outcome_of_error
from sidecar.transcripts.transcript import Finished


class JobEventMetrics:
    """Listener of a job store (`jobs.job_event_log.JobListener`) that counts events."""

    def __init__(self, tally: JobMetrics) -> None:
        self._tally = tally

    def __call__(self, record: JobRecord, event: JobEvent) -> None:
        """Count an event; ``record`` is the job after it."""
        tally, since = self._tally, event.at - record.created
        match event.change:
            case ReportedChange(Finished(transcript)):
                tally.done(transcript.duration, record.processing_s, since)
            case FailedChange(failure):
                error = failure.error()
                tally.failed(error.code, since, outcome_of_error(error))
            case CancelledChange():
                tally.cancelled(since)
            case StartedChange() if record.begun == event.at:
                tally.began(since)
            case CrashedChange():
                tally.crashed.add()
