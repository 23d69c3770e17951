"""Several places for one queue: a real engine, whose process does several jobs at once."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from instrumented_slot import Companies, OverheardJoint, queue_on
from service_process import PATIENCE_S, until

from sidecar import errors
from sidecar.interfaces.engine_interface import Precision
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import JobState
from sidecar.jobs.job_runner import Job

NewJob = Callable[..., Job]


async def submitted(queue: JobQueue, new_job: NewJob, count: int) -> list[Job]:
    jobs = [new_job() for _ in range(count)]
    for job in jobs:
        await queue.submit(job)
    return jobs


async def over(jobs: Sequence[Job]) -> list[JobState]:
    for job in jobs:
        await asyncio.wait_for(job.over(), PATIENCE_S)
    return [job.state for job in jobs]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "3")


async def test_as_many_run_as_there_are_places_and_the_others_wait_for_the_next_that_is_free(
    new_job: NewJob, slow: None
) -> None:
    async with queue_on(OverheardJoint(), places=2, limit=2) as queue:
        jobs = await submitted(queue, new_job, 2)
        assert queue.position(jobs[1]) == 1
        assert queue.wait_s(jobs[1]) == 0.0, "in the other place"
        queue.open()
        await until(lambda: queue.running == 2)
        jobs += await submitted(queue, new_job, 2)
        with pytest.raises(errors.QueueFull):
            queue.check_room()
        await until(lambda: all(job.record.segments for job in jobs[:2]))
        assert queue.running == 2
        assert await over(jobs) == [JobState.DONE] * 4
        assert len({job.record.transcript and job.record.transcript.text for job in jobs}) == 1


async def test_what_runs_can_be_cancelled_and_put_back_in_every_place(
    new_job: NewJob, slow: None
) -> None:
    slot = OverheardJoint()
    async with queue_on(slot, places=2) as queue:
        jobs = await submitted(queue, new_job, 3)
        queue.open()
        await until(lambda: all(job.record.segments for job in jobs[:2]))
        queue.cancel(jobs[1])
        await until(lambda: slot.asked == 3)
        running = queue.running
        queue.interrupt()
        await until(lambda: slot.asked == 3 + running)
        cancelled, done = JobState.CANCELLED, JobState.DONE
        assert await over(jobs) == [done, cancelled, done]
    assert [job.record.attempts for job in jobs] == [1, 1, 1]


async def test_at_the_end_all_that_run_have_their_grace_and_who_waits_none(
    new_job: NewJob, slow: None
) -> None:
    async with queue_on(OverheardJoint(), places=2) as queue:
        jobs = await submitted(queue, new_job, 3)
        queue.open()
        await until(lambda: queue.running == 2)
        await queue.drain(PATIENCE_S)
        assert await over(jobs) == [JobState.DONE] * 2 + [JobState.FAILED]


@pytest.mark.slow
async def test_a_fault_in_one_place_s_runner_costs_that_place_and_the_others_go_on(
    new_job: NewJob, slow: None, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    def company(waiting: Iterator[Job], precision: Precision) -> Sequence[Job]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise asyncio.CancelledError
        return [next(waiting)]

    async with queue_on(OverheardJoint(), places=2, company=company) as queue:
        broken = asyncio.ensure_future(queue.broken())
        jobs = await submitted(queue, new_job, 3)
        queue.open()
        assert await over(jobs) == [JobState.DONE] * 3
        assert not broken.done()
        broken.cancel()
    (record,) = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert "the dispatcher of an engine slot ended" in record.message


async def test_short_ones_are_shared_out_among_the_places_that_are_free(new_job: NewJob) -> None:
    companies = Companies()
    async with queue_on(OverheardJoint(), places=2, company=companies) as queue:
        jobs = await submitted(queue, new_job, 4)
        queue.open()
        assert await over(jobs) == [JobState.DONE] * 4
    assert companies.sizes == [2, 2]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills with a POSIX signal")
async def test_in_one_process_for_all_a_recording_that_kills_it_costs_no_other_its_second_attempt(
    new_job: NewJob, recording: Path, slow: None
) -> None:
    slot, poison = OverheardJoint(), recording.with_name("poison.wav")
    shutil.copy(recording, poison)
    slot.poison = poison.stat().st_ino
    async with queue_on(slot, places=3) as queue:
        jobs = await submitted(queue, new_job, 2)
        queue.open()
        await until(lambda: all(job.record.segments for job in jobs))
        bad = new_job(poison)
        await queue.submit(bad)
        jobs += await submitted(queue, new_job, 1)
        assert await over(jobs) == [JobState.DONE] * 3
        assert await over([bad]) == [JobState.FAILED]
    assert slot.deaths == 2
    assert isinstance(bad.error, errors.EngineCrashed)
    assert max(job.record.attempts for job in jobs) == 2
