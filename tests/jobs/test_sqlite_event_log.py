"""Jobs on the disk: every state that a crash can leave is one that was, and what was acknowledged
is in it."""

import asyncio
import errno
import json
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from full_disk import fill_disk
from instrumented_slot import OverheardSlot, queue_on
from job_event_histories import added, happen, submitted
from retention_of_jobs import retention_of
from service_process import PATIENCE_S, until
from uploads import upload

from sidecar import clock, errors
from sidecar.auth.identity import ANONYMOUS
from sidecar.config.settings import Settings
from sidecar.jobs import sqlite_event_log
from sidecar.jobs.faults import passes
from sidecar.jobs.job_record import (
    CancelledChange,
    CountsAs,
    EditedChange,
    FailedChange,
    IdempotencyKey,
    JobFailure,
    JobRecord,
    JobState,
    ReportedChange,
    RequeuedChange,
    StartedChange,
)
from sidecar.jobs.local_jobs import LocalJobStore
from sidecar.jobs.owned_jobs import OwnedJobs
from sidecar.jobs.persistent_recordings import RecordingArchive
from sidecar.jobs.recovery import JobPersistence
from sidecar.jobs.sqlite_event_log import (
    SEQ_STRIDE,
    SqliteJobEventLog,
    UnreadableRecord,
    parse_change,
    serialize_change,
)
from sidecar.storage.encrypted_sqlite import JobWrite, Statement
from sidecar.storage.encryption import Cipher
from sidecar.storage.job_journal import (
    JOURNAL_FILE,
    UPLOADS_FOLDER,
    VERSION_OF_0_2,
    broken_files,
)
from sidecar.storage.recording_storage import FolderStorage
from sidecar.transcripts.transcript import (
    Finished,
    Progress,
    ResumePoint,
    Segment,
    SegmentReady,
    Transcript,
)
from sidecar.transcripts.transcript_edits import RedoStep, RenameSpeaker, RewriteSegment, UndoStep

