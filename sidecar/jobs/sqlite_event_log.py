"""SQLite job log, serialization of records, archive of recordings.

Published events may be lost with the process until `written` returns: reports of a running engine,
which the next attempt makes again. Clients must not mistake new events for lost ones. So after a
restart the numbers of events go on far beyond those that may have been published.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sidecar import clock, errors, files
from sidecar.audio import audio_source
from sidecar.audio.audio_info import AudioInfo
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs import job_record
from sidecar.jobs.job_event_log import JobEventLog, JobEventLogEntry
from sidecar.jobs.job_record import CountsAs, JobChange, JobEvent, JobRecord, Priority
from sidecar.jobs.persistent_recordings import RecordingArchive
from sidecar.serialization import to_plain
from sidecar.storage.encrypted_sqlite import (
    COMMIT_TIMEOUT_S,
    RETRY_S,
    JobWrite,
    SqliteWriter,
    Statement,
    later_version_error,
)
from sidecar.storage.encryption import DecryptionFailed
from sidecar.storage.job_journal import (
    JOURNAL_LABELS,
    LOCK_TIMEOUT_S,
    UPLOADS_FOLDER,
    JobJournal,
    JournalDamaged,
    open_journal,
)
from sidecar.storage.recording_storage import FolderStorage, answering
from sidecar.transcripts import transcript
from sidecar.transcripts.edit_serialization import edit_step_from_json, stored_edit_step
from sidecar.transcripts.transcript import Progress, ResumePoint, SegmentReady

log = logging.getLogger(__name__)


# Names in stored jobs: they stay, whatever the classes are called.
RECORDING_REFS: dict[str, type[audio_source.RecordingRef]] = {
    "open": audio_source.OpenUploadRef,
    "stored": audio_source.StoredRecordingRef,
    "file": audio_source.ClientFileRef,
}


def _put_back(counted: bool = False, alone: bool = False, passed: bool = False) -> JobChange:
    if passed:
        return job_record.RequeuedChange(CountsAs.UNABLE_NODE)
    if counted:  # by an earlier release
        return job_record.RequeuedChange(CountsAs.CRASH)
    return job_record.RequeuedChange(CountsAs.ALONE if alone else CountsAs.NOTHING)


PLAIN_CHANGES: dict[str, Callable[..., JobChange]] = {
    "begun": job_record.StartedChange,
    "crashed": lambda: job_record.RequeuedChange(CountsAs.CRASH),
    "putback": _put_back,
    "interrupted": lambda: job_record.RequeuedChange(CountsAs.DEATH),
    "cancelled": job_record.CancelledChange,
}
_REF_NAMES = {kind: name for name, kind in RECORDING_REFS.items()}
_AS_SUBMITTED = "id", "owner", "created", "kept", "durable", "name", "alone", "seq"
"""Other fields of a submitted record; the rest comes from events."""
STOP_NOTE = "stopped"
"""File of a service that was told to stop."""
SEQ_STRIDE = 1 << 20
"""Gap in event numbers after a restart: more than the events between two persisted ones."""


class UnreadableRecord(Exception):
    """Error of stored data that was changed, or that a later version wrote."""


def serialize_record(record: JobRecord) -> bytes:
    """Serialize a record as it was submitted."""
    plain = {name: getattr(record, name) for name in _AS_SUBMITTED}
    if not record.name:  # as earlier releases wrote it
        del plain["name"]
    more = {
        "audio": {"ref": _REF_NAMES[type(record.audio)], **to_plain(record.audio)},
        "options": record.options.to_wire(),
        "unknown_fields": record.options.unknown_fields,
        "facts": record.audio_info.to_wire(),
        "priority": record.priority.value,
        "key": to_plain(record.key) if record.key is not None else None,
    }
    return _to_json_bytes(plain | more)


def parse_record(text: bytes) -> JobRecord:
    """Return the record that `serialize_record` wrote.

    Raises:
        UnreadableRecord: the data is no record.
    """
    try:
        values = json.loads(text)
        audio_info = AudioInfo.from_wire(values["facts"])
        return JobRecord(
            audio=RECORDING_REFS[values["audio"].pop("ref")](**values["audio"]),
            options=replace(
                TranscribeOptions.from_wire(values["options"]),
                unknown_fields=tuple(values["unknown_fields"]),
            ),
            audio_info=audio_info,
            progress=Progress(0.0, audio_info.total_s),
            priority=Priority(values["priority"]),
            key=job_record.IdempotencyKey(**values["key"]) if values["key"] else None,
            **{name: value for name, value in values.items() if name in _AS_SUBMITTED},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableRecord(f"no record: {error}") from None


def serialize_change(change: JobChange) -> bytes:
    """Serialize an event's change."""
    match change:
        case job_record.ReportedChange(event, processing_s):
            values = {"report": transcript.to_wire(event), "processing_s": processing_s}
        case job_record.FailedChange(failure):
            values = {"failure": to_plain(failure)}
        case job_record.UnschedulableChange(refused):
            values = {"refused": to_plain(refused) if refused is not None else None}
        case job_record.EditedChange(step):
            values = {"edit": stored_edit_step(step)}
        case job_record.StartedChange(anew):
            values = {"change": "begun", "anew": anew}
        case job_record.RequeuedChange(counts_as):
            values = {"change": requeued_name(counts_as)}
            if values["change"] == "putback":
                unable = counts_as is CountsAs.UNABLE_NODE
                values |= {
                    "counted": unable,
                    "alone": counts_as is CountsAs.ALONE,
                    "passed": unable,
                }
        case job_record.CancelledChange():
            values = {"change": "cancelled"}
    return _to_json_bytes(values)


