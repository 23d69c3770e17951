"""Writers of SQLite whose disk fails for a while: no write is lost, none is tried job by job."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from service_process import PATIENCE_S
from speaker_stores import SECRET, heard

from sidecar import errors
from sidecar.storage.encrypted_sqlite import JobWrite, SqliteWriter, Statement
from sidecar.storage.speaker_store import EnrolledSpeaker, SpeakerSample, SqliteSpeakerStore

JOBS = "first", "second", "third"


class FailingConnection(sqlite3.Connection):
    """A file whose disk fails at these statements."""

    failing: tuple[str, ...] = ()
    executed: list[str]

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        self.executed.append(sql)
        if sql in self.failing:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        return super().execute(sql, *values)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FailingConnection, "failing", ())
    monkeypatch.setattr(FailingConnection, "executed", [], raising=False)
    connect = partial(sqlite3.connect, factory=FailingConnection)
    monkeypatch.setattr(sqlite3, "connect", connect)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.db"


@pytest.fixture
def writer(file: Path) -> Iterator[SqliteWriter]:
    opened = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    with closing(opened) as connection:
        connection.execute("CREATE TABLE rows (job)")
        writer = SqliteWriter(connection, retry_s=0.01)
        yield writer
        assert writer.close()


def write_batch(writer: SqliteWriter, fails: Sequence[str]) -> list[BaseException | None]:
    """Write a row for each job in one batch, while these statements fail; what each is told."""
    held, goes_on = threading.Event(), threading.Event()

    def hold() -> Sequence[Statement]:
        held.set()
        goes_on.wait()
        return ()

    writer.put(JobWrite("of no job", hold))
    assert held.wait(PATIENCE_S)
    for job in JOBS:
        writer.put(JobWrite(job, lambda job=job: [("INSERT INTO rows VALUES (?)", (job,))]))
    told = [writer.written(job) for job in JOBS]
    FailingConnection.failing = tuple(fails)
    FailingConnection.executed.clear()
    goes_on.set()
    return [one.exception(PATIENCE_S) for one in told]


def rows_in(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [job for (job,) in connection.execute("SELECT job FROM rows ORDER BY rowid")]


def test_batch_that_a_failing_disk_refuses_is_tried_as_one_and_committed_whole_and_once(
    writer: SqliteWriter, file: Path
) -> None:
    told = write_batch(writer, ["COMMIT"])
    assert [type(one) for one in told] == [errors.SpoolUnwritable] * len(JOBS)
    tried = [one for one in FailingConnection.executed if one.startswith(("BEGIN", "INSERT"))]
    one_try = ["BEGIN IMMEDIATE", *["INSERT INTO rows VALUES (?)"] * len(JOBS)]
    assert tried == one_try * tried.count("BEGIN IMMEDIATE"), "jobs were tried one by one"
    FailingConnection.failing = ()
    assert [writer.written(job).exception(PATIENCE_S) for job in JOBS] == [None] * len(JOBS)
    assert rows_in(file) == [*JOBS]


def test_rollback_that_fails_ends_no_writer_and_loses_no_write(
    writer: SqliteWriter, file: Path
) -> None:
    assert all(write_batch(writer, ["COMMIT", "ROLLBACK"]))
    FailingConnection.failing = ()
    assert [writer.written(job).exception(PATIENCE_S) for job in JOBS] == [None] * len(JOBS)
    assert rows_in(file) == [*JOBS]


def speaker(name: str) -> EnrolledSpeaker:
    return EnrolledSpeaker(name, "ada", name, 1.0, (SpeakerSample(1.0, heard(1)),))


async def test_rollback_that_fails_lets_later_speakers_be_enrolled(tmp_path: Path) -> None:
    store = SqliteSpeakerStore(tmp_path, SECRET)
    FailingConnection.failing = "COMMIT", "ROLLBACK"
    with pytest.raises(errors.SidecarError):
        await store.keep("ada", lambda _: speaker("anna"))
    FailingConnection.failing = ()
    later = await store.keep("ada", lambda _: speaker("ben"))
    await store.close()
    again = SqliteSpeakerStore(tmp_path, SECRET)
    assert again.all_speakers == [later]
    await again.close()
