"""Journal file of jobs: locking, migration, damaged files.

A damaged file is renamed, with the time, and logged; nothing deletes it.
"""

import logging
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from sidecar import files
from sidecar.errors import SettingsInvalid
from sidecar.storage import encrypted_sqlite
from sidecar.storage.encryption import Cipher

log = logging.getLogger(__name__)

JOURNAL_FILE, LOCK_FILE, UPLOADS_FOLDER = "jobs.db", "lock", "uploads"
BROKEN_SUFFIX = ".broken-"
LOCK_TIMEOUT_S = 5.0
"""Time that another service may take to end and unlock the folder."""
DISK_FULL_BELOW_BYTES = 1 << 20
"""Free space below which an error of the disk counts as a full disk. SQLite reports "disk I/O
error" if it cannot create the 32 KiB of its log's index."""
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, None}
"""SQLite's errors for a damaged file: its tables have other columns (`ERROR`), or its text cannot
be decoded (Python gives that no code). All others are errors of the disk."""
JOURNAL_LABELS = encrypted_sqlite.DatabaseLabels("kept jobs", "VIBEVOICE_DATA_DIR")

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        encrypted_sqlite.KEY_TABLE,
        "CREATE TABLE jobs (place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, "
        "owner TEXT NOT NULL, submitted BLOB NOT NULL, idempotency_key TEXT)",
        "CREATE UNIQUE INDEX jobs_by_key ON jobs (owner, idempotency_key) "
        "WHERE idempotency_key IS NOT NULL",
        "CREATE TABLE events (job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, "
        "seq INTEGER NOT NULL, at REAL NOT NULL, change BLOB NOT NULL, "
        "PRIMARY KEY (job, seq)) WITHOUT ROWID",
    ),
    ("ALTER TABLE jobs ADD COLUMN last_read REAL",),
    *[()] * 4,
)
"""Migrations of the file from each version to the next; a released step never changes. The empty
steps lift the version above `VERSION_OF_0_2`, so that release 0.2.0 refuses to read these."""
VERSION_OF_0_2 = 5
"""Version of files of release 0.2.0, whose jobs have another form."""


class JournalDamaged(Exception):
    """Error of a file that was changed or is damaged."""


@dataclass(frozen=True, slots=True)
class JobJournal:
    """Open journal file, its cipher and its lock."""

    connection: sqlite3.Connection
    cipher: Cipher
    lock_connection: sqlite3.Connection

    def close(self) -> None:
        """Close the file and unlock the folder for other services."""
        self.connection.close()
        self.lock_connection.close()


