"""A write that fails, the first or the last of a job's, ends no job and costs no word.

The places that write are found in the code, so that a new one is tried, too.
"""

import ast
import asyncio
import errno
import itertools
import os
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from instrumented_slot import FACTS, OverheardSlot, queue_options
from uploads import upload

import sidecar
from sidecar import errors
from sidecar.concurrency import ThreadLimiter
from sidecar.config.settings import Settings
from sidecar.errors import Fault
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.faults import fault_of
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.jobs.recovery import JobPersistence, requeue_unfinished
from sidecar.storage.recording_storage import OWNER_SUFFIX

ROOT = Path(sidecar.__file__).parent
WRITERS = (
    *("files.py", "audio/upload_spool.py", "jobs/persistent_recordings.py"),
    *("storage/encrypted_sqlite.py", "storage/job_journal.py", "storage/recording_storage.py"),
)
"""Modules with all that a service with kept jobs writes."""
CALLS = {
    *("open", "open_new", "write", "replace", "rename", "mkdir", "unlink", "rmdir", "fsync"),
    *("sync", "sync_folder", "private_folder", "touch", "chmod", "TemporaryFile", "memfd_create"),
}
NOT_OF_THE_DISK = ("ROLLBACK", "PRAGMA busy_timeout")


SQLITE_CODES = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EMFILE: sqlite3.SQLITE_CANTOPEN,
}


def places() -> Iterator[tuple[str, int]]:
    """Files and lines that write, but for statements of SQLite."""
    for name in WRITERS:
        file = ROOT / name
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                call = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
                if call in CALLS:
                    yield str(file), node.lineno


PLACES = {*places()}
FILES = {file for file, _ in PLACES}


class Disk:
    """Counts writes, and fails those with these numbers, from 0."""

    def __init__(self, writes: range, number: int) -> None:
        self._writes, self._number = writes, number
        self.reached: list[str] = []

    def write(self, what: str, *, statement: bool = False) -> None:
        if len(self.reached) >= self._writes.stop:
            return
        self.reached.append(what)
        if len(self.reached) > self._writes.start:
            if not statement:
                raise OSError(self._number, os.strerror(self._number))
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = SQLITE_CODES.get(self._number, sqlite3.SQLITE_IOERR)
            raise error


@contextmanager
def failing(disk: Disk) -> Iterator[None]:
    """Writes are those of this disk. One that is no statement fails once in a thread, as Python
    traces that no more then."""

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if not sql.startswith(NOT_OF_THE_DISK):
                disk.write(sql, statement=True)
            return super().execute(sql, *values)

    def in_frame(frame: FrameType, event: str, _: object) -> Any:
        place = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and place in PLACES:
            disk.write(f"{Path(place[0]).name}:{place[1]}")
        return in_frame

    def called(frame: FrameType, event: str, _: object) -> Any:
        return in_frame if frame.f_code.co_filename in FILES else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Connection))
        threading.settrace(called)
        sys.settrace(called)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]


def settings_in(folder: Path) -> Settings:
    key = "0123456789abcdef0123456789abcdef"
    return Settings(keep_jobs=True, journal_key=key, data_dir=folder, spool_dir=folder)


@asynccontextmanager
async def service(
    folder: Path, slot: OverheardSlot
) -> AsyncIterator[tuple[JobPersistence, JobQueue]]:
    keeping = JobPersistence(settings_in(folder))
    queue = JobQueue(slot, keeping.event_log, queue_options(fault_retry_s=0.01))
    try:
        yield keeping, queue
    finally:
        await queue.close()
        await asyncio.to_thread(keeping.close)


async def submitted(keeping: JobPersistence, queue: JobQueue, voice: bytes) -> str:
    disk = ThreadLimiter("disk", 1)
    source = upload(voice)
    audio = await keeping.store_in_thread(disk, source)
    job = Job(source, JobRecord.submitted(0.0, audio, FACTS, TranscribeOptions(), durable=True))
    await queue.submit(job)
    return job.id


async def finished(folder: Path, slot: OverheardSlot, words: list[str]) -> None:
    """The service starts again, and all its jobs are done and deleted; adds their words."""
    async with service(folder, slot) as (keeping, queue):
        requeue_unfinished(keeping, queue)
        queue.open()
        for record in keeping.event_log.all():
            job = queue.live(record.id)
            if job is not None:
                await job.over()
            record = keeping.event_log.get(record.id)
            assert record.transcript is not None, record.error
            words.append(record.transcript.text)
            keeping.event_log.delete(record.id)
        await keeping.event_log.written()


@pytest.mark.slow_except("ENOSPC-3")  # SQLite's writer tries a write twice
@pytest.mark.parametrize("lasting", [1, 3])
@pytest.mark.parametrize("name", ["ENOSPC", "EROFS", "EMFILE", "EIO"])
async def test_disk_error_at_any_write_loses_no_accepted_job_and_no_word(
    name: str, lasting: int, tmp_path: Path, voice: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SETTLES", "1")
    slot, wrong, tried = OverheardSlot(), list[str](), set[str]()
    whole = list[str]()
    for nth in itertools.count(-lasting, max(1, lasting - 1)):  # of the first, all succeed
        folder = tmp_path / f"{nth}"
        folder.mkdir()
        accepted, words, said = False, list[str](), ""
        disk = Disk(range(nth, nth + lasting), getattr(errno, name))
        reached = disk.reached
        with failing(disk):
            try:
                async with service(folder, slot) as (keeping, queue):
                    await submitted(keeping, queue, voice)
                    accepted = True
                await finished(folder, slot, words)
            except errors.SettingsInvalid as error:  # the service does not start
                said = str(error)
            except errors.SidecarError as error:  # the job is refused, or its deletion
                said = str(error)
                if fault_of(error) is Fault.RECORDING:
                    wrong.append(f"{nth}, {reached[-1]}: {error!r}")
            except Exception as error:
                wrong.append(f"{nth}, {reached[-1]}: {error!r}")
        try:
            await finished(folder, slot, words)
        except Exception as error:
            wrong.append(f"{nth}, {reached[-1]}, after {said}: {error!r}")
        whole = whole or words
        if accepted and set(words) != {*whole}:
            wrong.append(f"{nth}, {reached[-1]}, after {said}: {words}")
        files = [one for one in folder.rglob("*") if one.suffix != OWNER_SUFFIX]
        left = [one for one in files if "uploads/" in str(one) or "broken" in one.name]
        if left:
            wrong.append(f"{nth}, {reached[-1]}, after {said}: {left}")
        tried.update(reached)
        if nth >= 0 and len(reached) <= nth:
            break
    await slot.close()
    assert not wrong, "\n".join(wrong)
    assert len(tried) > 30, "the places are no longer those that are used"
