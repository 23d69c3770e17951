"""Services that share their jobs: who is free claims the next, and who is gone loses it.

Queues, engines' processes and recordings are real; the store they share is in memory.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from overheard import Companies, OverheardSlot, as_asked, job_of
from serving import PATIENCE_S, until
from shared_memory import Shared, SharedMemory

from sidecar import errors
from sidecar.audio.source import AudioSource
from sidecar.jobs import claimed, pulling
from sidecar.jobs.events import Begun, Cancelled, Interrupted, PutBack, Reported
from sidecar.jobs.job import Job
from sidecar.jobs.lane import Terms
from sidecar.jobs.pulling import Pulling
from sidecar.jobs.queue import JobQueue
from sidecar.jobs.record import JobRecord, JobState
from sidecar.speech.engine import Precision, TranscribeOptions
from sidecar.speech.transcript import SegmentReady
from sidecar.threads import Threads


class Node:
    """A service that works: a queue, an engine, and who claims for it."""

    def __init__(self, shared: Shared) -> None:
        self.store = SharedMemory(shared)
        self.slot = OverheardSlot()
        self.companies = Companies()
        self.beside = 1
        self.queue = JobQueue(
            self.slot,
            self.store,
            Terms(as_asked, 60, self.companies),
            limit=64,
        )
        self.takes: Callable[[JobRecord], bool] = lambda record: True
        self.storage = True
        self.fault: Exception | None = None
        self.pulling = Pulling(
            self.store,
            self.store,
            self.queue,
            self._opened,
            lambda record: self.takes(record),
            Threads("opening", 2),
            lambda record: self.beside,
        )

    def _opened(self, record: JobRecord) -> AudioSource:
        if self.fault is not None:
            raise self.fault
        if not self.storage:
            raise errors.AudioLost()
        return record.audio.open()

    def freeze(self) -> None:
        """It says nothing any more, as one that was stopped, and goes on all the same."""
        assert self.pulling._beating is not None
        self.pulling._beating.cancel()
        self.takes = lambda record: False

    async def close(self) -> None:
        await self.pulling.close()
        await self.queue.close()
        await self.slot.close()


@asynccontextmanager
async def nodes(count: int, shared: Shared) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            node = Node(shared)
            stack.push_async_callback(node.close)
            node.queue.open()
            node.pulling.open()
            made.append(node)
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that come often; an engine at half a second a recording, which settles each second."""
    monkeypatch.setattr(pulling, "BEAT_S", 0.05)
    monkeypatch.setattr(pulling, "LOOK_S", 0.1)
    monkeypatch.setattr(pulling, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(pulling, "REST_S", 0.05)
    monkeypatch.setattr(claimed, "AGAIN_S", 0.02)
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "6")
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SETTLES", "1")


@pytest.fixture
async def shared() -> Shared:
    return Shared(lease_s=PATIENCE_S)


@pytest.fixture
async def front(shared: Shared) -> SharedMemory:
    """A service that takes in and does not work."""
    return SharedMemory(shared)


def sent(front: SharedMemory, path: Path, **more: object) -> str:
    job = job_of(path, TranscribeOptions(), durable=True, **more)
    front.add(job.record)
    return job.id


def changes(front: SharedMemory, job_id: str, kind: type) -> int:
    return sum(isinstance(event.change, kind) for event in front.events(job_id))


def told(front: SharedMemory, job_id: str) -> list[int]:
    """The numbers of its segments, as they were reported."""
    return [
        event.change.event.index
        for event in front.events(job_id)
        if isinstance(event.change, Reported) and isinstance(event.change.event, SegmentReady)
    ]


async def ended(front: SharedMemory, *job_ids: str) -> list[JobRecord]:
    await until(lambda: all(front.get(one).over for one in job_ids))
    return [front.get(one) for one in job_ids]


async def test_who_is_free_claims_the_next_and_each_job_is_done_once(
    shared: Shared, front: SharedMemory, recording: Path
) -> None:
    async with nodes(2, shared) as both:
        await asyncio.gather(*(node.slot.preload() for node in both))  # neither waits for that
        ids = [sent(front, recording) for _ in range(6)]
        records = await ended(front, *ids)
        while min(len(node.store.claimed) for node in both) < 2:  # one of them is a slow one
            assert len(ids) < 60, "one waited while the other worked"
            ids.append(sent(front, recording))
            records = await ended(front, *ids)
        assert {record.state for record in records} == {JobState.DONE}
        assert [changes(front, one, Begun) for one in ids] == [1] * len(ids)
        assert sum(len(node.store.claimed) for node in both) == len(ids)
        assert not shared.holds
        assert not shared.refused