def parse_change(text: bytes) -> JobChange:
    """Return the change that `serialize_change` wrote; what a later release knows besides of a
    result is ignored. Not so in `parse_record`: an option that is ignored is other work.

    Raises:
        UnreadableRecord: the data is no change.
    """
    try:
        match json.loads(text):
            case {"report": report, "processing_s": processing_s}:
                return job_record.ReportedChange(
                    transcript.from_wire(report, lenient=True), processing_s
                )
            case {"failure": failure}:
                return job_record.FailedChange(job_record.JobFailure(**failure))
            case {"refused": refused}:
                return job_record.UnschedulableChange(
                    job_record.JobFailure(**refused) if refused is not None else None
                )
            case {"edit": operations}:
                return job_record.EditedChange(edit_step_from_json(operations))
            case {"change": str(name), **values}:
                return PLAIN_CHANGES[name](**{str(key): value for key, value in values.items()})
    except (ValueError, KeyError, TypeError, errors.BadRequest, errors.EngineFailed) as error:
        raise UnreadableRecord(f"no change: {error}") from None
    raise UnreadableRecord("no change")


def requeued_name(counts_as: CountsAs) -> str:
    """Return the stored name of an attempt's end."""
    return {CountsAs.CRASH: "crashed", CountsAs.DEATH: "interrupted"}.get(counts_as, "putback")


def _to_json_bytes(values: dict[str, Any]) -> bytes:
    """Serialize as JSON; half a surrogate pair, which a transcript may
    contain, becomes an escape."""
    return json.dumps(values, separators=(",", ":")).encode()


