"""Job that this node has claimed, and may lose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sidecar import errors
from sidecar.audio.source import AudioSource
from sidecar.jobs.events import Cancelled, Change, JobEvent
from sidecar.jobs.job import Job
from sidecar.jobs.record import JobRecord, advance

HERE = (
    errors.ModelLoadFailed,
    errors.BadCheckpoint,
    errors.EngineUnavailable,
    errors.GpuOutOfMemory,
    errors.WontFit,
    errors.DiskFull,
    errors.SpoolUnwritable,
)
"""Errors that may be the fault of this machine and not of the recording: another node may try."""


class ClaimedJob(Job):
    """A job that writes to the log of its node as long as it is claimed; then it stops untold: it
    ends in this process, and no log hears of it."""

    def __init__(
        self,
        source: AudioSource,
        record: JobRecord,
        reported: Callable[[], Awaitable[None]],
        passes_on: Callable[[ClaimedJob, errors.SidecarError], bool],
    ) -> None:
        """``reported``: waits until all its events so far are persisted. ``passes_on``: whether
        another node will try the job after an error of this machine."""
        super().__init__(source, record)
        self._reported = reported
        self._passes_on = passes_on
        self.claimed = True
        """Whether its events are reported."""

    def let_go(self) -> None:
        """Write to the log no more."""
        self.claimed = False

    def fail(self, error: errors.SidecarError) -> None:
        """End without a transcript, or stop untold if another node will try."""
        passes = self.claimed and isinstance(error, HERE) and not self.ended
        if passes and self._passes_on(self, error):
            self.wait_again(counted=True, passed=True)
            self.let_go()
            self.cancel()
        else:
            super().fail(error)

    async def written(self) -> None:
        """Wait until its events so far are persisted, however long the database is away, or the
        claim is lost."""
        if self.claimed:
            await self._reported()

    def _append(self, change: Change) -> None:
        if self.claimed:
            super()._append(change)
        elif isinstance(change, Cancelled) and not self.ended:
            self._end_untold(change)

    def _end_untold(self, change: Cancelled) -> None:
        event = JobEvent(self.record.seq + 1, self.record.created, change)
        self._heard(advance(self.record, event), event)
        self.source.close()
