"""Jobs that run in step: a result for each, and trouble for whoever made it."""

import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile
from instrumented_slot import Companies, OverheardSlot, job_of, queue_on, started, submitted
from job_fixtures import Hold
from service_process import PATIENCE_S, new_file, until

from sidecar import errors
from sidecar.audio.audio_source import AudioSource
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import choose_engine
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.jobs.job_engine import JobEngine
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import JobState
from sidecar.jobs.job_runner import Job
from sidecar.workers.engine_host import EngineHost, MemoryDevices
from sidecar.workers.engine_slot import EXCLUSIVE

linux = pytest.mark.skipif(sys.platform != "linux", reason="a file that cannot be read")
posix = pytest.mark.skipif(os.name == "nt", reason="kills with a POSIX signal")


@asynccontextmanager
async def queue_of(**terms: Any) -> AsyncIterator[tuple[JobQueue, OverheardSlot, Companies]]:
    """A queue that is closed until the test opens it."""
    companies, slot = Companies(), OverheardSlot()
    async with queue_on(slot, company=companies, **terms) as queue:
        yield queue, slot, companies


def unreadable_job(recording: Path) -> Job:
    """A job each read of whose recording fails with EIO."""
    job = job_of(recording)
    job.source.close()
    memory = os.open("/proc/self/mem", os.O_RDONLY)  # nothing is at its beginning
    return Job(AudioSource(memory, spooled=False), job.record)


async def running(jobs: Sequence[Job]) -> None:
    """Wait until each of them has said something."""
    for job in jobs:
        async for _ in job.changes():
            if job.record.segments or job.ended:
                break


