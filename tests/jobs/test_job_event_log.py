"""What every log of job events does: one in `STORES` is held to all of it."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job_event_histories import added, happen, histories, submitted, taken
from service_process import PATIENCE_S

from sidecar.clock import Clock
from sidecar.jobs.job_event_log import (
    DuplicateRequestKey,
    JobEventLog,
    JobSubscription,
    SubscriberTooSlow,
)
from sidecar.jobs.job_record import (
    CancelledChange,
    EditedChange,
    IdempotencyKey,
    JobChange,
    JobEvent,
    JobRecord,
    ReportedChange,
    RequeuedChange,
    StartedChange,
    apply_event,
)
from sidecar.jobs.job_runner import Job
from sidecar.jobs.sqlite_event_log import SqliteJobEventLog
from sidecar.transcripts.transcript import Finished, Progress, Segment, SegmentReady, Transcript

KEY = "a-key-of-a-test-and-of-nobody-else"
Place = Callable[[str], Any]
"""Gives a fixture by its name."""
STORES: dict[str, Callable[[Place, Clock], JobEventLog]] = {
    "memory": lambda place, now: JobEventLog(now),
    "sqlite": lambda place, now: SqliteJobEventLog(place("tmp_path"), KEY, now),
}
"""How to open a store: at a place of its own, with a clock."""
BUFFER = 4
TRANSCRIPT = Transcript((Segment(0.0, 1.0, "said"),), "en", 3.0, "scripted", "fp32")
DONE = ReportedChange(Finished(TRANSCRIPT))


class Ticks:
    """A clock on the wall that goes on by a second each time it is looked at."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[JobEventLog]:
    store = STORES[request.param](request.getfixturevalue, Ticks())
    store.buffer = BUFFER
    yield store
    store.close()


def progress(at: float) -> ReportedChange:
    return ReportedChange(Progress(at, 3.0), at)


def segment(index: int) -> ReportedChange:
    return ReportedChange(SegmentReady(index, Segment(float(index), index + 1.0, f"said {index}")))


