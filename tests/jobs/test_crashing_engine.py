"""Whose fault a crash is: an engine that dies in every recording, or a recording that ends it."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from instrumented_slot import DyingSlot, OverheardJoint, OverheardSlot, queue_on, started, submitted
from service_process import until

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.errors import Fault
from sidecar.jobs.job_record import CountsAs, JobState, RequeuedChange, StartedChange
from sidecar.jobs.job_runner import Job
from sidecar.jobs.recovery import JobPersistence, requeue_unfinished

NewJob = Callable[..., Job]


def poison_of(slot: OverheardSlot, recording: Path) -> Path:
    """A copy of the recording, which ends the engine's process."""
    poison = recording.with_name("poison.wav")
    shutil.copy(recording, poison)
    slot.poison = poison.stat().st_ino
    return poison


async def test_kept_jobs_of_all_owners_wait_while_the_engine_dies_in_each_recording_and_are_done(
    new_job: NewJob,
) -> None:
    slot = DyingSlot()
    jobs = [new_job(owner=f"owner-{number}") for number in range(8)]
    async with queue_on(slot, fault_retry_s=0.001) as queue:
        await started(queue, *jobs)
        await until(lambda: slot.deaths >= 20 or any(job.ended for job in jobs))
        assert {job.state for job in jobs} == {JobState.QUEUED}
        assert [*queue.faults] == [Fault.ENGINE]
        assert isinstance(queue.paused, errors.EngineCrashed)
        assert sum(job.record.crashes for job in jobs) == 1, "others are not tried meanwhile"
        slot.broken = False
        assert {(await job.result()).text != "" for job in jobs} == {True}
        assert not queue.faults


async def test_recording_that_ends_an_engine_twice_which_works_in_between_fails(
    new_job: NewJob, recording: Path
) -> None:
    slot = OverheardSlot()
    async with queue_on(slot) as queue:
        (bad,) = await started(queue, new_job(poison_of(slot, recording)))
        with pytest.raises(errors.EngineCrashed):
            await bad.result()
        assert (slot.deaths, bad.record.crashes) == (2, 2)
        assert not queue.faults, "the engine was seen to work"


async def test_several_recordings_that_end_the_engine_one_after_the_other_are_tried_more_often(
    new_job: NewJob, recording: Path
) -> None:
    """It may be the engine, although it transcribes a second of speech."""
    slot = OverheardSlot()
    poison = poison_of(slot, recording)
    async with queue_on(slot, fault_retry_s=0.001) as queue:
        jobs = await started(queue, *(new_job(poison) for _ in range(2)))
        for job in jobs:
            with pytest.raises(errors.EngineCrashed):
                await job.result()
        assert min(job.record.attempts for job in jobs) > 2
        assert max(job.record.attempts for job in jobs) <= 10


async def test_request_whose_engine_dies_twice_gets_the_error_while_kept_jobs_wait(
    new_job: NewJob,
) -> None:
    slot = DyingSlot()
    async with queue_on(slot, fault_retry_s=3600.0) as queue:
        kept, request = await started(queue, new_job(), new_job(kept=False))
        with pytest.raises(errors.EngineCrashed):
            await request.result()
        assert (kept.state, request.record.attempts) == (JobState.QUEUED, 2)


async def test_kept_job_is_done_beside_a_request_of_another_owner_that_ends_the_engine_each_time(
    new_job: NewJob, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_LOAD", "0.6")
    slot = OverheardSlot()
    poison = poison_of(slot, recording)
    async with queue_on(slot) as queue:
        (request,) = await started(queue, new_job(poison, owner="greedy", kept=False))
        await queue.submit(kept := new_job(owner="other"))
        for _ in range(4):
            with pytest.raises(errors.EngineCrashed):
                await request.result()
            await asyncio.sleep(0.3)  # real time: it is repeated while the engine loads
            await queue.submit(request := new_job(poison, owner="greedy", kept=False))
        assert kept.state is JobState.DONE


async def test_jobs_whose_shared_process_one_of_them_ended_are_done_and_it_alone_fails(
    new_job: NewJob, recording: Path
) -> None:
    slot = OverheardJoint()
    poison = poison_of(slot, recording)
    async with queue_on(slot, concurrency=3, fault_retry_s=0.001) as queue:
        good, bad, other = await submitted(queue, new_job(), new_job(poison), new_job())
        queue.open()
        assert (await good.result()).text == (await other.result()).text
        with pytest.raises(errors.EngineCrashed):
            await bad.result()
    assert slot.deaths == 2


async def test_job_that_an_engine_died_in_before_the_start_is_not_tried_by_one_that_does_not_work(
    tmp_path: Path, new_job: NewJob
) -> None:
    settings = Settings(keep_jobs=True, journal_key="0" * 32, data_dir=tmp_path)
    keeping, slot = JobPersistence(settings), DyingSlot()
    job = new_job(durable=True)
    keeping.event_log.add(job.record)
    for change in (StartedChange(), RequeuedChange(CountsAs.CRASH)):
        keeping.event_log.append(job.id, change)
    async with queue_on(slot, keeping.event_log, fault_retry_s=0.001) as queue:
        requeue_unfinished(keeping, queue)
        queue.open()
        await until(lambda: slot.deaths >= 4 or keeping.event_log.get(job.id).over)
        waits = keeping.event_log.get(job.id)
        assert (waits.state, waits.attempts, waits.crashes) == (JobState.QUEUED, 1, 1)
        slot.broken = False
        await until(lambda: keeping.event_log.get(job.id).over)
        assert keeping.event_log.get(job.id).state is JobState.DONE
    keeping.close()


async def test_queue_that_is_closed_as_it_probes_the_engine_leaves_kept_jobs_uncounted(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = DyingSlot()
    async with queue_on(slot, fault_retry_s=0.001) as queue:
        (job,) = await started(queue, new_job(durable=True))
        await until(lambda: slot.deaths >= 2)
        monkeypatch.setenv("VIBEVOICE_SCRIPTED_LOAD", "60")
        slot.broken = False
        await until(lambda: slot.loader.loading is not None)
    assert (job.state, job.record.crashes, job.record.interruptions) == (JobState.QUEUED, 1, 0)
