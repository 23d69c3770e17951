"""Recordings that are opened anew, after their storage was away."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from instrumented_slot import FACTS, OverheardSlot, queue_on, started
from recordings import silence
from service_process import new_file, until
from uploads import upload

from sidecar import errors
from sidecar.audio.audio_source import AudioSource, open_recording_file, recording_ref
from sidecar.auth.identity import ANONYMOUS
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import JobRecord, JobState
from sidecar.jobs.job_runner import Job, OptionsPlanner
from sidecar.jobs.persistent_recordings import open_unstored, opener_in_threads
from sidecar.jobs.recovery import JobPersistence
from sidecar.plugins import load_settings
from sidecar.server.app import create_service

UNREADABLE = Path("/proc/self/mem")
"""Reading its start fails with EIO, as a file of a disk that was taken away; its open does not."""
needs_unreadable_file = pytest.mark.skipif(not UNREADABLE.exists(), reason="no /proc here")


def take_away(source: AudioSource) -> None:
    """Have all reads of an open recording fail with EIO from now on, and none of its path."""
    fd = os.open(UNREADABLE, os.O_RDONLY)
    os.dup2(fd, source.fd)
    os.close(fd)


def job_of(
    source: AudioSource,
    opened: Callable[[JobRecord], AudioSource] = lambda record: open_unstored(record, ()),
    **more: Any,
) -> Job:
    """A job of a recording, which is opened anew by ``opened``, at least."""
    given = {"audio": recording_ref(source), **more}
    record = JobRecord.submitted(0.0, given.pop("audio"), FACTS, TranscribeOptions(), **given)
    return Job(source, record, opener_in_threads(opened))


@asynccontextmanager
async def queue(plan: OptionsPlanner | None = None) -> AsyncIterator[JobQueue]:
    """A queue, not open yet, that retries soon."""
    async with queue_on(
        OverheardSlot(), fault_retry_s=0.01, **({"plan": plan} if plan else {})
    ) as made:
        yield made


def first_attempt_meets(error: Exception, then: Callable[[], None]) -> OptionsPlanner:
    """A plan that fails once, as the reading of a recording does, after which something happens."""
    met = list[Exception]()

    async def plan(job: Job, precision: Precision) -> TranscribeOptions:
        if not met:
            met.append(error)
            then()
            raise error
        return job.record.options

    return plan


@needs_unreadable_file
@pytest.mark.parametrize("kept", [True, False])
async def test_job_whose_descriptor_fails_for_ever_is_done_by_its_path_uncounted(
    kept: bool, recording: Path
) -> None:
    job = job_of(open_recording_file(str(recording)), kept=kept)
    take_away(job.source)  # type: ignore[arg-type]
    async with queue() as jobs:
        await started(jobs, job)
        assert (await job.result()).text
        assert job.record.attempts == 1


@needs_unreadable_file
async def test_stored_upload_whose_open_copy_fails_is_opened_from_its_storage(
    tmp_path: Path, voice: bytes
) -> None:
    keeping = JobPersistence(
        Settings(keep_jobs=True, journal_key="k" * 32, data_dir=tmp_path, spool_dir=tmp_path)
    )
    source = upload(voice)
    job = job_of(source, keeping.open, audio=keeping.store(source, "recording"))
    take_away(source)
    async with queue() as jobs:
        await started(jobs, job)
        assert (await job.result()).text
    keeping.close()


async def test_upload_without_a_name_keeps_its_descriptor_after_a_fault_of_the_storage(
    voice: bytes,
) -> None:
    source = upload(voice)
    job = job_of(source)
    plan = first_attempt_meets(errors.StorageUnreachable(), lambda: None)
    async with queue(plan) as jobs:
        await started(jobs, job)
        assert (await job.result()).text
        assert job.source is source


async def test_deleted_file_of_a_job_is_read_on_while_another_fault_makes_it_wait(
    recording: Path,
) -> None:
    job = job_of(open_recording_file(str(recording)))
    plan = first_attempt_meets(errors.MachineBusy(), lambda: recording.rename(f"{recording}.old"))
    async with queue(plan) as jobs:
        await started(jobs, job)
        assert (await job.result()).text


@pytest.mark.parametrize("error", [errors.StorageUnreachable(), errors.AudioLost()])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda path: path.write_bytes(silence(3)), "audio_lost"),
        (lambda path: path.rename(f"{path}.old"), "audio_path_not_found"),
    ],
    ids=["changed", "gone"],
)
async def test_job_whose_file_was_changed_or_deleted_while_its_storage_was_away_fails(
    change: Callable[[Path], None], code: str, error: errors.SidecarError, recording: Path
) -> None:
    os.utime(recording, (1, 1))
    job = job_of(open_recording_file(str(recording)))
    async with queue(first_attempt_meets(error, lambda: change(recording))) as jobs:
        await started(jobs, job)
        with pytest.raises(errors.SidecarError) as failed:
            await job.result()
        assert failed.value.code == code


@pytest.mark.posix("Windows deletes no folder with an open file")
async def test_job_of_a_share_that_went_away_waits_for_the_mount_and_its_stale_descriptor_is_left(
    tmp_path: Path, voice: bytes
) -> None:
    share, elsewhere = tmp_path / "share", tmp_path / "elsewhere"
    share.mkdir()
    tried = list[JobRecord]()

    def counted(record: JobRecord) -> AudioSource:
        tried.append(record)
        return open_unstored(record, ())

    def unmount() -> None:
        share.rename(elsewhere)
        share.mkdir()

    job = job_of(open_recording_file(str(new_file(share / "a.wav", voice))), counted)
    stale = errors.AudioLost("Stale file handle")  # as the worker process names ESTALE
    async with queue(first_attempt_meets(stale, unmount)) as jobs:
        await started(jobs, job)
        await until(lambda: len(tried) > 2 or job.ended)
        assert job.state is JobState.QUEUED
        share.rmdir()
        elsewhere.rename(share)
        assert (await job.result()).text


@needs_unreadable_file
async def test_job_that_waits_for_its_storage_is_cancelled_at_once_and_leaves_nothing_open(
    recording: Path,
) -> None:
    source, answers = open_recording_file(str(recording)), asyncio.Event()
    number = source.fd

    async def hangs(record: JobRecord) -> AudioSource:
        await answers.wait()
        raise AssertionError

    job = Job(source, job_of(source).record, hangs)
    async with queue(first_attempt_meets(errors.StorageUnreachable(), lambda: None)) as jobs:
        await started(jobs, job)
        await until(lambda: job.source is None)
        jobs.cancel(job)
        assert job.state is JobState.CANCELLED
        assert not jobs.depth
        await until(lambda: _name_of(number) != str(recording))


def _name_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


@needs_unreadable_file
async def test_submitted_path_is_opened_anew_after_its_descriptor_failed(
    tmp_path: Path, voice: bytes
) -> None:
    class DiskGoesAway:
        """Takes the disk away as soon as the recording was probed."""

        def begun(self) -> AudioSource:
            return source

        def entered(self, submission: AudioSource, record: JobRecord) -> None:
            take_away(submission)

        def refused(self, *_: Any) -> None: ...

    service = create_service(load_settings(engine="scripted", data_dir=tmp_path))
    await service.open()
    try:
        source = open_recording_file(str(new_file(tmp_path / "a.wav", voice)))
        service.submissions.observer = DiskGoesAway()
        job = await service.submissions.submit(ANONYMOUS, source, TranscribeOptions())
        await until(lambda: job.source is not source)
        assert not job.ended
        await job.open()
        assert job.source is not None
        assert job.source.path == str(tmp_path / "a.wav")
    finally:
        await service.close()
