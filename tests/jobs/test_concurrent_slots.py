"""Several places for one queue: a real engine, whose process does several jobs at once."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from instrumented_slot import OverheardJoint, queue_on, started, submitted
from job_fixtures import Hold
from service_process import PATIENCE_S, until

from sidecar import errors
from sidecar.interfaces.engine_interface import MemoryPlan, Precision, TranscribeOptions
from sidecar.jobs.job_record import JobState
from sidecar.jobs.job_runner import Job
from sidecar.jobs.wait_queue import WaitQueue
from sidecar.workers.worker_process import READ_NOTE

NewJob = Callable[..., Job]


async def over(jobs: Sequence[Job]) -> list[JobState]:
    for job in jobs:
        await job.over()
    return [job.state for job in jobs]


async def test_concurrent_engine_runs_as_many_jobs_as_it_has_places_in_one_process_others_wait(
    new_job: NewJob, hold: Hold
) -> None:
    slot = OverheardJoint()
    async with queue_on(slot, concurrency=2, limit=2) as queue:
        jobs = await submitted(queue, *(new_job() for _ in range(2)))
        assert queue.position(jobs[1].id) == (1, 0.0), "in the other place"
        queue.open()
        await until(lambda: queue.running == 2)
        jobs += await submitted(queue, *(new_job() for _ in range(2)))
        with pytest.raises(errors.QueueFull):
            queue.check_capacity()
        await until(lambda: all(job.record.segments for job in jobs[:2]))
        assert queue.running == 2
        hold.release()
        assert await over(jobs) == [JobState.DONE] * 4
        assert len({job.record.transcript and job.record.transcript.text for job in jobs}) == 1
    assert slot.loader.loads == 1, "one process for all"


async def test_cancel_ends_one_of_two_running_jobs_and_interrupt_requeues_running_ones_uncounted(
    new_job: NewJob, hold: Hold
) -> None:
    slot = OverheardJoint()
    async with queue_on(slot, concurrency=2) as queue:
        jobs = await started(queue, *(new_job() for _ in range(3)))
        await until(lambda: all(job.record.segments for job in jobs[:2]))
        queue.cancel(jobs[1])
        await until(lambda: slot.asked == 3)
        queue.interrupt()
        await until(lambda: slot.asked == 3 + 2)
        hold.release()
        cancelled, done = JobState.CANCELLED, JobState.DONE
        assert await over(jobs) == [done, cancelled, done]
    assert [job.record.attempts for job in jobs] == [1, 1, 1]


@pytest.mark.parametrize(
    ("shared", "full", "leases"),
    [
        *((True, [], 2), (False, [], 4)),
        *((True, [errors.GpuOutOfMemory()], 3), (True, [errors.OutOfMemory()] * 2, 4)),
    ],
)
async def test_jobs_of_planned_engine_share_a_lease_only_with_a_shared_memory_plan(
    shared: bool, full: list[errors.SidecarError], leases: int, new_job: NewJob
) -> None:
    """Without one, or if memory ran out, it takes another lease, for itself."""
    slot, refusals = OverheardJoint(), iter(full)
    slot.set_spec(planned=True)

    async def plan(job: Job, precision: Precision) -> TranscribeOptions:
        if (error := next(refusals, None)) is not None:
            raise error
        return replace(job.record.options, memory=MemoryPlan(together=2, places=2 * shared))

    async with queue_on(slot, concurrency=2, plan=plan) as queue:
        jobs = await started(queue, *(new_job(kept=False) for _ in range(2)))
        assert await over(jobs) == [JobState.DONE] * 2
    assert slot.asked == leases


async def test_jobs_that_need_the_engine_for_themselves_run_one_by_one_and_in_turn(
    new_job: NewJob, hold: Hold
) -> None:
    slot, order = OverheardJoint(), list[str]()
    slot.set_spec(planned=True)

    async def plan(job: Job, precision: Precision) -> TranscribeOptions:
        if job.record.alone:
            order.append(job.id)
        return job.record.options

    async with queue_on(slot, concurrency=4, plan=plan) as queue:
        jobs = await started(queue, *(new_job() for _ in range(6)))
        await until(lambda: jobs[0].record.segments)
        assert [job.state for job in jobs] == [JobState.RUNNING] + [JobState.QUEUED] * 5
        hold.release()
        assert await over(jobs) == [JobState.DONE] * 6
    assert order == [job.id for job in jobs]
    assert [job.record.attempts for job in jobs] == [1] * 6


async def test_drain_finishes_both_running_jobs_and_fails_waiting_one(
    new_job: NewJob, hold: Hold
) -> None:
    async with queue_on(OverheardJoint(), concurrency=2) as queue:
        jobs = await started(queue, *(new_job() for _ in range(3)))
        await until(lambda: queue.running == 2)
        hold.release()
        await queue.drain(PATIENCE_S)
        assert await over(jobs) == [JobState.DONE] * 2 + [JobState.FAILED]


@pytest.mark.parametrize("remote", [False, True])
async def test_concurrent_jobs_run_alone_and_uncounted_after_a_hanging_disk_killed_their_worker(
    remote: bool, new_job: NewJob, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of them hangs is not known: each runs alone, and soon, as it kept nobody waiting."""
    slot, held, hold_back = OverheardJoint(), list[tuple[bool, float]](), WaitQueue.hold
    slot.set_spec(remote=remote)

    def noted(self: WaitQueue, job: Job, error: errors.SidecarError, vain_s: float) -> None:
        held.append((job.worked_s > 0.0, vain_s))
        hold_back(self, job, error, vain_s)

    monkeypatch.setattr(WaitQueue, "hold", noted)

    async with queue_on(slot, concurrency=2, fault_retry_s=0.01) as queue:
        jobs = await started(queue, *(new_job() for _ in range(2)))
        await until(lambda: all(job.record.segments for job in jobs))
        assert slot.worker is not None
        slot.worker.kill(hung=True, note=READ_NOTE)
        await until(lambda: slot.asked == 3)
        later = (await submitted(queue, new_job()))[0]
        assert queue.running == 1
        hold.spare_new_workers()
        hold.release()
        assert await over([*jobs, later]) == [JobState.DONE] * 3
    assert [job.record.alone for job in (*jobs, later)] == [True, True, False]
    assert [job.record.attempts for job in jobs] == [1, 1], "none is counted"
    assert held == [(True, 0.0)] * 2


@pytest.mark.slow
async def test_poison_job_in_shared_process_fails_and_jobs_beside_it_are_done(
    new_job: NewJob, recording: Path, hold: Hold
) -> None:
    slot, poison = OverheardJoint(), recording.with_name("poison.wav")
    shutil.copy(recording, poison)
    slot.poison = poison.stat().st_ino
    async with queue_on(slot, concurrency=3) as queue:
        jobs = await started(queue, *(new_job() for _ in range(2)))
        await until(lambda: all(job.record.segments for job in jobs))
        bad, good = await submitted(queue, new_job(poison), new_job())
        await until(lambda: slot.deaths)
        hold.release()
        assert await over([*jobs, good]) == [JobState.DONE] * 3
        assert await over([bad]) == [JobState.FAILED]
    assert slot.deaths == 2
    assert isinstance(bad.error, errors.EngineCrashed)
    assert max(job.record.attempts for job in [*jobs, good]) == 2