async def test_a_job_of_one_that_died_goes_on_from_what_is_settled_and_its_late_words_are_refused(
    shared: Shared, front: SharedMemory, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "1.5")
    async with nodes(1, shared) as (first,):
        job_id = sent(front, recording)
        await until(lambda: changes(front, job_id, Reported) and front.get(job_id).settled)
        first.freeze()
        shared.holds[job_id] = first.store, 0.0  # its lease is over
        async with nodes(1, shared) as (second,):
            (record,) = await ended(front, job_id)
            assert record.state is JobState.DONE
            assert second.store.claimed
            assert changes(front, job_id, Interrupted) == 1
            assert record.interruptions == 0 or record.attempts == 2
            await until(lambda: shared.refused or first.queue.running == 0)
    texts = [segment.text for segment in record.segments]
    assert len(texts) == len({*texts}) == 3, "a segment is missing, or there twice"
    assert len(told(front, job_id)) <= 4, "more than one stretch was heard again"


async def test_one_that_hears_that_its_lease_is_over_stops_untold(
    shared: Shared, front: SharedMemory, recording: Path
) -> None:
    async with nodes(1, shared) as (node,):
        job_id = sent(front, recording)
        await until(lambda: front.get(job_id).state is JobState.RUNNING)
        node.takes = lambda record: False
        other = SharedMemory(shared)
        shared.holds[job_id] = other, asyncio.get_running_loop().time() + 60
        await until(lambda: node.queue.running == 0 and not node.pulling.held)
        assert front.get(job_id).state is JobState.RUNNING, "it told of the end"
        assert not changes(front, job_id, Cancelled)


async def test_what_another_service_cancels_stops_where_it_runs(
    shared: Shared, front: SharedMemory, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "0.1")
    async with nodes(1, shared):
        job_id, next_id = sent(front, recording), sent(front, recording)
        await until(lambda: front.get(job_id).state is JobState.RUNNING)
        front.append(job_id, Cancelled())
        await until(lambda: front.get(next_id).state is JobState.RUNNING)
        assert changes(front, job_id, Cancelled) == 1
        assert not front.get(job_id).segments


