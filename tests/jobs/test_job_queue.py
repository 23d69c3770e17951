"""The queue where precisions compete: real jobs on a real worker."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from instrumented_slot import OverheardSlot, job_of, queue_on, started, submitted
from job_fixtures import Hold
from retention_of_jobs import retention_of
from service_process import PATIENCE_S, until

from sidecar import errors
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_record import JobState, ReportedChange
from sidecar.jobs.job_runner import Job
from sidecar.jobs.wait_queue import WaitQueue
from sidecar.transcripts.transcript import KEPT_DIARIZATION, Finished, ResumePoint, Transcript

NewJob = Callable[..., Job]


def job(recording: Path, precision: Precision) -> Job:
    return job_of(recording, TranscribeOptions(precision=precision))


async def test_ten_jobs_of_each_of_two_precisions_from_two_clients_cause_only_two_loads(
    recording: Path,
) -> None:
    slot, used = OverheardSlot(), list[str]()
    async with queue_on(slot, limit=8) as queue:
        queue.open()

        async def client(precision: Precision) -> None:
            for _ in range(10):
                one = job(recording, precision)
                await queue.submit(one)
                used.append((await one.result()).precision)

        await asyncio.gather(client(Precision.FP32), client(Precision.INT8))
    assert sorted(used) == ["fp32"] * 10 + ["int8"] * 10
    assert slot.loader.loads == 2


async def test_job_cancelled_while_it_waits_for_another_precision_causes_no_load(
    recording: Path,
) -> None:
    slot = OverheardSlot()
    first, second, third = (
        job(recording, one) for one in (Precision.FP32, Precision.INT8, Precision.FP32)
    )
    async with queue_on(slot, next_job_wait_s=PATIENCE_S) as queue:
        queue.open()
        await queue.submit(first)
        await first.result()
        await queue.submit(second)
        for _ in range(10):  # turns of the loop, in which it begins to wait for another job
            await asyncio.sleep(0)
        queue.cancel(second)
        await queue.submit(third)
        await third.result()
    assert second.ended
    assert slot.loader.loads == 1


def said(job: Job) -> str:
    assert job.record.transcript is not None
    return job.record.transcript.text


async def test_bug_in_choice_of_next_job_fails_one_job_and_a_fault_of_the_machine_none(
    new_job: NewJob, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [MemoryError(), OSError("a bad moment"), MemoryError(), ValueError("a bug")]
    due, failing = WaitQueue.due, list[Exception]()

    def chosen(self: WaitQueue, at: int) -> Job | None:
        if len(self) and faults:
            failing.append(faults.pop(0))
            raise failing[-1]
        return due(self, at)

    monkeypatch.setattr(WaitQueue, "due", chosen)
    async with queue_on(OverheardSlot(), fault_retry_s=0.001) as queue:
        jobs = [new_job() for _ in range(3)]
        await started(queue, *jobs)
        await asyncio.gather(*(one.over() for one in jobs))
        assert (queue.depth, queue.faults) == (0, {})
    assert [one.state for one in jobs] == [JobState.FAILED, JobState.DONE, JobState.DONE]
    assert isinstance(jobs[0].error, errors.EngineFailed)
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.exc_info and record.exc_info[1] for record in logged] == failing[-1:]
    assert jobs[0].id in logged[0].message


async def test_queue_whose_dispatcher_ended_is_broken_fails_waiting_jobs_and_accepts_none(
    new_job: NewJob, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(self: WaitQueue, at: int) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(WaitQueue, "due", cancelled)
    async with queue_on(OverheardSlot()) as queue:
        jobs = await submitted(queue, *(new_job() for _ in range(3)))
        broken = asyncio.ensure_future(queue.broken())
        await asyncio.sleep(0)
        assert not broken.done()
        queue.open()
        await broken
        assert [one.state for one in jobs] == [JobState.FAILED] * 3
        with pytest.raises(errors.ShuttingDown):
            await queue.submit(new_job())
    (record,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "a dispatcher ended" in record.message


async def test_closing_queue_is_not_reported_as_broken(new_job: NewJob) -> None:
    async with queue_on(OverheardSlot()) as queue:
        queue.open()
        broken = asyncio.ensure_future(queue.broken())
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not broken.done()
    broken.cancel()


async def test_closing_queue_fails_running_and_waiting_jobs(new_job: NewJob, hold: Hold) -> None:
    async with queue_on(OverheardSlot()) as queue:
        jobs = await started(queue, *(new_job(kept=kept) for kept in (False, True, False)))
        await until(lambda: jobs[0].record.segments)
    for one in jobs:
        with pytest.raises(errors.ShuttingDown):
            await one.result()


async def test_job_that_is_not_kept_is_forgotten_once_its_waiting_client_has_the_result(
    new_job: NewJob,
) -> None:
    store = JobEventLog()
    retention_of(store)
    async with queue_on(OverheardSlot(), event_log=store) as queue:
        awaited, kept = await submitted(queue, new_job(kept=False), new_job())
        assert [one.id for one in store.all() if one.kept] == [kept.id]
        queue.open()
        assert (await awaited.result()).text == (await kept.result()).text
        assert store.all() == [kept.record]


async def test_done_job_stays_done_when_cancelled_or_interrupted_before_its_engine_is_free(
    new_job: NewJob,
) -> None:
    """The engine is not given back yet: it may be on its way out of memory, which takes seconds."""
    slot = OverheardSlot(keep_alive_s=0)
    slot.release.clear()
    async with queue_on(slot) as queue:
        one, following = await started(queue, new_job(), new_job())
        text = (await one.result()).text
        assert queue.position(following.id)[0] == 0, "the engine is not free"
        queue.cancel(one)
        queue.interrupt()
        for _ in range(100):
            await asyncio.sleep(0)
        assert (one.state, one.record.attempts, said(one)) == (JobState.DONE, 1, text)
        assert queue.position(following.id)[0] == 0, "and its way out was not disturbed"
        slot.release.set()
        assert (await following.result()).text == text


async def test_drain_does_not_wait_for_engine_of_finished_job(new_job: NewJob) -> None:
    slot = OverheardSlot()
    slot.release.clear()
    async with queue_on(slot) as queue:
        (one,) = await started(queue, new_job(kept=False))
        await one.result()
        async with asyncio.timeout(PATIENCE_S):  # sooner than its grace
            await queue.drain(2 * PATIENCE_S)
        slot.release.set()


async def test_drain_fails_waiting_jobs_at_once_and_running_ones_after_grace(
    new_job: NewJob, hold: Hold
) -> None:
    async with queue_on(OverheardSlot()) as queue:
        running, waiting = await started(queue, new_job(), new_job())
        await until(lambda: running.record.segments)
        draining = asyncio.ensure_future(queue.drain(0.3))
        await asyncio.sleep(0)
        assert isinstance(waiting.error, errors.ShuttingDown)
        assert not running.ended
        with pytest.raises(errors.ShuttingDown):
            await queue.submit(new_job())
        await draining
        assert isinstance(running.error, errors.ShuttingDown)


@pytest.mark.parametrize("resumable", [True, False])
async def test_drain_puts_a_kept_job_with_resume_points_back_at_once_and_others_after_grace(
    new_job: NewJob, hold: Hold, resumable: bool
) -> None:
    async with queue_on(OverheardSlot()) as queue:
        (job,) = await started(queue, new_job(durable=True))
        await until(lambda: job.record.segments)
        if resumable:
            queue.event_log.append(job.id, ReportedChange(ResumePoint(1.0, "form", (), {})))
        draining = asyncio.ensure_future(queue.drain(2 * PATIENCE_S))
        if resumable:
            async with asyncio.timeout(PATIENCE_S):  # sooner than its grace
                await draining
            await until(lambda: job.state is JobState.QUEUED)
            assert (job.record.attempts, job.record.interruptions) == (0, 0)
        else:
            await asyncio.sleep(0)
            assert job.state is JobState.RUNNING
            draining.cancel()


@pytest.mark.parametrize("resumes", ["", "scripted-1"])
async def test_durable_job_whose_worker_died_has_notice_started_again_unless_engine_resumes(
    new_job: NewJob, resumes: str, hold: Hold
) -> None:
    slot = OverheardSlot()
    slot.set_spec(resumes=resumes)
    async with queue_on(slot) as queue:
        (one,) = await started(queue, new_job(durable=True))
        await until(lambda: one.record.segments)
        hold.spare_new_workers()
        slot.kill()
        notices = [notice.code for notice in (await one.result()).notices]
    assert one.record.crashes == 1
    assert notices == ([] if resumes else ["started_again"])


class KeepingEngine:
    """An engine whose attempts keep a diarization; the last one of them succeeds, if any."""

    precision = Precision.FP32

    def __init__(self, faults: list[errors.SidecarError]) -> None:
        self.faults, self.attempts = faults, 0

    async def transcribe(self, *_: Any) -> AsyncGenerator[Any, None]:
        self.attempts += 1
        yield ResumePoint(1.0, KEPT_DIARIZATION, state={"data": "k" * self.attempts})
        if self.faults:
            raise self.faults.pop()
        yield Finished(Transcript((), "en", 1.0, "scripted", "fp32", diarized=True))


@pytest.mark.parametrize(
    ("fault", "state", "kept"),
    [
        (errors.MachineBusy(), JobState.DONE, ["kk"]),
        (errors.AudioUndecodable(), JobState.FAILED, []),
    ],
)
async def test_only_the_diarization_of_the_attempt_that_gave_the_transcript_is_kept(
    fault: errors.SidecarError, state: JobState, kept: list[str], recording: Path
) -> None:
    engine = KeepingEngine([fault])

    class Slot(OverheardSlot):
        @asynccontextmanager
        async def lease(self, *_: Any) -> AsyncIterator[Any]:
            yield engine

    async with queue_on(Slot(), fault_retry_s=0.01) as queue:
        (one,) = await started(queue, job_of(recording))
        await until(lambda: one.ended)
        assert one.record.state is state
        events = queue.event_log.events(one.id)
    assert [event.kept_diarization for event in events if event.kept_diarization] == kept
