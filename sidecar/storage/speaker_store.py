"""Enrolled speakers: values, store protocol, encrypted SQLite store.

The file has no write-ahead log, and its rollback journal is truncated after each change. Deleted
data is overwritten (``secure_delete``). So nothing of it remains in any file of this service.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from sidecar import errors, files
from sidecar.concurrency import ThreadLimiter
from sidecar.config.settings import Settings, data_folder
from sidecar.storage import encrypted_sqlite
from sidecar.storage.encryption import DecryptionFailed
from sidecar.storage.recording_storage import answering
from sidecar.transcripts.transcript import MAX_NAME_CHARACTERS, SpeakerCandidate, SpeakerEmbedding
from sidecar.transcripts.word_timing import one_line

T = TypeVar("T")

MAX_ENROLLED_SPEAKERS = 200
"""Maximum of one owner: at most 1.4 MB of vectors go to the engine with each job."""
MAX_SAMPLES = 10
"""Samples of one speaker. More recordings hardly change the mean that a voice is compared with."""
SPEAKER_FILE = "people.db"
LOCK_TIMEOUT_S = 5.0
"""Time that another service may take to end and release the file."""
SPEAKER_LABELS = encrypted_sqlite.DatabaseLabels("people", "VIBEVOICE_DATA_DIR")
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        encrypted_sqlite.KEY_TABLE,
        "CREATE TABLE people (id TEXT PRIMARY KEY, owner TEXT NOT NULL, created REAL NOT NULL, "
        "name BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE samples (number INTEGER PRIMARY KEY, person TEXT NOT NULL "
        "REFERENCES people (id) ON DELETE CASCADE, sealed BLOB NOT NULL)",
        "CREATE INDEX samples_by_person ON samples (person)",
    ),
)
"""Migrations of the file from each version to the next; a released step never changes."""


@dataclass(frozen=True, slots=True)
class SpeakerSample:
    """Sample of an enrolled speaker; ``added``: seconds since 1970."""

    added: float
    print: SpeakerEmbedding

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the sample with these fields, as `dataclasses.asdict` returned them.

        Raises:
            KeyError, TypeError: the fields are of no sample.
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
        """Return the speaker with one more sample; a duplicate changes nothing. Beyond
        `MAX_SAMPLES` the sample with the least speech is dropped, of equal ones the oldest."""
        if any(one.print.vector == sample.print.vector for one in self.samples):
            return self
        kept = list(self.samples)
        if len(kept) >= MAX_SAMPLES:
            kept.remove(min(kept, key=lambda one: (one.print.seconds, one.added)))
        return replace(self, samples=(*kept, sample))


def parse_speaker_name(value: object) -> str:
    """Return a name as it is shown: on one line, without control characters and surrounding space.

    Raises:
        errors.FieldInvalid: it is empty, no string, or too long.
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
"""Function from all speakers of an owner to the one to store; pure, as it may run twice."""


class SpeakerStore(Protocol):
    """Store of enrolled speakers by owner. Changes are persisted before a method returns."""

    async def of(self, owner: str) -> Sequence[EnrolledSpeaker]:
        """Return an owner's speakers, the oldest first.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """

    async def keep(self, owner: str, decide: SpeakerUpdate) -> EnrolledSpeaker:
        """Store the speaker that ``decide`` makes of an owner's speakers, which do not change
        meanwhile.

        Raises:
            errors.DiskFull, errors.SidecarError: it cannot be written; nothing was changed.
            errors.JournalUnreachable, errors.StorageUnreachable: it may be stored or not. If
                ``decide`` raises, it is not.
        """

    async def delete(self, owner: str, speaker_id: str) -> None:
        """Delete all data of a speaker; raise as `delete_all`."""

    async def delete_all(self, owner: str) -> int:
        """Delete all data of all speakers of an owner; return how many.

        Raises:
            errors.DiskFull, errors.SidecarError: it cannot be written; nothing was changed.
            errors.JournalUnreachable, errors.StorageUnreachable: it may be deleted or not.
        """

    async def close(self) -> None:
        """Close the store."""


def speaker_folder(settings: Settings) -> Path:
    """Return the folder of enrolled speakers."""
    return data_folder(settings, "people")