KEY = "a-key-of-a-test-and-of-nobody-else"
SAID = Segment(0.0, 1.0, "the quick brown fox")
DONE = ReportedChange(Finished(Transcript((SAID,), "en", 3.0, "scripted", "fp32")))
RESUME_POINT = ReportedChange(ResumePoint(1.0, "form", (SAID,), {"state": "of an engine"}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def store(folder: Path) -> Iterator[SqliteJobEventLog]:
    store = SqliteJobEventLog(folder, KEY)
    yield store
    store.close()


@contextmanager
def writer_held(store: SqliteJobEventLog) -> Iterator[None]:
    """What is written within this context is committed after it, in one batch."""
    held, goes_on = threading.Event(), threading.Event()

    def hold() -> Sequence[Statement]:
        held.set()
        goes_on.wait()
        return ()

    store.writer.put(JobWrite("of no job", hold))
    try:
        assert held.wait(PATIENCE_S)
        yield
    finally:
        goes_on.set()


def reopened(folder: Path, copy: Path) -> list[JobRecord]:
    """What a service finds that is started on these files."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("lock"))
    with closing(SqliteJobEventLog(copy, KEY)) as store:
        return store.all()


async def test_reopened_log_has_durable_jobs_with_their_events_and_repeats_no_event_number(
    folder: Path, tmp_path: Path
) -> None:
    store = SqliteJobEventLog(folder, KEY)
    done, running, waiting = (
        added(store, key=IdempotencyKey(str(one), "digest")) for one in range(3)
    )
    passing = added(store, durable=False)
    edits = (
        EditedChange((RenameSpeaker(0, "Nell"), RewriteSegment(0, "Other words."))),
        EditedChange(UndoStep()),
        EditedChange(RedoStep()),
    )
    happen(store, done.id, StartedChange(), ReportedChange(SegmentReady(0, SAID), 0.5))
    happen(store, done.id, DONE, *edits)
    assert store.get(done.id).history.revision == 3
    happen(store, running.id, StartedChange(), RESUME_POINT, ReportedChange(Progress(2.0, 3.0)))
    happen(store, running.id, ReportedChange(SegmentReady(1, SAID)))
    await store.written()
    known, log = store.all(), store.events(done.id)
    store.close()
    with closing(SqliteJobEventLog(folder, KEY)) as again:
        found = again.all()
        assert [one.id for one in found] == [done.id, running.id, waiting.id]
        assert found[0] == known[0]
        assert [*again.events(done.id)] == [*log]
        assert found[1].resume_points == known[1].resume_points
        assert found[2] == waiting
        assert again.by_key(waiting.owner, "2") == waiting
        assert passing.id not in {one.id for one in found}
        after = again.append(running.id, RequeuedChange(CountsAs.DEATH))
        assert after.seq > known[1].seq + SEQ_STRIDE - 10, (
            "numbers that may have been told come again"
        )
        assert (after.state, after.segments, after.interruptions) == (JobState.QUEUED, (SAID,), 1)


async def test_write_ahead_log_cut_at_any_byte_reopens_to_a_state_with_acknowledged_events(
    folder: Path, tmp_path: Path, store: SqliteJobEventLog
) -> None:
    """The power fails anywhere in a write: the write-ahead log is cut off at any byte."""
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    states: dict[str, list[JobRecord]] = {}
    acknowledged: list[tuple[int, dict[str, int]]] = []
    wal = folder / f"{JOURNAL_FILE}-wal"
    for step in range(40):
        if step % 8 == 0:
            job = added(store)
            states[job.id] = [job]
        job_id = chance.choice([*states])
        change = chance.choice(
            [
                StartedChange(),
                RESUME_POINT,
                RESUME_POINT,
                DONE,
                CancelledChange(),
                RequeuedChange(CountsAs.DEATH),
            ]
        )
        states[job_id].append(store.append(job_id, change))
        if chance.random() < 0.6:
            await store.written(job_id)
            at = {one: len(each) - 1 for one, each in states.items()}
            acknowledged.append((wal.stat().st_size, at))
    await store.written()
    size = wal.stat().st_size
    cuts = [*(chance.randrange(size) for _ in range(25)), *(at for at, _ in acknowledged[-10:])]
    base, cut_at = tmp_path / "base", tmp_path / "cut"
    shutil.copytree(folder, base, ignore=shutil.ignore_patterns("lock", "*-shm"))
    for cut in cuts:
        with (base / wal.name).open("rb") as whole:
            data = whole.read(cut)
        torn = tmp_path / "torn"
        shutil.rmtree(torn, ignore_errors=True)
        shutil.copytree(base, torn)
        (torn / wal.name).write_bytes(data)
        found = {one.id: one for one in reopened(torn, cut_at)}
        assert not broken_files(cut_at), f"seed {seed}"
        for job_id, record in found.items():
            assert record in states[job_id], f"seed {seed}, cut at {cut}"
        for written, at in acknowledged:
            if written <= cut:
                for job_id, least in at.items():
                    assert found[job_id] in states[job_id][least:], f"seed {seed}, cut at {cut}"


async def test_full_disk_fails_only_the_job_that_does_not_fit_which_is_persisted_once_it_fits(
    store: SqliteJobEventLog, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    large, small = added(store), added(store)
    await store.written()
    store.append(large.id, StartedChange())
    await store.written(large.id)
    pages = store.journal.connection.execute("PRAGMA page_count").fetchone()[0]
    store.journal.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    state = {"state": "x" * 100_000}
    store.append(large.id, ReportedChange(ResumePoint(1.0, "form", (), state)))
    store.append(small.id, CancelledChange())
    with pytest.raises(errors.DiskFull):
        await store.written(large.id)
    await store.written(small.id)
    found = {one.id: one for one in reopened(folder, tmp_path / "copy")}
    assert found[small.id].state is JobState.CANCELLED
    assert found[large.id].resume_points == ()
    store.append(small.id, CancelledChange())
    await store.written(small.id)
    assert caplog.text.count("cannot be persisted") == 1, "it was logged again for other jobs"
    store.journal.connection.execute("PRAGMA max_page_count = 1000000")
    store.append(small.id, CancelledChange())
    store.append(added(store).id, StartedChange())
    await store.written(large.id)
    found = {one.id: one for one in reopened(folder, tmp_path / "copy")}
    assert found[large.id].resume_points[0].state == state, "what was owed was forgotten"


async def test_end_of_job_that_did_not_fit_is_persisted_without_another_write_once_it_fits(
    folder: Path,
) -> None:
    """Without another write."""

    def persisted_events() -> int:
        with closing(sqlite3.connect(folder / JOURNAL_FILE)) as database:
            return int(database.execute("SELECT count(*) FROM events").fetchone()[0])

    with closing(SqliteJobEventLog(folder, KEY, retry_s=0.01)) as store:
        job = added(store, StartedChange())
        await store.written()
        connection = store.journal.connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        said = Transcript((Segment(0.0, 1.0, "x" * 100_000),), "en", 3.0, "scripted", "fp32")
        store.append(job.id, ReportedChange(Finished(said)))
        with pytest.raises(errors.DiskFull):
            await store.written(job.id)
        connection.execute("PRAGMA max_page_count = 1000000")
        await until(lambda: persisted_events() == 2)


@pytest.mark.parametrize(
    "harm", ["header", "middle", "row", "nonsense", "text", "kind", "column", "schema"]
)
def test_broken_journal_is_set_aside_with_its_recordings_and_logged_and_log_opens(
    folder: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(SqliteJobEventLog(folder, KEY)) as store:
        for _ in range(20):
            one = added(store, StartedChange())
    file = folder / JOURNAL_FILE
    data = bytearray(file.read_bytes())
    (folder / UPLOADS_FOLDER).mkdir()
    (folder / UPLOADS_FOLDER / "recording").write_bytes(b"sound")
    if harm == "header":
        data[:100] = bytes(100)
    elif harm == "middle":
        data[4096 : len(data) - 100] = b"\xff" * (len(data) - 4196)
    elif harm == "nonsense":
        data = bytearray(b"not a database at all" * 1000)
    elif harm == "text":  # the last bit of what SQLite takes for text as it is
        data = data.replace(
            one.id.encode(), bytes([one.id.encode()[0] | 0x80]) + one.id[1:].encode()
        )
    elif harm == "column":
        data = data.replace(b"submitted BLOB", b"submittee BLOB")
    elif harm == "schema":  # SQLite's own words are no text then
        data = data.replace(b"CREATE TABLE jobs", b"CREAT\xc5 TABLE jobs")
    elif harm == "kind":
        with closing(sqlite3.connect(file)) as database:
            database.execute("UPDATE jobs SET id = CAST(id AS BLOB)")
            database.commit()
        data = bytearray(file.read_bytes())
    else:
        with closing(sqlite3.connect(file)) as database:
            database.execute("UPDATE events SET change = x'00' WHERE seq = 1")
            database.commit()
        data = bytearray(file.read_bytes())
    file.write_bytes(data)
    with closing(SqliteJobEventLog(folder, KEY)) as store:
        assert store.all() == []
        (aside,) = broken_files(folder)
        assert aside.read_bytes() == data
        assert [path.read_bytes() for path in folder.glob(f"{UPLOADS_FOLDER}.broken-*/*")] == [
            b"sound"
        ]
        assert aside.name in caplog.text


@pytest.mark.parametrize("kept", [UPLOADS_FOLDER, JOURNAL_FILE])
def test_broken_journal_that_is_set_aside_in_part_keeps_recordings_at_next_starts(
    folder: Path, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill before one of its parts is renamed, or an error, as of a mount point."""
    settings = Settings(keep_jobs=True, data_dir=folder.parent, journal_key=KEY)
    (folder / UPLOADS_FOLDER).mkdir(parents=True)
    (folder / UPLOADS_FOLDER / "recording").write_bytes(b"sound")
    (folder / JOURNAL_FILE).write_bytes(b"not a database at all" * 1000)
    rename = os.replace

    def rename_others(path: Path, to: Path) -> None:
        if path.name == kept:
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        rename(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", rename_others)
        for _ in range(2):
            with pytest.raises(errors.SettingsInvalid, match="left unchanged"):
                JobPersistence(settings)
    with closing(JobPersistence(settings)) as keeping:
        assert keeping.event_log.all() == []
    assert len(broken_files(folder)) == 1
    assert [path.read_bytes() for path in folder.rglob("recording")] == [b"sound"]


@pytest.mark.parametrize("left", ["stopped", "killed", "nothing"])
def test_start_on_full_disk_is_refused_or_complete_and_loses_no_job(
    left: str, tiny_disk: Path, tmp_path: Path
) -> None:
    """At every 4 KiB of room, up to what a start needs and some more."""
    settings = Settings(keep_jobs=True, data_dir=tiny_disk, journal_key=KEY)
    before, folder = tmp_path / "before", tiny_disk / "jobs"
    jobs = _jobs_with_a_recording(before, stopped=left != "killed") if left != "nothing" else []
    opened, pages, said = 0, 0, "not enough disk space"
    while opened < 4:
        shutil.rmtree(folder, ignore_errors=True)
        if left != "nothing":
            shutil.copytree(before, folder)
        fill_disk(tiny_disk, 4096 * pages)
        try:
            with closing(JobPersistence(settings)) as keeping:
                assert [one.id for one in keeping.event_log.all()] == jobs, f"{4 * pages} KiB"
            opened += 1
        except errors.SettingsInvalid as refused:
            opened, said = 0, f"{refused}"
        (tiny_disk / "ballast").unlink()
        assert "not enough disk space" in said or "No space" in said, f"{4 * pages} KiB"
        assert not broken_files(folder), f"{4 * pages} KiB"
        with closing(JobPersistence(settings)) as keeping:
            assert [one.id for one in keeping.event_log.all()] == jobs, f"{4 * pages} KiB"
            for one in keeping.event_log.all():
                keeping.open(one).close()
        pages += 1
        assert pages < 100, "with 400 KiB it does not start"
    assert pages > 5, "there was always room"


def _jobs_with_a_recording(folder: Path, *, stopped: bool) -> list[str]:
    """The folder of a service that had five jobs, and was stopped or killed."""
    own = folder.with_name("own") / "jobs"
    settings = Settings(keep_jobs=True, data_dir=own.parent, journal_key=KEY)
    with closing(JobPersistence(settings)) as keeping:
        with upload(b"sound" * 1000) as source:
            kept = keeping.store(source, "recording")
        ids = []
        for _ in range(5):
            job = replace(submitted(durable=True), audio=kept)
            keeping.event_log.add(job)
            keeping.event_log.append(job.id, StartedChange())
            ids.append(job.id)
        asyncio.run(keeping.event_log.written())
        if not stopped:  # the index of the log is no file that a loss of power leaves
            shutil.copytree(own, folder, ignore=shutil.ignore_patterns("*-shm", "lock"))
    if stopped:
        shutil.copytree(own, folder)
    return ids


@pytest.mark.parametrize("raised", [True, False], ids=["raised", "told as a finding"])
def test_disk_error_on_opening_is_reported_and_intact_journal_is_not_set_aside(
    folder: Path, monkeypatch: pytest.MonkeyPatch, raised: bool
) -> None:
    with closing(SqliteJobEventLog(folder, KEY)) as store:
        job = added(store)
    connect = sqlite3.connect

    class Failing(sqlite3.Connection):
        """A disk that cannot be read for now. SQLite raises the error of the first page; of others
        it tells in a row (seen with EIO of `pread` from the second page on)."""

        def execute(self, sql: str, *more: object) -> sqlite3.Cursor:
            if "quick_check" in sql and not raised:
                told = "Tree 2 page 7: unable to get the page. error code=8458"
                return super().execute(f"SELECT '{told}'")
            if "quick_check" in sql:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = 266  # SQLITE_IOERR_READ
                raise error
            return super().execute(sql, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite3, "connect", partial(connect, factory=Failing))
    said = "disk I/O error" if raised else "unable to get the page"
    with pytest.raises(errors.SettingsInvalid, match=said):
        SqliteJobEventLog(folder, KEY)
    monkeypatch.undo()
    assert not broken_files(folder)
    with closing(SqliteJobEventLog(folder, KEY)) as store:
        assert [one.id for one in store.all()] == [job.id]


def test_journal_with_other_key_second_service_or_later_version_is_refused_and_kept(
    folder: Path,
) -> None:
    with closing(SqliteJobEventLog(folder, KEY)) as store:
        job = added(store)
        with pytest.raises(errors.SettingsInvalid, match="cannot be locked"):
            SqliteJobEventLog(folder, KEY, lock_timeout_s=0.1)
    with pytest.raises(errors.SettingsInvalid, match="another key"):
        SqliteJobEventLog(folder, KEY[::-1])
    with closing(SqliteJobEventLog(folder, KEY)) as store:
        assert [one.id for one in store.all()] == [job.id]
        connection = store.journal.connection
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(errors.SettingsInvalid, match="later version"):
        SqliteJobEventLog(folder, KEY)
    assert not broken_files(folder)
    with closing(sqlite3.connect(folder / JOURNAL_FILE)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    with closing(SqliteJobEventLog(folder, KEY)) as store:
        assert [one.id for one in store.all()] == [job.id]


@pytest.mark.parametrize("version", [2, VERSION_OF_0_2])
def test_journal_of_release_0_2_is_refused_and_keeps_version_and_jobs(
    folder: Path, version: int
) -> None:
    with closing(SqliteJobEventLog(folder, KEY)) as store:
        job = added(store)
        connection = store.journal.connection
        connection.execute("ALTER TABLE jobs DROP COLUMN last_read")
        connection.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(errors.SettingsInvalid, match=r"release 0\.2\.0") as refused:
        SqliteJobEventLog(folder, KEY)
    assert "docs/upgrading.md" in refused.value.hint
    assert not broken_files(folder)
    with closing(sqlite3.connect(folder / JOURNAL_FILE)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)
        assert connection.execute("SELECT id FROM jobs").fetchall() == [(job.id,)]


def test_new_journal_has_a_later_version_than_journals_of_release_0_2(
    store: SqliteJobEventLog,
) -> None:
    (version,) = store.journal.connection.execute("PRAGMA user_version").fetchone()
    assert version > VERSION_OF_0_2


def test_journal_of_a_migration_interrupted_before_its_version_was_set_opens_with_its_jobs(
    folder: Path,
) -> None:
    with closing(SqliteJobEventLog(folder, KEY)) as store:
        job = added(store)
        store.journal.connection.execute(f"PRAGMA user_version = {VERSION_OF_0_2}")
    with closing(SqliteJobEventLog(folder, KEY)) as store:
        assert [one.id for one in store.all()] == [job.id]


async def test_deletion_is_answered_once_the_job_is_in_no_file(
    folder: Path, store: SqliteJobEventLog
) -> None:
    for number in range(5):
        key = IdempotencyKey(f"key-{number}-of-nobody", "digest")
        job = added(store, StartedChange(), RESUME_POINT, DONE, key=key)
        await store.written()
        store.delete(job.id)
        await until(lambda: job.id not in _kept_in(folder))  # noqa: B023
        await store.written(job.id)
        data = _bytes_in(folder)
        assert job.id.encode() not in data
        assert b"-of-nobody" not in data


async def test_deletion_waits_for_no_reader_and_the_next_deletion_truncates_the_log(
    folder: Path, store: SqliteJobEventLog
) -> None:
    jobs = [added(store) for _ in range(2)]
    await store.written()
    with closing(sqlite3.connect(folder / JOURNAL_FILE, isolation_level=None)) as backup:
        backup.execute("BEGIN")
        backup.execute("SELECT * FROM jobs").fetchall()
        store.delete(jobs[0].id)
        await store.written(jobs[0].id)
        assert jobs[0].id not in _kept_in(folder)
    store.delete(jobs[1].id)
    await store.written(jobs[1].id)
    assert not any(job.id.encode() in _bytes_in(folder) for job in jobs)


async def test_deletion_that_cannot_be_written_fails_until_it_is_written(
    folder: Path, store: SqliteJobEventLog
) -> None:
    job = added(store, owner=ANONYMOUS.owner)
    await store.written()
    store.journal.connection.execute("PRAGMA busy_timeout = 0")
    async with _owned(store) as owned:
        with closing(sqlite3.connect(folder / JOURNAL_FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(3):
                with pytest.raises(errors.SpoolUnwritable):
                    await owned.delete_all(ANONYMOUS)
        assert await owned.delete_all(ANONYMOUS) == 0
        assert job.id.encode() not in _bytes_in(folder)


async def test_job_deleted_because_it_could_not_be_persisted_blocks_no_other_deletion(
    store: SqliteJobEventLog,
) -> None:
    added(store, owner=ANONYMOUS.owner)
    await store.written()
    connection = store.journal.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    refused = added(store, owner="another's" * 10_000)
    with pytest.raises(errors.DiskFull):
        await store.written(refused.id)
    with writer_held(store):  # then both are in one batch
        store.append(refused.id, CancelledChange())
        store.delete(refused.id)
    async with _owned(store) as owned:
        assert await owned.delete_all(ANONYMOUS) == 1
    await store.written(refused.id)


async def test_delete_all_after_a_kill_amid_a_deletion_leaves_nothing_of_that_job_in_any_file(
    folder: Path, store: SqliteJobEventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = added(store, owner=ANONYMOUS.owner)
    await store.written()
    monkeypatch.setattr(store.writer, "checkpoint", lambda: None)  # it is killed before that
    store.delete(job.id)
    await until(lambda: job.id not in _kept_in(folder))
    killed = tmp_path / "killed"
    shutil.copytree(folder, killed, ignore=shutil.ignore_patterns("lock"))
    assert job.id.encode() in _bytes_in(killed)
    with closing(SqliteJobEventLog(killed, KEY)) as after:
        async with _owned(after) as owned:
            assert await owned.delete_all(ANONYMOUS) == 0
            assert job.id.encode() not in _bytes_in(killed)


async def test_delete_all_deletes_all_although_retention_deletes_some_meanwhile(
    folder: Path, store: SqliteJobEventLog
) -> None:
    waiting, done = (added(store, owner=ANONYMOUS.owner) for _ in range(2))
    happen(store, done.id, StartedChange(), DONE)
    async with _owned(store, space_bytes=1) as owned:
        assert await owned.delete_all(ANONYMOUS) == 2
    assert store.all() == []
    assert not {waiting.id, done.id} & _kept_in(folder)


async def test_delete_all_after_restart_includes_jobs_that_are_not_kept(folder: Path) -> None:
    """Its client waited for it, and the service ended before that was told."""
    with closing(SqliteJobEventLog(folder, KEY)) as store:
        for kept in (True, False):
            added(store, StartedChange(), DONE, owner=ANONYMOUS.owner, kept=kept)
        theirs = added(store, owner="another's")
        await store.written()
    store = SqliteJobEventLog(folder, KEY)
    with closing(store):
        async with _owned(store) as owned:
            assert await owned.delete_all(ANONYMOUS) == 2
            assert [one.id for one in store.all()] == [theirs.id]
            assert await owned.delete_all(ANONYMOUS) == 0
    assert [one.id for one in reopened(folder, folder.with_name("copy"))] == [theirs.id]


async def test_append_does_not_wait_for_the_disk(store: SqliteJobEventLog) -> None:
    """A writer that is held up holds up who asks for what is written, and nobody else."""
    other = sqlite3.connect(store.journal.connection.execute("PRAGMA database_list").fetchone()[2])
    with closing(other):
        job = added(store)
        await store.written()
        other.execute("BEGIN IMMEDIATE")
        store.append(job.id, StartedChange())
        waiting = asyncio.ensure_future(store.written(job.id))
        await until(lambda: not store.writer.writes)  # the writer has taken it
        for _ in range(100):
            store.append(job.id, ReportedChange(SegmentReady(0, SAID)))
        assert not waiting.done()
        other.execute("ROLLBACK")
        await waiting


class NotingCipher:
    """The threads in which something is encrypted."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher, self.threads = cipher, set[threading.Thread]()

    def encrypt(self, data: bytes, about: str) -> bytes:
        self.threads.add(threading.current_thread())
        return self._cipher.encrypt(data, about)


async def test_end_of_job_is_not_encrypted_in_the_event_loop(store: SqliteJobEventLog) -> None:
    store.cipher = cipher = NotingCipher(store.cipher)  # type: ignore[assignment]
    job = added(store, StartedChange(), RESUME_POINT, DONE)
    await store.written(job.id)
    assert len(cipher.threads) == 1
    assert threading.current_thread() not in cipher.threads


async def test_fault_in_the_data_of_a_job_fails_that_job_is_logged_and_does_not_end_the_writer(
    store: SqliteJobEventLog, caplog: pytest.LogCaptureFixture
) -> None:
    broken, other = added(store), added(store)
    await store.written()
    store.append(broken.id, FailedChange(JobFailure(object(), "", "")))  # type: ignore[arg-type]
    store.append(other.id, StartedChange())
    with pytest.raises(errors.SidecarError) as failed:
        await store.written(broken.id)
    assert not passes(failed.value), "it would be waited for for ever"
    await store.written(other.id)
    assert broken.id in caplog.text


def store_whose_archive_raises(fault: BaseException, folder: Path) -> SqliteJobEventLog:
    class BrokenArchive(RecordingArchive):
        def put(self, *_: object) -> None:
            raise fault

    store = SqliteJobEventLog(folder, KEY)
    store.archive = BrokenArchive(FolderStorage(folder / UPLOADS_FOLDER))
    return store


async def test_fault_after_a_commit_is_logged_and_does_not_end_the_writer(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(store_whose_archive_raises(ValueError("a bug"), folder)) as store:
        for _ in range(2):
            job = added(store, CancelledChange())
            await store.written(job.id)
    assert "a bug" in caplog.text


async def test_fault_that_ends_a_round_of_the_writer_is_logged_and_later_jobs_are_persisted(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(store_whose_archive_raises(SystemExit(), folder)) as store:
        job = added(store, CancelledChange())
        with pytest.raises(errors.SpoolUnwritable):
            await store.written(job.id)
        later = added(store, StartedChange())
        await store.written(later.id)
        found = {one.id: one.state for one in reopened(folder, tmp_path / "copy")}
    assert found == {job.id: JobState.CANCELLED, later.id: JobState.RUNNING}
    assert "CRITICAL" in caplog.text


async def test_disk_that_hangs_leaves_callers_with_storage_unreachable_and_the_write_is_not_lost(
    folder: Path,
) -> None:
    with closing(SqliteJobEventLog(folder, KEY, commit_timeout_s=0.0)) as store:
        with writer_held(store):
            job = added(store)
            with pytest.raises(errors.StorageUnreachable, match="disk"):
                await store.written(job.id)
        copy = folder.with_name("copy")
        await until(lambda: job.id in {one.id for one in reopened(folder, copy)})


def test_close_with_a_disk_that_hangs_returns_and_is_logged(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteJobEventLog(folder, KEY)
    with writer_held(store):
        store.writer.close_s = 0.0
        assert not store.writer.close()
        assert "does not answer" in caplog.text
    store.writer.close_s = PATIENCE_S
    store.close()


async def test_time_of_last_read_of_result_is_persisted_over_restart(folder: Path) -> None:
    store, now = SqliteJobEventLog(folder, KEY, lambda: 1000.0), [1000.0]
    results = retention_of(store, now=lambda: now[0])
    job = added(store, StartedChange(), DONE)
    for now[0] in (1500.0, 1600.0):  # reads within a minute of the machine's clock
        results.renew(job.id)
    results.close()
    store.close()
    with closing(SqliteJobEventLog(folder, KEY)) as again:
        assert again.last_read(job.id) == pytest.approx(1600.0, abs=PATIENCE_S)


def test_change_with_an_event_of_a_later_release_is_unreadable() -> None:
    text = json.loads(serialize_change(ReportedChange(SegmentReady(0, Segment(0.0, 1.0, "Yes.")))))
    text["report"]["event"] = "SegmentRead"
    with pytest.raises(UnreadableRecord):
        parse_change(json.dumps(text).encode())


@asynccontextmanager
async def _owned(store: SqliteJobEventLog, space_bytes: int = 1 << 20) -> AsyncIterator[OwnedJobs]:
    """Whoever asks, of a service that was started with this store."""
    results = retention_of(store, space_bytes=space_bytes)
    for record in store.all():
        if record.over:
            results.remember(record, clock.wall_time() - 1.0)
    async with queue_on(OverheardSlot(), event_log=store) as queue:
        yield OwnedJobs(LocalJobStore(store, queue, results))
    results.close()


def _kept_in(folder: Path) -> set[str]:
    with closing(sqlite3.connect(folder / JOURNAL_FILE)) as database:
        return {job for (job,) in database.execute("SELECT id FROM jobs")}


def _bytes_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


@pytest.mark.parametrize(
    ("writes", "field"), [("serialize_record", b'"options"'), ("serialize_change", b'"change"')]
)
def test_journal_of_the_same_schema_with_what_a_later_release_wrote_is_refused_and_kept(
    writes: str, field: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serialize = getattr(sqlite_event_log, writes)
    with closing(SqliteJobEventLog(folder, KEY)) as store, monkeypatch.context() as later:
        added(store)
        later.setattr(
            sqlite_event_log, writes, lambda what: serialize(what).replace(field, b'"new"', 1)
        )
        added(store, StartedChange())
        store.close()
    with pytest.raises(errors.SettingsInvalid, match="later version"):
        SqliteJobEventLog(folder, KEY)
    assert not broken_files(folder)
    with closing(sqlite3.connect(folder / JOURNAL_FILE)) as database:
        assert database.execute("SELECT count(*) FROM jobs").fetchone() == (2,)
