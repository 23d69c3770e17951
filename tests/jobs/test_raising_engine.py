"""Whose fault an error is that the engine raises: a library's, the machine's, or a recording's."""

from collections.abc import Callable
from pathlib import Path

import pytest
from instrumented_slot import OverheardSlot, queue_on, started
from service_process import new_file, until

from sidecar import errors
from sidecar.errors import Fault
from sidecar.jobs.job_record import JobState
from sidecar.jobs.job_runner import Job

NewJob = Callable[..., Job]


@pytest.fixture
def raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Have the engine raise an error, until the returned file is deleted."""

    def begin(says: str) -> Path:
        path = new_file(tmp_path / "raises", says.encode())
        monkeypatch.setenv("VIBEVOICE_SCRIPTED_RAISES", str(path))
        return path

    return begin


@pytest.mark.parametrize(
    "name", ["ImportError", "RuntimeError", "FileNotFoundError", "MemoryError"]
)
async def test_kept_jobs_wait_while_the_engine_raises_an_error_in_each_recording_and_are_done(
    name: str, new_job: NewJob, raises: Callable[[str], Path]
) -> None:
    file, slot = raises(f"{name} 0"), OverheardSlot()
    jobs = [new_job() for _ in range(5)]
    async with queue_on(slot, fault_retry_s=0.001) as queue:
        await started(queue, *jobs)
        await until(lambda: slot.asked >= 10 or any(job.ended for job in jobs))
        assert {job.state for job in jobs} == {JobState.QUEUED}
        assert [*queue.faults] == [Fault.ENGINE]
        assert isinstance(queue.paused, errors.EngineFailed | errors.OutOfMemory)
        assert name in queue.paused.detail
        assert sum(job.record.attempts for job in jobs) == 1, "others are not tried meanwhile"
        file.unlink()
        assert {(await job.result()).text != "" for job in jobs} == {True}
        assert not queue.faults


@pytest.mark.parametrize(
    ("name", "error", "attempts"),
    [("RuntimeError", errors.EngineFailed, 2), ("MemoryError", errors.OutOfMemory, 10)],
)
async def test_recording_at_whose_end_an_engine_raises_that_works_in_between_fails_in_the_end(
    name: str,
    error: type[errors.SidecarError],
    attempts: int,
    new_job: NewJob,
    raises: Callable[[str], Path],
) -> None:
    """At once again, if that may not have been its machine's: others may have had the memory."""
    raises(f"{name} 2")  # the probe has a second
    async with queue_on(OverheardSlot(), fault_retry_s=0.001) as queue:
        (bad,) = await started(queue, new_job())
        with pytest.raises(error, match=name):
            await bad.result()
        assert bad.record.attempts == attempts
        assert not queue.faults, "the engine was seen to work"


async def test_several_recordings_at_whose_end_an_engine_raises_in_a_row_are_tried_more_often(
    new_job: NewJob, raises: Callable[[str], Path]
) -> None:
    """It may be the engine, although it transcribes a second of speech."""
    raises("RuntimeError 2")
    async with queue_on(OverheardSlot(), fault_retry_s=0.001) as queue:
        jobs = await started(queue, new_job(), new_job())
        for job in jobs:
            with pytest.raises(errors.EngineFailed):
                await job.result()
        assert min(job.record.attempts for job in jobs) >= 6
        assert max(job.record.attempts for job in jobs) <= 10


@pytest.mark.parametrize("name", ["RuntimeError", "MemoryError"])
@pytest.mark.parametrize("kept", [True, False])
async def test_engine_that_raises_in_its_own_probe_gets_another_process_which_works(
    kept: bool,
    name: str,
    new_job: NewJob,
    raises: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raises(f"{name} 0")
    async with queue_on(slot := OverheardSlot(), fault_retry_s=0.001) as queue:
        await slot.preload()
        monkeypatch.delenv("VIBEVOICE_SCRIPTED_RAISES")  # of the process that runs it is not
        broken = slot.worker_pid
        (job,) = await started(queue, new_job(kept=kept))
        if not kept:  # and no kept job waits for a probe
            with pytest.raises(errors.SidecarError, match=name):
                await job.result()
            await until(lambda: slot.worker_pid != broken)
            await queue.submit(job := new_job(kept=False))
        assert (await job.result()).text
        assert slot.worker_pid != broken
        assert job.record.attempts == (2 if kept else 1)


async def test_request_gets_the_error_that_the_engine_raises_at_once(
    new_job: NewJob, raises: Callable[[str], Path]
) -> None:
    raises("ImportError 0")
    async with queue_on(OverheardSlot(), fault_retry_s=3600.0) as queue:
        (request,) = await started(queue, new_job(kept=False))
        with pytest.raises(errors.EngineFailed, match="ImportError"):
            await request.result()
        assert request.record.attempts == 1
