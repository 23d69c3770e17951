"""Enrolled speakers: values, store protocol, encrypted SQLite store.

It has no write-ahead log, and its rollback journal is cut to nothing after each change; what is
deleted is overwritten (``secure_delete``). So what goes is gone from every file of ours.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

from sidecar import errors, files
from sidecar.concurrency import ThreadLimiter
from sidecar.config.settings import Settings, data_folder
from sidecar.storage.encrypted_sqlite import KEY_TABLE, DatabaseLabels, migrate_sqlite, open_cipher
from sidecar.storage.encryption import DecryptionFailed
from sidecar.transcripts.speaker_embeddings import (
    MAX_NAME_CHARACTERS,
    SpeakerCandidate,
    SpeakerEmbedding,
)
from sidecar.transcripts.word_timing import one_line

MAX_ENROLLED_SPEAKERS = 200
"""Of one owner: their vectors, 1.4 MB at the most, go to the engine with each of its jobs."""
MAX_SAMPLES = 10
"""Of one person. More recordings hardly move the mean that a voice is compared with."""


@dataclass(frozen=True, slots=True)
class SpeakerSample:
    """Clip of an enrolled speaker; ``added``: when, in seconds since 1970."""

    added: float
    print: SpeakerEmbedding

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The sample whose fields these are, as `dataclasses.asdict` has them.

        Raises:
            KeyError, TypeError: they are not.
        """
        return cls(values["added"], SpeakerEmbedding(**values["print"]))


@dataclass(frozen=True, slots=True)
class EnrolledSpeaker:
    """Speaker whom an owner has enrolled. The oldest sample comes first."""

    id: str
    owner: str
    name: str
    created: float
    samples: tuple[SpeakerSample, ...]

    @property
    def known(self) -> SpeakerCandidate:
        """Return the enrolled speaker as a candidate for identification."""
        return SpeakerCandidate(self.id, self.name, tuple(one.print for one in self.samples))

    def hearing(self, sample: SpeakerSample) -> EnrolledSpeaker:
        """The same person with one sample more. What was heard twice counts once; beyond
        `MAX_SAMPLES` the one with the least voice goes, the oldest of these first."""
        if any(one.print.vector == sample.print.vector for one in self.samples):
            return self
        kept = list(self.samples)
        if len(kept) >= MAX_SAMPLES:
            kept.remove(min(kept, key=lambda one: (one.print.seconds, one.added)))
        return replace(self, samples=(*kept, sample))


def parse_speaker_name(value: object) -> str:
    """A name as it is shown: on one line, without control characters and space around it.

    Raises:
        errors.FieldInvalid: it is none, or too long.
    """
    if not isinstance(value, str):
        raise errors.FieldInvalid("The field 'name' is not a string.")
    name = one_line(value)
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise errors.FieldInvalid(
            f"'name' has to have 1 to {MAX_NAME_CHARACTERS} characters.",
            hint="Send the name of the person.",
        )
    return name


SpeakerUpdate = Callable[[Sequence[EnrolledSpeaker]], EnrolledSpeaker]
"""A person as it is to be kept, from all of its owner's; pure, for it may be asked twice."""


class SpeakerStore(Protocol):
    """People by their owners. What is kept or deleted is so before anybody is told."""

    async def of(self, owner: str) -> Sequence[EnrolledSpeaker]:
        """An owner's, the oldest first.

        Raises:
            errors.JournalUnreachable: nobody can be asked.
        """

    async def keep(self, owner: str, decide: SpeakerUpdate) -> EnrolledSpeaker:
        """Keep what ``decide`` makes of an owner's people, which nobody changes meanwhile.

        Raises:
            errors.DiskFull, errors.SidecarError: it cannot be written; then all is as it was.
            errors.JournalUnreachable: it may be kept or not; what it raises: it is not.
        """

    async def delete(self, owner: str, person: str) -> None:
        """Have nothing of a person left, nor in what is kept of it beyond our reading.

        Raises:
            errors.DiskFull, errors.SidecarError: it cannot be written; then all is as it was.
            errors.JournalUnreachable: it may be gone or not.
        """

    async def empty(self, owner: str) -> int:
        """`delete` everybody of an owner; how many.

        Raises:
            errors.SidecarError: as `delete`; some may be gone then.
        """

    async def close(self) -> None:
        """Let go of them."""


SPEAKER_FILE = "people.db"
LOCK_TIMEOUT_S = 5.0
"""So long the service that has the file may take to end."""
SPEAKER_LABELS = DatabaseLabels("people", "VIBEVOICE_DATA_DIR")
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
"""Migrations of the file from each version to the next; a step once released never changes."""


