"""A service that takes jobs in for others: what it says of who waits is what the store has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from overheard import job_of
from shared_memory import Shared, SharedMemory

from sidecar import errors
from sidecar.engines.choice import choose
from sidecar.jobs.events import Begun
from sidecar.jobs.job import Job
from sidecar.jobs.provision import Provision
from sidecar.jobs.record import JobState
from sidecar.jobs.sharing import refusal
from sidecar.jobs.taking import SharedQueue
from sidecar.settings import Settings
from sidecar.speech.engine import TranscribeOptions
from sidecar.workers.lodging import Devices, Lodging
from sidecar.workers.slot import EngineSlot

NewJob = Callable[..., Job]


@pytest.fixture
async def stores() -> tuple[SharedMemory, SharedMemory]:
    shared = Shared()
    return SharedMemory(shared), SharedMemory(shared)


def front(store: SharedMemory, limit: int = 3) -> SharedQueue:
    return SharedQueue(store, limit, lambda record: record.facts.total_s or 0.0)


async def test_places_owners_and_turns_are_one_over_all_services(
    stores: tuple[SharedMemory, SharedMemory], new_job: NewJob, recording: Path
) -> None:
    here, there = map(front, stores)
    jobs = [new_job(recording, None, owner=owner, durable=True) for owner in ("a", "a", "b")]
    for queue, job in zip((here, there, there), jobs, strict=True):
        await queue.submit(job)
    assert here.depth == there.depth == 3
    assert len(here.of("a")) == len(there.of("a")) == 2
    records = [job.record for job in jobs]
    assert [here.position(record) for record in records] == [0, 2, 1], "fair between owners"
    assert there.wait_s(records[1]) == pytest.approx(6.0)
    with pytest.raises(errors.QueueFull):
        there.check_room()
    late = new_job(recording, None, owner="c", durable=True)
    stores[1].add(late.record)
    assert here.position(late.record) == 2, "it came a moment after the turns were worked out"
    stores[1].forget(late.id)
    claimed = await stores[1].claim(lambda record: record.owner == "a")
    assert claimed is not None
    stores[1].append(claimed.id, Begun())
    assert (here.depth, here.running) == (2, 1)
    here.cancel(jobs[2])
    await asyncio.sleep(0)
    assert jobs[2].state is JobState.CANCELLED
    assert here.live(jobs[2].id) is None


async def test_a_client_that_waits_at_a_service_that_ends_is_told_so_and_its_job_ends(
    stores: tuple[SharedMemory, SharedMemory], new_job: NewJob
) -> None:
    queue = front(stores[0])
    waits, later = new_job(durable=True, kept=False), new_job(durable=True)
    await queue.submit(waits)
    await queue.submit(later)
    await queue.drain(0.0)
    with pytest.raises(errors.ShuttingDown):
        await waits.result()
    assert stores[1].get(waits.id).state is JobState.CANCELLED
    assert stores[1].get(later.id).state is JobState.QUEUED
    with pytest.raises(errors.ShuttingDown):
        queue.check_room()


def test_a_job_fits_where_its_language_and_its_length_do(recording: Path) -> None:
    settings = Settings(engine="moonshine")
    lodging = Lodging("files", settings, choose(settings), Devices(), EngineSlot)
    provision = Provision(settings, lodging)
    job = job_of(recording).record
    german = replace(job, options=TranscribeOptions(language="de"))
    talk = replace(job, facts=replace(job.facts, decoder="live"))
    found = [refusal(one, provision, 60.0) for one in (job, german, talk)]
    found.append(refusal(job, provision, 1.0))
    codes = [error and error.code for error in found]
    assert codes == [None, "language_unsupported", "audio_lost", "audio_too_long"]
