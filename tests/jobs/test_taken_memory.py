"""Jobs for whose memory there is no room on the engine's device, because others have it now."""

from collections.abc import Callable
from pathlib import Path

import pytest
from instrumented_slot import OverheardSlot, queue_on, started
from service_process import new_file, until
from test_crashing_engine import poison_of

from sidecar import errors
from sidecar.errors import Fault
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.jobs.job_record import JobState
from sidecar.jobs.job_runner import Job

NewJob = Callable[..., Job]


class Memory:
    """A planner of memory that others have ``taken``, or as much of it as jobs of 3 s need that
    are ``large``."""

    def __init__(self, *large: Job) -> None:
        self.taken, self.large, self.asked = True, large, 0

    async def plan(self, job: Job, precision: Precision) -> TranscribeOptions:
        self.asked += 1
        if self.taken and (job in self.large or not self.large):
            raise errors.WontFit()
        return job.record.options


async def test_kept_jobs_wait_for_memory_that_others_have_and_hold_none_that_fits(
    new_job: NewJob,
) -> None:
    large, small = [new_job() for _ in range(5)], new_job()
    memory, slot = Memory(*large), OverheardSlot()
    async with queue_on(slot, plan=memory.plan, fault_retry_s=3600.0) as queue:
        await started(queue, *large, small)
        assert (await small.result()).text
        assert {(job.state, job.record.attempts) for job in large} == {(JobState.QUEUED, 0)}


async def test_jobs_that_waited_for_memory_are_done_once_it_is_free(new_job: NewJob) -> None:
    jobs = [new_job() for _ in range(5)]
    memory = Memory()
    async with queue_on(OverheardSlot(), plan=memory.plan, fault_retry_s=0.001) as queue:
        await started(queue, *jobs)
        await until(lambda: memory.asked >= 20 or any(job.ended for job in jobs))
        assert not any(job.ended for job in jobs)
        assert [*queue.faults] == [Fault.DEVICE]
        assert isinstance(queue.paused, errors.WontFit)
        memory.taken = False
        assert {(await job.result()).text != "" for job in jobs} == {True}
        assert {job.record.attempts for job in jobs} == {1}
        assert not queue.faults


async def test_kept_job_waits_while_the_gpu_has_no_memory_left_for_its_work(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = new_file(tmp_path / "raises", b"GpuOutOfMemory 1")
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_RAISES", str(file))
    slot = OverheardSlot()
    async with queue_on(slot, fault_retry_s=0.001) as queue:
        (job,) = await started(queue, new_job())
        waits = lambda: slot.asked >= 12 and [*queue.faults] == [Fault.DEVICE]  # noqa: E731
        await until(lambda: waits() or job.ended)  # the fault is over from a report to the next one
        assert not job.ended
        file.unlink()
        assert (await job.result()).text
        assert job.record.attempts == 1


@pytest.mark.parametrize("name", ["WontFit", "GpuOutOfMemory"])
async def test_request_gets_the_error_at_once_if_others_have_the_memory_also_behind_kept_jobs(
    name: str, new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = new_file(tmp_path / "raises", f"{name} 0".encode())
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_RAISES", str(file))
    async with queue_on(OverheardSlot(), fault_retry_s=3600.0) as queue:
        kept, request = await started(queue, new_job(), new_job(kept=False))
        with pytest.raises(getattr(errors, name)):
            await request.result()
        assert (kept.state, request.record.attempts) == (JobState.QUEUED, 1)


async def test_probe_of_an_engine_for_which_there_is_no_memory_is_no_success_of_it(
    new_job: NewJob, recording: Path
) -> None:
    slot, memory = OverheardSlot(), Memory()
    memory.taken = False

    async def plan(job: Job, precision: Precision) -> TranscribeOptions:
        options = await memory.plan(job, precision)
        memory.taken = not memory.taken and memory.asked == 1
        return options

    async with queue_on(slot, plan=plan, fault_retry_s=0.001) as queue:
        (bad,) = await started(queue, new_job(poison_of(slot, recording)))
        await until(lambda: memory.asked >= 6 or bad.ended)
        assert (bad.state, bad.record.attempts) == (JobState.QUEUED, 1)
        assert Fault.ENGINE in queue.faults
        memory.taken = False
        with pytest.raises(errors.EngineCrashed):
            await bad.result()
