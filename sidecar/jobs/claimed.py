"""A job that this service has claimed of those that several share, and may have no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar import errors
from sidecar.audio.source import AudioSource
from sidecar.jobs.events import Cancelled, Change, JobEvent
from sidecar.jobs.job import Job
from sidecar.jobs.record import JobRecord, advance

AGAIN_S = 0.5
"""Between two tries to have something kept while the journal does not answer."""

HERE = (
    errors.ModelLoadFailed,
    errors.BadCheckpoint,
    errors.EngineUnavailable,
    errors.GpuOutOfMemory,
    errors.WontFit,
    errors.DiskFull,
    errors.SpoolUnwritable,
)
"""What may be the matter with this machine and not with the recording: another can try it."""


class ClaimedJob(Job):
    """What it says goes through the store as long as it is ours; then it ends here, untold.

    ``stop`` is called where somebody else ended it, or nobody knows it any more: what runs of it
    is to stop. ``passes_on`` is asked where it cannot be done here; whether another is to try.
    """

    def __init__(
        self,
        source: AudioSource,
        record: JobRecord,
        stop: Callable[[ClaimedJob], None],
        passes_on: Callable[[ClaimedJob], bool],
    ) -> None:
        super().__init__(source, record)
        self._stop = stop
        self._passes_on = passes_on
        self._telling = False
        self.ours = True
        """Whether it is this service's still."""

    def let_go(self) -> None:
        """It is ours no more: what happens to it here is told to nobody."""
        self.ours = False

    def fail(self, error: errors.SidecarError) -> None:
        """It ended without a transcript; or another tries, where this machine may be at fault."""
        if self.ours and isinstance(error, HERE) and not self.ended and self._passes_on(self):
            self.wait_again(counted=True, passed=True)
            self.let_go()
            self.cancel()
        else:
            super().fail(error)

    async def written(self) -> None:
        """As `Job.written`; who works waits for a journal that does not answer."""
        while self.ours:
            try:
                await super().written()
            except errors.JournalUnreachable:
                await asyncio.sleep(AGAIN_S)
            else:
                break

    def _append(self, change: Change) -> None:
        if self.ended:
            return
        if not self.ours:
            self._end_untold(change)
            return
        self._telling = True
        try:
            super()._append(change)
        except errors.JobNotFound:
            self._stop(self)
        finally:
            self._telling = False

    def _end_untold(self, change: Change) -> None:
        if not isinstance(change, Cancelled):
            return
        event = JobEvent(self.record.seq + 1, self.record.created, change)
        super()._heard(advance(self.record, event), event)
        self.source.close()

    def _heard(self, record: JobRecord, event: JobEvent) -> None:
        if not self.ours:
            return
        if record.over and not self._telling and not self.ended:
            self._stop(self)
        else:
            super()._heard(record, event)
