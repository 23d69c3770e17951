"""Recovery of persisted jobs and recordings at start.

Recordings are in a folder or a bucket; job records are in a file of this service or in a database
that several services share (`plugins/shared_jobs`). Nothing here runs without `--keep-jobs` or
`--journal`.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from sidecar import clock, errors
from sidecar.audio import audio_source
from sidecar.audio.audio_source import ClientFileRef
from sidecar.concurrency import ThreadLimiter
from sidecar.config.settings import Settings, data_folder
from sidecar.jobs.attempt_end import poison_error
from sidecar.jobs.faults import known_error, passes
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import (
    CountsAs,
    FailedChange,
    JobFailure,
    JobRecord,
    RequeuedChange,
)
from sidecar.jobs.job_runner import Job
from sidecar.jobs.persistent_recordings import PersistentRecordings, opening_timeout_s
from sidecar.jobs.sqlite_event_log import SqliteJobEventLog
from sidecar.storage.encryption import journal_key
from sidecar.storage.job_journal import UPLOADS_FOLDER
from sidecar.storage.recording_storage import FolderStorage, names_of

log = logging.getLogger(__name__)

REOPEN_INTERVAL_S = 10.0
"""Interval of attempts to open recordings; a person takes minutes to mount a folder."""
MOUNT_RETRIES = 60
"""Further attempts to open a client's file whose folder is missing or empty: its disk may be
mounted after the service has started. The client may as well have deleted it."""
HUNG_S = 1.0
"""Time to open a recording behind one whose disk does not answer: it may be on the same."""


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
            if isinstance(record.audio, audio_source.StoredRecordingRef)
            and self.archive.has(record)
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


async def requeue_unfinished(
    persistence: JobPersistence,
    queue: JobQueue,
    retry_s: float = REOPEN_INTERVAL_S,
    hung_s: float = HUNG_S,
    record_timeout_s: Callable[[JobRecord], float] = opening_timeout_s,
    mount_retries: int = MOUNT_RETRIES,
) -> None:
    """Queue accepted jobs that have not ended, in the order of their submission. Each resumes from
    its last resume point. Those whose recordings cannot be opened now are tried again every
    ``retry_s`` seconds; one whose disk does not answer within ``record_timeout_s`` of its record
    keeps its thread, and those behind it have ``hung_s`` each. A client's file that is missing is
    tried ``mount_retries`` times more, if its folder may have yet to be mounted."""
    event_log = persistence.event_log
    unfinished = {
        one.id: record_timeout_s(one) for one in event_log.all() if one.durable and not one.over
    }
    counts_as = CountsAs.NOTHING if event_log.was_stopped else CountsAs.DEATH
    for job_id in unfinished:
        event_log.append(job_id, RequeuedChange(counts_as))
    if unfinished:
        log.info("%d persisted jobs are queued again", len(unfinished))
    threads = ThreadLimiter("opening", len(unfinished))
    tries = dict[str, asyncio.Task[Exception | None]]()
    try:
        while unfinished:
            waiting, hung = dict[str, Exception](), False
            for job_id, timeout_s in unfinished.items():
                if job_id not in tries:
                    work = _requeued(job_id, persistence, queue, threads, mount_retries > 0)
                    tries[job_id] = asyncio.get_running_loop().create_task(work)
                await asyncio.wait({tries[job_id]}, timeout=hung_s if hung else timeout_s)
                if not tries[job_id].done():
                    hung = True
                    waiting[job_id] = errors.StorageUnreachable()
                elif (error := tries.pop(job_id).result()) is not None:
                    waiting[job_id] = error
            queue.breakers.openings({known_error(error) for error in waiting.values()})
            if waiting:
                await asyncio.sleep(retry_s)
                mount_retries -= 1
            unfinished = {one: 0.0 if one in tries else unfinished[one] for one in waiting}
    finally:
        for task in tries.values():
            task.cancel()


async def _requeued(
    job_id: str,
    persistence: JobPersistence,
    queue: JobQueue,
    threads: ThreadLimiter,
    awaits_mount: bool,
) -> Exception | None:
    """Open a job's recording and queue the job; return an error if it has to be tried again.
    ``awaits_mount``: as of `_open`."""
    event_log = persistence.event_log
    try:
        record = event_log.get(job_id)
        if record.over:
            return None
        if (error := poison_error(record)) is not None:
            raise error
        source = await threads.run(_open, persistence, record, awaits_mount)
    except errors.JobNotFound:  # it was deleted meanwhile
        return None
    # an error of one job must not stop the recovery of those behind it
    except Exception as error:
        if passes(error):
            return error
        if not isinstance(error, errors.SidecarError):
            log.exception("internal error while job %s was recovered", job_id)
        with contextlib.suppress(errors.JobNotFound):  # the job was deleted meanwhile
            event_log.append(job_id, FailedChange(JobFailure.of(known_error(error))))
        return None
    current_record = next((one for one in event_log.all() if one.id == job_id), None)
    if current_record is None or current_record.over:  # it was deleted or cancelled meanwhile
        source.close()
    else:
        queue.resume(Job(source, current_record))
    return None


def _open(
    persistence: JobPersistence, record: JobRecord, awaits_mount: bool
) -> audio_source.AudioSource:
    """Return the recording of a job. ``awaits_mount``: whether a client's file that is not found is
    out of reach, and not deleted, if its folder may not be mounted.

    Raises:
        errors.StorageUnreachable: that is so; else as `PersistentRecordings.open`.
    """
    ref = record.audio
    # before it is opened: a folder that is mounted in between makes no missing file
    unmounted = awaits_mount and isinstance(ref, ClientFileRef) and _may_be_unmounted(ref.path)
    try:
        return persistence.open(record)
    except errors.AudioPathNotFound:
        if unmounted:
            raise errors.StorageUnreachable(
                "The folder of 'audio_path' is missing or empty; it may not be mounted yet."
            ) from None
        raise


def _may_be_unmounted(path: str) -> bool:
    """Return whether the folder of a file is missing, empty, or cannot be listed."""
    try:
        with os.scandir(os.path.dirname(os.path.realpath(path))) as entries:
            return next(entries, None) is None
    except OSError:
        return True
