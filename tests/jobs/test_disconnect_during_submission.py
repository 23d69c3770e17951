"""A client that hangs up while its recording becomes a job, at whatever moment: nothing is left."""

import asyncio
import errno
import os
import threading
import types
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from open_descriptors import opened
from service_process import PATIENCE_S, new_file, until

from sidecar import clock, errors, files
from sidecar.audio import audio_source
from sidecar.audio.audio_format import read_file_at
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.upload_spool import UploadSpool
from sidecar.auth.identity import ANONYMOUS
from sidecar.concurrency import ThreadLimiter
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_record import IdempotencyKey, JobRecord
from sidecar.jobs.local_jobs import LocalJobStore
from sidecar.jobs.recovery import JobPersistence, jobs_folder
from sidecar.plugins import load_settings
from sidecar.server.app import create_service
from sidecar.service.facade import Service
from sidecar.service.live_session_archive import LiveSessionArchive
from sidecar.storage import encryption
from sidecar.transcripts.transcript import Segment, Transcript

KEY = "0123456789abcdef0123456789abcdef"
QUEUE = 2
THREADS = "spool", "storage", "open", "probe"
SAID = Transcript((Segment(0.0, 1.0, "said"),), "en", 3.0, "scripted", "fp32")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        engine="scripted",
        live_engine="scripted",
        keep_jobs=True,
        keep_recordings_mb=100,
        data_dir=tmp_path,
        spool_dir=tmp_path,
        journal_key=KEY,
        queue_limit=QUEUE,
    )


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    """One that takes jobs in and does not work on them: it is not opened."""
    service = create_service(settings)
    yield service
    await service.close()


@pytest.fixture
def long(voice: bytes) -> bytes:
    """A recording that needs the disk, and more than one piece of it."""
    return voice + os.urandom((2 << 20) + 12_345)


async def uploaded(service: Service, data: bytes) -> AudioSource:
    """As a wire takes it in."""
    spool = UploadSpool(service.settings.spool_dir)
    with ExitStack() as held:
        held.callback(spool.close)
        body = held.enter_context(service.submissions.reservations.reserve_upload(ANONYMOUS))
        for piece in (data[: 1 << 20], data[1 << 20 :]):
            body.grow(len(piece))
            spool.add(piece)
            await service.spool_threads.run(spool.spill)
        return await service.spool_threads.run(spool.finish)


async def by_upload(service: Service, data: bytes, folder: Path) -> None:
    place = await service.submissions.reserve_position(ANONYMOUS)
    with place:
        source = await uploaded(service, data)
        await service.submissions.submit(ANONYMOUS, source, TranscribeOptions(), place)


async def by_key(service: Service, data: bytes, folder: Path) -> None:
    key = IdempotencyKey("of the request", "digest")
    with await service.submissions.reserve_unless_known(ANONYMOUS, key.name) as place:
        source = await uploaded(service, data)
        await service.submissions.submit_once(ANONYMOUS, source, TranscribeOptions(), place, key)


async def by_path(service: Service, data: bytes, folder: Path) -> None:
    path = new_file(folder / "named.wav", data)
    with await service.submissions.reserve_position(ANONYMOUS) as place:
        source = await service.submissions.open_path(ANONYMOUS, str(path))
        await service.submissions.submit(ANONYMOUS, source, TranscribeOptions(), place)


WAYS = [by_upload, by_key, by_path]


@types.coroutine
def stopped(work: Coroutine[Any, Any, Any], at: int, late: bool) -> Generator[Any, Any, bool]:
    """Whether ``work`` came to its end before its ``at``-th await, where its task is cancelled:
    while it waits there, or (``late``) at the moment in which it would go on."""
    task, count = asyncio.current_task(), 0
    assert task is not None
    raised: BaseException | None = None
    while True:
        try:
            waits = work.send(None) if raised is None else work.throw(raised)
        except StopIteration:
            return True
        count, raised = count + 1, None
        if count == at:
            if late and waits is not None:
                waits.add_done_callback(lambda _: task.cancel())
            else:
                task.cancel()
        try:
            yield waits
        except BaseException as error:  # for the work to see to
            raised = error


async def cancelled_at(at: int, late: bool, work: Coroutine[Any, Any, Any]) -> bool:
    """Whether it was cancelled; if not, it had fewer awaits."""

    async def run() -> bool:
        return await stopped(work, at, late)

    task = asyncio.ensure_future(run())
    await asyncio.wait({task})
    return task.cancelled() or not task.result()


async def settled() -> None:
    """No thread is at work on a recording any more."""
    await until(lambda: not any(one.name in THREADS for one in threading.enumerate()))
    await asyncio.sleep(0)  # what threads said has come


