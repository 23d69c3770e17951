"""What is remembered of jobs: as long as was said, and within bounds."""

import asyncio
import gc
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from retention_of_jobs import job_metrics, retention_of
from service_process import PATIENCE_S, until
from virtual_time import stand_still, virtual_time

from sidecar import clock, errors
from sidecar.gpu_memory.host_memory import read_host_memory
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_record import EditedChange, JobRecord, ReportedChange
from sidecar.jobs.job_runner import Job
from sidecar.jobs.retention import (
    JOB_BYTES,
    MIN_RETENTION_S,
    WORD_BYTES,
    Retention,
    default_space_bytes,
    retained_bytes,
)
from sidecar.transcripts.transcript import Finished, Peaks, Segment, SegmentReady, Transcript, Word
from sidecar.transcripts.transcript_edits import RewriteSegment, UndoStep

pytestmark = virtual_time
NewJob = Callable[..., Job]
DAY_S = 86400.0


class RetentionLongAfterBoot(Retention):
    """Of a machine that booted long ago: its clock is right."""

    clock_set_within_s = 0.0


class Kept:
    """A store, and how long what is in it is kept."""

    def __init__(self, retention_s: float, space_bytes: int, fetch_s: float | None = None) -> None:
        self.store, self.metrics = JobEventLog(), job_metrics()
        self.retention: Retention = RetentionLongAfterBoot(
            self.store, retention_s, space_bytes, self.metrics
        )
        self.retention.fetch_s = self.retention.fetch_s if fetch_s is None else fetch_s

    @property
    def ids(self) -> list[str]:
        return [record.id for record in self.store.all()]

    def finished(self, job: Job, segments: int = 1) -> Job:
        """The job, in the store and done with so many segments."""
        job.enter(self.store)
        return finish(job, segments)

    def restarted(self, retention_s: float, space_bytes: int) -> Retention:
        """What a service that starts has instead; it is told of the results that there are."""
        self.retention.close()
        self.retention = RetentionLongAfterBoot(self.store, retention_s, space_bytes, self.metrics)
        return self.retention

    async def fetch(self, job: Job) -> None:
        """As a client does: its state, and its result if there is one."""
        self.retention.renew(job.id)
        if job.record.transcript is not None:
            self.retention.note_fetched(job.id)


def finish(job: Job, segments: int = 1) -> Job:
    words = (Word(0.0, 0.5, "one"), Word(0.5, 1.0, "two"))
    said = tuple(Segment(float(at), at + 1.0, "said", words=words) for at in range(segments))
    job.begin()
    job.apply_report(Finished(Transcript(said, "en", 3.0, "scripted", "fp32")))
    return job


def weight_of(job: Job, segments: int) -> int:
    return retained_bytes(Kept(DAY_S, 1 << 30).finished(job, segments).record)


@pytest.mark.slow
async def test_result_expires_without_any_request_and_no_object_of_it_stays_in_memory(
    new_job: NewJob,
) -> None:
    kept = Kept(0.1, 1 << 20)
    began = time.monotonic()
    job_id = kept.finished(new_job()).id
    assert kept.store.get(job_id).transcript is not None

    def gone() -> bool:
        gc.collect()
        return not [
            one for one in gc.get_objects() if isinstance(one, JobRecord) and one.id == job_id
        ]

    assert not gone()
    await until(gone)
    assert time.monotonic() - began == pytest.approx(0.1, abs=0.01), "it had its time"
    with pytest.raises(errors.JobNotFound):
        kept.store.get(job_id)


