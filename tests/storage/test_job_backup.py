"""Kept jobs in a file and back: of one moment, whole or not at all, nothing overwritten."""

import asyncio
import errno
import hashlib
import io
import os
import random
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from job_event_histories import submitted
from service_process import is_private
from uploads import read, upload

from sidecar import errors
from sidecar.audio.audio_source import StoredRecordingRef
from sidecar.cli.command_table import build_command
from sidecar.cli.output import EXIT_CODES
from sidecar.config.settings import Settings
from sidecar.jobs.job_record import CancelledChange, JobRecord, JobState, StartedChange
from sidecar.jobs.recovery import JobPersistence
from sidecar.storage import job_journal
from sidecar.storage.job_backup import MANIFEST_FILE, back_up_jobs, restore_jobs
from sidecar.storage.job_journal import JOURNAL_FILE, LOCK_FILE, UPLOADS_FOLDER, lock_journal

KEY = "a-key-of-a-test-and-of-nobody-else"


def keeping_in(folder: Path) -> JobPersistence:
    return JobPersistence(Settings(keep_jobs=True, data_dir=folder.parent, journal_key=KEY))


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[JobPersistence]:
    keeping = keeping_in(tmp_path / "jobs")
    with closing(keeping.event_log):
        yield keeping


def heard(number: int) -> bytes:
    return random.Random(number).randbytes(5000)


def added(keeping: JobPersistence, number: int) -> JobRecord:
    """A job with a recording, as a submission makes it."""
    with upload(heard(number)) as source:
        record = submitted(durable=True)
        audio = keeping.store(source, record.id)
        assert isinstance(audio, StoredRecordingRef)
        keeping.event_log.add(record := replace(record, audio=audio))
    return record


