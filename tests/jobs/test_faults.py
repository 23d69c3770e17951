"""What is to blame for an error, and jobs whose recordings cannot be opened for a while."""

import asyncio
import errno
import logging
import os
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
from full_disk import fill_disk
from instrumented_slot import FACTS, OverheardJoint, OverheardSlot, queue_on, started, submitted
from service_process import PATIENCE_S, new_file, until
from uploads import upload

from sidecar import errors, files
from sidecar.audio.audio_source import AudioSource, open_recording_file, recording_ref
from sidecar.audio.ffmpeg_command import ffmpeg_missing_error
from sidecar.audio.upload_spool import UploadSpool
from sidecar.config.settings import Settings
from sidecar.errors import Fault
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.jobs.attempt_end import counts
from sidecar.jobs.faults import PERSISTENCE, Breakers, fault_of
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import JobChange, JobEvent, JobRecord, JobState, ReportedChange
from sidecar.jobs.job_runner import Job, OptionsPlanner
from sidecar.jobs.local_jobs import LocalJobStore
from sidecar.jobs.recovery import JobPersistence, requeue_unfinished
from sidecar.plugins.upstream.errors import (
    UpstreamBusy,
    UpstreamFailed,
    UpstreamGarbled,
    UpstreamLost,
    UpstreamRefused,
    UpstreamRefusedRecording,
    UpstreamUnreachable,
)
from sidecar.storage.encrypted_sqlite import JobWrite, Statement
from sidecar.storage.recording_storage import new_name, store_code
from sidecar.transcripts.transcript import Finished, ResumePoint, SegmentReady


def raised_from(error: errors.SidecarError, cause: Exception) -> errors.SidecarError:
    error.__cause__ = cause
    return error


FAULTS: dict[Fault, tuple[Exception, ...]] = {
    Fault.RECORDING: (
        *(errors.AudioLost(), errors.AudioUndecodable(), UpstreamRefusedRecording()),
        *(errors.AudioPathForbidden(), errors.WontFit(fault=Fault.RECORDING)),
        *(FileNotFoundError(errno.ENOENT, "gone"), OSError(errno.ELOOP, "a link")),
        raised_from(errors.AudioPathForbidden(), PermissionError(errno.EACCES, "its own")),
    ),
    Fault.DISK: (errors.DiskFull(), OSError(errno.ENOSPC, "full"), OSError(errno.EROFS, "ro")),
    Fault.SPOOL: (errors.SpoolUnwritable(),),
    Fault.MEMORY: (
        *(errors.UploadsFull(), errors.MachineBusy(), MemoryError()),
        *(OSError(errno.EMFILE, "too many"), OSError(errno.EAGAIN, "no process")),
        raised_from(errors.AudioPathInvalid(), OSError(errno.EMFILE, "too many")),
        RuntimeError("can't start new thread"),
    ),
    Fault.ENGINE: (
        *(errors.EngineStuck(), errors.ModelLoadFailed(), errors.CheckpointDamaged()),
        errors.EngineFailed(),
    ),
    Fault.DEVICE: (errors.WontFit(), errors.GpuOutOfMemory()),
    Fault.UPSTREAM: (UpstreamUnreachable(), UpstreamBusy(), UpstreamRefused(), UpstreamFailed()),
    Fault.DECODER: (errors.DecoderStopped(), ffmpeg_missing_error("none was found")),
    Fault.DATABASE: (errors.JournalUnreachable(),),
    Fault.STORAGE: (
        *(TimeoutError(), errors.StorageUnreachable()),
        *(OSError(errno.EIO, "input/output"), PermissionError(errno.EACCES, "not now")),
    ),
    Fault.UNKNOWN: (ValueError("a bug"), errors.SidecarError(), errors.JobNotFound()),
}


@pytest.mark.parametrize(
    ("error", "fault"), [(error, fault) for fault, them in FAULTS.items() for error in them]
)
def test_error_is_blamed_on_the_recording_a_resource_or_what_is_unknown(
    error: Exception, fault: Fault
) -> None:
    assert fault_of(error) is fault


