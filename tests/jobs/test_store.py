"""What is remembered of jobs: as long as was said, within bounds, and made ready once."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable

import pytest
from overheard import until

from sidecar import errors
from sidecar.jobs import store as module
from sidecar.jobs.job import Job, JobState
from sidecar.jobs.store import JOB_BYTES, JobStore, weight
from sidecar.speech.transcript import Finished, Segment, Transcript, Word

NewJob = Callable[..., Job]
DAY_S = 86400.0


def finished(job: Job, segments: int = 1, text: str = "said") -> Job:
    """The job, done with so many segments."""
    words = (Word(0.0, 0.5, "one"), Word(0.5, 1.0, "two"))
    said = tuple(Segment(float(at), at + 1.0, text, words=words) for at in range(segments))
    job.begin()
    job.apply(Finished(Transcript(said, "en", 3.0, "scripted", "fp32")))
    job.end(JobState.DONE)
    return job


def kept(store: JobStore, job: Job, segments: int = 1) -> Job:
    store.add(job)
    return finished(job, segments)


def ids(store: JobStore) -> list[str]:
    return [job.id for job in store.all()]


async def test_a_result_goes_when_its_time_is_over_and_nobody_has_to_ask(new_job: NewJob) -> None:
    store = JobStore(0.1, 1 << 20)
    job = kept(store, new_job())
    assert job.ended_at is not None
    transcript, ended_at = weakref.ref(job), job.ended_at
    job_id = job.id
    assert store.get(job_id) is job
    del job

    def gone() -> bool:
        gc.collect(0)
        return transcript() is None

    await until(gone)
    assert time.monotonic() - ended_at >= 0.1, "it had its time"
    with pytest.raises(errors.JobNotFound):
        store.get(job_id)


async def test_each_result_goes_at_its_own_time(new_job: NewJob) -> None:
    store = JobStore(0.15, 1 << 20)
    first = kept(store, new_job())
    await asyncio.sleep(0.1)
    second = kept(store, new_job())
    await until(lambda: first.id not in ids(store))
    assert ids(store) == [second.id]
    await until(lambda: not store.all())


async def test_a_job_that_has_not_ended_is_never_forgotten(new_job: NewJob) -> None:
    store = JobStore(0.0, 1)
    waiting = new_job()
    store.add(waiting)
    ended = kept(store, new_job())
    await until(lambda: ended.id not in ids(store))
    assert ids(store) == [waiting.id]


async def test_a_young_result_stays_however_many_come_after_it(new_job: NewJob) -> None:
    store = JobStore(DAY_S, 1000 * (JOB_BYTES + 4096))
    first = kept(store, new_job())
    for _ in range(999):
        kept(store, new_job())
    assert store.get(first.id) is first
    assert len(store.all()) == 1000


async def test_beyond_its_bytes_an_owner_loses_what_ended_first(new_job: NewJob) -> None:
    """By the order of their ends: a company ends in another than it came in."""
    jobs = [new_job() for _ in range(4)]
    size = weight(finished(new_job(), 100))
    store = JobStore(DAY_S, 3 * size)
    for job in jobs:
        store.add(job)
    for number in (2, 0, 3):
        finished(jobs[number], 100)
    assert len(store.all()) == 4, "so much is allowed"
    finished(jobs[1], 100)
    assert ids(store) == [jobs[number].id for number in (0, 1, 3)]


async def test_one_owner_s_results_cost_another_none_of_his(new_job: NewJob) -> None:
    store = JobStore(DAY_S, 3 * JOB_BYTES)
    mine = kept(store, new_job(owner="me"))
    others = [kept(store, new_job(owner="you")) for _ in range(10)]
    assert ids(store) == [mine.id, *(job.id for job in others[-2:])]


async def test_the_last_result_stays_its_time_whatever_it_weighs(new_job: NewJob) -> None:
    store = JobStore(DAY_S, 1)
    first, second = kept(store, new_job(), 1000), kept(store, new_job(), 1000)
    assert ids(store) == [second.id]
    assert first.ended


async def test_the_weight_grows_with_what_was_said_and_with_what_was_made_of_it(
    new_job: NewJob,
) -> None:
    little, much = finished(new_job(), 1), finished(new_job(), 1001)
    assert weight(little) > JOB_BYTES
    a_segment = (weight(much) - weight(little)) / 1000
    assert 300 < a_segment < 1500, "two words and a short text"
    before = weight(little)
    little.answer = bytes(5000)
    assert weight(little) == before + 5000


async def test_the_answer_about_an_ended_job_is_made_once_and_beside_the_loop(
    new_job: NewJob,
) -> None:
    threads: list[int] = []

    def render() -> bytes:
        threads.append(threading.get_ident())
        return b"all that was said"

    store = JobStore(DAY_S, 1 << 20)
    job = kept(store, new_job(), 1000)
    assert not job.fetched.is_set()
    assert {await store.answer(job, render) for _ in range(3)} == {b"all that was said"}
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    assert job.fetched.is_set()


async def test_two_who_ask_at_once_for_the_same_result_have_it_made_once(new_job: NewJob) -> None:
    made: list[int] = []
    store = JobStore(DAY_S, 1 << 20)
    job = kept(store, new_job(), 1000)

    def render() -> bytes:
        time.sleep(0.02)
        made.append(1)
        return b"all"

    assert await asyncio.gather(*(store.answer(job, render) for _ in range(3))) == [b"all"] * 3
    assert len(made) == 1


async def test_what_was_made_of_a_result_is_charged_too(new_job: NewJob) -> None:
    size = weight(finished(new_job()))
    store = JobStore(DAY_S, 2 * size + 5000)
    first, second = kept(store, new_job()), kept(store, new_job())
    await store.answer(second, lambda: bytes(5000))
    assert ids(store) == [first.id, second.id], "that much is allowed"
    third = kept(store, new_job())
    assert ids(store) == [second.id, third.id]
    await store.answer(third, lambda: bytes(size))
    assert ids(store) == [third.id]


async def test_a_store_that_is_closed_keeps_no_clock(new_job: NewJob) -> None:
    store = JobStore(0.01, 1 << 20)
    store.close()
    job = kept(store, new_job())
    await asyncio.sleep(0.05)
    assert ids(store) == [job.id]


async def test_a_job_on_its_way_is_shown_as_it_stands_each_time(new_job: NewJob) -> None:
    store = JobStore(DAY_S, 1 << 20)
    job = new_job()
    store.add(job)
    answers = [await store.answer(job, str(now).encode) for now in range(2)]
    assert answers == [b"0", b"1"]
    assert not job.fetched.is_set()
    assert job.answer is None


async def test_who_ends_waits_for_results_that_are_still_to_be_fetched_and_for_no_others(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FETCH_S", DAY_S)
    store = JobStore(DAY_S, 1 << 20)
    fetched, cancelled, put_off, waiting = (new_job() for _ in range(4))
    for job in (fetched, cancelled, put_off, waiting):
        store.add(job)
    await store.answer(finished(fetched), lambda: b"")
    cancelled.end(JobState.CANCELLED, errors.JobCancelled())
    put_off.end(JobState.FAILED, errors.ShuttingDown())
    await asyncio.wait_for(store.all_fetched(), 5)

    done, failed = kept(store, new_job()), new_job()
    store.add(failed)
    failed.end(JobState.FAILED, errors.EngineFailed())
    ending = asyncio.ensure_future(store.all_fetched())
    for job in (done, failed):
        await asyncio.sleep(0.01)
        assert not ending.done()
        await store.answer(job, lambda: b"")
    await asyncio.wait_for(ending, 5)


async def test_results_that_nobody_fetched_in_time_are_not_waited_for(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FETCH_S", 0.05)
    store = JobStore(DAY_S, 1 << 20)
    kept(store, new_job())
    await asyncio.wait_for(store.all_fetched(), 5)