def open_journal(
    folder: Path,
    secret: str,
    read_journal: Callable[[JobJournal], None],
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> JobJournal:
    """Open the file in ``folder``, migrate it, and call ``read_journal`` with it. If there is no
    file, or it is damaged (``read_journal`` may find that too), a new one is created.
    ``lock_timeout_s``: as of `lock_journal`.

    Raises:
        errors.SettingsInvalid: the folder cannot be used, another service uses it, the disk is full
            or fails, the key is wrong, or the file is of a later version.
    """
    try:
        files.private_folder(folder)
        lock_connection = lock_journal(folder, lock_timeout_s)
    except OSError as error:
        raise files.unusable_error(
            f"The folder for jobs, {folder}, cannot be used: {error.strerror}.",
            _filename(error, folder),
            error,
            hint="Set VIBEVOICE_DATA_DIR to a usable folder.",
        ) from None
    try:
        try:
            return _open_connection(folder, secret, lock_connection, read_journal)
        except (
            JournalDamaged,
            sqlite3.Error,
            UnicodeDecodeError,
        ) as error:  # SQLite quotes the damage
            if isinstance(error, sqlite3.Error) and _sqlite_error_name(error) not in _DAMAGED:
                raise
            quarantined = quarantine_journal(folder)
            log.error(
                "the job journal is damaged (%s) and was moved to %s; a new one is used",
                error,
                quarantined,
            )
            return _open_connection(folder, secret, lock_connection, read_journal)
    except (sqlite3.Error, OSError) as error:
        lock_connection.close()
        raise _unusable_error(folder, error) from None
    except BaseException:
        lock_connection.close()
        raise


def _unusable_error(folder: Path, error: sqlite3.Error | OSError) -> SettingsInvalid:
    """Return the error of a failing disk; the file may be intact and is not changed."""
    full = isinstance(error, sqlite3.Error) and _sqlite_error_name(error) == sqlite3.SQLITE_FULL
    with suppress(OSError):
        full = full or shutil.disk_usage(folder).free < DISK_FULL_BELOW_BYTES
    if full:
        return SettingsInvalid(
            "There is not enough disk space for the kept jobs.",
            hint="Free some space, or start without --keep-jobs.",
        )
    return files.unusable_error(
        f"The kept jobs in {folder} cannot be opened and are left unchanged: {error}.",
        _filename(error, folder / JOURNAL_FILE),
        error,
        hint="Check that disk, or set VIBEVOICE_DATA_DIR to another folder.",
    )


def _filename(error: sqlite3.Error | OSError, otherwise: Path) -> Path:
    """Return the path that ``error`` names."""
    return Path(getattr(error, "filename", None) or otherwise)


def _sqlite_error_name(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code, if it has one."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def quarantine_journal(folder: Path) -> str:
    """Rename the uploads and the file, with the time. If that ends between them, the next start
    must still find the damaged file: with a new one it would delete the uploads."""
    mark = f"{BROKEN_SUFFIX}{files.unused_mark()}"
    for name in (UPLOADS_FOLDER, JOURNAL_FILE, f"{JOURNAL_FILE}-wal", f"{JOURNAL_FILE}-shm"):
        with suppress(FileNotFoundError):
            files.replace(folder / name, folder / f"{name}{mark}")
    return f"{JOURNAL_FILE}{mark}"


def broken_files(folder: Path) -> list[Path]:
    """Return the quarantined files."""
    return sorted(folder.glob(f"{JOURNAL_FILE}{BROKEN_SUFFIX}*"))


def lock_journal(folder: Path, timeout_s: float = LOCK_TIMEOUT_S) -> sqlite3.Connection:
    """Lock the folder for this process; the system releases the lock with the process.
    ``timeout_s``: time that another service may take to unlock it.

    Raises:
        errors.SettingsInvalid: another process has it, or there is no space for it.
        OSError: the folder cannot be written.
    """
    files.touch(folder / LOCK_FILE)
    lock_connection = sqlite3.connect(
        folder / LOCK_FILE, timeout=timeout_s, isolation_level=None, check_same_thread=False
    )
    try:
        lock_connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock_connection.close()
        if _sqlite_error_name(error) != sqlite3.SQLITE_BUSY:
            raise _unusable_error(folder, error) from None
        raise SettingsInvalid(
            f"The folder for jobs, {folder}, cannot be locked for this service: {error}.",
            hint="Stop the other service that uses it, or set VIBEVOICE_DATA_DIR.",
        ) from None
    return lock_connection


def _open_connection(
    folder: Path,
    secret: str,
    lock_connection: sqlite3.Connection,
    read_journal: Callable[[JobJournal], None],
) -> JobJournal:
    files.touch(folder / JOURNAL_FILE)
    connection = sqlite3.connect(
        folder / JOURNAL_FILE, isolation_level=None, check_same_thread=False
    )
    try:
        _check_pages(connection)
        encrypted_sqlite.set_pragmas(connection, "journal_mode = WAL")
        refuse_file_of_0_2(connection)
        encrypted_sqlite.migrate_sqlite(connection, MIGRATIONS, JOURNAL_LABELS)
        journal = JobJournal(
            connection,
            encrypted_sqlite.open_cipher(connection, secret, JOURNAL_LABELS),
            lock_connection,
        )
        read_journal(journal)
    except BaseException:
        connection.close()
        raise
    return journal


def _check_pages(connection: sqlite3.Connection) -> None:
    """Have SQLite check all pages.

    Raises:
        JournalDamaged: one is damaged.
        sqlite3.OperationalError: one could not be read, which SQLite reports as it does damage, but
            with the code of the error.
    """
    with closing(connection.execute("PRAGMA quick_check(1)")) as rows:
        (verdict,) = rows.fetchone()
    if (code := re.search(r"error code=(\d+)", verdict)) is not None:
        error = sqlite3.OperationalError(verdict)
        error.sqlite_errorcode = int(code[1])
        raise error
    if verdict != "ok":
        raise JournalDamaged(verdict)


def refuse_file_of_0_2(connection: sqlite3.Connection) -> None:
    """Refuse a file of release 0.2.0, or of what was between it and 0.1. One of this release has
    that version only while it is migrated.

    Raises:
        errors.SettingsInvalid: it is one.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    columns = {row[1] for row in connection.execute("PRAGMA table_info(jobs)")}
    if 2 <= version <= VERSION_OF_0_2 and "last_read" not in columns:
        raise SettingsInvalid(
            "The kept jobs were written by release 0.2.0, which this one does not read.",
            hint="Save the transcripts with that release. Then move the folder 'jobs' away, or set "
            "VIBEVOICE_DATA_DIR to another folder (docs/upgrading.md).",
        )