class SqliteJobEventLog(JobEventLog):
    """Job log that persists durable jobs in a folder, and holds the others in memory."""

    def __init__(
        self,
        folder: Path,
        secret: str,
        now: clock.Clock = clock.wall_time,
        *,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        retry_s: float = RETRY_S,
        commit_timeout_s: float = COMMIT_TIMEOUT_S,
    ) -> None:
        """Open the folder with all stored jobs; this blocks on the disk. ``lock_timeout_s``: as of
        `open_journal`; ``retry_s``: as of `SqliteWriter`; ``commit_timeout_s``: as
        `COMMIT_TIMEOUT_S`.

        Raises:
            errors.SettingsInvalid: the folder, the file or the key cannot be used.
        """
        super().__init__(now)
        self.archive = RecordingArchive(FolderStorage(folder / UPLOADS_FOLDER))
        """Archive of the recordings of finished jobs."""
        self._last_reads: dict[str, float] = {}
        self._commit_timeout_s = commit_timeout_s
        self._stop_note = folder / STOP_NOTE
        self.journal = open_journal(folder, secret, self._read, lock_timeout_s)
        self.was_stopped = self._stop_note.exists()
        """Whether the last service was told to stop, whatever ended it then."""
        files.remove(self._stop_note)
        self.cipher = self.journal.cipher
        self.writer = SqliteWriter(self.journal.connection, retry_s)
        self._closed = False

    def add(self, record: JobRecord) -> None:
        """Store a submitted job."""
        super().add(record)
        if record.durable:
            name = record.key.name if record.key is not None else None
            sql = "INSERT INTO jobs (id, owner, submitted, idempotency_key) VALUES (?, ?, ?, ?)"

            def added() -> Sequence[Statement]:
                return [(sql, (record.id, record.owner, self._encrypt(record), name))]

            self.writer.put(JobWrite(record.id, added))

    def delete(self, job_id: str) -> None:
        """Delete a job; nothing of it is left, not even on the disk."""
        entry = self._entries.get(job_id)
        super().delete(job_id)
        if entry is not None and entry.record.durable:
            deleted = ("DELETE FROM jobs WHERE id = ?", (job_id,))
            after = partial(self.archive.delete, entry.record)
            self.writer.put(JobWrite(job_id, lambda: [deleted], after=after, deletes_job=True))

    def last_read(self, job_id: str) -> float:
        """As `JobEventLog.last_read`."""
        return self._last_reads.get(job_id, 0.0)

    def note_read(self, job_id: str, at: float) -> None:
        """As `JobEventLog.note_read`, in the background."""
        read = ("UPDATE jobs SET last_read = ? WHERE id = ?", (at, job_id))
        self.writer.put(JobWrite(job_id, lambda: [read], soon=False))

    def note_stop(self) -> None:
        """As `JobEventLog.note_stop`, in the background."""
        self.writer.put(JobWrite("", after=partial(files.touch, self._stop_note)))

    async def written(self, job_id: str | None = None) -> None:
        """Wait until the job's data (None: all deletions) is on the disk; for a disk that hangs, no
        longer than `COMMIT_TIMEOUT_S` since it did."""
        left_s = max(0.0, self._commit_timeout_s - self.writer.silent_s)
        async with answering(left_s, "The disk of the kept jobs does not answer."):
            await asyncio.wrap_future(self.writer.written(job_id))

    def close(self) -> None:
        """Write what is left, and unlock the folder for other processes."""
        if not self._closed:
            self._closed = True
            if self.writer.close():
                self.journal.close()
        super().close()

    def _append_event(self, entry: JobEventLogEntry, record: JobRecord, event: JobEvent) -> None:
        super()._append_event(entry, record, event)
        if not record.durable or event.superseded_by_next:
            return
        ended = record.over and event.ends
        resume_points = [
            one
            for one in (entry.events if ended else ())
            if isinstance(one.change, job_record.ReportedChange)
            and isinstance(one.change.event, ResumePoint)
            and not one.change.event.keeps_diarization
        ]

        def statements() -> Sequence[Statement]:
            sealed = self._encrypt(record, event.worn if record.over else event)
            inserted = (record.id, event.seq, event.at, sealed)
            return [
                ("INSERT INTO events VALUES (?, ?, ?, ?)", inserted),
                *(
                    (
                        "UPDATE events SET change = ? WHERE job = ? AND seq = ?",
                        (self._encrypt(record, one), record.id, one.seq),
                    )
                    for one in resume_points
                ),
            ]

        change = event.change
        later = isinstance(change, job_record.ReportedChange) and isinstance(
            change.event, SegmentReady
        )
        after = partial(self.archive.put, record) if ended else None
        self.writer.put(JobWrite(record.id, statements, soon=not later, after=after))

    def _encrypt(self, record: JobRecord, event: JobEvent | None = None) -> bytes:
        if event is None:
            return self.cipher.encrypt(serialize_record(record), record.id)
        return self.cipher.encrypt(serialize_change(event.change), f"{record.id}/{event.seq}")

    def _read(self, journal: JobJournal) -> None:
        """Read all stored jobs.

        Raises:
            JournalDamaged: they were changed, or are damaged.
            errors.SettingsInvalid: a later version wrote them.
        """
        self._entries.clear()
        self._keys.clear()
        self._last_reads.clear()
        read = journal.connection.execute

        def decrypted(sealed: object, about: str) -> bytes:
            if not isinstance(sealed, bytes):
                raise DecryptionFailed
            return journal.cipher.decrypt(sealed, about)

        try:
            jobs = read("SELECT id, submitted, last_read FROM jobs ORDER BY place").fetchall()
            for job_id, text, last_read in jobs:
                self._add_entry(JobEventLogEntry(parse_record(decrypted(text, f"{job_id}"))))
                self._last_reads[job_id] = last_read or 0.0
            for job_id, seq, at, text in read(
                "SELECT job, seq, at, change FROM events ORDER BY job, seq"
            ):
                entry = self._entries[job_id]
                event = JobEvent(seq, at, parse_change(decrypted(text, f"{job_id}/{seq}")))
                entry.take(job_record.apply_event(entry.record, event), event)
        except UnreadableRecord as error:  # what can be decrypted is not damaged
            log.error("the kept jobs cannot be read: %s", error)
            raise later_version_error(JOURNAL_LABELS) from None
        except (DecryptionFailed, KeyError) as error:
            raise JournalDamaged(f"{type(error).__name__}: {error}") from None
        for entry in self._entries.values():
            entry.from_seq = entry.record.seq + SEQ_STRIDE
