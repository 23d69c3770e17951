"""A service that accepts jobs for others: they are persisted, followed and, if need be, deleted."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest
from fake_claims import ANYTHING, FakeClaims, SharedJobs
from instrumented_slot import OverheardSlot, job_of, queue_options, submitted
from job_fixtures import Hold
from service_process import PATIENCE_S, until
from virtual_time import virtual_time

from sidecar import errors
from sidecar.concurrency import ThreadLimiter
from sidecar.jobs.job_event_log import DuplicateRequestKey, JobEventFeed, JobEventLog
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import JobRecord, JobState, RequeuedChange
from sidecar.jobs.job_runner import Job
from sidecar.jobs.reservations import Reservation
from sidecar.plugins.shared_jobs.claim_loop import ClaimLoop
from sidecar.plugins.shared_jobs.claims import ClaimPreferences
from sidecar.plugins.shared_jobs.front_queue import SharedJobQueue

LIMIT = 3


class Store:
    """The shared jobs, as a front changes and follows them. ``down``: the database is away;
    ``full``: it accepts no job; ``answers``: it answers when this is set. It is the membership of
    the front as well."""

    def __init__(self, recording: Path) -> None:
        self.shared, self.recording = SharedJobs(), recording
        self.down = self.full = self.drains = False
        self.waiting = self.running = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.followed: dict[str, Job] = {}
        self.feed = JobEventFeed()
        self.deleted: list[str] = []
        self.left: dict[str, str] = {}

    async def submit(self, record: JobRecord, *, followed: bool = False) -> None:
        if record.key is not None and any(one.key == record.key for one in self.shared.all()):
            raise DuplicateRequestKey(record.key.name)
        await self.answers.wait()
        if self.down or self.full:
            raise errors.JournalUnreachable() if self.down else errors.QueueFull()
        self.shared.add(record)

    def delete_soon(self, job_id: str) -> None:
        self.shared.delete(job_id)
        self.deleted.append(job_id)

    def leave_soon(self, name: str, request: str) -> None:
        self.left[request] = name

    async def take(self, owner: str, request: str, name: str) -> JobRecord | None:
        left = self.left.pop(request, None)
        return self.shared.get(left) if left is not None else None

    async def drain(self) -> None:
        self.drains = True

    @contextmanager
    def submitting(self, job_id: str) -> Iterator[None]:
        yield

    def follow(self, job: Job) -> None:
        self.followed[job.id] = job
        job.follow(self.feed)

    def unfollow(self, job: Job) -> None:
        self.followed.pop(job.id, None)
        job.unfollow(self.feed)

    def new(self, **more: object) -> Job:
        """A job that nobody has submitted yet."""
        return job_of(self.recording, durable=True, **more)

    async def tell(self) -> None:
        """Tell the jobs that are followed of all that happened to them."""
        while True:
            for job in [*self.followed.values()]:
                if job.id in self.shared.jobs:
                    for event in self.shared.events(job.id)[-1:]:
                        record = self.shared.get(job.id)
                        self.feed.publish(record, event)
                        if record.over:  # as a follower does it
                            self.followed.pop(job.id, None)
            await asyncio.sleep(0.01)  # real time: only how often is looked


class Place(Reservation):
    """A place that was kept for a job."""

    given_back = False

    def __init__(self) -> None:
        super().__init__()
        self.callback(setattr, self, "given_back", True)


class Front(SharedJobQueue):
    """A front that runs no jobs, and the jobs that it shares."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, store, LIMIT, store)
        self.store = store


@pytest.fixture
async def store(recording: Path) -> AsyncIterator[Store]:
    store = Store(recording)
    telling = asyncio.ensure_future(store.tell())
    yield store
    telling.cancel()


@pytest.fixture
async def front(store: Store) -> AsyncIterator[Front]:
    front = Front(store)
    front.open()
    yield front
    await front.close()


