"""The store of jobs of one process, where its queue or its disk does not do its part."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from instrumented_slot import OverheardSlot, queue_on
from job_event_histories import added, submitted
from retention_of_jobs import retention_of
from service_process import PATIENCE_S, until

from sidecar import errors
from sidecar.jobs.job_record import IdempotencyKey, JobState, ReportedChange, StartedChange
from sidecar.jobs.job_runner import Job
from sidecar.jobs.local_jobs import LocalJobStore
from sidecar.jobs.reservations import Reservations
from sidecar.jobs.retention import JOB_BYTES
from sidecar.jobs.sqlite_event_log import SqliteJobEventLog
from sidecar.transcripts.transcript import Finished, Transcript

DONE = ReportedChange(Finished(Transcript((), "en", 3.0, "scripted", "fp32")))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteJobEventLog]:
    with closing(SqliteJobEventLog(tmp_path / "jobs", "a-key-of-a-test")) as log:
        yield log


def refuse(log: SqliteJobEventLog) -> None:
    """The disk takes nothing more."""
    log.journal.connection.execute("PRAGMA query_only = ON")


async def test_recovered_job_not_yet_in_the_queue_can_be_cancelled(log: SqliteJobEventLog) -> None:
    record = submitted(durable=True)
    log.add(record)
    async with queue_on(OverheardSlot(), event_log=log) as queue:
        store = LocalJobStore(log, queue, retention_of(log))
        assert (await store.cancel(record.id)).state is JobState.CANCELLED
    assert log.get(record.id).over


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "private"])
async def test_job_that_cannot_be_persisted_is_refused_and_frees_its_key(
    kept: bool, log: SqliteJobEventLog, new_job: Callable[..., Job]
) -> None:
    results, key = retention_of(log, space_bytes=2 * JOB_BYTES), IdempotencyKey("a key", "digest")
    job = new_job(durable=True, owner="ada", kept=kept, key=key)
    async with queue_on(OverheardSlot(), event_log=log) as queue:
        store = LocalJobStore(log, queue, results)
        refuse(log)
        with pytest.raises(errors.SpoolUnwritable):
            await queue.submit(job)
        assert (log.all(), queue.depth) == ([], 0)
        assert await store.by_key("ada", "a key") is None
    assert job.state is JobState.CANCELLED
    assert results.expiries([job.record]) == {}
    others = [added(log, StartedChange(), DONE, owner="ada", durable=False) for _ in range(2)]
    assert [one.id for one in log.all()] == [one.id for one in others], "it counts no more"
    with pytest.raises(ValueError, match="closed"):
        _ = job.source.fd


async def test_job_in_queue_that_is_still_being_persisted_has_released_its_reservation(
    log: SqliteJobEventLog, new_job: Callable[..., Job]
) -> None:
    """Not in the queue and as a place that is kept for it."""
    room, job = Reservations(1, 1 << 20), new_job(durable=True, owner="ada")
    file = log.journal.connection.execute("PRAGMA database_list").fetchone()[2]
    async with queue_on(OverheardSlot(), event_log=log) as queue:
        await log.written()
        with closing(sqlite3.connect(file)) as other:
            other.execute("BEGIN IMMEDIATE")
            with room.reserve_position("ada") as place:
                assert room.reserved == 1
                submitting = asyncio.ensure_future(queue.submit(job, reservation=place))
                await until(lambda: queue.depth == 1)
                assert not submitting.done(), "it is not accepted yet"
                assert room.reserved == 0
                other.execute("ROLLBACK")
                await submitting
        assert log.get(job.id).state is JobState.QUEUED


@pytest.fixture
def held_disk(log: SqliteJobEventLog) -> Iterator[sqlite3.Connection]:
    """The disk takes nothing until this is rolled back."""
    file = log.journal.connection.execute("PRAGMA database_list").fetchone()[2]
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


async def test_result_is_answered_only_after_it_is_persisted(
    log: SqliteJobEventLog, held_disk: sqlite3.Connection
) -> None:
    async with queue_on(OverheardSlot(), event_log=log) as queue:
        store = LocalJobStore(log, queue, retention_of(log), PATIENCE_S)
        job = added(log, StartedChange(), DONE)
        reading = asyncio.ensure_future(store.get(job.id))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not reading.done()
        held_disk.execute("ROLLBACK")
        assert (await reading).state is JobState.DONE
        assert held_disk.execute("SELECT count(*) FROM events").fetchone() == (2,)


async def test_end_of_job_is_told_to_followers_only_after_it_is_persisted(
    log: SqliteJobEventLog, held_disk: sqlite3.Connection
) -> None:
    async with queue_on(OverheardSlot(), event_log=log) as queue:
        store = LocalJobStore(log, queue, retention_of(log), PATIENCE_S)
        job = added(log, StartedChange())
        with await store.subscribe(job.id) as subscription:
            batches = subscription.batches(60.0)
            assert [event.change for event in await anext(batches)] == [StartedChange()]
            log.append(job.id, DONE)
            following = asyncio.ensure_future(anext(batches))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not following.done()
            held_disk.execute("ROLLBACK")
            assert [event.change for event in await following] == [DONE]
        assert held_disk.execute("SELECT count(*) FROM events").fetchone() == (2,)


async def test_events_before_the_end_of_a_job_are_told_while_its_end_is_not_persisted(
    log: SqliteJobEventLog, held_disk: sqlite3.Connection
) -> None:
    async with queue_on(OverheardSlot(), event_log=log) as queue:
        store = LocalJobStore(log, queue, retention_of(log), PATIENCE_S)
        job = added(log, StartedChange())
        with await store.subscribe(job.id) as subscription:
            log.append(job.id, DONE)
            batches = subscription.batches(60.0)
            assert [event.change for event in await anext(batches)] == [StartedChange()]
            following = asyncio.ensure_future(anext(batches))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not following.done()
            held_disk.execute("ROLLBACK")
            assert [event.change for event in await following] == [DONE]


async def test_result_that_the_disk_does_not_take_in_time_is_answered_from_memory(
    log: SqliteJobEventLog, held_disk: sqlite3.Connection
) -> None:
    async with queue_on(OverheardSlot(), event_log=log) as queue:
        store = LocalJobStore(log, queue, retention_of(log), 0.01)
        job = added(log, StartedChange(), DONE)
        assert (await store.get(job.id)).state is JobState.DONE
        assert held_disk.execute("SELECT count(*) FROM events").fetchone() == (0,)
        held_disk.execute("ROLLBACK")


async def test_live_session_that_the_disk_does_not_take_stays_and_is_persisted_once_it_does(
    tmp_path: Path,
) -> None:
    with closing(SqliteJobEventLog(tmp_path / "jobs", "a-key-of-a-test", retry_s=0.01)) as log:
        async with queue_on(OverheardSlot(), event_log=log) as queue:
            store = LocalJobStore(log, queue, retention_of(log))
            store.save_pauses_s = (0.01,)
            refuse(log)
            live = submitted(durable=True)
            with pytest.raises(errors.SpoolUnwritable):  # who has the sound, keeps it
                await store.import_ended(live, [StartedChange(), DONE])
            ended = await store.get(live.id)
            assert ended.state is JobState.DONE
            log.journal.connection.execute("PRAGMA query_only = OFF")
            await persisted(log, live.id)
    with closing(SqliteJobEventLog(tmp_path / "jobs", "a-key-of-a-test")) as log:
        assert log.get(live.id).transcript == ended.transcript


async def persisted(log: SqliteJobEventLog, job_id: str) -> None:
    while True:
        with suppress(errors.SpoolUnwritable):
            return await log.written(job_id)


async def test_import_of_live_session_that_shutdown_cancels_is_persisted(
    log: SqliteJobEventLog, held_disk: sqlite3.Connection
) -> None:
    async with queue_on(OverheardSlot(), event_log=log) as queue:
        store = LocalJobStore(log, queue, retention_of(log))
        importing = asyncio.ensure_future(
            store.import_ended(submitted(durable=True), [StartedChange(), DONE])
        )
        await until(lambda: bool(log.all()))
        importing.cancel()
        await asyncio.wait({importing})
    held_disk.execute("ROLLBACK")
    log.close()
    assert held_disk.execute("SELECT count(*) FROM events").fetchone() == (2,)
