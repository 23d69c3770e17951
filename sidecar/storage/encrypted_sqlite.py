"""SQLite files with encrypted columns: schema versions, key check, writer thread.

Writes that arrive during a commit are collected for the next one, and stay until they are
committed. A disk that fails does so for all: the whole batch is retried, with each later commit and
after a pause. If a job's data are at fault, or do not fit, each job's writes are tried alone, so
that it affects no other.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from sidecar import errors
from sidecar.storage.encryption import SALT_BYTES, Cipher, DecryptionFailed

log = logging.getLogger(__name__)

KEY_TABLE = "CREATE TABLE key (salt BLOB NOT NULL, check_value BLOB NOT NULL)"
"""Table of every file; a step of its first version creates it."""
_CHECK = b"vibevoice-asr"

WRITE_DELAY_S = 1.0
"""Delay of writes that no caller waits for and that may be lost. Also the delay until deleted rows
are removed from the write-ahead log, unless a caller waits for that: a checkpoint takes as long as
five commits, and other callers' commits would wait for it."""
RETRY_S = 3.0
"""Pause until failed writes are tried again if no others come meanwhile."""
COMMIT_TIMEOUT_S = 12.0
"""Time for a disk that does not answer while a caller waits for a commit: one that slept needs up
to ten seconds."""
CLOSE_TIMEOUT_S = 3.0
"""Time for the last writes at the end of a service; a disk that hangs does not keep it."""
READER_BUSY_TIMEOUT_MS = 100
"""Time for which a checkpoint blocks on another program that reads the file, such as a backup."""


@dataclass(frozen=True, slots=True)
class DatabaseLabels:
    """Names of a file in messages: its content (its key is derived for that, too), the setting of
    its location, and what that setting names."""

    what: str
    setting: str
    place: str = "folder"