@asynccontextmanager
async def both(store: Store) -> AsyncIterator[SharedJobQueue]:
    """A front that is a node as well."""
    log, slot = JobEventLog(), OverheardSlot()
    queue = JobQueue(slot, log, queue_options())
    claims = FakeClaims(store.shared)
    node = ClaimLoop(
        claims,
        log,
        queue,
        partial(ThreadLimiter("opening", 2).run, lambda record: record.audio.open()),
        lambda record: None,
        lambda: ClaimPreferences(ANYTHING),
        patience_s=1e6,
    )
    front = SharedJobQueue(store, store, LIMIT, store, node)
    front.open()
    try:
        yield front
    finally:
        await front.close()
        await slot.close()


@virtual_time
async def test_submission_returns_only_after_the_job_is_persisted(front: Front) -> None:
    front.store.answers.clear()
    job = front.store.new()
    submitting = asyncio.ensure_future(front.submit(job))
    await asyncio.sleep(1.0)
    assert not submitting.done()
    front.store.answers.set()
    await submitting
    assert front.store.shared.get(job.id) == job.record
    with pytest.raises(ValueError, match="closed"):
        _ = job.source.fd


@virtual_time
async def test_front_follows_only_jobs_whose_clients_wait_and_deletes_them_once_they_end(
    front: Front,
) -> None:
    later, waits = await submitted(front, front.store.new(), front.store.new(kept=False))
    assert [*front.store.followed] == [waits.id]
    front.store.shared.cancel(waits.id)
    with pytest.raises(errors.JobCancelled):
        await waits.result()
    assert front.store.deleted == [waits.id]
    front.store.shared.cancel(later.id)
    await asyncio.sleep(1.0)
    assert front.store.deleted == [waits.id]


async def test_front_that_counts_jobs_follows_all_accepted_ones(front: Front) -> None:
    front.follows_all = True
    later, waits = await submitted(front, front.store.new(), front.store.new(kept=False))
    assert {*front.store.followed} == {later.id, waits.id}
    front.store.shared.cancel(later.id)
    await until(lambda: later.ended)
    assert not front.store.deleted


async def test_job_left_by_a_client_is_unfollowed_there_and_taken_over_at_another_front(
    front: Front,
) -> None:
    job, elsewhere = front.store.new(kept=False), Front(front.store)
    await front.submit(job)
    watching = asyncio.ensure_future(seen(job))
    await asyncio.sleep(0)
    front.leave(job, "request")
    assert front.store.left == {"request": job.id}
    assert not front.store.followed
    assert await watching == [JobState.QUEUED, JobState.FAILED], "nobody follows it any more"
    again = await elsewhere.take("", "request", job.source)
    assert again is not None
    front.store.shared.cancel(job.id)
    with pytest.raises(errors.JobCancelled):
        await again.result()
    await until(lambda: front.store.deleted == [job.id])
    await elsewhere.close()


async def seen(job: Job) -> list[JobState]:
    """As which a client's request sees a job, to its end."""
    return [record.state async for record in job.watched(None) if record is not None]


async def test_client_that_returns_during_drain_gets_shutting_down_and_its_job_stays_left(
    front: Front,
) -> None:
    await front.drain(0.0)
    job = front.store.new(kept=False)
    front.store.shared.add(job.record)
    front.store.left["request"] = job.id
    with pytest.raises(errors.ShuttingDown):
        await front.take("", "request", job.source)
    assert "request" in front.store.left, "its next try may reach another service"
    assert not front.store.followed
    assert not front.store.deleted
    job.source.close()


async def test_job_that_ended_before_a_client_took_it_over_is_deleted_and_not_followed(
    front: Front,
) -> None:
    job = front.store.new(kept=False)
    front.store.shared.add(job.record)
    front.store.shared.cancel(job.id)
    again = Job(job.source, front.store.shared.get(job.id))
    front.expect(again)
    assert not front.store.followed
    await until(lambda: front.store.deleted == [job.id])


async def test_refused_submission_follows_no_job_and_keeps_reservation_and_recording(
    front: Front,
) -> None:
    job, place = front.store.new(kept=False), Place()
    front.store.full = True
    with pytest.raises(errors.QueueFull):
        await front.submit(job, reservation=place)
    front.store.down = True
    with pytest.raises(errors.JournalUnreachable):
        await front.submit(job, reservation=place)
    assert not front.store.followed
    assert not front.store.deleted
    assert not place.given_back, "whoever keeps it gives it back"
    assert job.source.fd
    job.source.close()


