"""Persistent recordings of jobs: storage, archive for playback, checks at recovery."""

import contextlib
import logging
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Container, Sequence
from functools import partial
from pathlib import Path

from sidecar import errors
from sidecar.audio import audio_source, upload_spool
from sidecar.audio.audio_source import StoredRecordingRef
from sidecar.concurrency import ThreadLimiter
from sidecar.config.settings import Settings
from sidecar.errors import Fault, SidecarError
from sidecar.jobs import job_record
from sidecar.jobs.faults import fault_of
from sidecar.jobs.job_record import JobRecord
from sidecar.storage.encryption import Cipher, DecryptionFailed, EncryptedFile
from sidecar.storage.recording_storage import (
    RecordingStorage,
    answering,
    new_name,
    store_code,
)

log = logging.getLogger(__name__)


_ALTERED = "The stored recording was changed."
MAX_OPENINGS = 1000
"""Threads that open recordings; a share that is gone keeps one for each of its jobs."""
CLIENT_FILE_TIMEOUT_S = 5.0
"""Time to open a client's file, which is not read then."""
STORAGE_TIMEOUT_S = 120.0
"""Time for a storage that does not answer: a file server restarts in less."""
STORE_TIMEOUT_S = 60.0
"""Time for a storage that does not answer while its client, or a transcript, waits."""
SLOWEST_BYTES_S = 1 << 20
"""Slowest storage that is waited for."""