def set_pragmas(connection: sqlite3.Connection, *more: str) -> None:
    """Set pragmas of a file whose commits survive a loss of power, and whose deleted data is
    overwritten; and ``more``, before these."""
    safe = "synchronous = FULL", "fullfsync = ON", "secure_delete = ON", "foreign_keys = ON"
    for pragma in (*more, *safe):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def migrate_sqlite(
    connection: sqlite3.Connection, migrations: Sequence[Sequence[str]], labels: DatabaseLabels
) -> None:
    """Migrate the file, a version at a time, each whole or not at all.

    Raises:
        errors.SettingsInvalid: it is of a later version.
    """
    version = read_schema_version(connection, migrations, labels)
    for number, statements in enumerate(migrations[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")


def read_schema_version(
    connection: sqlite3.Connection, migrations: Sequence[Sequence[str]], labels: DatabaseLabels
) -> int:
    """Return the version of the file.

    Raises:
        errors.SettingsInvalid: it is later than this program.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    check_schema_version(version, migrations, labels)
    return int(version)


def check_schema_version(
    version: int, migrations: Sequence[Sequence[str]], labels: DatabaseLabels
) -> None:
    """Check that this program knows a version.

    Raises:
        errors.SettingsInvalid: it is later than this program.
    """
    if version > len(migrations):
        raise later_version_error(labels)


def later_version_error(labels: DatabaseLabels) -> errors.SettingsInvalid:
    """Return the error of data that a later version wrote."""
    return errors.SettingsInvalid(
        f"The {labels.what} were written by a later version of vibevoice-asr.",
        hint=f"Use that version, or set {labels.setting} to another {labels.place}.",
    )


def open_cipher(connection: sqlite3.Connection, secret: str, labels: DatabaseLabels) -> Cipher:
    """Return the cipher of the file; a new file gets its salt and check value.

    Raises:
        errors.SettingsInvalid: it was encrypted with another key.
    """
    row = connection.execute("SELECT salt, check_value FROM key").fetchone()
    if row is None:
        cipher, salt, check_value = create_cipher(secret, labels)
        connection.execute("INSERT INTO key VALUES (?, ?)", (salt, check_value))
        return cipher
    return verify_cipher(row[0], row[1], secret, labels)


def create_cipher(secret: str, labels: DatabaseLabels) -> tuple[Cipher, bytes, bytes]:
    """Return a new cipher, and what is stored to recognize its key: the salt and a check value."""
    salt = os.urandom(SALT_BYTES)
    cipher = Cipher(secret, salt, labels.what)
    return cipher, salt, cipher.encrypt(_CHECK, "key")


def verify_cipher(salt: bytes, check_value: bytes, secret: str, labels: DatabaseLabels) -> Cipher:
    """Return the cipher that `create_cipher` made.

    Raises:
        errors.SettingsInvalid: it was encrypted with another key.
    """
    cipher = Cipher(secret, salt, labels.what)
    try:
        cipher.decrypt(check_value, "key")
    except DecryptionFailed:
        raise errors.SettingsInvalid(
            f"The {labels.what} were encrypted with another key.",
            hint=(
                "Set VIBEVOICE_JOURNAL_KEY to the key that they were written with: kept jobs and "
                "enrolled speakers have one key. Without it they cannot be read; to begin anew, "
                f"set {labels.setting} to an empty {labels.place}."
            ),
        ) from None
    return cipher


def begin_immediate(connection: sqlite3.Connection) -> None:
    """Begin a transaction, also behind one that `roll_back` could not end.

    Raises:
        sqlite3.Error: the file cannot be written.
    """
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")


def roll_back(connection: sqlite3.Connection) -> None:
    """End a transaction that failed; if its disk does not permit even that, the next one does."""
    with suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


Statement = tuple[str, Sequence[object]]


@dataclass(frozen=True, slots=True)
class JobWrite:
    """Writes of one job, in one transaction. ``statements``: made in the writer's thread, since a
    long transcript takes a while to encrypt. ``after``: called once it is committed;
    ``deletes_job``: the job's earlier writes are dropped."""

    job_id: str
    statements: Callable[[], Sequence[Statement]] = tuple
    soon: bool = True
    after: Callable[[], None] | None = None
    deletes_job: bool = False


class SqliteWriter:
    """Writer thread that commits the writes of another thread in order."""

    close_s = CLOSE_TIMEOUT_S

    def __init__(self, connection: sqlite3.Connection, retry_s: float = RETRY_S) -> None:
        """``connection``: in autocommit mode, and used only here from now on. ``retry_s``: pause
        until failed writes are tried again."""
        self._connection, self._retry_s = connection, retry_s
        self._news = threading.Condition()
        self.writes: list[JobWrite] = []
        """Writes that the thread has not taken yet."""
        self._waiters: list[tuple[str | None, Future[None]]] = []
        self._tried_waiters: list[tuple[str | None, Future[None]]] = []
        """Those whose writes are being tried."""
        self._due = self._began = float("inf")
        self._closing = False
        self._checkpoint_at = float("inf")
        self._uncommitted: dict[str, list[JobWrite]] = {}
        """Writes of each job that the thread has taken and not committed yet."""
        self._job_errors: dict[str, errors.SidecarError] = {}
        self._deleted: set[str] = set()
        """Jobs that were deleted since the last checkpoint: the write-ahead log may have them."""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def put(self, write: JobWrite) -> None:
        """Queue a write, behind all before it."""
        with self._news:
            self.writes.append(write)
            self._due = min(self._due, time.monotonic() + WRITE_DELAY_S * (not write.soon))
            self._news.notify()

    def written(self, job_id: str | None) -> Future[None]:
        """Return a future that is done once all earlier writes were tried, with the error of that
        job; without a job: with that of a deletion that failed. If anything was deleted by them, a
        checkpoint comes first."""
        done = Future[None]()
        with self._news:
            if self._closing:
                _settle(done, None)
            else:
                self._waiters.append((job_id, done))
                self._due = 0.0
                self._news.notify()
        return done

    @property
    def silent_s(self) -> float:
        """Return the seconds for which the writes that the thread has taken are being tried."""
        return max(0.0, time.monotonic() - self._began)

    def close(self) -> bool:
        """Commit all queued writes, and stop; return whether the thread has ended, so that the
        connection can be closed."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join(self.close_s)
        if self._thread.is_alive():
            log.error("the disk of the kept jobs does not answer: the last changes may be lost")
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            try:
                self._write_until_closed()
                break
            except BaseException:  # whatever it is, no other thread writes
                log.critical("internal error in the writer of kept jobs: it goes on", exc_info=True)
            with self._news:
                closed, waiters = self._closing, self._tried_waiters
                waiters += self._waiters if closed else []
            for _, done in waiters:
                _settle(done, _write_error())
            if closed:
                break
            with self._news:
                self._news.wait_for(lambda: self._closing, self._retry_s)
                self._due = 0.0

    def _write_until_closed(self) -> None:
        self.checkpoint()  # an earlier service may have been killed before its own
        while True:
            self._began = float("inf")
            with self._news:
                while not self._closing and (wait_s := self._wait_s()) > 0:
                    self._news.wait(min(wait_s, threading.TIMEOUT_MAX))
                writes, self.writes = self.writes, []
                self._tried_waiters, self._waiters = self._waiters, []
                self._due, closing = float("inf"), self._closing
                self._began = time.monotonic()
            if writes or self._uncommitted:
                self._write(writes)
            if self._uncommitted:
                with self._news:
                    self._due = min(self._due, time.monotonic() + self._retry_s)
            deletion_awaited = any(
                job_id is None or job_id in self._deleted for job_id, _ in self._tried_waiters
            )
            if self._deleted:
                self._checkpoint_at = min(self._checkpoint_at, time.monotonic() + WRITE_DELAY_S)
                if deletion_awaited or closing or time.monotonic() >= self._checkpoint_at:
                    self.checkpoint()
            for job_id, done in self._tried_waiters:
                _settle(
                    done,
                    self._job_errors.get(job_id) if job_id is not None else self._deletion_error,
                )
            if closing:
                return

    def _wait_s(self) -> float:
        return min(self._due, self._checkpoint_at) - time.monotonic()

    @property
    def _deletion_error(self) -> errors.SidecarError | None:
        """Return the error because of which deleted data is still in the file."""
        for job_id, writes in self._uncommitted.items():
            if any(write.deletes_job for write in writes):
                return self._job_errors[job_id]
        return None

    def _write(self, writes: Sequence[JobWrite]) -> None:
        for write in writes:
            self._uncommitted.setdefault(write.job_id, []).append(write)
        for job_id, each in self._uncommitted.items():
            self._uncommitted[job_id] = _from_deletion_on(each)
        before, self._job_errors = self._job_errors, {}
        error = self._commit([*self._uncommitted])
        for job_id in [*self._uncommitted]:
            if not _fails_for_all(error):
                error = self._commit([job_id])
            if error is not None:
                self._job_errors[job_id] = known = _storage_error(error)
                if type(before.get(job_id)) is not type(known):  # it is tried at each write
                    log.error("job %s cannot be persisted and is tried again: %s", job_id, error)

    def _commit(self, job_ids: Sequence[str]) -> Exception | None:
        """Commit all writes of these jobs or nothing, synced to the disk; return the error, if any.
        It may be a fault in the data of a job, which must not end the thread."""
        writes = [write for job_id in job_ids for write in self._uncommitted[job_id]]
        try:
            begin_immediate(self._connection)
            for write in writes:
                for sql, values in write.statements():
                    self._connection.execute(sql, values)
            self._connection.execute("COMMIT")
        except Exception as error:
            roll_back(self._connection)
            return error
        for job_id in job_ids:
            del self._uncommitted[job_id]
        for write in writes:
            if write.deletes_job:
                self._deleted.add(write.job_id)
            if write.after is not None:
                try:
                    write.after()
                except Exception:
                    log.exception("internal error after job %s was persisted", write.job_id)
        return None

    def checkpoint(self) -> None:
        """Truncate the write-ahead log, which contains deleted rows. If another program reads the
        file, the next checkpoint does it. This blocks only briefly, so that commits do not wait."""
        self._checkpoint_at = float("inf")
        self._deleted.clear()
        ((usual_ms,),) = self._connection.execute("PRAGMA busy_timeout").fetchall()
        self._connection.execute(f"PRAGMA busy_timeout = {READER_BUSY_TIMEOUT_MS}")
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            log.warning("the write-ahead log of kept jobs cannot be truncated now: %s", error)
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {usual_ms}")


def _from_deletion_on(writes: list[JobWrite]) -> list[JobWrite]:
    """Return a job's writes without those before its deletion: if its first write failed, the
    others would fail for ever, and the deletion with them."""
    return writes[max((at for at, one in enumerate(writes) if one.deletes_job), default=0) :]


def _settle(done: Future[None], error: errors.SidecarError | None) -> None:
    """Set the result of a future, unless its caller no longer waits."""
    if not done.done() and done.set_running_or_notify_cancel():
        done.set_result(None) if error is None else done.set_exception(error)


def _storage_error(error: Exception) -> errors.SidecarError:
    if is_full(error):
        return errors.DiskFull("There is not enough disk space to persist the job.")
    of_disk = type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError)
    if of_disk or isinstance(error, (OSError, MemoryError)):
        return _write_error()
    return errors.SidecarError()  # a fault in the data of the job, which would never be over


def is_full(error: Exception | None) -> bool:
    """Return whether SQLite had no space; Python's own errors have no code."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _fails_for_all(error: Exception | None) -> bool:
    """Return whether all writes fail; on a full disk small ones and deletions may not."""
    return type(error) is sqlite3.OperationalError and not is_full(error)


def _write_error() -> errors.SpoolUnwritable:
    return errors.SpoolUnwritable("The folder for jobs cannot be written to.")