def test_attempt_counts_if_the_recording_may_have_caused_an_error_that_is_not_its_own() -> None:
    assert all(map(counts, (UpstreamLost(), UpstreamFailed(), UpstreamGarbled())))
    assert all(map(counts, (errors.DecoderStopped(), errors.SidecarError(), errors.EngineFailed())))
    assert not any(map(counts, (UpstreamRefused(), UpstreamBusy(), errors.ModelLoadFailed())))


def keeping_in(folder: Path) -> Settings:
    return Settings(
        keep_jobs=True,
        journal_key="0123456789abcdef0123456789abcdef",
        data_dir=folder,
        spool_dir=folder / "spool",
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return keeping_in(tmp_path)


async def kept_job(
    settings: Settings, source: AudioSource, name: str = "recording"
) -> tuple[str, Path]:
    """Persist a job as a service does that dies before it runs it: its id, and its recording."""
    keeping = JobPersistence(settings)
    try:
        with source:
            audio = keeping.store(source, name)
        record = JobRecord.submitted(0.0, audio, FACTS, TranscribeOptions(), durable=True)
        keeping.event_log.add(record)
        await keeping.event_log.written(record.id)
        return record.id, settings.data_dir / "jobs" / "uploads" / name
    finally:
        keeping.close()


async def job_of_own_file(settings: Settings, voice: bytes, folder: Path) -> tuple[str, Path]:
    """Persist a job of a file that its client keeps: its id, and the file."""
    path = new_file(folder / "mine.wav", voice)
    job_id, _ = await kept_job(settings, open_recording_file(str(path)))
    return job_id, path


@asynccontextmanager
async def restarting(
    keeping: JobPersistence,
    concurrency: int = 1,
    record_timeout_s: float = PATIENCE_S,
    retry_s: float = 0.01,
) -> AsyncIterator[JobQueue]:
    """A closed queue with all kept jobs, as of a service that has started."""
    terms = {"concurrency": concurrency, "fault_retry_s": retry_s}
    async with queue_on(OverheardSlot(), keeping.event_log, **terms) as queue:
        queue.opener.timeout_s = lambda _: record_timeout_s
        requeue_unfinished(keeping, queue)
        yield queue
    keeping.close()


def is_open(queue: JobQueue, job_id: str) -> bool:
    """Whether a job waits with its recording open."""
    job = queue.live(job_id)
    return job is not None and job.source is not None


def count_openings(keeping: JobPersistence) -> list[str]:
    """Ids of the jobs whose recordings it tries to open, from now on."""
    opened, tried = keeping.open, list[str]()

    def open_and_count(record: JobRecord) -> AudioSource:
        tried.append(record.id)
        return opened(record)

    keeping.open = open_and_count  # type: ignore[method-assign]
    return tried


def plan_that_fails(error: Exception, jobs: Collection[Job]) -> OptionsPlanner:
    """A plan that fails for as long as a job is one of these: its attempt meets this error, as
    those of an engine that has the job."""

    async def plan(job: Job, precision: Precision) -> TranscribeOptions:
        if job in jobs:
            raise error
        return job.record.options

    return plan


@asynccontextmanager
async def keeping_queue(
    folder: Path, **terms: object
) -> AsyncIterator[tuple[JobPersistence, JobQueue]]:
    """A closed queue whose jobs are kept in a folder."""
    keeping = JobPersistence(keeping_in(folder))
    async with queue_on(OverheardSlot(), keeping.event_log, fault_retry_s=0.01, **terms) as queue:
        yield keeping, queue
    keeping.close()


async def test_kept_job_whose_recording_cannot_be_opened_at_restart_waits_and_others_are_queued(
    settings: Settings, voice: bytes, tmp_path: Path
) -> None:
    assert settings.spool_dir is not None
    settings.spool_dir.touch()
    long = voice + bytes(UploadSpool.MEMORY_BYTES)  # it needs the folder, which is a file
    job_id, path = await kept_job(settings, upload(long), "long")
    other, _ = await job_of_own_file(settings, voice, tmp_path)
    keeping = JobPersistence(settings)
    async with restarting(keeping) as queue:
        await until(lambda: is_open(queue, other))
        assert not is_open(queue, job_id)
        assert not keeping.event_log.get(job_id).over
        assert path.exists()
        settings.spool_dir.unlink()
        await until(lambda: is_open(queue, job_id))


async def test_job_that_cannot_be_queued_at_restart_fails_and_others_are_queued(
    settings: Settings, voice: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = [(await kept_job(settings, upload(voice), name))[0] for name in ("one", "two")]
    keeping = JobPersistence(settings)

    def guess(job: Job, precision: Precision) -> float:
        if job.id == bad:
            raise RuntimeError("the driver is gone")
        return 1.0

    async with queue_on(OverheardSlot(), keeping.event_log, guess=guess) as queue:
        requeue_unfinished(keeping, queue)
        await until(lambda: is_open(queue, good))
        failed = keeping.event_log.get(bad).error
        assert failed is not None
        assert failed.code == "internal"
        assert queue.live(bad) is None
        assert "the driver is gone" in caplog.text
    keeping.close()


async def test_job_whose_queuing_at_restart_meets_an_error_of_the_machine_is_queued_a_moment_later(
    settings: Settings, voice: bytes
) -> None:
    bad, good = [(await kept_job(settings, upload(voice), name))[0] for name in ("one", "two")]
    keeping, tried = JobPersistence(settings), list[str]()

    def guess(job: Job, precision: Precision) -> float:
        tried.append(job.id)
        if tried.count(bad) < 3 and job.id == bad:
            raise OSError(errno.EMFILE, "too many open files")
        return 1.0

    slot, terms = OverheardSlot(), {"guess": guess, "concurrency": 2, "fault_retry_s": 0.01}
    async with queue_on(slot, keeping.event_log, **terms) as queue:
        requeue_unfinished(keeping, queue)
        assert [*queue.faults] == [Fault.MEMORY]
        await until(lambda: keeping.event_log.get(bad).over or is_open(queue, bad))
        queue.open()
        await until(lambda: all(keeping.event_log.get(one).over for one in (bad, good)))
        assert {keeping.event_log.get(one).state for one in (bad, good)} == {JobState.DONE}
        assert (tried.count(bad), tried.count(good)) == (3, 1)
    keeping.close()


async def test_jobs_whose_share_hangs_at_restart_delay_no_other_and_are_queued_once_it_answers(
    settings: Settings, voice: bytes, tmp_path: Path
) -> None:
    keeping, path = JobPersistence(settings), new_file(tmp_path / "mine.wav", voice)
    with open_recording_file(str(path)) as source:
        audio, options = recording_ref(source), TranscribeOptions()
    hang = [JobRecord.submitted(0.0, audio, FACTS, options, durable=True) for _ in range(20)]
    for record in hang:
        keeping.event_log.add(record)
    keeping.close()
    other, _ = await kept_job(settings, upload(voice))
    keeping = JobPersistence(settings)
    opened, answers, tried = keeping.open, threading.Event(), list[str]()

    def open_once_it_answers(record: JobRecord) -> AudioSource:
        if record.id != other:
            tried.append(record.id)
            answers.wait()
        return opened(record)

    keeping.open = open_once_it_answers  # type: ignore[method-assign]
    async with restarting(keeping, 2 * len(hang), 0.01) as queue:
        try:
            await until(lambda: is_open(queue, other))
            assert not any(is_open(queue, one.id) for one in hang)
            await until(lambda: [*queue.faults] == [Fault.STORAGE])
        finally:
            answers.set()
        await until(lambda: all(is_open(queue, one.id) for one in hang))
        assert len(tried) == len(hang), "each has one thread"
        assert not queue.faults


@pytest.mark.parametrize("error", [errors.StorageUnreachable(), errors.DiskFull()])
async def test_fault_that_keeps_recordings_from_being_opened_at_restart_is_told_until_all_are_open(
    error: errors.SidecarError, settings: Settings, voice: bytes
) -> None:
    for name in ("one", "two"):
        await kept_job(settings, upload(voice), name)
    keeping = JobPersistence(settings)
    opened, away = keeping.open, True

    def open_unless_away(record: JobRecord) -> AudioSource:
        if away:
            raise error
        return opened(record)

    keeping.open = open_unless_away  # type: ignore[method-assign]
    async with restarting(keeping, concurrency=2) as queue:
        await until(lambda: queue.faults)
        assert queue.faults == {error.fault: error}
        assert queue.paused is error
        away = False
        await until(lambda: not queue.faults)
        assert all(is_open(queue, one.id) for one in keeping.event_log.all())


@pytest.mark.parametrize(
    "error", [errors.StorageUnreachable(), errors.DiskFull(), errors.SpoolUnwritable()]
)
async def test_recording_that_cannot_be_opened_holds_no_other_job_and_its_fault_stays_told(
    error: errors.SidecarError, settings: Settings, voice: bytes, new_job: Callable[..., Job]
) -> None:
    bad, _ = await kept_job(settings, upload(voice))
    keeping, others = JobPersistence(settings), [new_job() for _ in range(2)]

    def stay_away(record: JobRecord) -> AudioSource:
        raise error

    keeping.open = stay_away  # type: ignore[method-assign]
    async with restarting(keeping, retry_s=3600.0) as queue:
        await until(lambda: queue.faults)
        await started(queue, *others)
        for other in others:
            assert (await other.result()).text
        assert queue.faults == {error.fault: error}
        assert keeping.event_log.get(bad).state is JobState.QUEUED


async def test_jobs_whose_recordings_cannot_be_opened_are_logged_once_over_many_retries(
    settings: Settings, voice: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert settings.spool_dir is not None
    caplog.set_level("WARNING")
    settings.spool_dir.touch()
    long = voice + bytes(UploadSpool.MEMORY_BYTES)  # it needs the folder, which is a file
    for name in ("one", "two"):
        await kept_job(settings, upload(long), name)
    keeping = JobPersistence(settings)
    tries = count_openings(keeping)
    async with restarting(keeping, concurrency=2) as queue:
        await until(lambda: len(tries) >= 6)
        settings.spool_dir.unlink()
        await until(lambda: not queue.faults)
    assert caplog.text.count("jobs wait until this is over") == 1


async def test_kept_job_whose_client_file_is_unreadable_at_restart_waits_until_it_is_readable(
    settings: Settings, voice: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, path = await job_of_own_file(settings, voice, tmp_path)
    open_file = files.open_to_read
    refused: list[str] = []

    def open_but_not_this(name: str | Path, *flags: int) -> int:
        if name == str(path):  # a test may run as root, who may read every file
            refused.append(str(name))
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_file(name, *flags)

    keeping = JobPersistence(settings)
    with monkeypatch.context() as without_a_ticket:  # of Kerberos, for a share
        without_a_ticket.setattr(files, "open_to_read", open_but_not_this)
        async with restarting(keeping) as queue:
            await until(lambda: len(refused) >= 3 or keeping.event_log.get(job_id).over)
            assert keeping.event_log.get(job_id).state is JobState.QUEUED
            assert errors.Fault.STORAGE in queue.faults
            without_a_ticket.undo()
            await until(lambda: is_open(queue, job_id))
            assert not queue.faults


def mounted(folder: Path, at: Path) -> bool:
    """Put a folder in the place of an empty one, or of none, unless the service lists that just
    now: Windows then refuses to remove it, or does so a moment later."""
    with suppress(OSError):
        if at.exists():
            at.rmdir()
        folder.rename(at)
    return not folder.exists()


@pytest.mark.parametrize("mount_point", ["empty", "missing"])
async def test_kept_job_whose_client_file_is_not_mounted_at_restart_waits_for_the_mount(
    mount_point: str, settings: Settings, voice: bytes, tmp_path: Path
) -> None:
    share, elsewhere = tmp_path / "share", tmp_path / "elsewhere"
    share.mkdir()
    job_id, _ = await job_of_own_file(settings, voice, share)
    share.rename(elsewhere)
    if mount_point == "empty":
        share.mkdir()
    keeping = JobPersistence(settings)
    tried = count_openings(keeping)
    async with restarting(keeping) as queue:
        await until(lambda: len(tried) >= 3 or keeping.event_log.get(job_id).over)
        waiting = keeping.event_log.get(job_id)
        assert (waiting.state, waiting.attempts) == (JobState.QUEUED, 0)
        await until(lambda: mounted(elsewhere, share))
        await until(lambda: is_open(queue, job_id))


async def test_kept_job_of_deleted_client_file_fails_at_restart_if_other_files_are_beside_it(
    settings: Settings, voice: bytes, tmp_path: Path
) -> None:
    job_id, path = await job_of_own_file(settings, voice, tmp_path)
    path.with_name("other.wav").touch()
    path.unlink()
    keeping = JobPersistence(settings)
    tried = count_openings(keeping)
    async with restarting(keeping):
        await until(lambda: keeping.event_log.get(job_id).over)
        failed = keeping.event_log.get(job_id)
        assert failed.error is not None
        assert failed.error.code == "audio_path_not_found"
        assert len(tried) == 1


async def test_kept_job_deleted_while_its_recording_cannot_be_opened_is_not_retried(
    settings: Settings, voice: bytes
) -> None:
    assert settings.spool_dir is not None
    settings.spool_dir.touch()
    job_id, _ = await kept_job(settings, upload(voice + bytes(UploadSpool.MEMORY_BYTES)))
    keeping = JobPersistence(settings)
    async with restarting(keeping) as queue:
        await until(lambda: queue.faults)
        store = LocalJobStore(keeping.event_log, queue, None)
        await store.delete(job_id)
        assert not queue.depth
        assert not queue.faults


async def test_unneeded_recording_that_cannot_be_deleted_at_start_is_logged_and_others_are_deleted(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    uploads = settings.data_dir / "jobs" / "uploads"
    with closing(JobPersistence(settings)) as keeping, upload(b"sound") as source:
        stuck, unneeded = (
            uploads / new_name(store_code(keeping.event_log.cipher)) for _ in range(2)
        )
        stuck.mkdir()
        keeping.store(source, unneeded.name)
    caplog.set_level(logging.INFO)
    JobPersistence(settings).close()
    assert stuck.exists()
    assert not unneeded.exists()
    assert f"{stuck.name} cannot be deleted now" in caplog.text
    assert "1 recordings that no job needs were deleted" in caplog.text


def test_start_deletes_no_file_that_this_store_did_not_write(settings: Settings) -> None:
    """Those of another store, which an earlier release had in this folder, too."""
    uploads = settings.data_dir / "jobs" / "uploads"
    uploads.mkdir(parents=True)
    others = {uuid.uuid4().hex, new_name("0123456789ab"), "photo.jpg"}
    for name in others:
        (uploads / name).write_bytes(b"sound")
    for _ in range(2):
        JobPersistence(settings).close()
        assert {path.name for path in uploads.iterdir() if path.suffix != ".store"} == others


async def test_recording_of_an_earlier_release_is_found_by_its_job_after_the_folder_is_adopted(
    settings: Settings, voice: bytes
) -> None:
    job_id, path = await kept_job(settings, upload(voice), uuid.uuid4().hex)
    for mark in path.parent.glob("*.store"):
        mark.unlink()
    keeping = JobPersistence(settings)
    async with restarting(keeping) as queue:
        await until(lambda: is_open(queue, job_id))


@pytest.mark.usefixtures("fresh_workers")
async def test_jobs_wait_while_process_of_engine_is_stuck_and_that_is_logged_once(
    new_job: Callable[..., Job], caplog: pytest.LogCaptureFixture
) -> None:
    slot = OverheardSlot()
    slot.refusal = errors.EngineStuck()
    jobs = [new_job() for _ in range(2)]
    async with queue_on(slot, fault_retry_s=0.01) as queue:
        await started(queue, *jobs)
        await until(lambda: slot.asked >= 3 or jobs[0].ended)
        assert not any(job.ended for job in jobs)
        assert caplog.text.count("jobs wait until this is over") == 1
        slot.refusal = None
        await asyncio.gather(*(job.result() for job in jobs))
        assert [job.state for job in jobs] == [JobState.DONE] * 2


@pytest.mark.usefixtures("fresh_workers")
@pytest.mark.parametrize("error", [errors.DecoderStopped(), UpstreamLost(retry_after=0)])
async def test_job_that_ends_its_decoder_or_upstream_fails_after_ten_attempts_and_others_run(
    new_job: Callable[..., Job], error: errors.SidecarError
) -> None:
    bad, good = new_job(), new_job()
    plan = plan_that_fails(error, [bad])
    async with queue_on(OverheardSlot(), plan=plan, fault_retry_s=0.001) as queue:
        await started(queue, bad, good)
        assert (await good.result()).text
        assert bad.record.attempts < 10, "it goes behind others"
        with pytest.raises(errors.EngineCrashed, match="10 services, decoders or upstreams"):
            await bad.result()
    assert bad.record.attempts == 10


async def test_full_disk_at_begin_of_kept_job_pauses_queue_until_there_is_space(
    tiny_disk: Path, new_job: Callable[..., Job]
) -> None:
    jobs = [new_job(durable=True) for _ in range(3)]
    async with keeping_queue(tiny_disk) as (_, queue):
        await submitted(queue, *jobs)
        fill_disk(tiny_disk)
        queue.open()
        await until(lambda: isinstance(queue.paused, errors.DiskFull))
        assert [job.state for job in jobs] == [JobState.QUEUED] * 3
        assert queue.depth == 3
        (tiny_disk / "ballast").unlink()
        await asyncio.gather(*(job.result() for job in jobs))
        assert queue.paused is None
        assert [job.record.attempts for job in jobs] == [1, 1, 1]


@pytest.mark.parametrize("kind", [SegmentReady, ResumePoint, Finished])
async def test_full_disk_while_kept_job_runs_ends_no_job_and_costs_no_attempt(
    kind: type, tiny_disk: Path, new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SETTLES", "1")
    jobs, full = [new_job(durable=True) for _ in range(2)], list[str]()
    async with keeping_queue(tiny_disk) as (keeping, queue):
        stored = keeping.event_log.append

        def append(job_id: str, change: JobChange) -> JobRecord:
            if not full and isinstance(change, ReportedChange) and isinstance(change.event, kind):
                full.append(job_id)
                fill_disk(tiny_disk)
            return stored(job_id, change)

        monkeypatch.setattr(keeping.event_log, "append", append)
        await started(queue, *jobs)
        await until(lambda: isinstance(queue.paused, errors.DiskFull))
        assert {job.state for job in jobs} <= {JobState.QUEUED, JobState.DONE}
        (tiny_disk / "ballast").unlink()
        await asyncio.gather(*(job.result() for job in jobs))
        await asyncio.gather(*(job.written() for job in jobs))
        assert [job.record.attempts for job in jobs] == [1, 1]
    read = JobPersistence(keeping_in(tiny_disk))
    assert [one.state for one in read.event_log.all()] == [JobState.DONE] * 2
    read.close()


async def test_resume_point_ends_the_row_of_vain_attempts_of_its_job(
    new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SETTLES", "1")
    job, failing = new_job(durable=True), list[Job]()
    failing.append(job)
    plan = plan_that_fails(errors.DiskFull(), failing)
    async with queue_on(OverheardSlot(), plan=plan, fault_retry_s=0.01) as queue:
        await started(queue, job)
        await until(lambda: job.vain_attempts > 1)
        failing.clear()
        await job.result()
        assert job.vain_attempts == 0


async def test_job_whose_data_cannot_be_written_fails_and_keeps_no_other_waiting(
    tmp_path: Path, new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SETTLES", "1")
    bad, good = new_job(durable=True), new_job(durable=True)
    async with keeping_queue(tmp_path) as (keeping, queue):

        def unwritable() -> Sequence[Statement]:
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

        def write_behind_segment(record: JobRecord, event: JobEvent) -> None:
            if isinstance(event.change, ReportedChange) and len(record.segments) == 1:
                keeping.event_log.writer.put(JobWrite(record.id, unwritable, soon=False))

        keeping.event_log.listen(write_behind_segment, bad.id)
        await started(queue, bad, good)
        assert (await good.result()).text
        with pytest.raises(errors.SidecarError) as failed:
            await bad.result()
        assert failed.value.code == "internal"


async def test_recording_whose_close_fails_stops_no_dispatcher_and_is_not_closed_twice(
    new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, after = new_job(), new_job()
    number, close, closed = job.source.fd, os.close, list[int]()

    async def plan(one: Job, precision: Precision) -> TranscribeOptions:
        if one is job:
            raise errors.WontFit(fault=Fault.RECORDING)
        return one.record.options

    def close_late(fd: int) -> None:
        close(fd)
        if fd == number and not closed:
            closed.append(fd)
            raise OSError(errno.EIO, "what was written last is lost")

    monkeypatch.setattr(os, "close", close_late)
    async with queue_on(OverheardSlot(), plan=plan) as queue:
        await started(queue, job, after)
        assert (await after.result()).text
        job.source.close()  # does not close another file, which has this number now
        assert closed == [number]
        assert job.state is JobState.FAILED


async def test_jobs_whose_storage_is_unreachable_stay_queued_uncounted_and_delay_no_other_job(
    new_job: Callable[..., Job],
) -> None:
    unreadable, good = [new_job() for _ in range(5)], new_job()
    plan = plan_that_fails(errors.StorageUnreachable(), unreadable)
    async with queue_on(OverheardSlot(), plan=plan, fault_retry_s=3600.0) as queue:
        for job in (*unreadable, good):
            await queue.submit(job)
        queue.open()
        await until(lambda: good.ended, "no pause after each of the others")
        assert {(job.state, job.record.attempts) for job in unreadable} == {(JobState.QUEUED, 0)}


@pytest.mark.parametrize("error", [UpstreamUnreachable, UpstreamRefused])
async def test_requests_get_the_error_of_an_upstream_that_is_away_before_other_kept_jobs_are_tried(
    new_job: Callable[..., Job], error: type[errors.SidecarError]
) -> None:
    kept = [new_job() for _ in range(3)]
    requests = [new_job(kept=False) for _ in range(2)]
    tried = list[Job]()

    async def plan(job: Job, precision: Precision) -> TranscribeOptions:
        tried.append(job)
        raise error(retry_after=0)

    async with queue_on(OverheardSlot(), plan=plan, fault_retry_s=3600.0) as queue:
        await started(queue, *kept, *requests)
        for job in requests:
            with pytest.raises(error):
                await job.result()
        assert tried == [kept[0], *requests]
        assert isinstance(queue.paused, error)


@pytest.mark.usefixtures("fresh_workers")
@pytest.mark.parametrize("error", [UpstreamUnreachable, UpstreamRefused])
async def test_kept_jobs_wait_without_a_counted_attempt_until_the_upstream_is_back(
    new_job: Callable[..., Job], error: type[errors.SidecarError]
) -> None:
    kept = [new_job() for _ in range(3)]
    away, tried = True, list[Job]()

    async def plan(job: Job, precision: Precision) -> TranscribeOptions:
        tried.append(job)
        if away:
            raise error(retry_after=0)
        return job.record.options

    async with queue_on(OverheardSlot(), plan=plan, fault_retry_s=0.01) as queue:
        await started(queue, *kept)
        await until(lambda: tried.count(kept[0]) >= 3)
        assert isinstance(queue.paused, error)
        assert {(job.state, job.record.attempts) for job in kept} == {(JobState.QUEUED, 0)}
        away = False
        await asyncio.gather(*(job.result() for job in kept))
        assert queue.paused is None


@pytest.mark.parametrize("error", [errors.MachineBusy(), UpstreamRefused(), errors.DiskFull()])
async def test_jobs_that_alone_meet_a_fault_which_holds_others_keep_none_of_them_waiting(
    new_job: Callable[..., Job], error: errors.SidecarError
) -> None:
    bad, good = [new_job() for _ in range(3)], [new_job() for _ in range(2)]
    plan = plan_that_fails(error, bad)
    async with queue_on(OverheardSlot(), plan=plan, fault_retry_s=0.01) as queue:
        await started(queue, *bad, *good)
        await until(lambda: all(job.ended for job in good))
        assert {(job.state, job.record.attempts) for job in bad} == {(JobState.QUEUED, 0)}


@pytest.mark.usefixtures("fresh_workers")
async def test_kept_job_whose_load_died_rests_and_is_tried_again_while_those_behind_it_run(
    new_job: Callable[..., Job],
) -> None:
    too_large, fits, later = new_job(), new_job(), new_job()
    plan = plan_that_fails(errors.LoadInterrupted(), [too_large])
    async with queue_on(OverheardSlot(), plan=plan, fault_retry_s=0.01) as queue:
        await started(queue, too_large, fits)
        await fits.result()
        assert (too_large.state, too_large.record.attempts) == (JobState.QUEUED, 0)
        await until(lambda: too_large.vain_attempts > 2, "it is tried again")
        await queue.submit(later)
        assert (await later.result()).text


async def test_busy_upstream_fails_a_request_and_kept_jobs_wait_for_as_long_as_it_said(
    new_job: Callable[..., Job],
) -> None:
    kept, request = new_job(), new_job(kept=False)
    plan = plan_that_fails(UpstreamBusy(retry_after=300), [kept, request])
    async with queue_on(OverheardSlot(), plan=plan, fault_retry_s=0.01) as queue:
        await started(queue, request, kept)
        with pytest.raises(UpstreamBusy):
            await request.result()
        assert queue.breakers.held_until(kept=True) > 0.0
        assert queue.breakers.held_until(kept=False) == 0.0


def test_breaker_holds_jobs_for_pauses_that_double_and_only_a_success_closes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    breakers, closed = Breakers(retry_s=1.0), list[str]()
    breakers.on_close = lambda: closed.append("closed")
    error = UpstreamRefused()
    breakers.failed(error)
    breakers.failed(error)  # by a job that had begun before
    held_until = [breakers.held_until(kept=True)]
    for _ in range(6):
        breakers.begin_try(kept=True)
        breakers.failed(error)
        held_until.append(breakers.held_until(kept=True))
    assert held_until == [1001, 1002, 1004, 1008, 1016, 1020, 1020]
    breakers.failed(UpstreamBusy(retry_after=300))
    assert breakers.held_until(kept=True) == 1300
    assert breakers.held_until(kept=False) == 0
    error = breakers.open[Fault.UPSTREAM].error
    assert breakers.broken == {Fault.UPSTREAM: error}
    breakers.succeeded(PERSISTENCE)
    assert breakers.broken
    breakers.succeeded([Fault.UPSTREAM])
    assert not breakers.broken
    assert breakers.held_until(kept=True) == 0.0
    assert closed == ["closed"]


@pytest.mark.parametrize("error", [errors.MachineBusy(), errors.UploadsFull()])
def test_fault_of_this_machine_holds_jobs_for_the_first_pause_only(
    error: errors.SidecarError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    breakers = Breakers(retry_s=1.0)
    breakers.failed(error)
    assert breakers.held_until(kept=True) == 1001.0


@pytest.mark.usefixtures("fresh_workers")
async def test_all_kept_jobs_run_at_once_as_soon_as_one_shows_that_the_upstream_is_back(
    new_job: Callable[..., Job],
) -> None:
    jobs, away, tried = [new_job() for _ in range(4)], True, list[Job]()

    async def plan(job: Job, precision: Precision) -> TranscribeOptions:
        tried.append(job)
        if away:
            raise UpstreamRefused()
        return job.record.options

    slot = OverheardJoint()
    async with queue_on(slot, plan=plan, concurrency=2, fault_retry_s=0.01) as queue:
        await started(queue, *jobs)
        await until(lambda: len(tried) >= 6)
        away = False
        await asyncio.gather(*(job.result() for job in jobs))
        assert not queue.breakers.broken


@pytest.mark.posix("limits of a process")
@pytest.mark.skipif(sys.platform == "darwin", reason="the limit of another process")
async def test_job_waits_while_the_process_of_the_engine_has_no_descriptor_left(
    new_job: Callable[..., Job],
) -> None:
    import resource

    slot = OverheardSlot()
    async with queue_on(slot, fault_retry_s=0.01) as queue:
        (first,) = await started(queue, new_job())
        await first.result()
        pid = slot.worker_pid
        assert pid is not None
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        standard_streams = 3  # below any that it may close, such as that of the recording before
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (standard_streams, hard))
        job, asked = new_job(), slot.asked
        await queue.submit(job)
        await until(lambda: slot.asked >= asked + 3 or job.ended)
        assert not job.ended
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert (await job.result()).text
        assert (slot.worker_pid, job.record.attempts) == (pid, 1)


@pytest.mark.parametrize("kept", [True, False])
def test_success_of_a_probe_says_nothing_of_what_a_kept_job_met_while_it_went_on(
    kept: bool,
) -> None:
    breakers = Breakers()
    breakers.failed(errors.EngineFailed())
    breakers.begin_probe()
    breakers.failed(errors.EngineFailed(), kept=kept)
    breakers.end_probe(None)
    assert breakers.doubted is kept, "requests are tried however often"
    assert breakers.held_until(kept=True) == 0.0, "the next probe is due"
    breakers.begin_probe()
    breakers.end_probe(None)
    assert not breakers.open
