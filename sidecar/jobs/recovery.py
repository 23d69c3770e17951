"""Recovery of persisted jobs and recordings at start.

Recordings lie in a folder or a bucket; records of jobs in a file of this service, or in a database
that several share (`sidecar.cluster`). Nothing here runs without `--keep-jobs` or `--journal`.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from pathlib import Path

from sidecar import clock, errors
from sidecar.audio import audio_source, upload_spool
from sidecar.concurrency import ThreadLimiter
from sidecar.config.settings import Settings, data_folder
from sidecar.jobs import poison_jobs
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import FailedChange, InterruptedChange, JobFailure, JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.jobs.sqlite_job_log import RecordingArchive, SqliteJobLog
from sidecar.storage.encryption import Cipher, DecryptionFailed, EncryptedFile, journal_key
from sidecar.storage.job_journal import UPLOADS_FOLDER
from sidecar.storage.recording_storage import RecordingStorage
from sidecar.storage.storage_selection import create_recording_storage

log = logging.getLogger(__name__)

_ALTERED = "The stored recording was changed."


def jobs_folder(settings: Settings) -> Path:
    """Where jobs are kept."""
    return data_folder(settings, "jobs")


class PersistentRecordings:
    """Recordings of jobs that outlive the process: written, opened and deleted."""

    def __init__(
        self, settings: Settings, storage: RecordingStorage, seal: Cipher, *, shared: bool = False
    ) -> None:
        """``shared``: whether other services have to find them, so that a file which a client
        named is copied."""
        self._storage, self._seal, self._shared = storage, seal, shared
        self.shelf = RecordingArchive(storage, settings.keep_recordings_mb << 20)
        """Recordings that can be listened to."""
        self._roots = settings.audio_roots
        self._spool_dir = settings.spool_dir

    async def kept(
        self, threads: ThreadLimiter, source: audio_source.AudioSource, *, synced: bool = True
    ) -> audio_source.StoredRecordingRef | audio_source.ClientFileRef:
        """`keep` a recording under a new name, in a thread. If the caller stops waiting, the thread
        deletes what it has written.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable, errors.StorageUnreachable: as `keep`.
            errors.UploadsFull: as many files are open as may be.
        """

        def keep(fd: int) -> audio_source.StoredRecordingRef | audio_source.ClientFileRef:
            own = audio_source.AudioSource(fd, spooled=source.spooled, path=source.path)
            return self.keep(own, uuid.uuid4().hex, synced=synced)

        try:
            return await threads.run_on(source.fd, keep, unwanted=self.discard)
        except OSError as error:  # of the descriptor: those of the disk have their names already
            raise upload_spool.storage_error(error) from None

    def keep(
        self, source: audio_source.AudioSource, name: str, *, synced: bool = True
    ) -> audio_source.StoredRecordingRef | audio_source.ClientFileRef:
        """Have a recording outlive the process, and (``synced``) a loss of power; a file that a
        client named stays where it is.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: it cannot be written.
            errors.StorageUnreachable: it cannot be written now.
        """
        known = audio_source.recording_ref(source)
        if isinstance(known, audio_source.ClientFileRef) and not self._shared:
            return known  # other services may not see it
        sealed = audio_source.HashingStream(
            self._seal.encrypt_recording(audio_source.read_chunks(source.fd), name)
        )
        self._storage.put(name, sealed, synced=synced)
        return audio_source.StoredRecordingRef(name, sealed.sha256, sealed.size, self._storage.kind)

    def open(self, record: JobRecord) -> audio_source.AudioSource:
        """The recording of a job that was kept.

        Raises:
            errors.AudioLost, errors.BadRequest: it is not there, or not what it was.
            errors.StorageUnreachable: nobody knows now; it may be had later, or elsewhere.
            errors.DiskFull, errors.SpoolUnwritable: there is no room to open it.
        """
        kept = record.audio
        if not isinstance(kept, audio_source.StoredRecordingRef):
            return kept.open(self._roots)
        self._check(kept)
        spool = upload_spool.UploadSpool(self._spool_dir)
        try:
            sealed = audio_source.HashingStream(self._storage.read(kept.name))
            for piece in self._seal.decrypt_recording(sealed, kept.name):
                spool.add(piece)
                if spool.pending >= upload_spool.UploadSpool.MEMORY_BYTES:
                    spool.spill()
            if sealed.sha256 != kept.sha256:
                raise errors.AudioLost(_ALTERED)
            return spool.finish()
        except FileNotFoundError:
            raise errors.AudioLost() from None
        except (OSError, DecryptionFailed):
            raise errors.AudioLost(_ALTERED) from None
        finally:
            spool.close()

    def recording(self, record: JobRecord) -> EncryptedFile:
        """The recording of a job, to be listened to: opened piece by piece, and written nowhere.

        Raises:
            errors.RecordingNotKept: it is not kept, or no longer.
            errors.AudioLost: it is not what it was.
            errors.StorageUnreachable: it cannot be read now.
        """
        kept = record.audio
        if not isinstance(kept, audio_source.StoredRecordingRef) or not self.shelf.has(record):
            raise errors.RecordingNotKept()
        self._check(kept)
        try:
            return EncryptedFile(self._seal, self._storage.open(kept.name), kept.name)
        except FileNotFoundError:  # it went just now
            raise errors.RecordingNotKept() from None
        except (OSError, DecryptionFailed):
            raise errors.AudioLost(_ALTERED) from None

    def discard(self, audio: audio_source.RecordingRef) -> None:
        """Delete a recording that has no job: it was refused, or nobody waits for it any more."""
        if isinstance(audio, audio_source.StoredRecordingRef):
            with contextlib.suppress(OSError, errors.SidecarError):  # it goes with the next start
                self._storage.delete(audio.name)

    def close(self) -> None:
        """Let go of the storage."""
        self._storage.close()

    def _check(self, kept: audio_source.StoredRecordingRef) -> None:
        """A service with another storage than the one that took a job in knows nothing of its
        recording, and does not say that it is lost."""
        here = self._storage.kind
        if kept.storage != here:
            log.error(
                "a recording is stored in a %s, but this service uses a %s: start it with the "
                "storage of the recording",
                kept.storage,
                here,
            )
            raise errors.StorageUnreachable(
                "The recording is in a storage that this service does not use."
            )


class JobPersistence(PersistentRecordings):
    """Jobs and recordings that one service keeps in a folder."""

    def __init__(self, settings: Settings, now: clock.Clock = clock.wall_time) -> None:
        """Open it; this waits for the disk.

        Raises:
            errors.SettingsInvalid: the folder, the file or the key cannot be used.
        """
        folder = jobs_folder(settings)
        storage = create_recording_storage(settings, folder / UPLOADS_FOLDER)
        shelf = RecordingArchive(storage, settings.keep_recordings_mb << 20)
        self.store = SqliteJobLog(folder, journal_key(settings), now, shelf=shelf)
        super().__init__(settings, storage, self.store.seal)
        self.shelf = shelf
        self._sweep()

    def close(self) -> None:
        """Close what it opened; this waits for the disk."""
        self.store.close()
        super().close()

    def _sweep(self) -> None:
        """Delete recordings that no job needs: their jobs were never accepted, or have ended and
        there is no room for more."""
        there = self._storage.ages()
        records = [
            one
            for one in self.store.all()
            if isinstance(one.audio, audio_source.StoredRecordingRef)
        ]
        for record in sorted(records, key=lambda one: one.ended or 0.0):
            if record.over:
                self.shelf.put(record, there)
        needed = {
            record.audio.name
            for record in records
            if isinstance(record.audio, audio_source.StoredRecordingRef) and self.shelf.has(record)
        }
        for name in there:
            if name not in needed:
                self._storage.delete(name)


async def requeue_unfinished(
    keeping: JobPersistence, queue: JobQueue, threads: ThreadLimiter
) -> None:
    """Have the jobs that were accepted and not ended wait again, in the order in which they came;
    each goes on from what is settled."""
    store = keeping.store
    unfinished = [one for one in store.all() if one.durable and not one.over]
    there = {record.id for record in unfinished}
    for record in unfinished:
        store.append(record.id, InterruptedChange(waited=record.behind in there))
    if unfinished:
        log.info("%d persisted jobs are queued again", len(unfinished))
    for record in unfinished:
        try:
            after = store.get(record.id)
            if (error := poison_jobs.poison_error(after.crashes, after.interruptions)) is not None:
                raise error
            source = await threads.run(keeping.open, record)
        except Exception as error:  # those behind it go on, whatever is the matter with this one
            known = error if isinstance(error, errors.SidecarError) else errors.SidecarError()
            if known is not error:
                log.exception("internal error while job %s was recovered", record.id)
            with contextlib.suppress(errors.JobNotFound):  # somebody deleted it meanwhile
                store.append(record.id, FailedChange(JobFailure.of(known)))
            continue
        now = next((one for one in store.all() if one.id == record.id), None)
        if now is None or now.over:  # or cancelled it
            source.close()
        else:
            queue.resume(Job(source, now))