async def test_each_job_of_batch_has_result_it_has_alone(recording: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    samples, rate = soundfile.read(recording)
    soundfile.write(other, samples[::-1], rate)
    async with queue_of() as (queue, _, companies):
        jobs = await started(queue, *map(job_of, [recording, other] * 5))
        texts = [(await job.result()).text for job in jobs]
    assert texts == texts[:2] * 5
    assert texts[0] != texts[1]
    assert companies.sizes == [4, 4, 2]
    assert all(job.state is JobState.DONE and job.record.attempts == 1 for job in jobs)


async def test_cancelled_job_leaves_running_batch_and_others_finish(
    recording: Path, hold: Hold
) -> None:
    async with queue_of() as (queue, slot, _):
        jobs = await started(queue, *map(job_of, [recording] * 3))
        await running(jobs)
        pid = slot.worker_pid
        queue.cancel(jobs[1])
        hold.release()
        assert jobs[1].state is JobState.CANCELLED
        assert [(await jobs[at].result()).text != "" for at in (0, 2)] == [True, True]
        assert slot.worker_pid == pid
        with pytest.raises(errors.JobCancelled):
            await jobs[1].result()


async def test_job_cancelled_before_batch_starts_leaves_others_together_and_engine_unaware(
    recording: Path, hold: Hold
) -> None:
    async with queue_of() as (queue, slot, companies):
        jobs = await started(queue, *map(job_of, [recording] * 3))
        await until(lambda: jobs[0].state is JobState.RUNNING)
        queue.cancel(jobs[0])
        await running(jobs[1:])
        queue.cancel(jobs[2])
        hold.release()
        assert (await jobs[1].result()).text
    assert slot.left == [1], "the numbers are those of whom the engine hears"
    assert companies.sizes == [3]
    assert not any(job.record.alone for job in jobs[1:])


async def test_each_job_of_batch_gets_its_own_plan(recording: Path) -> None:
    companies, slot = Companies(), OverheardSlot()
    planned: dict[str, str] = {}

    async def plan(job: Job, precision: Precision) -> TranscribeOptions:
        planned[job.id] = f"{precision}-{len(planned)}"
        return dataclasses.replace(job.options, language=planned[job.id])

    async with queue_on(slot, company=companies, plan=plan) as queue:
        jobs = await started(queue, *map(job_of, [recording] * 5))
        languages = [(await job.result()).language for job in jobs]
    assert companies.sizes == [4, 1]
    assert languages == [planned[job.id] for job in jobs]
    assert languages == [f"fp32-{number}" for number in range(5)]


async def test_job_too_large_for_memory_in_batch_is_tried_again_alone(recording: Path) -> None:
    """Alone there is more of it; and that there was not is no attempt of its own."""
    async with queue_of() as (queue, slot, companies):
        slot.failing = {1: errors.GpuOutOfMemory()}
        jobs = await started(queue, *map(job_of, [recording] * 3))
        texts = {(await job.result()).text for job in jobs}
    assert len(texts) == 1
    assert [job.record.alone for job in jobs] == [False, True, False]
    assert [job.record.attempts for job in jobs] == [1, 1, 1]
    assert companies.sizes == [3]


@linux
async def test_recording_of_batch_that_cannot_be_read_waits_alone_and_others_are_done(
    recording: Path,
) -> None:
    async with queue_of(fault_retry_s=0.01) as (queue, _, companies):
        *jobs, unreadable = await started(
            queue, job_of(recording), job_of(recording), unreadable_job(recording)
        )
        for job in jobs:
            assert (await job.result()).text
        await until(lambda: unreadable.state is JobState.QUEUED)
        assert isinstance(queue.paused, errors.StorageUnreachable)
        assert [job.record.attempts for job in (*jobs, unreadable)] == [1, 1, 0]
        (later,) = await submitted(queue, job_of(recording))
        assert (await later.result()).text
        assert not unreadable.ended
        queue.cancel(unreadable)
        assert queue.paused is None
        assert companies.sizes[0] == 3


@linux
async def test_jobs_whose_recordings_alone_cannot_be_read_keep_no_other_waiting(
    recording: Path,
) -> None:
    async with queue_on(OverheardSlot(), fault_retry_s=0.01) as queue:
        unreadable = await started(queue, *(unreadable_job(recording) for _ in range(3)))
        for _ in range(3):
            (job,) = await submitted(queue, job_of(recording))
            assert (await job.result()).text
        assert {job.state for job in unreadable} <= {JobState.QUEUED, JobState.RUNNING}


async def test_batch_with_faults_of_node_and_storage_pauses_for_that_of_the_node(
    recording: Path,
) -> None:
    async with queue_of(fault_retry_s=3600.0) as (queue, slot, _):
        slot.failing = {0: errors.StorageUnreachable(), 1: errors.DiskFull()}
        jobs = await started(queue, *map(job_of, [recording] * 3))
        await until(lambda: queue.paused is not None)
        assert isinstance(queue.paused, errors.DiskFull)
        assert [job.state for job in jobs] == [JobState.QUEUED, JobState.QUEUED, JobState.DONE]


@posix
async def test_poison_job_of_batch_fails_after_two_crashes_and_others_are_done(
    recording: Path, tmp_path: Path, voice: bytes
) -> None:
    poison = new_file(tmp_path / "poison.wav", voice)
    async with queue_of() as (queue, slot, companies):
        slot.poison = poison.stat().st_ino
        jobs = await started(queue, *map(job_of, [recording, poison, recording]))
        await asyncio.gather(*(job.result() for job in jobs), return_exceptions=True)
        assert slot.deaths == 2
        following = await submitted(queue, *map(job_of, [recording] * 2))
        assert len({(await job.result()).text for job in following}) == 1
    assert [job.state for job in jobs] == [JobState.DONE, JobState.FAILED, JobState.DONE]
    assert [(job.record.attempts, job.record.alone) for job in jobs] == [(2, True)] * 3
    assert isinstance(jobs[1].error, errors.EngineCrashed)
    assert companies.sizes == [3, 2]


@posix
async def test_batch_whose_engine_dies_during_drain_is_retried_within_grace(
    recording: Path, hold: Hold
) -> None:
    async with queue_of() as (queue, slot, _):
        jobs = await started(queue, *map(job_of, [recording] * 3))
        await running(jobs)
        draining = asyncio.ensure_future(queue.drain(2 * PATIENCE_S))
        await asyncio.sleep(0)
        slot.kill()
        hold.release()
        assert len({(await job.result()).text for job in jobs}) == 1
        await asyncio.wait_for(draining, PATIENCE_S)  # sooner than its grace


@pytest.mark.slow
async def test_next_batch_runs_when_all_jobs_of_batch_are_cancelled(
    recording: Path, hold: Hold
) -> None:
    async with queue_of() as (queue, _, _):
        jobs = await started(queue, *map(job_of, [recording] * 6))
        await running(jobs[:4])
        for job in jobs[:4]:
            queue.cancel(job)
        hold.release()
        assert [(await job.result()).text != "" for job in jobs[4:]] == [True, True]
        assert [
            job.record.segments for job in jobs[:4] if job.state is not JobState.CANCELLED
        ] == []


async def test_unreadable_recording_in_batch_fails_alone(recording: Path, tmp_path: Path) -> None:
    broken = new_file(tmp_path / "broken.wav", b"nothing that could be heard" * 100)
    async with queue_of() as (queue, _, companies):
        jobs = await started(queue, *map(job_of, [recording, broken, recording]))
        await asyncio.gather(*(job.result() for job in jobs), return_exceptions=True)
    assert companies.sizes == [3]
    assert [job.state for job in jobs] == [JobState.DONE, JobState.FAILED, JobState.DONE]
    assert isinstance(jobs[1].error, errors.BadAudio)


async def test_interrupted_batch_is_requeued_in_order_without_counted_attempt(
    recording: Path, hold: Hold
) -> None:
    async with queue_of() as (queue, slot, companies):
        jobs = await started(queue, *map(job_of, [recording] * 5))
        await running(jobs[:4])
        hold.spare_new_workers()
        reloading = asyncio.ensure_future(slot.reload(Precision.INT8))
        await asyncio.sleep(0)
        queue.interrupt()
        await reloading
        assert {(await job.result()).precision for job in jobs} == {"int8"}
    assert companies.sizes == [4, 4, 1]
    assert [job.record.attempts for job in jobs] == [1] * 5, "to be interrupted is no attempt"


@pytest.mark.parametrize(
    ("temperatures", "company"), [((0, 0.2, 0), [0, 2]), ((0.2, 0, 0), [0])], ids=str
)
def test_jobs_with_temperature_are_not_batched(
    temperatures: Sequence[float], company: list[int], recording: Path
) -> None:
    """The rows of others change last digits, and a draw hangs on them."""
    settings = Settings(engine="scripted", batch=4)
    lodging = EngineHost("files", settings, choose_engine(settings), MemoryDevices(), EXCLUSIVE)
    jobs = [job_of(recording, TranscribeOptions(temperature=one)) for one in temperatures]
    chosen = JobEngine(settings, lodging).company(iter(jobs), Precision.FP32)
    assert [jobs.index(one) for one in chosen] == company