async def free_places(service: Service) -> int:
    with ExitStack() as held:
        for count in range(100):
            try:
                held.enter_context(await service.submissions.reserve_position(ANONYMOUS))
            except errors.QueueFull:
                return count
    pytest.fail("the queue has no limit")


def recordings(settings: Settings) -> list[str]:
    uploads = jobs_folder(settings) / "uploads"
    return sorted(path.name for path in uploads.glob("*") if path.suffix != ".store")


@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "as it goes on"])
@pytest.mark.parametrize("way", WAYS)
async def test_disconnect_at_any_await_of_submission_leaves_no_job_recording_descriptor_or_place(
    way: Any, late: bool, service: Service, settings: Settings, long: bytes, tmp_path: Path
) -> None:
    places, at = await free_places(service), 0
    await settled()
    before = opened()
    while await cancelled_at(at := at + 1, late, way(service, long, tmp_path)):
        await settled()
        assert await service.owned.jobs(ANONYMOUS) == [], at
        await until(lambda: recordings(settings) == [])
        assert opened() - before == set(), at
        assert await free_places(service) == places, at
        assert service.queue.depth == 0, at
    assert at > 3, "it was never cancelled"
    (job,) = await service.owned.jobs(ANONYMOUS)
    await service.close()
    keeping = JobPersistence(settings)
    with closing(keeping.event_log), keeping.open(keeping.event_log.get(job.id)) as source:
        assert read_file_at(source.fd, 0, len(long) + 1) == long


async def test_recording_of_disconnected_client_is_read_and_not_a_file_that_reuses_its_descriptor(
    service: Service, settings: Settings, long: bytes, tmp_path: Path, monkeypatch: Any
) -> None:
    """The disk is slow; the number of the descriptor that was closed is soon another upload's."""
    go_on, reads = threading.Event(), list[bytes]()
    read_at = audio_source.read_file_at

    def slow(fd: int, at: int, count: int) -> bytes:
        if at:
            go_on.wait(PATIENCE_S)
        reads.append(read_at(fd, at, count))
        return reads[-1]

    monkeypatch.setattr(audio_source, "read_file_at", slow)
    source = await uploaded(service, long)
    number = source.fd
    work = service.submissions.submit(ANONYMOUS, source, TranscribeOptions())
    task = asyncio.ensure_future(work)
    await until(lambda: bool(reads))
    task.cancel()
    await asyncio.wait({task})
    with ExitStack() as others:
        another = new_file(tmp_path / "another", bytes(len(long)))
        for _ in range(number + 1):
            fd = files.open_to_read(another)
            others.callback(os.close, fd)
            if fd == number:
                break
        go_on.set()
        await settled()
    assert b"".join(reads) == long
    await until(lambda: recordings(settings) == [])


async def test_submission_without_free_descriptor_is_refused_and_leaves_no_job_recording_or_place(
    service: Service, settings: Settings, long: bytes, monkeypatch: Any
) -> None:
    def full(fd: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    places, before = await free_places(service), opened()
    source = await uploaded(service, long)
    monkeypatch.setattr(os, "dup", full)
    with pytest.raises(errors.UploadsFull):
        await service.submissions.submit(ANONYMOUS, source, TranscribeOptions())
    monkeypatch.undo()
    assert (await service.owned.jobs(ANONYMOUS), recordings(settings)) == ([], [])
    assert opened() - before == set()
    assert await free_places(service) == places


@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "as it goes on"])
async def test_cancelled_end_of_live_session_leaves_whole_job_or_nothing(
    late: bool, settings: Settings, long: bytes
) -> None:
    keeping = JobPersistence(settings)
    disk = ThreadLimiter("spool", 2)
    store = LocalJobStore(keeping.event_log, None, None)
    talks = LiveSessionArchive(settings, store, keeping, disk, disk, clock.wall_time)

    async def kept() -> None:
        spool = UploadSpool(settings.spool_dir)
        spool.add(long)
        with closing(spool):
            source = await disk.run(spool.finish)
        await talks.save(ANONYMOUS.owner, TranscribeOptions(), SAID, source)

    def check_recording(record: JobRecord) -> None:
        with closing(keeping.recording(record)) as recording:
            begins = range(0, len(long), encryption.CHUNK_BYTES)
            assert b"".join(recording.read(begin) for begin in begins) == long

    with closing(keeping.event_log):
        at, before = 0, opened()
        while await cancelled_at(at := at + 1, late, kept()):
            await settled()
            for record in keeping.event_log.all():
                check_recording(record)
                keeping.event_log.delete(record.id)
            await keeping.event_log.written()
            assert recordings(settings) == [], at
            assert opened() - before == set(), at
        assert at > 2, "it was never cancelled"
        (record,) = keeping.event_log.all()
        check_recording(record)