class PersistentRecordings:
    """Recordings of durable jobs: stored, opened and deleted."""

    def __init__(
        self,
        settings: Settings,
        storage: RecordingStorage,
        cipher: Cipher,
        *,
        shared: bool = False,
        discard: Callable[[str], None] | None = None,
        store_timeout_s: float = STORE_TIMEOUT_S,
    ) -> None:
        """``shared``: whether other services have to find the recordings, so that a file that a
        client named by path is copied. ``discard``: deletes a recording, also an incomplete one, if
        the storage does not. ``store_timeout_s``: as `STORE_TIMEOUT_S`."""
        self._store_timeout_s = store_timeout_s
        self._storing = 0
        self.unanswered = False
        """Whether the storage has not answered since it had to take a recording."""
        self._storage, self._cipher, self._shared = storage, cipher, shared
        self._discard = discard or storage.delete
        self._store_code = store_code(cipher)
        self.archive = RecordingArchive(storage, settings.keep_recordings_mb << 20)
        """Recordings for playback."""
        self._roots = settings.audio_roots
        self._spool_dir = settings.spool_dir

    async def store_in_thread(
        self, threads: ThreadLimiter, source: audio_source.AudioSource, *, synced: bool = True
    ) -> audio_source.StoredRecordingRef | audio_source.ClientFileRef:
        """`store` a recording under a new name, in a thread. If the caller stops waiting, the
        thread deletes what it has written. Of a storage that hangs, one caller at a time finds out
        whether it answers again.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable, errors.StorageUnreachable: as `store`, or the
                storage does not answer.
            errors.UploadsFull: too many files are open.
        """

        def store_copy(fd: int) -> audio_source.StoredRecordingRef | audio_source.ClientFileRef:
            own = audio_source.AudioSource(
                fd, spooled=source.spooled, path=source.path, status=source.status
            )
            return self.store(own, new_name(self._store_code), synced=synced)

        if (stays := self._left_in_place(source)) is not None:
            return stays
        if self.unanswered and self._storing:
            raise errors.StorageUnreachable()
        self._storing += source.spooled  # else it is the client's disk that may not answer
        try:
            size = (source.status or os.fstat(source.fd)).st_size
            async with answering(self._store_timeout_s + size / SLOWEST_BYTES_S):
                return await threads.run_on(source.fd, store_copy, unwanted=self.delete)
        except errors.StorageUnreachable:
            self.unanswered |= source.spooled
            raise
        except OSError as error:  # of the descriptor; errors of the disk are `SidecarError` already
            raise upload_spool.storage_error(error) from None
        finally:
            self._storing -= source.spooled

    def store(
        self, source: audio_source.AudioSource, name: str, *, synced: bool = True
    ) -> audio_source.StoredRecordingRef | audio_source.ClientFileRef:
        """Store a recording so that it survives the process, and (``synced``) a loss of power. A
        file that a client named by path stays where it is, unless recordings are shared.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: it cannot be written.
            errors.StorageUnreachable: it cannot be written now.
        """
        if (stays := self._left_in_place(source)) is not None:
            return stays
        encrypted = audio_source.HashingStream(
            self._cipher.encrypt_recording(audio_source.read_chunks(source.fd), name)
        )
        try:
            self._storage.put(name, encrypted, synced=synced)
        except errors.StorageUnreachable:  # it may have the recording all the same
            self._delete(name)
            raise
        self.unanswered = False
        return audio_source.StoredRecordingRef(
            name, encrypted.sha256, encrypted.size, self._storage.kind
        )

    def _left_in_place(self, source: audio_source.AudioSource) -> audio_source.ClientFileRef | None:
        """Return a client's file that no other service has to see, without a look at its disk."""
        ref = audio_source.recording_ref(source)
        return ref if isinstance(ref, audio_source.ClientFileRef) and not self._shared else None

    def open(self, record: JobRecord) -> audio_source.AudioSource:
        """Return the stored recording of a job.

        Raises:
            errors.AudioLost, errors.BadRequest: it is gone or was changed.
            errors.StorageUnreachable: it cannot be read now, or not by this service.
            errors.DiskFull, errors.SpoolUnwritable, errors.MachineBusy: there is no space or no
                descriptor to open it.
        """
        ref = record.audio
        if not isinstance(ref, audio_source.StoredRecordingRef):
            return open_unstored(record, self._roots)
        self._check(ref)
        try:
            return self._decrypted(ref)
        except errors.AudioLost as error:
            log.warning("recording of job %s: %s It is read again.", record.id, error)
            return self._decrypted(ref)  # what one reading saw may be the fault of that reading

    def _decrypted(self, ref: audio_source.StoredRecordingRef) -> audio_source.AudioSource:
        spool = upload_spool.UploadSpool(self._spool_dir)
        try:
            encrypted = audio_source.HashingStream(self._storage.read(ref.name))
            for piece in self._cipher.decrypt_recording(encrypted, ref.name):
                spool.add(piece)
                if spool.pending >= upload_spool.UploadSpool.MEMORY_BYTES:
                    spool.spill()
            if encrypted.sha256 != ref.sha256:
                raise errors.AudioLost(_ALTERED)
            return spool.finish()
        except FileNotFoundError:
            raise errors.AudioLost() from None
        except (OSError, DecryptionFailed) as error:
            raise unreadable_error(error) from None
        finally:
            spool.close()

    def recording(self, record: JobRecord) -> EncryptedFile:
        """Return a job's recording for playback: decrypted in blocks, and written to no disk.

        Raises:
            errors.RecordingNotKept: it is not stored, or no longer.
            errors.AudioLost: it was changed.
            errors.StorageUnreachable, errors.MachineBusy: it cannot be read now.
        """
        ref = record.audio
        if not isinstance(ref, audio_source.StoredRecordingRef) or not self.archive.has(record):
            raise errors.RecordingNotKept()
        self._check(ref)
        try:
            return EncryptedFile(self._cipher, self._storage.open(ref.name), ref.name)
        except FileNotFoundError:  # deleted a moment ago
            raise errors.RecordingNotKept() from None
        except (OSError, DecryptionFailed) as error:
            raise unreadable_error(error) from None

    def delete(self, ref: audio_source.RecordingRef) -> None:
        """Delete a recording without a job: its job was refused, or its client has disconnected."""
        if isinstance(ref, audio_source.StoredRecordingRef):
            self._delete(ref.name)

    def _delete(self, name: str) -> None:
        with contextlib.suppress(OSError, errors.SidecarError):  # the next start deletes it
            self._discard(name)

    def _check(self, ref: audio_source.StoredRecordingRef) -> None:
        """Raise if the recording is in a storage that this service does not
        use: it is not lost then."""
        here = self._storage.kind
        if ref.storage != here:
            log.error(
                "a recording is stored in a %s, but this service uses a %s: start it with the "
                "storage of the recording",
                ref.storage,
                here,
            )
            raise errors.StorageUnreachable(
                "The recording is in a storage that this service does not use."
            )


