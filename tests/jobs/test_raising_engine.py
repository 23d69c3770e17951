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
        assert isinstance(queue.paused, errors.EngineFailed)
        assert name in queue.paused.detail
        assert sum(job.record.attempts for job in jobs) == 1, "others are not tried meanwhile"
        file.unlink()
        assert {(await job.result()).text != "" for job in jobs} == {True}
        assert not queue.faults


@pytest.mark.parametrize("name", ["RuntimeError", "MemoryError"])
async def test_recording_on_which_an_engine_raises_that_works_in_between_fails_after_ten_attempts(
    name: str, new_job: NewJob, raises: Callable[[str], Path]
) -> None:
    raises(f"{name} 2")  # the probe has a second
    async with queue_on(OverheardSlot(), fault_retry_s=0.001) as queue:
        (bad,) = await started(queue, new_job())
        with pytest.raises(errors.EngineFailed, match=name):
            await bad.result()
        assert bad.record.attempts == 10
        assert not queue.faults, "the engine was seen to work"


async def test_request_gets_the_error_that_the_engine_raises_at_once(
    new_job: NewJob, raises: Callable[[str], Path]
) -> None:
    raises("ImportError 0")
    async with queue_on(OverheardSlot(), fault_retry_s=3600.0) as queue:
        (request,) = await started(queue, new_job(kept=False))
        with pytest.raises(errors.EngineFailed, match="ImportError"):
            await request.result()
        assert request.record.attempts == 1
