"""Jobs whose clients timed out, between services that share them: taken over once, or ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from histories import submitted
from postgres import KEY
from serving import PATIENCE_S, until

from sidecar import errors
from sidecar.audio.source import AudioSource, Spool
from sidecar.database.database import Database
from sidecar.jobs import unanswered
from sidecar.jobs.events import Begun, Reported
from sidecar.jobs.job import Job
from sidecar.jobs.postgres.store import PostgresStore
from sidecar.jobs.postgres.unanswered import UnansweredRows
from sidecar.jobs.record import JobRecord
from sidecar.jobs.retention import Retention
from sidecar.jobs.taking import SharedQueue
from sidecar.jobs.unanswered import Unanswered
from sidecar.speech.transcript import Finished, Transcript

DONE = Reported(Finished(Transcript((), "en", 3.0, "scripted", "fp32")))


def recording() -> AudioSource:
    spool = Spool(None)
    spool.add(b"a recording")
    return spool.finish()


class Front:
    """A service that takes in, as far as this needs one."""

    def __init__(self, journal: str, folder: Path) -> None:
        self.store = PostgresStore(journal, KEY, folder)
        self.queue = SharedQueue(self.store, 64, lambda record: 1.0)
        results = Retention(self.store, 600, 1 << 20, own=self.queue.awaits)
        self.database = Database(journal)
        rows = UnansweredRows(self.database, self.store.seal)
        self.unanswered = Unanswered(rows, self.store, self.queue, results, self.store.seek)

    async def took_in(self) -> Job:
        job = Job(recording(), submitted(durable=True, kept=False))
        self.queue.submit(job)
        await job.written()
        return job

    def done(self, job: Job) -> None:
        """Somebody works on it, to its end."""
        self.store.append(job.id, Begun())
        self.store.append(job.id, DONE)

    async def take(self, owner: str, digest: str = "sent") -> Job | None:
        source = recording()
        job = await self.unanswered.take(owner, digest, source)
        source.close()
        return job

    def has(self, record: JobRecord) -> bool:
        try:
            self.store.get(record.id)
        except errors.JobNotFound:
            return False
        return True


@pytest.fixture
async def fronts(journal: str, tmp_path: Path) -> AsyncIterator[tuple[Front, Front]]:
    both = Front(journal, tmp_path), Front(journal, tmp_path)
    for front in both:
        await front.database.open()
    yield both
    for front in both:
        await front.database.close()
        front.store.close()


async def test_what_is_left_is_whose_request_is_the_same_and_first_and_is_gone_at_its_end(
    fronts: tuple[Front, Front],
) -> None:
    one, another = fronts
    await another.store.open()
    job = await one.took_in()
    owner = job.record.owner
    assert await another.take(owner) is None
    await one.unanswered.leave(job, "sent", 60.0)
    assert not one.queue.awaits(job.record)
    assert await another.take("somebody else") is None
    assert await another.take(owner, "something else") is None
    tried = await asyncio.gather(*(front.take(owner) for front in (one, another, one, another)))
    (taken,) = [each for each in tried if each is not None]
    assert taken.id == job.id
    whose = [front for front in fronts if front.queue.awaits(job.record)]
    assert len(whose) == 1
    one.done(job)
    await asyncio.wait_for(taken.over(), PATIENCE_S)
    assert taken.record.transcript is not None
    await until(lambda: not one.has(job.record) and not another.has(job.record))


async def test_one_that_was_done_before_anybody_came_is_there_with_its_words(
    fronts: tuple[Front, Front],
) -> None:
    one, another = fronts
    await another.store.open()
    job = await one.took_in()
    await one.unanswered.leave(job, "sent", 60.0)
    one.done(job)
    await one.store.written(job.id)
    taken = await another.take(job.record.owner)
    assert taken is not None
    assert [known async for known in taken.watched(1.0)] == [taken.record]
    assert taken.record.transcript is not None
    await until(lambda: not one.has(job.record) and not another.has(job.record))
    assert await another.take(job.record.owner) is None


async def test_one_for_which_nobody_comes_in_time_ends_at_whichever_looks(
    fronts: tuple[Front, Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also at one that has not heard of it."""
    monkeypatch.setattr(unanswered, "LOOK_S", 0.02)
    one, another = fronts
    left, waits = await one.took_in(), await one.took_in()
    await one.unanswered.leave(left, "sent", 0.05)
    await one.unanswered.leave(waits, "sent too", 60.0)
    looking = asyncio.create_task(another.unanswered.end_in_time())
    await until(lambda: not one.has(left.record) and not another.has(left.record))
    looking.cancel()
    assert left.ended
    assert one.has(waits.record)
    assert await one.take(left.record.owner) is None
