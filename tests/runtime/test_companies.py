"""Jobs that run in step: a result for each, and trouble for whoever made it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import soundfile

from sidecar import errors
from sidecar.audio.decode import AudioFacts
from sidecar.audio.source import open_path
from sidecar.engine import LoadOptions, Precision, TranscribeOptions
from sidecar.engines import spec_of
from sidecar.job import Job, JobState
from sidecar.jobs import JobQueue
from sidecar.runtime.slot import EngineSlot

FACTS = AudioFacts("wav", "sndfile", 3.0)


class Companies:
    """Four at a time; notes who ran with whom."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, waiting: Sequence[Job], precision: Precision) -> Sequence[Job]:
        self.sizes.append(min(4, len(waiting)))
        return waiting[:4]


@asynccontextmanager
async def queue_of(
    monkeypatch: pytest.MonkeyPatch, speed: float = 0.0
) -> AsyncIterator[tuple[JobQueue, EngineSlot, Companies]]:
    """A queue that is closed until the test opens it."""
    if speed:
        monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", str(speed))
    companies = Companies()
    slot = EngineSlot(spec_of("scripted"), LoadOptions(), keep_alive_s=-1)
    queue = JobQueue(
        slot,
        limit=64,
        retention_s=60,
        max_s=60,
        plan=lambda job, precision: job.options,
        company=companies,
    )
    try:
        yield queue, slot, companies
    finally:
        await queue.close()
        await slot.close()


@pytest.fixture
def recording(tmp_path: Path, voice: bytes) -> Path:
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    return path


def submitted(queue: JobQueue, paths: Sequence[Path]) -> list[Job]:
    jobs = [Job(open_path(str(path)), FACTS, TranscribeOptions()) for path in paths]
    for job in jobs:
        queue.submit(job)
    return jobs


async def running(jobs: Sequence[Job]) -> None:
    """Wait until each of them has said something."""
    for job in jobs:
        async for _ in job.changes():
            if job.segments or job.ended:
                break


async def test_each_job_of_a_company_has_the_result_it_has_alone(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.wav"
    samples, rate = soundfile.read(recording)
    soundfile.write(other, samples[::-1], rate)
    async with queue_of(monkeypatch) as (queue, _, companies):
        jobs = submitted(queue, [recording, other] * 5)
        queue.open()
        texts = [(await job.result()).text for job in jobs]
    assert texts == texts[:2] * 5
    assert texts[0] != texts[1]
    assert companies.sizes == [4, 4, 2]
    assert all(job.state is JobState.DONE and job.attempts == 1 for job in jobs)


async def test_who_is_cancelled_leaves_and_the_others_go_on(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with queue_of(monkeypatch, speed=20) as (queue, slot, _):
        jobs = submitted(queue, [recording] * 3)
        queue.open()
        await running(jobs)
        pid = slot.worker_pid
        queue.cancel(jobs[1])
        assert jobs[1].state is JobState.CANCELLED
        assert [(await jobs[at].result()).text != "" for at in (0, 2)] == [True, True]
        assert slot.worker_pid == pid
        with pytest.raises(errors.JobCancelled):
            await jobs[1].result()


async def test_a_company_that_is_cancelled_to_the_last_makes_way(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with queue_of(monkeypatch, speed=5) as (queue, _, _):
        jobs = submitted(queue, [recording] * 6)
        queue.open()
        await running(jobs[:4])
        for job in jobs[:4]:
            queue.cancel(job)
        assert [(await job.result()).text != "" for job in jobs[4:]] == [True, True]
        assert [job.segments for job in jobs[:4] if job.state is not JobState.CANCELLED] == []


async def test_a_recording_that_breaks_off_fails_on_its_own(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"nothing that could be heard" * 100)
    async with queue_of(monkeypatch) as (queue, _, companies):
        jobs = submitted(queue, [recording, broken, recording])
        queue.open()
        await asyncio.gather(*(job.result() for job in jobs), return_exceptions=True)
    assert companies.sizes == [3]
    assert [job.state for job in jobs] == [JobState.DONE, JobState.FAILED, JobState.DONE]
    assert isinstance(jobs[1].error, errors.BadAudio)


@pytest.mark.skipif(os.name == "nt", reason="kills with a POSIX signal")
async def test_after_a_crash_each_is_tried_alone(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with queue_of(monkeypatch, speed=20) as (queue, slot, companies):
        jobs = submitted(queue, [recording] * 3)
        queue.open()
        await running(jobs)
        assert slot.worker_pid is not None
        os.kill(slot.worker_pid, signal.SIGKILL)
        texts = {(await job.result()).text for job in jobs}
    assert len(texts) == 1
    assert all(job.alone for job in jobs)
    assert companies.sizes == [3]


async def test_what_is_interrupted_waits_again_in_its_order(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with queue_of(monkeypatch, speed=10) as (queue, slot, companies):
        jobs = submitted(queue, [recording] * 5)
        queue.open()
        await running(jobs[:4])
        reloading = asyncio.ensure_future(slot.reload(Precision.INT8))
        await asyncio.sleep(0)
        queue.interrupt()
        await reloading
        assert {(await job.result()).precision for job in jobs} == {"int8"}
    assert companies.sizes == [4, 4, 1]


async def test_who_is_cancelled_while_the_engine_loads_does_not_part_the_others(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with queue_of(monkeypatch) as (queue, _, companies):
        jobs = submitted(queue, [recording] * 3)
        queue.open()
        async for _ in jobs[0].changes():
            if jobs[0].state is JobState.RUNNING:
                break
        queue.cancel(jobs[0])
        assert [(await jobs[at].result()).text != "" for at in (1, 2)] == [True, True]
    assert companies.sizes == [3]
    assert not any(job.alone for job in jobs[1:])
