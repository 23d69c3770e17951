"""The one file in which people are kept: SQLite, names and vectors sealed.

It has no write-ahead log, and its rollback journal is cut to nothing after each change; what is
deleted is overwritten (``secure_delete``). So what goes is gone from every file of ours.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.storage.file import KEY_TABLE, Words, migrate, seal_of
from sidecar.storage.person import Person, Sample
from sidecar.storage.sealing import SealBroken

FILE = "people.db"
ANOTHER_S = 5.0
"""So long the service that has the file may take to end."""
WORDS = Words("people", "VIBEVOICE_PEOPLE_DIR")
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        KEY_TABLE,
        "CREATE TABLE people (id TEXT PRIMARY KEY, owner TEXT NOT NULL, created REAL NOT NULL, "
        "name BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE samples (number INTEGER PRIMARY KEY, person TEXT NOT NULL "
        "REFERENCES people (id) ON DELETE CASCADE, sealed BLOB NOT NULL)",
        "CREATE INDEX samples_by_person ON samples (person)",
    ),
)
"""What makes each version of the file out of the one before; a step once released never changes."""


def people_folder(settings: Settings) -> Path:
    """Where people are kept."""
    if settings.people_dir is not None:
        return settings.people_dir
    import platformdirs

    return Path(platformdirs.user_data_dir("vibevoice-asr", appauthor=False)) / "people"


class PeopleFile:
    """One service has it at a time. Every call waits for the disk; not for two threads at once."""

    def __init__(self, folder: Path, secret: str) -> None:
        """Open it, or make it.

        Raises:
            errors.SettingsInvalid: the folder, the file or the key cannot be used.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(folder, 0o700)
            path = folder / FILE
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise errors.SettingsInvalid(
                f"The folder for people, {folder}, cannot be used: {error.strerror}.",
                hint="Set VIBEVOICE_PEOPLE_DIR to a folder that can be.",
            ) from None
        self._database = sqlite3.connect(
            path, ANOTHER_S, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in (
                "locking_mode = EXCLUSIVE",
                "journal_mode = TRUNCATE",
                "synchronous = FULL",
                "secure_delete = ON",
                "foreign_keys = ON",
                "temp_store = MEMORY",
            ):
                self._database.execute(f"PRAGMA {pragma}").fetchall()
            self._database.execute("BEGIN EXCLUSIVE")
            self._database.execute("COMMIT")
            migrate(self._database, MIGRATIONS, WORDS)
            self._seal = seal_of(self._database, secret, WORDS)
        except sqlite3.Error as error:
            self._database.close()
            raise errors.SettingsInvalid(
                f"The file of people, {path}, cannot be had: {error}.",
                hint="Stop the other service that has it, or set VIBEVOICE_PEOPLE_DIR.",
            ) from None
        except BaseException:
            self._database.close()
            raise

    def all(self) -> list[Person]:
        """Everybody, the oldest first.

        Raises:
            errors.SettingsInvalid: the file is not what was written.
        """
        read = self._database.execute
        try:
            samples: dict[str, list[Sample]] = {}
            for person, sealed in read("SELECT person, sealed FROM samples ORDER BY number"):
                one = Sample.of(json.loads(self._seal.opened(sealed, f"sample/{person}")))
                samples.setdefault(person, []).append(one)
            rows = read("SELECT id, owner, created, name FROM people ORDER BY created, id")
            return [
                Person(
                    id_,
                    owner,
                    self._seal.opened(name, f"person/{id_}").decode(),
                    created,
                    tuple(samples.get(id_, ())),
                )
                for id_, owner, created, name in rows.fetchall()
            ]
        except (sqlite3.DatabaseError, SealBroken, ValueError, KeyError, TypeError) as error:
            raise errors.SettingsInvalid(
                f"The file of people is not what was written ({type(error).__name__}).",
                hint="Put a copy in its place, or set VIBEVOICE_PEOPLE_DIR to an empty folder.",
            ) from None

    def write(self, person: Person) -> None:
        """Keep a person as it is now, in the place of what was.

        Raises:
            errors.DiskFull, errors.SidecarError: it cannot be written; then all is as it was.
        """
        name = self._seal.seal(person.name.encode(), f"person/{person.id}")
        about = f"sample/{person.id}"
        sealed = [
            self._seal.seal(json.dumps(asdict(one)).encode(), about) for one in person.samples
        ]
        with self._change():
            self._database.execute("DELETE FROM people WHERE id = ?", (person.id,))
            self._database.execute(
                "INSERT INTO people VALUES (?, ?, ?, ?)",
                (person.id, person.owner, person.created, name),
            )
            self._database.executemany(
                "INSERT INTO samples (person, sealed) VALUES (?, ?)",
                [(person.id, one) for one in sealed],
            )

    def delete(self, person: str) -> None:
        """Overwrite all that is kept of a person.

        Raises:
            errors.DiskFull, errors.SidecarError: it cannot be written; then all is as it was.
        """
        with self._change():
            self._database.execute("DELETE FROM people WHERE id = ?", (person,))

    def close(self) -> None:
        """Let another have it."""
        self._database.close()

    @contextmanager
    def _change(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise errors.DiskFull() from None
            raise errors.SidecarError(
                f"The file of people could not be written: {error}."
            ) from None