class SqliteSpeakerStore:
    """`SpeakerStore` in a SQLite file, which is open in one service at a time and read once. One
    thread writes: no other change comes between."""

    close_s = encrypted_sqlite.CLOSE_TIMEOUT_S

    def __init__(
        self,
        folder: Path,
        secret: str,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        commit_timeout_s: float = encrypted_sqlite.COMMIT_TIMEOUT_S,
    ) -> None:
        """Open or create the file; this blocks on the disk. ``lock_timeout_s``: seconds to wait for
        another service that has it; ``commit_timeout_s``: for a disk that does not answer.

        Raises:
            errors.SettingsInvalid: the folder, the file or the key cannot be used.
        """
        self._disk_threads, self._timeout_s = ThreadLimiter("people", 1), commit_timeout_s
        try:
            files.private_folder(folder)
            path = folder / SPEAKER_FILE
            files.touch(path)
        except OSError as error:
            raise files.unusable_error(
                f"The folder for enrolled speakers, {folder}, cannot be used: {error.strerror}.",
                Path(error.filename or folder),
                error,
                hint="Set VIBEVOICE_DATA_DIR to a usable folder.",
            ) from None
        self._connection = sqlite3.connect(
            path, timeout=lock_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            locking = "locking_mode = EXCLUSIVE", "journal_mode = TRUNCATE"
            encrypted_sqlite.set_pragmas(self._connection, *locking, "temp_store = MEMORY")
            self._connection.execute("BEGIN EXCLUSIVE")
            self._connection.execute("COMMIT")
            encrypted_sqlite.migrate_sqlite(self._connection, MIGRATIONS, SPEAKER_LABELS)
            self._cipher = encrypted_sqlite.open_cipher(self._connection, secret, SPEAKER_LABELS)
            self._speakers = {one.id: one for one in self._read()}
        except sqlite3.Error as error:
            self._connection.close()
            raise errors.SettingsInvalid(
                f"The file of enrolled speakers, {path}, cannot be opened: {error}.",
                hint="Stop the other service that uses it, or set VIBEVOICE_DATA_DIR.",
            ) from None
        except BaseException:
            self._connection.close()
            raise

    def _read(self) -> list[EnrolledSpeaker]:
        """Return all speakers, the oldest first.

        Raises:
            errors.SettingsInvalid: the file is damaged.
        """
        read = self._connection.execute
        try:
            samples: dict[str, list[SpeakerSample]] = {}
            for speaker_id, sealed in read("SELECT person, sealed FROM samples ORDER BY number"):
                one = SpeakerSample.of(
                    json.loads(self._cipher.decrypt(sealed, f"sample/{speaker_id}"))
                )
                samples.setdefault(speaker_id, []).append(one)
            rows = read("SELECT id, owner, created, name FROM people ORDER BY created, id")
            return [
                EnrolledSpeaker(
                    id_,
                    owner,
                    self._cipher.decrypt(name, f"person/{id_}").decode(),
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

    def _write(self, speaker: EnrolledSpeaker) -> None:
        """Store a speaker in place of its earlier version.

        Raises:
            errors.DiskFull, errors.SidecarError: it cannot be written; nothing was changed.
        """
        name = self._cipher.encrypt(speaker.name.encode(), f"person/{speaker.id}")
        about = f"sample/{speaker.id}"
        sealed = [
            self._cipher.encrypt(json.dumps(asdict(one)).encode(), about) for one in speaker.samples
        ]
        with self._change():
            self._connection.execute("DELETE FROM people WHERE id = ?", (speaker.id,))
            self._connection.execute(
                "INSERT INTO people VALUES (?, ?, ?, ?)",
                (speaker.id, speaker.owner, speaker.created, name),
            )
            self._connection.executemany(
                "INSERT INTO samples (person, sealed) VALUES (?, ?)",
                [(speaker.id, one) for one in sealed],
            )

    @contextmanager
    def _change(self) -> Iterator[None]:
        try:
            encrypted_sqlite.begin_immediate(self._connection)
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                encrypted_sqlite.roll_back(self._connection)
                raise
        except sqlite3.Error as error:
            if encrypted_sqlite.is_full(error):
                raise errors.DiskFull(
                    "There is not enough disk space for the enrolled speakers.",
                    hint="Free some space where VIBEVOICE_DATA_DIR is.",
                ) from None
            raise errors.SidecarError(
                f"The file of enrolled speakers could not be written: {error}."
            ) from None

    async def of(self, owner: str) -> Sequence[EnrolledSpeaker]:
        """Return an owner's speakers, the oldest first."""
        return self._of(owner)

    async def keep(self, owner: str, decide: SpeakerUpdate) -> EnrolledSpeaker:
        """As `SpeakerStore.keep`."""

        def act() -> EnrolledSpeaker:
            speaker = decide(self._of(owner))
            if self._speakers.get(speaker.id) != speaker:
                self._write(speaker)
                self._speakers = {**self._speakers, speaker.id: speaker}
            return speaker

        return await self._change_of(act)

    async def delete(self, owner: str, speaker_id: str) -> None:
        """As `SpeakerStore.delete`."""
        await self._delete(owner, speaker_id)

    async def delete_all(self, owner: str) -> int:
        """As `SpeakerStore.delete_all`."""
        return await self._delete(owner, None)

    async def _delete(self, owner: str, speaker_id: str | None) -> int:
        def act() -> int:
            gone = [one.id for one in self._of(owner) if speaker_id in (None, one.id)]
            with self._change():  # their data is overwritten
                self._connection.executemany(
                    "DELETE FROM people WHERE id = ?", [(id_,) for id_ in gone]
                )
            self._speakers = {id_: one for id_, one in self._speakers.items() if id_ not in gone}
            return len(gone)

        return await self._change_of(act)

    async def _change_of(self, act: Callable[[], T]) -> T:
        async with answering(self._timeout_s, "The disk of the enrolled speakers does not answer."):
            return await self._disk_threads.run(act)

    async def close(self) -> None:
        """Close the file, for other services, if its disk answers in time."""
        with suppress(errors.StorageUnreachable):
            async with answering(self.close_s):
                await self._disk_threads.run(self._connection.close)

    @property
    def all_speakers(self) -> list[EnrolledSpeaker]:
        """Return all speakers of all owners, the oldest first."""
        return [*self._speakers.values()]

    def _of(self, owner: str) -> list[EnrolledSpeaker]:
        return [one for one in self._speakers.values() if one.owner == owner]
