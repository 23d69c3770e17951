"""Serialization and encryption of jobs for the database."""

import json
import logging
from base64 import b64decode
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from itertools import starmap
from typing import Any

from sidecar.audio.audio_source import RecordingRef, StoredRecordingRef, missing_recording_ref
from sidecar.errors import AudioLost, JournalUnreachable, SidecarError
from sidecar.jobs import job_record, sqlite_event_log
from sidecar.jobs.job_record import JobChange, JobEvent, JobFailure, JobRecord
from sidecar.plugins.shared_jobs.postgres_database import Row
from sidecar.storage.encryption import Cipher, DecryptionFailed
from sidecar.transcripts import transcript
from sidecar.transcripts.transcript_edits import EditHistory

log = logging.getLogger(__name__)

DECRYPT_IN_THREAD_BYTES = 100_000
"""Encrypted bytes of events, some milliseconds, above which a thread decrypts them."""
DERIVED_KEY_CACHE_SIZE = 256
"""Derived keys in the cache: those of the jobs that a busy service works with."""
_CHANGES_BY_KIND: dict[str, Callable[..., JobChange]] = {
    **sqlite_event_log.PLAIN_CHANGES,
    "open": job_record.UnschedulableChange,
}
"""Changes by the kinds of events that the database's functions append."""


EVENT_KINDS: dict[type[JobChange | transcript.TranscriptionEvent], str] = {
    job_record.StartedChange: "begun",
    job_record.CancelledChange: "cancelled",
    job_record.UnschedulableChange: "refused",
    job_record.FailedChange: "failed",
    job_record.EditedChange: "edited",
    transcript.Progress: "progress",
    transcript.SegmentReady: "segmentready",
    transcript.Peaks: "peaks",
    transcript.ResumePoint: "checkpoint",
    transcript.Finished: "finished",
}
"""Kinds of events in the database. SQL compares them, so they do not depend on class names."""


class DamagedRecord(sqlite_event_log.UnreadableRecord):
    """Error of stored data that was changed: no release can read it."""


def event_kind(change: JobChange) -> str:
    """Return the kind of an event, which the database has unencrypted."""
    if isinstance(change, job_record.RequeuedChange):
        return sqlite_event_log.requeued_name(change.counts_as)
    event = change.event if isinstance(change, job_record.ReportedChange) else change
    return EVENT_KINDS[type(event)]


def log_unreadable(job_id: str, error: Exception) -> None:
    """Log a job that cannot be read here."""
    log.error(
        "job %s in the database cannot be decoded: %s; check that all services have the same "
        "journal_key and release",
        job_id,
        error,
    )


def unreadable_error(error: Exception) -> SidecarError:
    """Return what clients and nodes get for a job that cannot be read here."""
    if isinstance(error, DamagedRecord):
        return AudioLost("The record of the job is damaged.")
    if isinstance(error, sqlite_event_log.UnreadableRecord):  # other services may read it
        return JournalUnreachable("A later release wrote the record of the job.")
    return JournalUnreachable("The events of the job cannot be read.")


def recording_columns(audio: RecordingRef) -> tuple[str | None, int | None]:
    """Return the name and the size of a recording in the storage."""
    return (audio.name, audio.size) if isinstance(audio, StoredRecordingRef) else (None, None)


