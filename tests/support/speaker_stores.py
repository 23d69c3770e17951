"""People in a file of one service, and in a database that several share: the same to a test."""

import base64
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import psycopg
import pytest
from postgres import Cluster

from sidecar.plugins import settings_class
from sidecar.plugins.shared_jobs import PLUGIN
from sidecar.plugins.shared_jobs.postgres_speaker_store import PostgresSpeakerStore
from sidecar.service.enrolled_speakers import EnrolledSpeakers, local_store
from sidecar.storage.speaker_store import (
    MAX_ENROLLED_SPEAKERS,
    SpeakerStore,
    SqliteSpeakerStore,
)
from sidecar.transcripts.transcript import SpeakerEmbedding
from sidecar.workers.audio_probe import AudioProbe

Settings = settings_class()

SECRET = "0123456789abcdef" * 4
FILE, DATABASE = "file", "database"


def heard(number: int, seconds: float = 5.0) -> SpeakerEmbedding:
    """A voice like nobody else's."""
    return SpeakerEmbedding(base64.b64encode(number.to_bytes(2, "big") * 256).decode(), seconds)


class Closes(Protocol):
    """What is closed on the event loop."""

    async def close(self) -> None: ...


C = TypeVar("C", bound=Closes)


@contextlib.asynccontextmanager
async def closing(thing: C) -> AsyncIterator[C]:
    """Close it at the end."""
    try:
        yield thing
    finally:
        await thing.close()


def store_of(settings: Settings) -> SpeakerStore | None:
    """The store of speakers of a service with these settings."""
    shared = PLUGIN.shared_jobs(settings)
    return shared.create_speaker_store() if shared is not None else local_store(settings)


def speakers_of(settings: Settings) -> EnrolledSpeakers:
    """The enrolled speakers of a service with these settings."""
    return EnrolledSpeakers(settings, AudioProbe(60.0), store_of(settings))


class Place:
    """Where people are, for as long as the test lasts."""

    def __init__(self, settings: dict[str, object], kind: type[SpeakerStore]) -> None:
        self._settings, self._kind = settings, kind
        self._opened: list[EnrolledSpeakers] = []

    def open(self, secret: str = SECRET, *, limit: int = MAX_ENROLLED_SPEAKERS) -> EnrolledSpeakers:
        """Those who are there; of a file only once it is closed by who had it."""
        settings = Settings(people=True, journal_key=secret, **self._settings)  # type: ignore[arg-type]
        store = store_of(settings)
        assert isinstance(store, self._kind)
        self._opened.append(EnrolledSpeakers(settings, AudioProbe(60.0), store, limit=limit))
        return self._opened[-1]

    def written(self) -> bytes:
        """Every byte of the files that have them."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close those that were opened."""
        for one in self._opened:
            await one.close()


class InFile(Place):
    """A folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__({"data_dir": folder.parent}, SqliteSpeakerStore)
        self.folder = folder

    def written(self) -> bytes:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return b"".join(path.read_bytes() for path in files)

    def sealed(self, person: str) -> list[bytes]:
        path = next(self.folder.glob("*.db"))
        look = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
        try:
            rows = look.execute("SELECT sealed FROM samples WHERE person = ?", (person,)).fetchall()
            rows += look.execute("SELECT name FROM people WHERE id = ?", (person,)).fetchall()
        finally:
            look.close()
        return [row[0] for row in rows]


class InDatabase(Place):
    """A database, and its files."""

    def __init__(self, cluster: Cluster, journal: str) -> None:
        super().__init__({"journal": journal}, PostgresSpeakerStore)
        self.cluster, self.journal = cluster, journal
        with self.connected() as look:
            row = look.execute(
                "SELECT oid FROM pg_database WHERE datname = %s", (urlsplit(journal).path[1:],)
            ).fetchone()
            assert row is not None
            self._folder = cluster.files / "base" / str(row[0])

    def connected(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.journal, autocommit=True)

    def written(self) -> bytes:
        with self.connected() as look:
            look.execute("CHECKPOINT")
        found = b""
        for path in sorted(self._folder.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # PostgreSQL has some for a moment only
                found += path.read_bytes()
        return found


@pytest.fixture
async def in_file(tmp_path: Path) -> AsyncIterator[InFile]:
    """People in the file of one service."""
    place = InFile(tmp_path / "people")
    yield place
    await place.close()


@pytest.fixture
async def in_database(postgres_cluster: Cluster, fresh_journal: str) -> AsyncIterator[InDatabase]:
    """People in a database whose files are of this test alone."""
    place = InDatabase(postgres_cluster, fresh_journal)
    yield place
    await place.close()
