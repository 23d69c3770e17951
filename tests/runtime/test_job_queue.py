"""The queue where precisions compete: real jobs on a real worker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sidecar.audio.decode import AudioFacts
from sidecar.audio.source import open_path
from sidecar.engine import LoadOptions, Precision, TranscribeOptions
from sidecar.engines import spec_of
from sidecar.job import Job
from sidecar.jobs import JobQueue
from sidecar.runtime.placement import LoadPlan
from sidecar.runtime.slot import EngineSlot

FACTS = AudioFacts("wav", "sndfile", 3.0)


class Loads:
    """Counts the loads of a slot."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, precision: Precision) -> LoadPlan:
        self.count += 1
        return LoadPlan()


@pytest.fixture
def recording(tmp_path: Path, voice: bytes) -> Path:
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    return path


def job(recording: Path, precision: Precision) -> Job:
    return Job(open_path(str(recording)), FACTS, TranscribeOptions(precision=precision))


async def test_clients_that_wait_for_each_answer_and_want_different_precisions_share_loads(
    recording: Path,
) -> None:
    loads = Loads()
    slot = EngineSlot(spec_of("scripted"), LoadOptions(), keep_alive_s=-1, place=loads)
    queue = JobQueue(
        slot, limit=8, retention_s=60, max_s=60, plan=lambda job, precision: job.options
    )
    queue.open()
    used: list[str] = []

    async def client(precision: Precision) -> None:
        for _ in range(10):
            one = job(recording, precision)
            queue.submit(one)
            used.append((await one.result()).precision)

    try:
        await asyncio.gather(client(Precision.FP32), client(Precision.INT8))
    finally:
        await queue.close()
        await slot.close()
    assert sorted(used) == ["fp32"] * 10 + ["int8"] * 10
    assert loads.count == 2


async def test_a_job_that_waits_for_another_precision_can_be_cancelled(recording: Path) -> None:
    loads = Loads()
    slot = EngineSlot(spec_of("scripted"), LoadOptions(), keep_alive_s=-1, place=loads)
    queue = JobQueue(
        slot, limit=8, retention_s=60, max_s=60, plan=lambda job, precision: job.options
    )
    queue.open()
    try:
        first, second = job(recording, Precision.FP32), job(recording, Precision.INT8)
        queue.submit(first)
        await first.result()
        queue.submit(second)
        await asyncio.sleep(0.05)
        queue.cancel(second)
        third = job(recording, Precision.FP32)
        queue.submit(third)
        await third.result()
    finally:
        await queue.close()
        await slot.close()
    assert second.ended
    assert loads.count == 1