def left(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")} - {LOCK_FILE}


async def test_encrypted_backup_of_running_service_restores_jobs_and_recordings_of_unfinished_ones(
    keeping: JobPersistence, tmp_path: Path
) -> None:
    file, new = tmp_path / "backup.tar", tmp_path / "new" / "jobs"
    waiting, running, over = (added(keeping, number) for number in range(3))
    keeping.event_log.append(running.id, StartedChange())
    keeping.event_log.append(over.id, CancelledChange())
    await keeping.event_log.written()
    made = back_up_jobs(tmp_path / "jobs", file)
    assert (made.jobs, made.recordings, made.size) == (3, 2, file.stat().st_size)
    assert is_private(file)
    assert heard(0)[:32] not in file.read_bytes()
    assert {name.split("/")[0] for name in left(tmp_path)} == {"jobs", "backup.tar"}

    assert restore_jobs(file, new) == made
    assert all(map(is_private, new.rglob("*")))
    with closing((again := keeping_in(new)).event_log) as store:
        states = {one.id: one.state for one in store.all()}
        assert states == {
            waiting.id: JobState.QUEUED,
            running.id: JobState.RUNNING,
            over.id: JobState.CANCELLED,
        }
        assert read(again.open(store.get(running.id))) == heard(1)


async def test_backup_fails_with_name_of_unreadable_recording_and_leaves_no_file(
    keeping: JobPersistence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    record = added(keeping, 0)
    await keeping.event_log.written()
    before = left(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", away)
        with pytest.raises(errors.SettingsInvalid, match=f"uploads/{record.id} .* cannot be read"):
            back_up_jobs(tmp_path / "jobs", tmp_path / "backup.tar")
    assert left(tmp_path) == before
    assert back_up_jobs(tmp_path / "jobs", tmp_path / "backup.tar").recordings == 1


@pytest.mark.posix("limits of a process")
async def test_backup_of_60_recordings_with_room_for_30_more_open_files_has_all_of_them(
    keeping: JobPersistence, tmp_path: Path
) -> None:
    import resource

    records = [added(keeping, number) for number in range(60)]
    (tmp_path / "jobs" / UPLOADS_FOLDER / "@folder").mkdir()  # of a file server; it is left out
    await keeping.event_log.written()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = max(map(int, os.listdir("/dev/fd"))) + 30
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        made = back_up_jobs(tmp_path / "jobs", tmp_path / "backup.tar")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (made.jobs, made.recordings) == (60, 60)
    assert restore_jobs(tmp_path / "backup.tar", tmp_path / "other" / "jobs") == made
    with closing((again := keeping_in(tmp_path / "other" / "jobs")).event_log) as store:
        for record in records:
            again.open(store.get(record.id)).close()


async def test_backup_during_concurrent_changes_has_recording_of_each_unfinished_job(
    keeping: JobPersistence, tmp_path: Path
) -> None:
    come = asyncio.Event()

    async def come_and_go() -> None:
        """Each goes once the next has come: a backup meets one of them."""
        number, before = 0, None
        while True:
            number += 1
            record = await asyncio.to_thread(added, keeping, number)
            await keeping.event_log.written(record.id)
            come.set()
            if before is not None:
                keeping.event_log.append(before.id, CancelledChange())
            before = record

    busy = [asyncio.create_task(come_and_go()) for _ in range(4)]
    await come.wait()
    seen = 0
    for number in range(14):
        file, new = tmp_path / f"{number}.tar", tmp_path / str(number) / "jobs"
        await asyncio.to_thread(back_up_jobs, tmp_path / "jobs", file)
        await asyncio.to_thread(restore_jobs, file, new)
        with closing((again := keeping_in(new)).event_log) as store:
            for record in store.all():
                if not record.over:
                    again.open(record).close()
                    seen += 1
    for one in busy:
        one.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    assert seen, "no backup met a job on its way"


Harm = Callable[[bytes], bytes]


def with_member(name: str, kind: bytes = tarfile.REGTYPE) -> Harm:
    def harmed(data: bytes) -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member, io.BytesIO())
        return file.getvalue()[:512] + data

    return harmed


def changed(data: bytes) -> bytes:
    at = data.index(b"SQLite format") + 200
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"no tar at all" * 100, id="something else"),
        pytest.param(lambda data: data[: len(data) // 3], id="cut in a recording"),
        pytest.param(
            lambda data: data[: data.index(MANIFEST_FILE.encode())], id="cut before the list"
        ),
        pytest.param(changed, id="a bit"),
        pytest.param(with_member("../evil"), id="a name that leads elsewhere"),
        pytest.param(with_member("uploads/..", tarfile.SYMTYPE), id="a link"),
        pytest.param(with_member("uploads/more"), id="a file that is not listed"),
    ],
)
async def test_damaged_backup_is_refused_and_restores_no_file(
    harm: Harm, keeping: JobPersistence, tmp_path: Path
) -> None:
    file, new = tmp_path / "backup.tar", tmp_path / "deep" / "new"
    added(keeping, 1)
    await keeping.event_log.written()
    back_up_jobs(tmp_path / "jobs", file)
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(errors.SettingsInvalid, match="not a backup"):
        restore_jobs(file, new)
    assert left(new) == set()
    assert not (tmp_path / "deep" / "evil").exists()


async def test_backup_and_restore_overwrite_nothing_and_refuse_folders_in_use(
    keeping: JobPersistence, tmp_path: Path
) -> None:
    jobs, file, new = tmp_path / "jobs", tmp_path / "backup.tar", tmp_path / "new"
    with pytest.raises(errors.SettingsInvalid, match="no kept jobs"):
        back_up_jobs(tmp_path / "nowhere", file)
    added(keeping, 1)
    await keeping.event_log.written()
    back_up_jobs(jobs, file)
    with pytest.raises(errors.SettingsInvalid, match="exists, and nothing is overwritten"):
        back_up_jobs(jobs, file)
    with pytest.raises(errors.SettingsInvalid, match="cannot be written"):
        back_up_jobs(jobs, tmp_path / "no folder" / "backup.tar")
    with pytest.raises(errors.SettingsInvalid, match="cannot be locked"):
        restore_jobs(file, jobs, lock_timeout_s=0.1)
    new.mkdir()
    with (
        closing(lock_journal(new)),
        pytest.raises(errors.SettingsInvalid, match="cannot be locked"),
    ):
        restore_jobs(file, new, lock_timeout_s=0.1)
    restore_jobs(file, new)
    before = {path: path.read_bytes() for path in new.rglob("*") if path.is_file()}
    with pytest.raises(errors.SettingsInvalid, match="not empty, and nothing is overwritten"):
        restore_jobs(file, new)
    assert {path: path.read_bytes() for path in new.rglob("*") if path.is_file()} == before
    (new / JOURNAL_FILE).unlink()
    with pytest.raises(errors.SettingsInvalid, match="not empty, and nothing is overwritten"):
        restore_jobs(file, new)
    assert left(new) == {
        UPLOADS_FOLDER,
        *(one.relative_to(new).as_posix() for one in (new / UPLOADS_FOLDER).iterdir()),
    }
    with pytest.raises(errors.SettingsInvalid, match="cannot be read"):
        restore_jobs(tmp_path / "none", tmp_path / "other")


def test_backup_commands_report_their_counts_and_refusals(
    keeping: JobPersistence, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, new = str(tmp_path / "backup.tar"), str(tmp_path / "new")
    keeping.event_log.close()

    def said(word: str, folder: str) -> tuple[object, str]:
        words = ["jobs", word, file, "--jobs-dir", folder]
        code = build_command().main(words, standalone_mode=False)
        return code, capsys.readouterr().err

    assert said("backup", str(tmp_path / "jobs"))[1].startswith(
        "vibevoice-asr: backed up: 0 jobs, 0 recordings, 0.0 MB"
    )
    assert "restored: 0 jobs" in said("restore", new)[1]
    code, wrong = said("restore", new)
    assert code == EXIT_CODES["settings_invalid"]
    assert "nothing is overwritten" in wrong


def test_backup_of_jobs_of_a_later_version_is_refused(
    keeping: JobPersistence, tmp_path: Path
) -> None:
    keeping.event_log.close()
    with closing(sqlite3.connect(tmp_path / "jobs" / JOURNAL_FILE)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(errors.SettingsInvalid, match="later version"):
        back_up_jobs(tmp_path / "jobs", tmp_path / "backup.tar")
    assert not (tmp_path / "backup.tar").exists()


def test_restore_of_a_backup_of_release_0_2_is_refused_and_restores_nothing(
    keeping: JobPersistence, tmp_path: Path
) -> None:
    keeping.event_log.close()
    with closing(sqlite3.connect(tmp_path / "jobs" / JOURNAL_FILE)) as database:
        database.execute("ALTER TABLE jobs DROP COLUMN last_read")
        database.execute(f"PRAGMA user_version = {job_journal.VERSION_OF_0_2}")
    back_up_jobs(tmp_path / "jobs", tmp_path / "backup.tar")
    with pytest.raises(errors.SettingsInvalid, match=r"release 0\.2\.0"):
        restore_jobs(tmp_path / "backup.tar", tmp_path / "new")
    assert [one.name for one in (tmp_path / "new").iterdir()] == [LOCK_FILE]