class JobRows:
    """Encryption and decryption of database rows."""

    def __init__(self, cipher: Cipher) -> None:
        self._of_job = lru_cache(DERIVED_KEY_CACHE_SIZE)(cipher.of_job)
        self._code = cipher.code

    def request_code(self, digest: str) -> str:
        """Return the code by which a request is recognized, useless without the key."""
        return self._code(f"request {digest}")

    def encrypt_record(self, record: JobRecord) -> bytes:
        """Encrypt a record as it was submitted."""
        return self._encrypt(record.id, sqlite_event_log.serialize_record(record), record.id)

    def encrypt_event(self, job_id: str, event: JobEvent) -> bytes:
        """Encrypt an event, bound to its job and number."""
        return self._encrypt(
            job_id, sqlite_event_log.serialize_change(event.change), f"{job_id}/{event.seq}"
        )

    def encrypt_failure(self, job_id: str, node: str, failure: JobFailure) -> bytes:
        """Encrypt why a node cannot do a job."""
        return self._encrypt(
            job_id,
            sqlite_event_log.serialize_change(job_record.UnschedulableChange(failure)),
            f"{job_id}/{node}",
        )

    def encrypt_summary(self, record: JobRecord) -> bytes | None:
        """Encrypt the summary for lists of a job that is done; None for any other job."""
        if record.state is not job_record.JobState.DONE or record.transcript is None:
            return None
        values = {
            "duration": record.transcript.duration,
            "revision": record.history.revision,
            "attempts": record.attempts,
            "begun": record.begun,
            "ended": record.ended,
            "processing_s": record.processing_s,
            "seq": record.seq,
        }
        return self._encrypt(record.id, json.dumps(values).encode(), f"{record.id}/summary")

    def failure(self, job_id: str, node: str, encoded: str) -> JobFailure:
        """Decrypt why a node cannot do a job, from base64.

        Raises:
            UnreadableRecord: it is damaged, or of a later release.
        """
        encrypted = self._decrypt(job_id, b64decode(encoded), f"{job_id}/{node}")
        match sqlite_event_log.parse_change(encrypted):
            case job_record.UnschedulableChange(JobFailure() as failure):
                return failure
        raise sqlite_event_log.UnreadableRecord("no refusal")

    def record(self, job_id: str, submitted: bytes, recording: bool = True) -> JobRecord:
        """Decrypt a record as it was submitted. ``recording``: whether its recording still exists.

        Raises:
            UnreadableRecord: it is damaged, or of a later release.
        """
        record = sqlite_event_log.parse_record(self._decrypt(job_id, submitted, job_id))
        gone = isinstance(record.audio, StoredRecordingRef) and not recording
        return replace(record, audio=missing_recording_ref()) if gone else record

    def event(self, job_id: str, seq: int, at: float, kind: str, change: bytes | None) -> JobEvent:
        """Decrypt an event; ``change`` is None if its kind says all.

        Raises:
            UnreadableRecord: it is damaged, or of a later release.
        """
        if change is None:
            if kind not in _CHANGES_BY_KIND:
                raise sqlite_event_log.UnreadableRecord(f"an event of the unknown kind '{kind}'")
            return JobEvent(seq, at, _CHANGES_BY_KIND[kind]())
        return JobEvent(
            seq, at, sqlite_event_log.parse_change(self._decrypt(job_id, change, f"{job_id}/{seq}"))
        )

    def summarized(self, job: Row, summary: bytes) -> JobRecord | None:
        """Return a job that is done, for lists, without words; ``job``: the values of `record`. Log
        a job that cannot be read here, and return None."""
        try:
            record = self.record(*job)
            fields: dict[str, Any] = json.loads(self._decrypt(job[0], summary, f"{job[0]}/summary"))
            duration, revision = fields.pop("duration"), fields.pop("revision")
            return replace(
                record,
                state=job_record.JobState.DONE,
                transcript=transcript.Transcript((), "", duration, "", ""),
                progress=replace(record.progress, audio_s_done=duration, audio_s_total=duration),
                history=replace(EditHistory(), revision=revision),
                **fields,
            )
        except (sqlite_event_log.UnreadableRecord, ValueError, KeyError, TypeError) as error:
            log_unreadable(job[0], error)
            return None

    def folded(self, job: Row, events: Iterable[Row]) -> JobRecord | None:
        """Return a job after the rows of all its events; ``job``: the values of `record`. Log a job
        that cannot be read here, and return None."""
        try:
            return replay_events(self.record(*job), starmap(self.event, events))
        except sqlite_event_log.UnreadableRecord as error:
            log_unreadable(job[0], error)
            return None

    def _encrypt(self, job_id: str, text: bytes, about: str) -> bytes:
        return self._of_job(job_id).encrypt(text, about)

    def _decrypt(self, job_id: str, encrypted: bytes, about: str) -> bytes:
        try:
            return self._of_job(job_id).decrypt(encrypted, about)
        except DecryptionFailed:
            raise DamagedRecord("damaged") from None


def replay_events(record: JobRecord, events: Iterable[JobEvent]) -> JobRecord:
    """Return a record after its events, with the number of the last one,
    even if it changed nothing."""
    last = record.seq
    for event in events:
        record, last = job_record.apply_event(record, event), max(last, event.seq)
    return replace(record, seq=last)
