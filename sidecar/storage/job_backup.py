"""Backup of stored jobs into one file, and restore.

The file is a tar: recordings, `jobs.db`, and at its end a manifest of both with their digests.
Without the manifest it is incomplete.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sidecar import clock, files
from sidecar.audio.upload_spool import storage_error
from sidecar.errors import DiskFull, SettingsInvalid, SidecarError
from sidecar.storage import job_journal
from sidecar.storage.encrypted_sqlite import read_schema_version
from sidecar.storage.job_journal import JOURNAL_FILE, UPLOADS_FOLDER, lock_journal

MANIFEST_FILE = "backup.json"
_MAX_MANIFEST_BYTES = 64 << 20
_RECORDING = re.compile(rf"{UPLOADS_FOLDER}/\w[\w-]*")
_CHUNK_BYTES = 1 << 20
MAX_OPEN_RECORDINGS = 8
"""Recordings that are open at once: a service may have more than a process may open files."""


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """Summary of a backup: counts and bytes."""

    jobs: int
    recordings: int
    size: int


def back_up_jobs(folder: Path, target: Path) -> BackupSummary:
    """Write the jobs in ``folder`` into one new file that only its owner may read. A service may
    run there meanwhile. The file appears whole or not at all.

    Raises:
        errors.SettingsInvalid: there are no jobs, they cannot be copied, or ``target`` exists
            already or cannot be written.
        errors.DiskFull: there is no space for it.
    """
    try:
        there = files.exists(folder / JOURNAL_FILE)
    except OSError as error:
        text = f"The kept jobs in {folder} cannot be read: {error.strerror}."
        raise files.unusable_error(text, folder, error) from None
    if not there:
        raise SettingsInvalid(
            f"There are no kept jobs in {folder}.", hint="Name the folder: --jobs-dir."
        )
    if target.exists():
        raise _target_exists_error(target)
    try:
        files.nameless(target.parent).close()  # Windows tries names of folders for hours otherwise
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as made:
            copy, packed = Path(made, JOURNAL_FILE), Path(made, "tar")
            with files.open_new(packed) as file:
                archive = _Archive(file)
                while len(paths := archive.missing(folder)) > MAX_OPEN_RECORDINGS:
                    for path in paths:
                        with suppress(FileNotFoundError), path.open("rb") as recording:
                            archive.add_recording(path.name, recording)
                with _consistent_snapshot(folder, archive) as (connection, recordings):
                    _copy_database(connection, copy)
                    for name, recording in recordings:
                        archive.add_recording(name, recording)
                jobs = _count_jobs(copy)
                size = archive.finish(copy)
            if target.exists():
                raise _target_exists_error(target)
            files.replace(packed, target)
        files.sync_folder(target.parent)
    except sqlite3.Error as error:
        raise SettingsInvalid(f"The kept jobs in {folder} cannot be copied: {error}.") from None
    except OSError as error:
        raise _unwritable_error(target, error) from None
    return BackupSummary(jobs, archive.recordings, size)


def restore_jobs(
    source: Path, folder: Path, lock_timeout_s: float = job_journal.LOCK_TIMEOUT_S
) -> BackupSummary:
    """Restore a backup into ``folder``, which has no jobs. ``lock_timeout_s``: as of
    `job_journal.lock_journal`.

    Raises:
        errors.SettingsInvalid: it is no backup or incomplete, it is of a later version or of
            release 0.2.0, there are jobs already, a service uses the folder, it cannot be written,
            or this process is root and it belongs to another user.
        errors.DiskFull: there is no space for it.
    """
    files.refuse_root(folder)
    try:
        packed = source.open("rb")
    except OSError as error:
        raise SettingsInvalid(f"The file {source} cannot be read: {error.strerror}.") from None
    with packed:
        return _restore_archive(packed, source, folder, lock_timeout_s)


def _restore_archive(
    packed: IO[bytes], source: Path, folder: Path, lock_timeout_s: float
) -> BackupSummary:
    try:
        files.private_folder(folder)
        with closing(lock_journal(folder, lock_timeout_s)):
            uploads = folder / UPLOADS_FOLDER
            database = [folder / f"{JOURNAL_FILE}{more}" for more in ("", "-wal", "-shm")]
            if any(one.exists() for one in (*database, *uploads.glob("*"))):
                raise SettingsInvalid(
                    f"{folder} is not empty, and nothing is overwritten.",
                    hint="Name another folder, or move its files away.",
                )
            with tempfile.TemporaryDirectory(dir=folder, prefix=".restore-") as made:
                new = Path(made)
                recordings = _extract_archive(packed, source, new)
                jobs = _count_jobs(new / JOURNAL_FILE)
                with closing(sqlite3.connect(new / JOURNAL_FILE)) as connection:
                    job_journal.refuse_file_of_0_2(connection)
                with suppress(FileNotFoundError):
                    uploads.rmdir()
                files.sync_folder(new / UPLOADS_FOLDER)
                files.replace(new / UPLOADS_FOLDER, uploads)
                # last: without it nothing was restored
                files.replace(new / JOURNAL_FILE, folder / JOURNAL_FILE)
                files.sync_folder(folder)
    except sqlite3.Error as error:
        raise _not_a_backup_error(source, str(error)) from None
    except OSError as error:
        raise _unwritable_error(folder, error) from None
    return BackupSummary(jobs, recordings, os.fstat(packed.fileno()).st_size)


def _unwritable_error(path: Path, error: OSError) -> SidecarError:
    known = storage_error(error)
    if isinstance(known, DiskFull):
        return known
    return SettingsInvalid(f"{path} cannot be written: {error.strerror}.")


def _target_exists_error(target: Path) -> SettingsInvalid:
    return SettingsInvalid(
        f"{target} exists, and nothing is overwritten.", hint="Name a file that does not exist."
    )


def _not_a_backup_error(source: Path, why: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"The file {source} is not a backup of kept jobs, or is incomplete: {why}.",
        hint="Nothing was restored; use another backup.",
    )


@contextmanager
def _consistent_snapshot(
    folder: Path, archive: _Archive
) -> Iterator[tuple[sqlite3.Connection, Sequence[tuple[str, io.BufferedReader]]]]:
    """Yield the database and the recordings that the archive lacks, as of one moment: all are
    opened while writes are locked. A running service waits for milliseconds; files that it deletes
    later stay open here."""
    with ExitStack() as opened:
        address = f"{(folder / JOURNAL_FILE).absolute().as_uri()}?mode=rw"
        lock_connection, read_connection = (
            opened.enter_context(closing(sqlite3.connect(address, isolation_level=None, uri=True)))
            for _ in range(2)
        )
        lock_connection.execute("BEGIN IMMEDIATE")
        read_connection.execute("BEGIN")
        read_connection.execute(
            "SELECT count(*) FROM jobs"
        ).fetchall()  # from here on it sees this snapshot
        recordings = []
        for path in archive.missing(folder):
            with suppress(FileNotFoundError):  # its job ended meanwhile
                recordings.append((path.name, opened.enter_context(path.open("rb"))))
        lock_connection.execute("ROLLBACK")
        yield read_connection, recordings


def _copy_database(connection: sqlite3.Connection, copy: Path) -> None:
    files.open_new(copy).close()
    with closing(sqlite3.connect(copy, isolation_level=None)) as target_connection:
        connection.backup(target_connection)


def _count_jobs(file: Path) -> int:
    """Return the number of jobs in an intact file."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        read_schema_version(connection, job_journal.MIGRATIONS, job_journal.JOURNAL_LABELS)
        return int(connection.execute("SELECT count(*) FROM jobs").fetchone()[0])


