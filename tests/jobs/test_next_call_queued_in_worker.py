"""One job behind another: its call waits in the engine's process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path

import pytest
from instrumented_slot import OverheardSlot, job_of, queue_on
from service_process import PATIENCE_S, until

from sidecar.concurrency import ThreadLimiter
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.jobs.dispatcher import Dispatcher
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import (
    CancelledChange,
    JobEvent,
    JobRecord,
    JobState,
    ReportedChange,
    StartedChange,
)
from sidecar.jobs.job_runner import Job, JobRun
from sidecar.jobs.recovery import JobPersistence, requeue_unfinished

NewJob = Callable[..., Job]
ALWAYS_S = 1e9
"""Whoever runs is taken for about to end."""


@pytest.fixture
def shorter(recording: Path, tmp_path: Path) -> Path:
    path = tmp_path / "shorter.wav"
    path.write_bytes(recording.read_bytes()[:-20_000])
    return path


@asynccontextmanager
async def two_at_the_engine(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch, count: int = 3, speed: float = 2
) -> AsyncIterator[tuple[JobQueue, OverheardSlot, list[Job]]]:
    """The first has said something, the second waits behind it in the process, the rest here. An
    engine that comes for this one is quick."""
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", str(speed))
    slot = OverheardSlot()
    async with queue_on(slot, lead_s=ALWAYS_S) as queue:
        jobs = [new_job() for _ in range(count)]
        for job in jobs:
            await queue.submit(job)
        queue.open()
        await until(lambda: jobs[0].record.segments and jobs[1].state is JobState.RUNNING)
        assert jobs[1].record.behind == jobs[0].id
        assert [job.state for job in jobs[2:]] == [JobState.QUEUED] * (count - 2), "one, not more"
        monkeypatch.delenv("VIBEVOICE_SCRIPTED_SPEED")
        yield queue, slot, jobs


async def over(jobs: Sequence[Job]) -> list[JobState]:
    for job in jobs:
        await asyncio.wait_for(job.over(), PATIENCE_S)
    return [job.state for job in jobs]


async def test_who_is_behind_begins_when_the_first_has_ended_and_all_have_their_own_words(
    recording: Path, shorter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = iter([recording, shorter] * 2)
    async with two_at_the_engine(lambda: job_of(next(paths)), monkeypatch, 4, 5) as (
        queue,
        slot,
        jobs,
    ):
        pid, told = slot.worker_pid, list[str]()

        def tell(record: JobRecord, event: JobEvent) -> None:
            if record.over or isinstance(event.change, ReportedChange):
                told.append(record.id)

        queue._store.listen(tell)
        assert await over(jobs) == [JobState.DONE] * 4
        assert [one for one, _ in groupby(told)] == [job.id for job in jobs], "one at a time"
        assert slot.worker_pid == pid
    texts = [job.record.transcript.text for job in jobs if job.record.transcript]
    assert texts[:2] == texts[2:]
    assert texts[0] != texts[1]
    assert [job.record.attempts for job in jobs] == [1] * 4
    first, last = jobs[0].record.begun, jobs[-1].record.ended
    assert first is not None
    assert last is not None
    taken_s = sum(job.record.processing_s for job in jobs)
    assert taken_s < 1.25 * (last - first), "the wait behind another is no work"


@pytest.mark.skipif(os.name == "nt", reason="kills with a POSIX signal")
async def test_a_process_that_dies_is_the_fault_of_the_one_that_it_worked_on(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_at_the_engine(new_job, monkeypatch) as (_, slot, jobs):
        slot.kill()
        await until(lambda: jobs[0].record.crashes)
        assert await over(jobs) == [JobState.DONE] * 3
    assert [job.record.crashes for job in jobs] == [1, 0, 0]
    assert [job.record.attempts for job in jobs] == [2, 1, 1]
    assert not jobs[1].record.alone


@pytest.mark.skipif(os.name == "nt", reason="kills with a POSIX signal")
async def test_behind_one_that_has_ended_it_is_its_own(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_at_the_engine(new_job, monkeypatch, 2) as (_, slot, jobs):
        await until(lambda: jobs[1].record.segments)
        slot.kill()
        assert await over(jobs) == [JobState.DONE] * 2
    assert [job.record.crashes for job in jobs] == [0, 1]


@pytest.mark.slow_except("behind")
@pytest.mark.parametrize("which", [0, 1], ids=["at work", "behind"])
async def test_one_that_is_cancelled_leaves_and_the_process_and_the_others_go_on(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    async with two_at_the_engine(new_job, monkeypatch, speed=3) as (queue, slot, jobs):
        pid = slot.worker_pid
        queue.cancel(jobs[which])
        expected = [JobState.DONE] * 3
        expected[which] = JobState.CANCELLED
        assert await over(jobs) == expected
        assert slot.worker_pid == pid
        await until(lambda: not queue.running)
        assert not slot.awaited


async def test_one_that_is_cancelled_before_its_task_has_begun_gives_the_engine_back(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot, start = OverheardSlot(), Dispatcher._start
    async with queue_on(slot, lead_s=ALWAYS_S) as queue:

        def started(self: Dispatcher, jobs: Sequence[Job], behind: JobRun | None = None) -> None:
            start(self, jobs, behind)
            if behind is not None:  # as by a client whose turn in the loop is next
                queue.cancel(jobs[0])

        monkeypatch.setattr(Dispatcher, "_start", started)
        jobs = [new_job(), new_job()]
        for job in jobs:
            await queue.submit(job)
        queue.open()
        assert await over(jobs) == [JobState.DONE, JobState.CANCELLED]
        await until(lambda: not slot.in_use)
        await queue.submit(last := new_job())
        assert await over([last]) == [JobState.DONE]


async def test_both_are_put_back_where_they_were_and_have_what_comes_then(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_at_the_engine(new_job, monkeypatch) as (queue, slot, jobs):
        ended: list[str] = []
        queue._store.listen(lambda record, event: ended.append(record.id) if record.over else None)
        reloaded = asyncio.ensure_future(slot.reload(Precision.INT8))
        await until(lambda: slot.awaited)
        queue.interrupt()
        await reloaded
        assert await over(jobs) == [JobState.DONE] * 3
    assert ended == [job.id for job in jobs]
    assert [job.record.attempts for job in jobs] == [1] * 3
    assert {job.record.transcript and job.record.transcript.precision for job in jobs} == {"int8"}


async def test_nobody_is_behind_one_after_whom_the_engine_has_to_change(new_job: NewJob) -> None:
    async with queue_on(OverheardSlot(), lead_s=ALWAYS_S) as queue:
        first = new_job()
        other = new_job(options=TranscribeOptions(precision=Precision.INT8))
        await queue.submit(first)
        await queue.submit(other)
        queue.open()
        assert await over([first, other]) == [JobState.DONE] * 2
    assert (first.record.behind, other.record.behind) == ("", "")


@pytest.mark.slow
async def test_nobody_is_behind_while_somebody_waits_for_the_engine(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "3")
    slot = OverheardSlot()
    async with queue_on(slot, lead_s=ALWAYS_S) as queue:
        first, second = new_job(), new_job()
        await queue.submit(first)
        queue.open()
        await until(lambda: first.record.segments)
        reload = asyncio.ensure_future(slot.reload(Precision.INT8))
        await until(lambda: slot.awaited)
        await queue.submit(second)
        assert await over([first, second]) == [JobState.DONE] * 2
        await reload
    assert second.record.behind == ""
    assert second.record.transcript is not None
    assert second.record.transcript.precision == "int8"


async def test_at_the_end_of_the_service_who_is_behind_ends_too_and_nothing_is_left(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_at_the_engine(new_job, monkeypatch) as (queue, _, jobs):
        await queue.drain(0.0)
        assert await over(jobs) == [JobState.FAILED] * 3
        await until(lambda: not queue.running)


@pytest.mark.parametrize("first_ended", [False, True])
async def test_a_service_that_dies_is_held_against_the_one_that_was_at_work(
    new_job: NewJob, tmp_path: Path, first_ended: bool
) -> None:
    settings = Settings(data_dir=tmp_path, journal_key="0" * 32)
    keeping, threads = JobPersistence(settings), ThreadLimiter("test", 1)
    first, second = new_job(durable=True), new_job(durable=True)
    for job in (first, second):
        job.enter(keeping.store)
    keeping.store.append(first.id, StartedChange())
    keeping.store.append(second.id, StartedChange(behind=first.id))
    if first_ended:
        keeping.store.append(first.id, CancelledChange())
    keeping.store.close()

    again = JobPersistence(settings)
    async with queue_on(OverheardSlot(), store=again.store) as queue:
        await requeue_unfinished(again, queue, threads)
        records = [again.store.get(job.id) for job in (first, second)]
    again.store.close()
    assert records[1].state is JobState.QUEUED
    assert [one.interruptions for one in records] == ([0, 1] if first_ended else [1, 0])