@given(history=histories, after=st.integers(0, 12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_history_is_told_in_order_and_its_stored_events_replay_to_the_same_record(
    store: JobEventLog, history: Sequence[JobChange], after: int
) -> None:
    first = added(store)
    told: list[tuple[JobRecord, JobEvent]] = []

    def tell(record: JobRecord, event: JobEvent) -> None:
        if record.id == first.id:  # who listens to one job hears nothing behind its end: no edits
            told.append((record, event))

    store.listen(tell)
    for change in history:
        before = store.get(first.id)
        record = store.append(first.id, change)
        assert store.get(first.id) == record
        assert not before.over or record == before or isinstance(change, EditedChange)
    log = store.events(first.id)
    replayed = first
    for event in log:
        replayed = apply_event(replayed, event)
    assert replayed == store.get(first.id)
    assert [event.seq for event in log] == sorted({event.seq for event in log})
    assert sum(event.superseded_by_next for event in log) <= 1
    assert [event.seq for _, event in told] == list(range(1, record.seq + 1) if history else [])
    assert [event.worn for _, event in told if not event.superseded_by_next] == [
        event.worn for event in log if not event.superseded_by_next
    ]
    assert list(store.events(first.id, after)) == [event for event in log if event.seq > after]
    store.delete(first.id)


async def test_watcher_of_a_job_that_ends_at_once_sees_all_that_was_reported_before_its_end(
    store: JobEventLog, new_job: Callable[..., Job]
) -> None:
    """An engine reports all of it, and the transcript may have other borders."""
    job, seen = new_job(), list[JobRecord | None]()
    job.enter(store)
    async with aclosing(job.watched(None)) as records:
        seen.append(await anext(records))
        job.begin()
        for index in range(3):
            job.apply_report(segment(index).event)
        job.apply_report(Finished(TRANSCRIPT))
        seen += [record async for record in records]
    assert [record and len(record.segments) for record in seen] == [0, 3, 1]


def test_events_are_numbered_from_one_and_have_times_of_given_clock(store: JobEventLog) -> None:
    job = added(store, StartedChange(), DONE)
    assert [(event.seq, event.at) for event in store.events(job.id)] == [
        (1, 1_700_000_001.0),
        (2, 1_700_000_002.0),
    ]
    assert store.get(job.id).ended == 1_700_000_002.0


def test_event_without_effect_is_neither_stored_nor_published(store: JobEventLog) -> None:
    job = added(store)
    told: list[JobEvent] = []
    store.listen(lambda _, event: told.append(event))
    # it waits already, and then it has ended
    happen(store, job.id, RequeuedChange(), CancelledChange(), StartedChange())
    assert [event.change for event in told] == [CancelledChange()]
    assert list(store.events(job.id)) == told


def test_superseded_progress_is_published_and_not_stored(store: JobEventLog) -> None:
    job = added(store)
    told: list[int] = []
    store.listen(lambda _, event: told.append(event.seq), job.id)
    happen(store, job.id, StartedChange(), progress(0.5), segment(0), progress(1.0))
    happen(store, job.id, segment(1), progress(2.0), DONE)
    assert told == [1, 2, 3, 4, 5, 6, 7]
    assert [event.seq for event in store.events(job.id)] == [1, 3, 5, 6, 7]


def test_second_job_of_owner_with_same_idempotency_key_is_refused(store: JobEventLog) -> None:
    key = IdempotencyKey("k", "digest")
    store.add(job := submitted(durable=True, owner="me", key=key))
    with pytest.raises(DuplicateRequestKey):
        store.add(submitted(durable=True, owner="me", key=key))
    assert store.all() == [job]


def test_listener_finds_event_already_in_store(store: JobEventLog) -> None:
    job = added(store)
    seen: list[bool] = []

    def look(record: JobRecord, event: JobEvent) -> None:
        seen.append(store.get(job.id) == record and store.events(job.id)[-1] == event)

    store.listen(look)
    happen(store, job.id, StartedChange(), progress(1.0), DONE)
    assert seen == [True] * 3


def test_removed_listener_of_job_hears_no_more_and_the_others_do(store: JobEventLog) -> None:
    job, told = added(store), list[str]()
    first, second = (lambda *_, name=name: told.append(name) for name in ("first", "second"))
    store.listen(first, job.id)
    store.listen(second, job.id)
    store.unlisten(first, job.id)
    assert store.has_followers(job.id)
    store.append(job.id, StartedChange())
    store.unlisten(second, job.id)
    assert not store.has_followers(job.id)
    store.append(job.id, CancelledChange())
    assert told == ["second"]


async def test_new_subscription_resumes_after_last_seen_event(store: JobEventLog) -> None:
    job = added(store)
    with store.subscribe(job.id) as subscription:
        happen(store, job.id, StartedChange(), segment(0))
        had = await _next(subscription)
    happen(store, job.id, segment(1), progress(2.0), progress(3.0), DONE)
    assert had == [1, 2]
    assert await _taken(store.subscribe(job.id, had[-1])) == [3, 5, 6]
    assert await _taken(store.subscribe(job.id, 6)) == []


async def test_slow_subscriber_gets_number_to_resume_from_and_delays_nobody(
    store: JobEventLog,
) -> None:
    job = added(store)
    slow, quick = store.subscribe(job.id), store.subscribe(job.id)
    store.append(job.id, StartedChange())
    assert await _next(slow) == await _next(quick) == [1]
    for index in range(BUFFER + 1):
        store.append(job.id, segment(index))
        assert await _next(quick) == [index + 2]
    with pytest.raises(SubscriberTooSlow) as behind:
        await _next(slow)
    assert behind.value.seq == 1
    store.append(job.id, DONE)
    assert await _taken(store.subscribe(job.id, behind.value.seq)) == [*range(2, BUFFER + 4)]
    assert await _taken(quick) == [BUFFER + 3]


async def test_job_whose_subscriptions_are_closed_or_that_has_ended_has_no_followers(
    store: JobEventLog,
) -> None:
    jobs = [added(store) for _ in range(3)]
    for job in jobs:
        with store.subscribe(job.id), store.subscribe(job.id):
            assert store.has_followers(job.id)
        assert not store.has_followers(job.id)
    subscriptions = [store.subscribe(job.id) for job in jobs]
    assert all(store.has_followers(job.id) for job in jobs)
    for job in jobs:
        store.append(job.id, CancelledChange())
    assert not any(store.has_followers(job.id) for job in jobs)
    assert [await _taken(one) for one in subscriptions] == [[1]] * 3


async def test_closed_subscription_yields_earlier_events_and_ends(store: JobEventLog) -> None:
    job = added(store)
    subscription = store.subscribe(job.id)
    store.append(job.id, StartedChange())
    taking = asyncio.ensure_future(_taken(subscription))
    await asyncio.sleep(0)
    subscription.close()
    store.append(job.id, segment(0))
    assert await taking == [1]


async def _taken(subscription: JobSubscription) -> list[int]:
    return [event.seq async for event in taken(subscription)]


async def _next(subscription: JobSubscription) -> list[int]:
    """The numbers of the next events that come at once."""
    async with aclosing(subscription.batches(PATIENCE_S)) as batches:
        return [event.seq for event in await anext(batches)]
