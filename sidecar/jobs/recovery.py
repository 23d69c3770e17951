"""Recovery of persisted jobs and recordings at start.

Recordings are in a folder or a bucket; job records are in a file of this service or in a database
that several services share (`plugins/shared_jobs`). Nothing here runs without `--keep-jobs` or
`--journal`.
"""

import asyncio
import logging
from pathlib import Path

from sidecar import clock, errors
from sidecar.audio.audio_source import StoredRecordingRef
from sidecar.config.settings import Settings, data_folder
from sidecar.jobs.attempt_end import last_attempt, poison_error
from sidecar.jobs.faults import known_error, passes
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import CountsAs, FailedChange, JobFailure, RequeuedChange
from sidecar.jobs.job_runner import Job
from sidecar.jobs.persistent_recordings import PersistentRecordings, opener_in_threads
from sidecar.jobs.sqlite_event_log import SqliteJobEventLog
from sidecar.storage.encryption import journal_key
from sidecar.storage.job_journal import UPLOADS_FOLDER
from sidecar.storage.recording_storage import FolderStorage, names_of

log = logging.getLogger(__name__)


def jobs_folder(settings: Settings) -> Path:
    """Return the folder of persisted jobs."""
    return data_folder(settings, "jobs")


class JobPersistence(PersistentRecordings):
    """Jobs and recordings that one service persists in a folder."""

    def __init__(self, settings: Settings, now: clock.Clock = clock.wall_time) -> None:
        """Open the folder; this blocks on the disk.

        Raises:
            errors.SettingsInvalid: the folder, the file or the key cannot be used.
            errors.FolderTaken: the recordings there are of another store.
        """
        folder = jobs_folder(settings)
        storage = FolderStorage(folder / UPLOADS_FOLDER)
        self.event_log = SqliteJobEventLog(folder, journal_key(settings), now)
        super().__init__(settings, storage, self.event_log.cipher)
        try:
            storage.join(self._store_code)
        except BaseException:
            self.event_log.close()
            raise
        self.event_log.archive = self.archive
        self._sweep()

    def close(self) -> None:
        """Close the store; this blocks on the disk."""
        self.event_log.close()

    def _sweep(self) -> None:
        """Delete recordings of this store that no job needs: their jobs were never accepted, or
        have ended and the archive is full."""
        try:
            stored_names = self._storage.ages()
        except (OSError, errors.SidecarError) as error:
            log.warning("recordings that no job needs are deleted at the next start: %s", error)
            return
        records = self.event_log.all()
        for record in sorted(records, key=lambda one: one.ended or 0.0):
            if record.over:
                self.archive.put(record, stored_names)
        needed = {
            record.audio.name
            for record in records
            if isinstance(record.audio, StoredRecordingRef) and self.archive.has(record)
        }
        deleted = 0
        for name in set(names_of(self._store_code, stored_names)) - needed:
            try:
                self._storage.delete(name)
                deleted += 1
            except OSError as error:  # a folder; on Windows, a file that another program reads
                log.warning("%s cannot be deleted now; the next start tries it: %s", name, error)
        if deleted:
            log.info("%d recordings that no job needs were deleted", deleted)


def requeue_unfinished(persistence: JobPersistence, queue: JobQueue) -> None:
    """Queue accepted jobs that have not ended, in the order of their submission. Each resumes from
    its last resume point. One that meets an error of the machine is queued a moment later."""
    event_log = persistence.event_log
    open_recording = opener_in_threads(persistence.open)
    unfinished = [one.id for one in event_log.all() if one.durable and not one.over]
    counts_as = CountsAs.NOTHING if event_log.was_stopped else CountsAs.DEATH

    def fail(job_id: str, error: errors.SidecarError) -> None:
        event_log.append(job_id, FailedChange(JobFailure.of(error)))

    def resume(job_id: str) -> None:
        try:
            record = event_log.get(job_id)
        except errors.JobNotFound:  # deleted meanwhile
            return
        if record.over or queue.draining:
            return
        job = Job(None, record, open_recording)
        try:
            queue.resume(job)
        except Exception as raised:
            queue.opener.remove(job)
            job.unfollow(event_log)
            error = known_error(raised)
            if passes(raised):
                queue.breakers.failed(error)
                asyncio.get_running_loop().call_later(queue.options.fault_retry_s, resume, job_id)
            else:
                log.exception("internal error while job %s was queued again", job_id)
                fail(job_id, error)

    for job_id in unfinished:
        record = event_log.append(job_id, RequeuedChange(counts_as))
        if (poison := poison_error(record)) is not None:
            fail(job_id, poison)
            continue
        if last_attempt(record) and errors.Fault.ENGINE not in queue.breakers.open:
            queue.breakers.failed(errors.EngineCrashed())  # before the start, perhaps
        resume(job_id)
    if unfinished:
        log.info("%d persisted jobs are queued again", len(unfinished))