class _Archive:
    """Tar that is being written. It may have recordings whose jobs have ended meanwhile: the next
    start deletes them."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target, self._tar = target, tarfile.open(fileobj=target, mode="w")  # noqa: SIM115
        self._digests: dict[str, str] = {}

    @property
    def recordings(self) -> int:
        """Return the number of recordings."""
        return len(self._digests.keys() - {JOURNAL_FILE})

    def missing(self, folder: Path) -> Sequence[Path]:
        """Return the whole recordings that are in the folder of jobs but not here."""
        found = sorted((folder / UPLOADS_FOLDER).glob("*"))
        return [
            path
            for path in found
            if not path.suffix  # neither an incomplete one nor the mark of the store
            and _recording_name(path.name) not in self._digests
            and path.is_file()
        ]

    def add_recording(self, name: str, file: IO[bytes]) -> None:
        """Add a recording."""
        self._add(_recording_name(name), file)

    def finish(self, database: Path) -> int:
        """Add the database and the manifest, and sync the file to the disk; return its bytes."""
        with database.open("rb") as file:
            self._add(JOURNAL_FILE, file)
        text = json.dumps({"files": self._digests}).encode()
        self._tar.addfile(_tar_member(MANIFEST_FILE, len(text)), io.BytesIO(text))
        self._tar.close()
        self._target.flush()
        files.sync(self._target.fileno())
        return self._target.tell()

    def _add(self, name: str, file: IO[bytes]) -> None:
        try:
            self._digests[name] = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except OSError as error:
            raise SettingsInvalid(
                f"{name} of the kept jobs cannot be read: {error.strerror}."
            ) from None
        file.seek(0)
        self._tar.addfile(_tar_member(name, os.fstat(file.fileno()).st_size), file)


def _recording_name(name: str) -> str:
    return f"{UPLOADS_FOLDER}/{name}"


def _tar_member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(clock.wall_time())
    return member


def _extract_archive(packed: IO[bytes], source: Path, folder: Path) -> int:
    """Extract the tar into ``folder``; return the number of recordings."""
    (folder / UPLOADS_FOLDER).mkdir(mode=0o700)
    digests: dict[str, str] = {}
    listed: Mapping[str, str] | None = None
    try:
        with tarfile.open(fileobj=packed, mode="r:") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() and not member.sparse else None
                if file is None or listed is not None:
                    raise _not_a_backup_error(source, f"it has an unexpected file '{member.name}'")
                if member.name == MANIFEST_FILE:
                    listed = json.loads(file.read(_MAX_MANIFEST_BYTES))["files"]
                elif member.name == JOURNAL_FILE or _RECORDING.fullmatch(member.name):
                    digests[member.name] = _write_new_file(file, folder / member.name)
                else:
                    raise _not_a_backup_error(source, f"it has an unexpected file '{member.name}'")
    except (tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise _not_a_backup_error(source, str(error)) from None
    if listed != digests or JOURNAL_FILE not in digests:
        raise _not_a_backup_error(source, "its content differs from its list")
    return len(digests) - 1


def _write_new_file(data: IO[bytes], path: Path) -> str:
    """Write a new file, synced to the disk; return its digest."""
    with files.open_new(path) as file:
        shutil.copyfileobj(data, file, _CHUNK_BYTES)
        file.flush()
        files.sync(file.fileno())
    with path.open("rb") as written:
        return hashlib.file_digest(written, "sha256").hexdigest()