async def test_each_further_client_of_a_full_queue_gets_a_longer_retry_after(store: Store) -> None:
    """As at a service alone: two seconds from start to start, whoever was refused before first."""
    front = SharedJobQueue(store, store, LIMIT, store, begun_in_s=lambda count: 2.0 * count)
    store.waiting = LIMIT
    told = []
    for _ in range(40):
        with pytest.raises(errors.QueueFull) as full:
            front.check_capacity(owner="me")
        told.append(full.value.retry_after)
    assert told == [min(2 * count, 60) for count in range(1, 41)]
    with pytest.raises(errors.QueueFull) as full:
        front.check_capacity(owner="another")
    assert full.value.retry_after == 10, "of each other owner four count"
    store.waiting, store.full, job = 0, True, store.new()
    with pytest.raises(errors.QueueFull) as full:
        await front.submit(job, reservation=Place())
    assert full.value.retry_after == 12, "another service was faster: four, one and this one"
    job.source.close()


async def test_full_queue_accepts_only_submissions_with_a_reservation(front: Front) -> None:
    assert (front.depth, front.running) == (0, 0)
    front.store.waiting, front.store.running = LIMIT - 1, 5
    assert (front.depth, front.running) == (LIMIT - 1, 5)
    front.check_capacity()
    with pytest.raises(errors.QueueFull):
        front.check_capacity(1)
    front.store.waiting = LIMIT
    job, place = front.store.new(), Place()
    with pytest.raises(errors.QueueFull):
        await front.submit(job)
    await front.submit(job, reservation=place)
    assert job.id in front.store.shared.jobs
    assert place.given_back


@virtual_time
async def test_drain_answers_waiting_clients_with_shutting_down_and_ends_their_jobs(
    front: Front,
) -> None:
    waits, later = await submitted(front, front.store.new(kept=False), front.store.new())
    expected = front.store.new(kept=False)
    front.store.shared.add(expected.record)
    front.expect(expected)
    await front.drain(0.0)
    assert front.store.drains
    for job in (waits, expected):
        with pytest.raises(errors.ShuttingDown):
            await job.result()
    assert front.store.deleted == [waits.id, expected.id]
    assert not front.store.followed
    await asyncio.sleep(1.0)
    assert isinstance(waits.error, errors.ShuttingDown)
    assert front.store.shared.get(later.id).state is JobState.QUEUED
    assert front.draining
    for refuses in (front.check_capacity, front.check_open):
        with pytest.raises(errors.ShuttingDown):
            refuses()
    with pytest.raises(errors.ShuttingDown):
        await front.submit(front.store.new(), reservation=Place())


async def test_drain_lets_clients_get_their_answers_within_grace(store: Store) -> None:
    async with both(store) as queue:
        (waits,) = await submitted(queue, store.new(kept=False))
        await until(lambda: store.shared.get(waits.id).state is JobState.RUNNING)
        await queue.drain(PATIENCE_S)
        assert waits.state is JobState.DONE
    assert store.deleted == [waits.id]


async def test_job_interrupted_by_a_front_with_node_is_requeued_without_an_attempt_and_done(
    store: Store, hold: Hold
) -> None:
    async with both(store) as queue:
        job = store.new()
        await queue.submit(job)
        await until(lambda: store.shared.get(job.id).segments)
        queue.interrupt()
        hold.release()
        await until(lambda: store.shared.get(job.id).over)
        assert store.shared.get(job.id).state is JobState.DONE
        changes = [event.change for event in store.shared.events(job.id)]
        assert RequeuedChange() in changes


async def test_front_with_node_reports_dispatchers_that_died(store: Store) -> None:
    async with both(store) as queue:
        broken = asyncio.ensure_future(queue.broken())
        dispatchers = [
            task for task in asyncio.all_tasks() if task.get_name().startswith("dispatcher-")
        ]
        assert dispatchers
        for dispatcher in dispatchers:
            dispatcher.cancel()
        await broken