def open_unstored(record: JobRecord, roots: Sequence[Path]) -> audio_source.AudioSource:
    """Return the recording of a job that is stored nowhere: a duplicate of the upload's descriptor,
    or the file that the client named, if that is still the same. Raise as the references' `open`
    does."""
    assert not isinstance(record.audio, StoredRecordingRef)
    return record.audio.open(roots)


def opener_in_threads(
    open_recording: Callable[[JobRecord], audio_source.AudioSource],
) -> Callable[[JobRecord], Awaitable[audio_source.AudioSource]]:
    """Return what opens recordings in threads of their own."""
    return partial(ThreadLimiter("opening", MAX_OPENINGS).run, open_recording)


def opening_timeout_s(record: JobRecord) -> float:
    """Return the time for `PersistentRecordings.open`: a share that is gone may block for ever."""
    if not isinstance(record.audio, StoredRecordingRef):
        return CLIENT_FILE_TIMEOUT_S
    return STORAGE_TIMEOUT_S + record.audio.size / SLOWEST_BYTES_S


def unreadable_error(error: OSError | DecryptionFailed) -> SidecarError:
    """Return the error of a recording that cannot be read: lost only if it is to blame itself."""
    if not isinstance(error, OSError) or fault_of(error) is Fault.RECORDING:
        return errors.AudioLost(_ALTERED)
    if fault_of(error) is not Fault.STORAGE:
        return errors.MachineBusy(f"The recording cannot be opened now: {error.strerror or error}.")
    return errors.StorageUnreachable(
        f"The recording cannot be read now: {error.strerror or error}."
    )


class RecordingArchive:
    """Archive of recordings for playback: ``limit_bytes`` for each
    owner; with 0 none are stored."""

    def __init__(self, storage: RecordingStorage, limit_bytes: int = 0) -> None:
        self._storage, self._limit = storage, limit_bytes
        self._sizes: defaultdict[str, dict[StoredRecordingRef, int]] = defaultdict(dict)
        """Bytes in the storage by recording, for each owner, the oldest first."""
        self._gone: set[StoredRecordingRef] = set()

    def has(self, record: JobRecord) -> bool:
        """Return whether a job's recording is stored, as far as is known
        without a look at the storage."""
        ref = record.audio
        if not isinstance(ref, StoredRecordingRef) or ref in self._gone:
            return False
        return not record.over or (self._limit > 0 and record.state is job_record.JobState.DONE)

    def put(self, record: JobRecord, stored_names: Container[str] | None = None) -> None:
        """Archive the recording of a job that has ended, as long as there is space.
        ``stored_names``: names of the stored recordings, if known."""
        ref = record.audio
        if not isinstance(ref, StoredRecordingRef):
            return
        if stored_names is not None and ref.name not in stored_names:
            self._gone.add(ref)
            return
        sizes = self._sizes[record.owner]
        sizes[ref] = ref.size if record.state is job_record.JobState.DONE else self._limit + 1
        if sizes[ref] > self._limit:  # too large alone: it displaces no other
            self._delete_recording(record.owner, ref)
        while sum(sizes.values()) > self._limit:
            self._delete_recording(record.owner, next(iter(sizes)))

    def delete(self, record: JobRecord) -> None:
        """Delete the recording of a deleted job."""
        if isinstance(record.audio, StoredRecordingRef):
            self._delete_recording(record.owner, record.audio)
            self._gone.discard(record.audio)

    def _delete_recording(self, owner: str, ref: StoredRecordingRef) -> None:
        self._sizes[owner].pop(ref, None)
        if not self._sizes[owner]:
            del self._sizes[owner]
        self._gone.add(ref)
        try:
            self._storage.delete(ref.name)
        except (OSError, SidecarError) as error:  # on Windows: a file that is being read
            log.warning("a recording cannot be deleted now; the next start deletes it: %s", error)