async def test_what_another_service_deletes_as_it_begins_stops_without_a_word(
    shared: Shared, front: SharedMemory, recording: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with nodes(1, shared) as (node,):
        await node.slot.preload()  # else the end would come while that is waited for
        resume = node.queue.resume

        def deleted(job: Job) -> None:
            resume(job)
            front.forget(job.id)
            del shared.holds[job.id]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(node.queue, "resume", deleted)
            sent(front, recording)
            await until(lambda: node.store.claimed and not node.pulling.held)
        (record,) = await ended(front, sent(front, recording))
        assert record.state is JobState.DONE
    assert "Traceback" not in caplog.text


async def test_while_the_store_does_not_answer_what_runs_goes_on_and_nothing_is_claimed(
    shared: Shared, front: SharedMemory, recording: Path
) -> None:
    async with nodes(1, shared) as (node,):
        job_id, next_id = sent(front, recording), sent(front, recording)
        await until(lambda: front.get(job_id).segments)
        node.store.down = True
        await asyncio.sleep(0.3)
        assert node.store.claimed == [job_id]
        node.store.down = False
        records = await ended(front, job_id, next_id)
        assert [record.attempts for record in records] == [1, 1]
        assert {record.state for record in records} == {JobState.DONE}


async def test_what_can_be_heard_in_step_is_claimed_together(
    shared: Shared, front: SharedMemory, recording: Path
) -> None:
    async with nodes(1, shared) as (node,):
        node.beside = 3
        node.takes = lambda record: len(front.all()) == 4
        records = await ended(front, *[sent(front, recording) for _ in range(4)])
        assert {record.state for record in records} == {JobState.DONE}
        assert node.companies.sizes == [3, 1]


@pytest.mark.parametrize("grace_s", [PATIENCE_S, 0.0])
async def test_one_that_ends_finishes_what_runs_or_gives_it_back_settled(
    shared: Shared,
    front: SharedMemory,
    recording: Path,
    grace_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "1.5")
    async with nodes(1, shared) as (node,):
        job_id, next_id = sent(front, recording), sent(front, recording)
        await until(lambda: front.get(job_id).settled)
        await node.pulling.drain(grace_s)
        record, waiting = front.get(job_id), front.get(next_id)
        assert not shared.holds
        assert waiting.state is JobState.QUEUED
        assert record.state is (JobState.DONE if grace_s else JobState.QUEUED)
        assert grace_s or (record.settled and record.interruptions == record.crashes == 0)
        monkeypatch.delenv("VIBEVOICE_SCRIPTED_SPEED")
        async with nodes(1, shared) as (other,):
            await ended(front, job_id, next_id)
            assert next_id in other.store.claimed


async def test_one_that_ends_while_the_store_is_away_waits_for_it_no_longer_than_its_leases_last(
    shared: Shared, front: SharedMemory, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "GIVING_S", 0.1)
    async with nodes(1, shared) as (node,):
        job_id = sent(front, recording)
        await until(lambda: front.get(job_id).settled)
        node.store.down = True
        try:
            async with asyncio.timeout(PATIENCE_S):
                await node.pulling.drain(0.0)
        finally:
            node.store.down = False
        assert not node.pulling.held
    assert job_id in shared.holds  # until that is over
    assert not front.get(job_id).over


async def test_a_recording_that_kills_engines_ends_after_two_deaths_and_the_rest_goes_on(
    shared: Shared, front: SharedMemory, recording: Path, tmp_path: Path, voice: bytes
) -> None:
    poison = tmp_path / "poison.wav"
    poison.write_bytes(voice)
    async with nodes(2, shared) as both:
        for node in both:
            node.slot.poison = os.stat(poison).st_ino
        bad, good = sent(front, poison), [sent(front, recording) for _ in range(3)]
        failed, *done = await ended(front, bad, *good)
        assert failed.error is not None
        assert failed.error.code == "engine_crashed"
        assert sum(node.slot.deaths for node in both) == 2
        assert {record.state for record in done} == {JobState.DONE}


async def test_what_one_cannot_open_another_tries_and_then_it_has_failed(
    shared: Shared, front: SharedMemory, recording: Path
) -> None:
    async with nodes(2, shared) as (blind, sighted):
        blind.storage = False
        sighted.takes = lambda record: bool(blind.store.claimed)
        job_id = sent(front, recording)
        (record,) = await ended(front, job_id)
        assert record.state is JobState.DONE
        assert changes(front, job_id, PutBack) == 1
        assert (len(blind.store.claimed), len(sighted.store.claimed)) == (1, 1)
        sighted.storage = False
        lost = sent(front, recording)
        (record,) = await ended(front, lost)
        assert record.error is not None
        assert record.error.code == "audio_lost"
        blind.fault = sighted.fault = OSError("the disk fell out")  # which nobody expects there
        (record,) = await ended(front, sent(front, recording))
        assert record.error is not None
        assert record.error.code == "internal"
        assert not blind.pulling.held
        assert not sighted.pulling.held


async def test_a_storage_that_does_not_answer_ends_no_job_and_costs_none_an_attempt(
    shared: Shared, front: SharedMemory, recording: Path
) -> None:
    async with nodes(2, shared) as both:
        for node in both:
            node.fault = errors.StorageUnreachable()
        sent_ids = [sent(front, recording) for _ in range(3)]
        await until(lambda: all(node.store.claimed for node in both))
        await until(lambda: sum(len(node.store.claimed) for node in both) >= 5)
        assert {front.get(one).state for one in sent_ids} == {JobState.QUEUED}
        for node in both:
            node.fault = None
        for record in await ended(front, *sent_ids):
            assert record.state is JobState.DONE
            assert changes(front, record.id, PutBack) == 0
            assert changes(front, record.id, Begun) == 1


async def test_what_does_not_load_on_one_is_done_by_another(
    shared: Shared,
    front: SharedMemory,
    recording: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAILS", "int8")
    async with nodes(1, shared) as (broken,):
        await broken.slot.preload()
        job = job_of(recording, TranscribeOptions(precision=Precision.INT8), durable=True)
        front.add(job.record)
        await until(lambda: changes(front, job.id, PutBack) == 1 and not shared.holds)
        assert front.get(job.id).state is JobState.QUEUED
        monkeypatch.delenv("VIBEVOICE_SCRIPTED_FAILS")
        async with nodes(1, shared):
            (record,) = await ended(front, job.id)
            assert record.state is JobState.DONE