async def test_each_result_expires_at_its_own_time(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, gone = Kept(0.15, 1 << 20), list[tuple[str, float]]()
    forget = kept.store.delete

    def forgotten(job_id: str) -> None:
        gone.append((job_id, time.monotonic()))
        forget(job_id)

    monkeypatch.setattr(kept.store, "delete", forgotten)
    ended = []
    for pause_s in (0.1, 0.0):
        began = time.monotonic()
        ended.append((kept.finished(new_job()).id, began))
        await asyncio.sleep(pause_s)
    await until(lambda: not kept.ids)
    assert [job_id for job_id, _ in gone] == [job_id for job_id, _ in ended]
    for (_, from_), (_, to) in zip(ended, gone, strict=True):
        assert to - from_ == pytest.approx(0.15, abs=1e-3), "it had less than its time, or more"


async def test_job_that_has_not_ended_is_never_forgotten(new_job: NewJob) -> None:
    kept = Kept(0.0, 1)
    waiting = new_job()
    waiting.enter(kept.store)
    ended = kept.finished(new_job())
    await until(lambda: ended.id not in kept.ids)
    assert kept.ids == [waiting.id]


async def test_young_result_stays_after_hundreds_of_others(new_job: NewJob) -> None:
    kept = Kept(DAY_S, 1000 * (JOB_BYTES + 4096))
    first = kept.finished(new_job())
    for _ in range(999):
        kept.finished(new_job())
    assert kept.store.get(first.id) == first.record
    assert len(kept.ids) == 1000


async def test_owner_over_byte_limit_of_results_loses_those_that_ended_first(
    new_job: NewJob,
) -> None:
    """By the order of their ends: a company ends in another than it came in."""
    jobs = [new_job() for _ in range(4)]
    size = weight_of(new_job(), 100)
    kept = Kept(DAY_S, 3 * size)
    for job in jobs:
        job.enter(kept.store)
    for number in (2, 0, 3):
        finish(jobs[number], 100)
    assert len(kept.ids) == 4, "so much is allowed"
    finish(jobs[1], 100)
    assert kept.ids == [jobs[number].id for number in (0, 1, 3)]


async def test_results_of_one_owner_evict_none_of_another(new_job: NewJob) -> None:
    kept = Kept(DAY_S, 3 * JOB_BYTES)
    mine = kept.finished(new_job(owner="me"))
    others = [kept.finished(new_job(owner="you")) for _ in range(10)]
    assert kept.ids == [mine.id, *(job.id for job in others[-2:])]


async def test_newest_result_is_kept_although_it_exceeds_the_byte_limit(new_job: NewJob) -> None:
    kept = Kept(DAY_S, 1)
    first, second = kept.finished(new_job(), 1000), kept.finished(new_job(), 1000)
    assert kept.ids == [second.id]
    assert first.ended


async def test_retained_bytes_grow_with_transcript_and_its_events(new_job: NewJob) -> None:
    little, much = weight_of(new_job(), 1), weight_of(new_job(), 1001)
    assert little > JOB_BYTES
    a_segment = (much - little) / 1000
    assert 300 < a_segment < 1500, "two words and a short text"
    kept = Kept(DAY_S, 1 << 20)
    job = new_job()
    job.enter(kept.store)
    job.begin()
    job.apply_report(SegmentReady(0, Segment(0.0, 1.0, "said")))
    events = kept.store.events(job.id)
    told, untold = retained_bytes(job.record, events), retained_bytes(job.record)
    assert told - untold == untold - JOB_BYTES, "what was told of it is kept beside what it is"


async def test_words_of_a_segment_that_was_told_are_held_once_with_those_of_the_transcript(
    new_job: NewJob,
) -> None:
    kept, weights = Kept(DAY_S, 1 << 20), list[int]()
    for told in ("said", "heard"):
        job = new_job()
        job.enter(kept.store)
        job.begin()
        said, other = (tuple([Word(0.0, 1.0, one)] * 100) for one in ("said", told))
        job.apply_report(SegmentReady(0, Segment(0.0, 1.0, told, words=other)))
        final = Segment(0.0, 1.0, "said", 2, words=said)
        job.apply_report(Finished(Transcript((final,), "en", 1.0, "scripted", "fp32")))
        events = kept.store.events(job.id)
        reports = [one.change.event for one in events if isinstance(one.change, ReportedChange)]
        (kept_segment,) = (one.segment for one in reports if isinstance(one, SegmentReady))
        assert (kept_segment.words is final.words) is (told == "said")
        assert (kept_segment.text, kept_segment.speaker) == (told, None)
        weights.append(retained_bytes(job.record, events))
    assert weights[1] - weights[0] > 100 * WORD_BYTES


async def test_retained_bytes_include_peaks_and_their_reports(new_job: NewJob) -> None:
    kept = Kept(DAY_S, 1 << 20)
    job = new_job()
    job.enter(kept.store)
    job.begin()
    for at in range(0, 50_000, 50):
        job.apply_report(Peaks(at, bytes(50)))
    charged = retained_bytes(job.record, kept.store.events(job.id)) - JOB_BYTES
    assert charged > 1000 * (50 + 50 + 300), "levels, once more in each report, and the reports"


async def test_retained_bytes_include_edits_and_what_undo_needs(new_job: NewJob) -> None:
    kept = Kept(DAY_S, 1 << 20)
    job = kept.finished(new_job())
    before = retained_bytes(job.record)
    little = kept.store.append(job.id, EditedChange((RewriteSegment(0, "other"),)))
    much = kept.store.append(job.id, EditedChange((RewriteSegment(0, "x" * 5000),)))
    assert before < retained_bytes(little) < before + 3000
    assert 15_000 < retained_bytes(much) - retained_bytes(little) < 18_000, (
        "in the edit, the line and its word"
    )
    undone = kept.store.append(job.id, EditedChange(UndoStep()))
    assert retained_bytes(undone) > before + 5000, "it can be done again"


async def test_closed_retention_deletes_no_result(new_job: NewJob) -> None:
    kept = Kept(0.01, 1 << 20)
    kept.retention.close()
    job = kept.finished(new_job())
    await asyncio.sleep(0.05)
    assert kept.ids == [job.id]


async def test_shutdown_waits_only_for_results_not_fetched_yet(new_job: NewJob) -> None:
    kept = Kept(DAY_S, 1 << 20, fetch_s=DAY_S)
    fetched, cancelled, put_off, waiting = (new_job() for _ in range(4))
    for job in (fetched, cancelled, put_off, waiting):
        job.enter(kept.store)
    await kept.fetch(finish(fetched))
    cancelled.cancel()
    put_off.fail(errors.ShuttingDown())
    await asyncio.wait_for(kept.retention.all_fetched(), PATIENCE_S)

    done, failed = kept.finished(new_job()), new_job()
    failed.enter(kept.store)
    failed.fail(errors.EngineFailed())
    ending = asyncio.ensure_future(kept.retention.all_fetched())
    for job in (done, failed):
        await asyncio.sleep(0.01)
        assert not ending.done()
        await kept.fetch(job)
    await asyncio.wait_for(ending, PATIENCE_S)


async def test_shutdown_does_not_wait_for_result_whose_time_to_be_fetched_is_over(
    new_job: NewJob,
) -> None:
    kept = Kept(DAY_S, 1 << 20)
    kept.finished(new_job())
    stand_still(MIN_RETENTION_S)
    ending = asyncio.ensure_future(kept.retention.all_fetched())
    for _ in range(3):  # steps of the loop: nothing is waited for
        await asyncio.sleep(0)
    assert ending.done()


async def test_shutdown_waits_for_unfetched_result_until_its_time_to_be_fetched_is_over(
    new_job: NewJob,
) -> None:
    kept = Kept(DAY_S, 1 << 20, fetch_s=0.2)
    began = time.monotonic()
    kept.finished(new_job())
    await asyncio.wait_for(kept.retention.all_fetched(), PATIENCE_S)
    assert time.monotonic() - began > 0.1, "it was not waited for"
    await kept.retention.all_fetched()


async def test_result_recovered_at_start_expires_after_the_rest_of_its_time(
    new_job: NewJob,
) -> None:
    kept = Kept(DAY_S, 1 << 30)
    old, young = (kept.finished(new_job()).record for _ in range(2))
    results = kept.restarted(100.0, 1 << 30)
    results.remember(old, time.time() - 101.0)
    results.remember(young, time.time() - 1.0)
    await until(lambda: kept.ids == [young.id])
    results.close()


async def test_clock_that_is_ahead_after_boot_and_set_later_deletes_only_what_is_old_by_then(
    new_job: NewJob,
) -> None:
    kept = Kept(DAY_S, 1 << 30)
    old, young, read = (kept.finished(new_job()).record for _ in range(3))
    kept.retention.close()
    wrong, right = 11 * DAY_S, DAY_S
    now = [wrong]
    kept.retention = results = retention_of(kept.store, 7 * DAY_S, now=lambda: now[0])
    results.clock_set_within_s = time.monotonic() + 600.0
    for record, used_at in ((old, -6.1 * DAY_S), (young, 0.0), (read, 0.0)):
        results.remember(record, used_at)
    await asyncio.sleep(300.0)
    results.renew(read.id)
    assert kept.ids == [old.id, young.id, read.id]
    now[0] = right
    await asyncio.sleep(301.0)
    await until(lambda: old.id not in kept.ids)
    assert kept.ids == [young.id, read.id]
    assert results.expiries([young])[young.id].in_s == pytest.approx(6 * DAY_S, abs=1.0)
    results.close()


class LogWithReads(JobEventLog):
    """Persists when results were read last."""

    def __init__(self) -> None:
        super().__init__(now=lambda: 0.0)
        self.reads = dict[str, float]()

    def note_read(self, job_id: str, at: float) -> None:
        self.reads[job_id] = at


@pytest.mark.parametrize("ends", ["stopped", "killed"])
async def test_result_of_before_the_clock_was_set_has_its_age_after_the_next_start(
    new_job: NewJob, ends: str
) -> None:
    """A machine without a battery is in 1970 until it has a network."""
    kept, began = Kept(7 * DAY_S, 1 << 30), time.monotonic()
    kept.store, years_s = LogWithReads(), 0.0
    kept.retention = retention_of(
        kept.store, 7 * DAY_S, now=lambda: years_s + time.monotonic() - began
    )
    job = kept.finished(new_job(durable=True))
    await asyncio.sleep(DAY_S)
    assert kept.store.reads == {}
    years_s = 56 * 365 * DAY_S
    if ends == "killed":
        await asyncio.sleep(61.0)
    else:
        kept.retention.close()
    results = retention_of(kept.store, 7 * DAY_S, now=lambda: years_s + time.monotonic() - began)
    results.clock_set_within_s = 0.0
    results.remember(job.record, kept.store.reads[job.id])
    await asyncio.sleep(1.0)
    left_s = results.expiries([job.record])[job.id].in_s
    assert left_s == pytest.approx(6 * DAY_S, abs=100.0)
    for one in (kept.retention, results):
        one.close()


async def test_result_expires_although_the_machine_was_suspended_for_most_of_its_time(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspended_s, began = 0.0, time.monotonic()
    monkeypatch.setattr(clock, "suspended_s", lambda: suspended_s)
    kept = Kept(DAY_S, 1 << 30)
    kept.store = LogWithReads()
    kept.retention = retention_of(
        kept.store, DAY_S, now=lambda: 1e9 + time.monotonic() - began + suspended_s
    )
    job = kept.finished(new_job(durable=True))
    await asyncio.sleep(1.0)
    suspended_s = DAY_S - 100.0
    left_s = kept.retention.expiries([job.record])[job.id].in_s
    assert left_s == pytest.approx(99.0, abs=1.0)
    await asyncio.sleep(90.0)
    assert kept.ids == [job.id]
    await asyncio.sleep(10.0)
    assert kept.ids == []
    assert kept.store.reads == {}, "no clock was set"
    kept.retention.close()


@pytest.mark.parametrize(("age_s", "stays"), [(37 * DAY_S - 9, False), (37 * DAY_S + 9, True)])
async def test_result_older_than_an_absence_of_the_service_was_measured_by_another_clock(
    new_job: NewJob, age_s: float, stays: bool
) -> None:
    kept = Kept(7 * DAY_S, 1 << 30)
    kept.store = LogWithReads()
    job, young = (kept.finished(new_job(durable=True)) for _ in range(2))
    kept.retention.close()
    results = retention_of(kept.store, 7 * DAY_S, now=lambda: 1e9)
    results.clock_set_within_s = 0.0
    results.remember(job.record, 1e9 - age_s)
    results.remember(young.record, 1e9 - 6 * DAY_S)
    await asyncio.sleep(1.0)
    assert kept.ids == ([job.id, young.id] if stays else [young.id])
    assert kept.store.reads == ({job.id: 1e9} if stays else {}), "the next start knows"
    await asyncio.sleep(DAY_S)
    assert kept.ids == ([job.id] if stays else []), "the others expire in their turn"
    results.close()


async def test_fetch_renews_result_and_the_one_longest_unread_is_evicted_over_the_limit(
    new_job: NewJob,
) -> None:
    kept = Kept(DAY_S, 1 << 30)
    old, young = (kept.finished(new_job()).record for _ in range(2))
    results = kept.restarted(DAY_S, 2 * weight_of(new_job(), 1))
    results.remember(old, time.time() - DAY_S / 2)
    results.remember(young, time.time() - DAY_S / 4)
    left_s = results.expiries([old])[old.id].in_s
    assert left_s is not None
    assert left_s < DAY_S * 0.75, "half of it was over when this service began"
    results.renew(old.id)
    assert (results.expiries([old])[old.id].in_s or 0.0) > left_s
    results.renew("no job that there is")
    third = kept.finished(new_job()).record
    assert kept.ids == [old.id, third.id], "of three the one that was not read for longest goes"
    results.close()


async def test_result_without_time_limit_stays_until_deleted(new_job: NewJob) -> None:
    kept = Kept(DAY_S, 1 << 30)
    record = kept.finished(new_job()).record
    results = kept.restarted(math.inf, 1 << 30)
    results.remember(record, time.time() - 1000 * DAY_S)
    assert results.expiries([record])[record.id].in_s is None
    await asyncio.sleep(0)
    assert kept.ids == [record.id]
    kept.retention.close()


def test_default_space_is_64_mb_in_memory_and_a_part_of_disk_and_memory_for_kept_jobs(
    tmp_path: Path,
) -> None:
    least = 64 << 20
    disk = shutil.disk_usage(tmp_path).total // 100
    memory = read_host_memory().total_bytes // 32
    assert default_space_bytes(None) == least
    assert default_space_bytes(tmp_path) == max(least, min(disk, memory))