def speaker_folder(settings: Settings) -> Path:
    """Return the folder of enrolled speakers."""
    return data_folder(settings, "people")


class SpeakerFile:
    """One service has it at a time. Every call waits for the disk; not for two threads at once."""

    def __init__(self, folder: Path, secret: str) -> None:
        """Open it, or make it.

        Raises:
            errors.SettingsInvalid: the folder, the file or the key cannot be used.
        """
        try:
            files.private_folder(folder)
            path = folder / SPEAKER_FILE
            files.touch(path)
        except OSError as error:
            raise errors.SettingsInvalid(
                f"The folder for enrolled speakers, {folder}, cannot be used: {error.strerror}.",
                hint="Set VIBEVOICE_DATA_DIR to a usable folder.",
            ) from None
        self._database = sqlite3.connect(
            path, LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
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
            migrate_sqlite(self._database, MIGRATIONS, SPEAKER_LABELS)
            self._seal = open_cipher(self._database, secret, SPEAKER_LABELS)
        except sqlite3.Error as error:
            self._database.close()
            raise errors.SettingsInvalid(
                f"The file of enrolled speakers, {path}, cannot be opened: {error}.",
                hint="Stop the other service that uses it, or set VIBEVOICE_DATA_DIR.",
            ) from None
        except BaseException:
            self._database.close()
            raise

    def all(self) -> list[EnrolledSpeaker]:
        """Everybody, the oldest first.

        Raises:
            errors.SettingsInvalid: the file is not what was written.
        """
        read = self._database.execute
        try:
            samples: dict[str, list[SpeakerSample]] = {}
            for person, sealed in read("SELECT person, sealed FROM samples ORDER BY number"):
                one = SpeakerSample.of(json.loads(self._seal.opened(sealed, f"sample/{person}")))
                samples.setdefault(person, []).append(one)
            rows = read("SELECT id, owner, created, name FROM people ORDER BY created, id")
            return [
                EnrolledSpeaker(
                    id_,
                    owner,
                    self._seal.opened(name, f"person/{id_}").decode(),
                    created,
                    tuple(samples.get(id_, ())),
                )
                for id_, owner, created, name in rows.fetchall()
            ]
        except (sqlite3.DatabaseError, DecryptionFailed, ValueError, KeyError, TypeError) as error:
            raise errors.SettingsInvalid(
                f"The file of enrolled speakers is damaged ({type(error).__name__}).",
                hint="Restore a copy of it, or set VIBEVOICE_DATA_DIR to an empty folder.",
            ) from None

    def write(self, person: EnrolledSpeaker) -> None:
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
                f"The file of enrolled speakers could not be written: {error}."
            ) from None


class SqliteSpeakerStore:
    """A `SpeakerStore`. The file is read once."""

    def __init__(self, folder: Path, secret: str) -> None:
        """Open the file; this waits for the disk.

        Raises:
            errors.SettingsInvalid: the folder, the file or the key cannot be used.
        """
        self._disk = ThreadLimiter("people", 1)
        self._file = SpeakerFile(folder, secret)
        try:
            self._people = {one.id: one for one in self._file.all()}
        except BaseException:
            self._file.close()
            raise

    async def of(self, owner: str) -> Sequence[EnrolledSpeaker]:
        """An owner's, the oldest first."""
        return self._of(owner)

    async def keep(self, owner: str, decide: SpeakerUpdate) -> EnrolledSpeaker:
        """As `SpeakerStore.keep`."""

        def act() -> EnrolledSpeaker:  # one after the other: what it begins with is what is there
            person = decide(self._of(owner))
            if self._people.get(person.id) != person:
                self._file.write(person)
                self._people = {**self._people, person.id: person}
            return person

        return await self._disk.run(act)

    async def delete(self, owner: str, person: str) -> None:
        """As `SpeakerStore.delete`."""

        def act() -> None:
            known = self._people.get(person)
            if known is not None and known.owner == owner:
                self._file.delete(person)
                self._people = {id_: one for id_, one in self._people.items() if id_ != person}

        await self._disk.run(act)

    async def empty(self, owner: str) -> int:
        """As `SpeakerStore.empty`."""
        everybody = self._of(owner)
        for one in everybody:
            await self.delete(owner, one.id)
        return len(everybody)

    async def close(self) -> None:
        """Let another service have the file."""
        self._file.close()

    def _of(self, owner: str) -> list[EnrolledSpeaker]:
        return [one for one in self._people.values() if one.owner == owner]
