"""What happens to jobs, for the tally."""

from __future__ import annotations

from sidecar.jobs.events import Begun, Cancelled, Crashed, Failed, JobEvent, Reported
from sidecar.jobs.record import JobRecord
from sidecar.observability.outcomes import outcome_of
from sidecar.observability.tally import JobTally
from sidecar.transcripts.transcript import Finished


class Counted:
    """Listens to a store (`jobs.feed.Listener`)."""

    def __init__(self, tally: JobTally) -> None:
        self._tally = tally

    def __call__(self, record: JobRecord, event: JobEvent) -> None:
        """One more event, and the record after it."""
        tally, since = self._tally, event.at - record.created
        match event.change:
            case Reported(Finished(transcript)):
                tally.done(transcript.duration, record.processing_s, since)
            case Failed(failure):
                error = failure.error()
                tally.failed(error.code, since, outcome_of(error))
            case Cancelled():
                tally.cancelled(since)
            case Begun() if record.begun == event.at:
                tally.began(since)
            case Crashed():
                tally.crashed.add()
