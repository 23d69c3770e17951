"""Nodes: a free one claims the next job, and one that is gone loses it.

Queues, engines' processes and recordings are real; the shared jobs are in memory.
"""

import asyncio
import errno
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import soundfile
import tiny_vibevoice
import tiny_whisper
from fake_claims import ANYTHING, FakeClaims, SharedJobs
from instrumented_slot import DyingSlot, OverheardSlot, job_of, queue_options
from job_fixtures import Hold
from service_process import PATIENCE_S, until
from tiny_engine_slots import TinySlot
from virtual_time import virtual_time

from sidecar import errors
from sidecar.audio.audio_source import AudioSource
from sidecar.concurrency import ThreadLimiter
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.jobs.attempt_end import FOR_ALONE, attempt_end
from sidecar.jobs.faults import RETRY_S, fault_of
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import (
    CancelledChange,
    CountsAs,
    JobFailure,
    JobRecord,
    JobState,
    ReportedChange,
    RequeuedChange,
    StartedChange,
)
from sidecar.jobs.job_runner import Job
from sidecar.jobs.local_jobs import count_event
from sidecar.observability.health import OutcomeWindow
from sidecar.observability.metrics import JobMetrics
from sidecar.plugins.shared_jobs.claim_loop import ClaimLoop
from sidecar.plugins.shared_jobs.claims import ClaimPreferences, are_final
from sidecar.plugins.shared_jobs.job_needs import NodeCapabilities
from sidecar.plugins.upstream.errors import UpstreamBusy, UpstreamLost, UpstreamUnreachable
from sidecar.transcripts.transcript import ResumePoint, SegmentReady
from sidecar.workers.worker_process import WorkerDied

NEVER_S = 1e6
LONG_S = 10.0
REST_S = 30.0
"""Seconds for which a node leaves a job to others, the first time."""
LATER_S = 1000.0
QUICK = {"check_s": 0.05, "idle_poll_s": 0.1}
UNHURRIED: dict[str, float] = {}
"""Those of the product, for much virtual time."""
UNCHECKED = QUICK | {"check_s": NEVER_S}
T = TypeVar("T")


class OpeningThreads(ThreadLimiter):
    """Opens recordings in the loop's thread, once ``go_on`` is set."""

    def __init__(self) -> None:
        super().__init__("opening", 1)
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        await self.go_on.wait()
        return work(*args)


class Service:
    """A service that works: a queue, an engine, and a node that claims for it."""

    def __init__(
        self,
        shared: SharedJobs,
        timings: dict[str, float],
        concurrency: int,
        long_concurrency: int | None,
        retry_s: float,
        slot: OverheardSlot | None = None,
    ) -> None:
        self.claims = FakeClaims(shared)
        self.log, self.tally = JobEventLog(), JobMetrics(OutcomeWindow(time.monotonic))
        self.log.listen(partial(count_event, self.tally))
        self.slot = slot or OverheardSlot()
        self.unsuited: errors.SidecarError | None = None
        """Why the model can do no job."""
        options = queue_options(
            fault_retry_s=retry_s,
            refusal=lambda options: self.unsuited,
            concurrency=concurrency,
            long_concurrency=long_concurrency or concurrency,
        )
        self.queue = JobQueue(self.slot, self.log, options)
        self.refusal: Exception | None = None
        """Why no job can run now."""
        self.storage = True
        self.fault: Exception | None = None
        self.faults = dict[str, Exception]()
        """Of the recordings of single jobs."""
        self.opening = OpeningThreads()
        self.preferences = ClaimPreferences(ANYTHING)

        def admit(record: JobRecord) -> None:
            if self.refusal is not None:
                raise self.refusal

        def opened(record: JobRecord) -> AudioSource:
            if (fault := self.faults.get(record.id, self.fault)) is not None:
                raise fault
            if not self.storage:
                raise errors.AudioLost()
            return record.audio.open()

        self.node = ClaimLoop(
            self.claims,
            self.log,
            self.queue,
            partial(self.opening.run, opened),
            admit,
            lambda: self.preferences,
            patience_s=NEVER_S,
        )
        for name, value in timings.items():
            setattr(self.node, name, value)

    def refuses_all(self) -> None:
        self.refusal = errors.WontFit()

    def met(self, job: Job, error: Exception, vain_s: float = 0.0, *, late: bool = False) -> None:
        """As the queue does with a job that met an error."""
        end = attempt_end(job.record, error, shared=True, vain_s=vain_s, late=late)
        job.end_attempt(end)
        if end.error is not None and fault_of(end.error) is not errors.Fault.RECORDING:
            self.queue.breakers.failed(end.error)

    def model_changed(self, unsuited: errors.SidecarError) -> None:
        """Have another model, which can do no job."""
        self.unsuited = unsuited
        self.preferences = ClaimPreferences(NodeCapabilities(("engine:moonshine",)))
        self.slot.set_spec(languages=("en",))

    async def close(self) -> None:
        self.opening.go_on.set()
        await self.node.close()
        await self.queue.close()
        await self.slot.close()
        assert not self.log.all(), "a claimed job was not forgotten"


@asynccontextmanager
async def services(
    count: int,
    shared: SharedJobs,
    timings: dict[str, float] = QUICK,
    *,
    concurrency: int = 1,
    long_concurrency: int | None = None,
    retry_s: float = RETRY_S,
    run: bool = True,
    slot: OverheardSlot | None = None,
) -> AsyncIterator[list[Service]]:
    """So many services; without ``run`` what they claim waits, and no engine is started. ``slot``:
    of the only one."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            service = Service(shared, timings, concurrency, long_concurrency, retry_s, slot)
            stack.push_async_callback(service.close)
            if run:
                service.queue.open()
            service.node.open()
            made.append(service)
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine at a tenth of a second a recording, with a resume point for each second."""
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "30")
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SETTLES", "1")


class Jobs(SharedJobs):
    """Shared jobs of one recording, and what a test asks of them."""

    def __init__(self, recording: Path) -> None:
        super().__init__()
        self.recording = recording

    def send(self, **more: object) -> str:
        job = job_of(self.recording, TranscribeOptions(), durable=True, **more)
        self.add(job.record)
        job.source.close()
        return job.id

    def lengthen(self, *job_ids: str) -> None:
        """Make jobs long, as their headers say."""
        for job in (self.jobs[one] for one in job_ids):
            facts = replace(job.record.audio_info, total_s=1000.0)
            job.record = job.submitted = replace(job.record, audio_info=facts)

    def changes(self, job_id: str, kind: type) -> int:
        return sum(isinstance(event.change, kind) for event in self.events(job_id))

    def told(self, job_id: str) -> list[int]:
        """The numbers of its segments, as they were reported."""
        reports = [one.change for one in self.events(job_id)]
        heard = [one.event for one in reports if isinstance(one, ReportedChange)]
        return [one.index for one in heard if isinstance(one, SegmentReady)]

    async def ended(self, *job_ids: str) -> list[JobRecord]:
        await until(lambda: all(self.get(one).over for one in job_ids))
        return [self.get(one) for one in job_ids]

    async def done(self, *job_ids: str) -> list[JobRecord]:
        """Wait until these jobs have ended, and well."""
        records = await self.ended(*job_ids)
        assert {record.state for record in records} == {JobState.DONE}
        return records


@pytest.fixture
async def shared(recording: Path) -> Jobs:
    return Jobs(recording)


@pytest.fixture
async def one(shared: Jobs, quick: None) -> AsyncIterator[Service]:
    async with services(1, shared) as (one,):
        yield one


@pytest.fixture
async def claimer(shared: Jobs) -> AsyncIterator[Service]:
    """A service that claims and runs nothing; for tests in virtual time."""
    async with services(1, shared, run=False) as (one,):
        yield one


def code_of(failed: JobRecord | JobFailure | None) -> str:
    """Why a job failed, or why a node refused it."""
    failure = failed.error if isinstance(failed, JobRecord) else failed
    assert failure is not None
    return failure.code


async def test_free_node_claims_next_job_and_each_job_is_done_once(shared: Jobs) -> None:
    async with services(2, shared) as both:
        await asyncio.gather(*(one.slot.preload() for one in both))  # neither waits for that
        ids = [shared.send() for _ in range(6)]
        await shared.ended(*ids)
        while min(len(one.claims.claimed) for one in both) < 2:  # one of them is a slow one
            assert len(ids) < 60, "one waited while the other worked"
            ids.append(shared.send())
            await shared.done(*ids)
        assert [shared.changes(one, StartedChange) for one in ids] == [1] * len(ids)
        assert sum(len(one.claims.claimed) for one in both) == len(ids)
        assert not shared.claimed
        assert not shared.lost
        assert sum(one.tally.ended.of("done") for one in both) == len(ids)


async def test_node_asks_for_a_job_at_its_start_and_once_for_each_job_it_is_told_of(
    shared: Jobs,
) -> None:
    async with services(1, shared, QUICK | {"idle_poll_s": NEVER_S}) as (one,):
        await until(lambda: "claim" in one.claims.calls)
        for _ in range(3):
            await shared.ended(shared.send())
        assert one.claims.calls.count("claim") == 1 + 3


async def test_node_claims_waiting_jobs_without_a_notification_for_each(
    shared: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "tell_waiting", lambda: None)
    ids = [shared.send() for _ in range(3)]
    async with services(1, shared, QUICK | {"idle_poll_s": NEVER_S}) as (one,):
        await shared.ended(*ids)
        assert one.claims.calls.count("claim") == 3


async def test_idle_node_finds_job_without_a_notification(one: Service, shared: Jobs) -> None:
    await until(lambda: "claim" in one.claims.calls)
    one.claims.on_waiting(lambda: None)
    await shared.ended(shared.send())


async def test_job_of_dead_node_resumes_from_its_resume_point_and_late_reports_are_refused(
    shared: Jobs, hold: Hold
) -> None:
    async with services(1, shared, UNCHECKED) as (first,):
        job_id = shared.send()
        await until(
            lambda: shared.changes(job_id, ReportedChange) and shared.get(job_id).resume_points
        )
        first.refuses_all()
        async with services(1, shared) as (second,):
            shared.lose(job_id)
            await until(lambda: second.claims.claimed)
            hold.release()
            (record,) = await shared.done(job_id)
            assert second.claims.claimed
            assert shared.changes(job_id, RequeuedChange) == 1
            await until(lambda: shared.lost and not first.queue.running and not first.node.held)
    texts = [segment.text for segment in record.segments]
    assert len(texts) == len({*texts}) == 3, "a segment is missing, or there twice"
    assert len(shared.told(job_id)) <= 4, "more than one stretch was recognized again"


@pytest.mark.slow
async def test_recording_of_a_dead_node_is_gone_on_with_by_whisper_at_another_with_the_same_words(
    tmp_path: Path,
) -> None:
    path, clips = tmp_path / "talk.wav", 2 * [tiny_vibevoice.clip_24k(tiny_whisper.PLAY)]
    soundfile.write(path, np.concatenate(clips), tiny_vibevoice.RATE, "PCM_16")
    shared = Jobs(path)
    async with services(1, shared, UNCHECKED, slot=TinySlot("whisper", stops=True)) as (first,):
        job_id = shared.send()
        await until(lambda: shared.get(job_id).resume_points)
        first.refuses_all()
        async with services(1, shared, slot=TinySlot("whisper")) as (second,):
            shared.lose(job_id)
            (record,) = await shared.done(job_id)
            (whole,) = await shared.done(shared.send())
        assert isinstance(second.slot, TinySlot)
        assert record.resumed_s > 0.0
    assert record.transcript == whole.transcript


async def test_node_that_lost_its_claim_stops_the_job_and_does_not_count_it(
    one: Service, shared: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "0.1")
    job_id = shared.send()
    await until(lambda: shared.get(job_id).state is JobState.RUNNING and one.slot.in_use)
    one.refuses_all()
    shared.lose(job_id)
    await until(lambda: one.queue.running == 0 and not one.node.held)
    assert shared.get(job_id).state is JobState.QUEUED
    assert not shared.changes(job_id, CancelledChange)
    assert not one.tally.ended.total, "what another node goes on with is counted"


@pytest.mark.parametrize("hears", ["its end", "that it may have missed notices", "nothing"])
async def test_job_cancelled_elsewhere_stops_on_its_node_with_and_without_a_notification(
    shared: Jobs, monkeypatch: pytest.MonkeyPatch, hears: str
) -> None:
    """At once; only a node that hears nothing finds out at its next check of claims."""
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "0.1")
    async with services(1, shared, QUICK if hears == "nothing" else UNCHECKED) as (one,):
        one.claims.deaf = hears != "its end"
        job_id, next_id = shared.send(), shared.send()
        await until(lambda: shared.get(job_id).state is JobState.RUNNING)
        shared.cancel(job_id)
        if hears == "that it may have missed notices":
            one.claims.tell_ended("")
        await until(lambda: shared.get(next_id).state is JobState.RUNNING)
        assert shared.changes(job_id, CancelledChange) == 1
        assert not shared.get(job_id).segments
        assert not one.tally.ended.total


@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_job_ended_elsewhere_as_it_starts_stops_without_an_error(
    one: Service, shared: Jobs, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    await one.slot.preload()  # else the end would come while that is waited for
    resume = one.queue.resume

    def gone(job: Job) -> None:
        resume(job)
        getattr(shared, how)(job.id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one.queue, "resume", gone)
        shared.send()
        await until(lambda: one.claims.claimed and not one.node.held)
    await shared.done(shared.send())
    assert "Traceback" not in caplog.text


async def test_job_cancelled_while_its_recording_is_opened_never_runs(
    one: Service, shared: Jobs
) -> None:
    one.opening.go_on.clear()
    job_id = shared.send()
    await until(lambda: one.node.held)
    shared.cancel(job_id)
    await until(lambda: not one.node.held)
    one.opening.go_on.set()
    await shared.ended(shared.send())
    assert shared.changes(job_id, StartedChange) == 0


@pytest.mark.slow
async def test_node_that_claims_a_lost_job_again_runs_it_once(shared: Jobs, hold: Hold) -> None:
    async with services(1, shared, UNCHECKED, concurrency=2) as (one,):
        job_id = shared.send()
        await until(lambda: shared.get(job_id).resume_points)
        shared.lose(job_id)
        await until(lambda: len(one.claims.claimed) == 2)
        hold.release()
        (record,) = await shared.done(job_id)
        assert one.claims.claimed == [job_id] * 2
        assert len({segment.text for segment in record.segments}) == len(record.segments) == 3


async def test_engine_pauses_at_the_next_resume_point_while_database_is_away(
    one: Service, shared: Jobs, hold: Hold
) -> None:
    job_id, next_id = shared.send(), shared.send()
    await until(lambda: shared.get(job_id).segments)
    one.claims.down = True
    known = shared.get(job_id)
    hold.release()
    await until(lambda: len(one.log.get(job_id).resume_points) > len(known.resume_points))
    paused, missed = one.log.get(job_id), one.claims.missed.count("report")
    await until(lambda: one.claims.missed.count("report") >= missed + 3)
    assert isinstance(one.slot.given, ResumePoint), "the job asked the engine for more"
    assert one.log.get(job_id) == paused
    assert not paused.over
    assert shared.get(job_id) == known
    assert one.claims.claimed == [job_id]
    one.claims.down = False
    records = await shared.ended(job_id, next_id)
    assert [record.attempts for record in records] == [1, 1]
    assert {record.state for record in records} == {JobState.DONE}
    assert shared.told(job_id) == [0, 1, 2]
    assert not shared.lost


@pytest.mark.slow
async def test_calls_with_lost_answers_are_repeated_and_take_effect_once(
    one: Service, shared: Jobs
) -> None:
    for _ in range(4):
        one.claims.unanswered = 2
        (record,) = await shared.ended(shared.send())
        assert (record.state, record.attempts) == (JobState.DONE, 1)
        one.claims.unanswered = 0
    for job_id in one.claims.claimed:
        numbers = [event.seq for event in shared.events(job_id)]
        assert numbers == sorted({*numbers})
    assert len(one.claims.claimed) == 4
    assert not shared.lost


@virtual_time
async def test_node_at_its_limit_of_long_recordings_claims_only_short_ones(shared: Jobs) -> None:
    ids = [shared.send() for _ in range(5)]
    shared.lengthen(*ids[1:3])
    async with services(1, shared, concurrency=3, long_concurrency=1, run=False) as (claimer,):
        await asyncio.sleep(LONG_S)
        assert claimer.claims.claimed == [*ids[:2], ids[3]]


@virtual_time
async def test_node_claims_the_next_long_recording_as_soon_as_one_has_ended(shared: Jobs) -> None:
    ids = [shared.send() for _ in range(2)]
    shared.lengthen(*ids)
    async with services(
        1,
        shared,
        UNCHECKED | {"idle_poll_s": NEVER_S},
        concurrency=2,
        run=False,
        long_concurrency=1,
    ) as (claimer,):
        job: Job = await until(lambda: claimer.queue.live(ids[0]))
        await asyncio.sleep(LONG_S)
        assert claimer.claims.claimed == ids[:1]
        job.fail(errors.EngineFailed())
        await until(lambda: claimer.claims.claimed == ids)


async def test_claim_has_current_preferences_of_node(
    one: Service, shared: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, sent = one.claims.claim, list[ClaimPreferences]()

    async def noted(token: str, preferences: ClaimPreferences) -> object:
        sent.append(preferences)
        return await claim(token, preferences)

    monkeypatch.setattr(one.claims, "claim", noted)
    one.preferences = ClaimPreferences(ANYTHING, frozenset({"auto", "int8"}), 3.0)
    await shared.ended(shared.send())
    assert sent[-1] == replace(one.preferences, begins=True)


@pytest.mark.slow_except("[0.0]")
@pytest.mark.parametrize("grace_s", [PATIENCE_S, 0.0])
async def test_draining_node_finishes_running_job_within_grace_or_releases_it_with_resume_points(
    one: Service, shared: Jobs, grace_s: float, hold: Hold
) -> None:
    job_id, next_id = shared.send(), shared.send()
    await until(lambda: shared.get(job_id).resume_points)
    if grace_s:
        hold.release()
    await one.node.drain(grace_s)
    record, waiting = shared.get(job_id), shared.get(next_id)
    assert not shared.claimed
    assert waiting.state is JobState.QUEUED
    assert record.state is (JobState.DONE if grace_s else JobState.QUEUED)
    assert grace_s or (record.resume_points and record.interruptions == record.crashes == 0)
    assert grace_s or shared.changes(job_id, RequeuedChange) == 1
    hold.spare_new_workers()
    async with services(1, shared) as (other,):
        await shared.ended(job_id, next_id)
        assert next_id in other.claims.claimed


async def test_draining_node_leaves_jobs_that_do_not_run_to_others_at_once(
    shared: Jobs, hold: Hold
) -> None:
    async with services(1, shared, concurrency=2) as (one,):
        running = shared.send()
        await until(lambda: shared.get(running).segments)
        with one.claims.aside():
            waiting = shared.send()
            for change in (StartedChange(), RequeuedChange(CountsAs.DEATH)):  # it runs alone
                shared.append(waiting, change)
        await until(lambda: waiting in shared.claimed)
        hold.spare_new_workers()
        draining = asyncio.ensure_future(one.node.drain(2 * PATIENCE_S))
        async with services(1, shared) as (other,):
            await until(lambda: waiting in other.claims.claimed)
            assert not draining.done()
            hold.release()
            await draining
            await shared.ended(running, waiting)
            assert running not in other.claims.claimed


@pytest.mark.slow
async def test_node_closed_without_drain_releases_its_job_and_costs_it_no_attempt(
    shared: Jobs, hold: Hold
) -> None:
    async with services(1, shared):
        job_id = shared.send()
        await until(lambda: shared.get(job_id).segments)
    record = shared.get(job_id)
    assert (record.state, record.interruptions, record.attempts) == (JobState.QUEUED, 0, 0)
    assert not shared.claimed


async def test_drain_ends_while_database_is_away_and_leaves_its_job_claimed(
    shared: Jobs, hold: Hold
) -> None:
    async with services(1, shared, QUICK | {"final_report_s": 0.1}) as (one,):
        job_id = shared.send()
        await until(lambda: shared.get(job_id).resume_points)
        one.claims.down = True
        try:
            await one.node.drain(0.0)
        finally:
            one.claims.down = False
        assert not one.node.held
    assert job_id in shared.claimed  # until its node is taken for dead
    assert not shared.get(job_id).over


async def test_drain_reports_ended_job_when_database_is_back_within_grace(
    shared: Jobs, monkeypatch: pytest.MonkeyPatch, hold: Hold
) -> None:
    monkeypatch.delenv("VIBEVOICE_SCRIPTED_SETTLES")
    async with services(1, shared, QUICK | {"final_report_s": 0.0}) as (one,):
        job_id = shared.send()
        await until(lambda: one.log.get(job_id).segments if one.log.all() else False)
        one.claims.down = True
        draining = asyncio.ensure_future(one.node.drain(PATIENCE_S))
        hold.release()
        await until(lambda: one.log.get(job_id).over)
        missed = one.claims.missed.count("report")
        await until(lambda: draining.done() or one.claims.missed.count("report") >= missed + 3)
        assert not draining.done()
        one.claims.down = False
        await draining
        assert shared.get(job_id).state is JobState.DONE


@virtual_time
async def test_unanswered_claim_is_released_by_drain(claimer: Service, shared: Jobs) -> None:
    claimer.claims.unanswered = 1
    shared.send()
    await until(lambda: shared.claimed)
    assert not claimer.node.held, "it is asked again only after a pause"
    await claimer.node.drain(0.0)
    assert not shared.claimed


async def test_poison_job_fails_when_it_is_claimed(one: Service, shared: Jobs) -> None:
    with one.claims.aside():
        job_id = shared.send()
        for _ in range(2):
            for change in (StartedChange(), RequeuedChange(CountsAs.CRASH)):
                shared.append(job_id, change)
    next_id = shared.send()
    failed, done = await shared.ended(job_id, next_id)
    assert code_of(failed) == "engine_crashed"
    assert (failed.attempts, done.state) == (2, JobState.DONE)
    assert one.tally.ended.of("failed") == 1


async def test_job_whose_recording_cannot_be_opened_is_tried_by_another_node_and_then_fails(
    shared: Jobs,
) -> None:
    async with services(2, shared) as (blind, sighted):
        blind.storage = False
        with sighted.claims.aside():
            job_id = shared.send()
            await until(lambda: shared.changes(job_id, RequeuedChange) and not shared.claimed)
            assert shared.get(job_id).passed == 1
        (record,) = await shared.done(job_id)
        assert (len(blind.claims.claimed), len(sighted.claims.claimed)) == (1, 1)
        sighted.storage = False
        (record,) = await shared.ended(shared.send())
        assert code_of(record) == "audio_lost"
        blind.fault = sighted.fault = ValueError("a bug")
        (record,) = await shared.ended(shared.send())
        assert code_of(record) == "internal"
        await until(lambda: not blind.node.held and not sighted.node.held)


@virtual_time
async def test_job_that_the_only_node_cannot_open_is_claimed_again_after_a_pause(
    claimer: Service, shared: Jobs
) -> None:
    claimer.storage = False
    job_id = shared.send()
    await until(lambda: shared.changes(job_id, RequeuedChange) and not shared.claimed)
    await asyncio.sleep(LONG_S)
    assert claimer.claims.claimed == [job_id]
    assert code_of(claimer.claims.put_offs[job_id].failure) == "audio_lost"
    claimer.storage = True
    await until(lambda: claimer.queue.live(job_id))
    assert claimer.claims.claimed == [job_id] * 2


async def test_unreachable_storage_costs_no_attempt_and_jobs_are_done_once_it_is_back(
    shared: Jobs,
) -> None:
    async with services(2, shared) as both:
        for one in both:
            one.fault = errors.StorageUnreachable()
        sent_ids = [shared.send() for _ in range(3)]
        await until(lambda: all(one.claims.claimed for one in both))
        await until(lambda: sum(len(one.claims.claimed) for one in both) >= 5)
        assert {shared.get(one).state for one in sent_ids} == {JobState.QUEUED}
        for one in both:
            one.fault = None

        def all_over() -> bool:
            shared.now_s += LATER_S  # each job rests after a fault
            return all(shared.get(one).over for one in sent_ids)

        await until(all_over)
        for record in await shared.done(*sent_ids):
            assert shared.changes(record.id, RequeuedChange) == 0
            assert shared.changes(record.id, StartedChange) == 1


async def test_jobs_whose_recordings_alone_cannot_be_opened_keep_no_other_waiting(
    shared: Jobs,
) -> None:
    async with services(1, shared, retry_s=0.01) as (node,):
        bad = list[str]()
        for _ in range(3):
            with node.claims.aside():
                bad.append(shared.send())
                node.faults[bad[-1]] = errors.StorageUnreachable()
                good = shared.send()
                shared.now_s += LATER_S  # earlier ones are tried again
            await shared.done(good)
        assert {shared.get(one).state for one in bad} == {JobState.QUEUED}
        assert code_of(node.claims.put_offs[bad[-1]].failure) == "storage_unreachable"


@virtual_time
async def test_jobs_that_alone_meet_a_fault_of_the_node_keep_no_other_waiting(
    shared: Jobs,
) -> None:
    async with services(1, shared, UNHURRIED, run=False) as (node,):
        claimed = node.claims.claimed
        bad = [shared.send() for _ in range(2)]
        node.faults = {job_id: errors.DiskFull() for job_id in bad}
        await node.claims.claims_until(lambda: len(claimed) >= 6)
        good = shared.send()
        await node.claims.claims_until(lambda: good in claimed)
        await until(lambda: node.queue.live(good))
        assert len(claimed) <= 8


async def test_exception_while_a_claimed_job_is_queued_leaves_it_to_others_and_next_is_done(
    one: Service, shared: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, resume = shared.send(), one.queue.resume

    def broken(job: Job) -> None:
        if job.id == job_id:
            raise KeyError("a bug")
        resume(job)

    monkeypatch.setattr(one.queue, "resume", broken)
    await shared.done(shared.send())
    await until(lambda: not one.node.held)
    assert code_of(one.claims.put_offs[job_id].failure) == "internal"


@virtual_time
async def test_job_in_which_the_engine_crashed_is_done_by_another_node_if_there_is_one(
    claimer: Service, shared: Jobs
) -> None:
    job = await begun_job(claimer, shared)
    job_id = job.id
    async with services(1, shared, run=False) as (other,):
        claimer.met(job, WorkerDied("killed"))
        again = await until(lambda: other.queue.live(job_id))
        again.begin()
        other.met(again, WorkerDied("killed"))
        (failed,) = await shared.ended(job_id)
    assert (failed.crashes, code_of(failed)) == (2, "engine_crashed")
    assert (claimer.claims.claimed, other.claims.claimed) == ([job_id], [job_id])


@virtual_time
async def test_job_in_which_the_engine_failed_late_waits_for_another_node_that_is_busy(
    claimer: Service, shared: Jobs
) -> None:
    """One more such attempt at the same engine would end it."""
    job = await begun_job(claimer, shared)
    async with services(1, shared, run=False) as (other,):
        with other.claims.aside():
            claimer.met(job, errors.EngineFailed(), late=True)
            claimer.queue.breakers.succeeded()  # its engine works
            await asyncio.sleep(LATER_S)
            assert claimer.claims.claimed == [job.id]
        await until(lambda: other.queue.live(job.id))


async def test_node_whose_engine_dies_in_each_recording_fails_no_job_that_another_can_do(
    shared: Jobs,
) -> None:
    slot = DyingSlot()
    async with services(1, shared, retry_s=0.001, slot=slot) as (broken,):
        ids = [shared.send() for _ in range(4)]
        await until(lambda: slot.deaths >= 6 or any(shared.get(one).over for one in ids))
        assert {shared.get(one).state for one in ids} == {JobState.QUEUED}
        assert isinstance(broken.queue.faults[errors.Fault.ENGINE], errors.EngineCrashed)
        async with services(1, shared) as (able,):
            await shared.done(*ids)
            assert {*able.claims.claimed} == {*ids}
        assert max(shared.get(one).crashes for one in ids) <= 1


@virtual_time
async def test_job_that_does_not_fit_beside_others_is_left_to_the_node_that_is_free_first(
    shared: Jobs,
) -> None:
    async with services(2, shared, concurrency=2, run=False) as (busy, free):
        with free.claims.aside():
            beside, job = [await begun_job(busy, shared) for _ in range(2)]
            busy.claims.asides += 1  # as the database decides
            job.end_attempt(FOR_ALONE)
            await until(lambda: job.id not in shared.claimed)
        await until(lambda: free.queue.live(job.id))
        assert (shared.get(job.id).attempts, shared.get(job.id).alone) == (0, True)
        assert busy.queue.live(beside.id)


@pytest.mark.parametrize(
    ("remote", "counts_as", "beside"),
    [
        *((False, CountsAs.DEATH, False), (True, CountsAs.DEATH, True)),
        *((True, CountsAs.CRASH, False), (True, CountsAs.ALONE, False)),
    ],
)
@virtual_time
async def test_node_claims_others_beside_a_job_in_which_an_upstream_failed_or_a_service_died_only(
    shared: Jobs, remote: bool, counts_as: CountsAs, beside: bool
) -> None:
    async with services(1, shared, concurrency=2, run=False) as (node,):
        node.slot.set_spec(remote=remote)
        with node.claims.aside():
            job_id = shared.send()
            for change in (StartedChange(), RequeuedChange(counts_as)):
                shared.append(job_id, change)
        await until(lambda: node.queue.live(job_id))
        other_id = shared.send()
        await asyncio.sleep(LONG_S)
        assert (node.queue.live(other_id) is not None) is beside


@virtual_time
async def test_job_in_which_the_engine_of_the_only_node_crashed_is_claimed_again_at_once(
    claimer: Service, shared: Jobs
) -> None:
    job = await begun_job(claimer, shared)
    begun = asyncio.get_running_loop().time()  # real time: none, it is virtual
    claimer.met(job, WorkerDied("killed"))
    await until(lambda: claimer.claims.claimed == [job.id] * 2)
    assert asyncio.get_running_loop().time() - begun < REST_S
    waits = shared.get(job.id)
    assert (waits.crashes, waits.alone, waits.refused) == (1, True, None)


@virtual_time
async def test_recording_that_the_only_node_cannot_decode_fails_at_once(
    claimer: Service, shared: Jobs
) -> None:
    job = await begun_job(claimer, shared)
    begun = asyncio.get_running_loop().time()  # real time: none, it is virtual
    claimer.met(job, errors.AudioUndecodable())
    again = await until(lambda: claimer.queue.live(job.id) if job.ended else None)
    again.begin()
    claimer.met(again, errors.AudioUndecodable())
    (failed,) = await shared.ended(job.id)
    assert asyncio.get_running_loop().time() - begun < REST_S
    assert code_of(failed) == "audio_undecodable"


@virtual_time
async def test_recording_that_a_node_cannot_decode_waits_for_another_that_cannot_do_it_now(
    shared: Jobs,
) -> None:
    async with services(2, shared, run=False) as (one, other):
        with one.claims.aside():
            rests = await begun_job(other, shared)
            with other.claims.aside():
                other.met(rests, errors.DiskFull())
                await until(lambda: not shared.claimed)
        with other.claims.aside():
            job = await until(lambda: one.queue.live(rests.id))
            job.begin()
        one.met(job, errors.AudioUndecodable())
        await until(lambda: other.queue.live(job.id))
        assert (one.claims.claimed, shared.get(job.id).over) == ([job.id], False)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (errors.DiskFull(), "disk_full"),
        (errors.MachineBusy(), "machine_busy"),
        (RuntimeError("can't start new thread"), "machine_busy"),
    ],
    ids=str,
)
async def test_fault_of_one_node_leaves_all_jobs_to_others_and_costs_no_attempt(
    shared: Jobs, fault: Exception, code: str
) -> None:
    async with services(2, shared, retry_s=1.0) as (full, free):
        full.fault = fault
        with free.claims.aside():
            ids = [shared.send() for _ in range(2)]
            await until(lambda: {*full.claims.claimed} == {*ids} and not shared.claimed)
            assert {code_of(one.failure) for one in full.claims.put_offs.values()} == {code}
        for record in await shared.done(*ids):
            assert shared.changes(record.id, RequeuedChange) == 0
            assert shared.changes(record.id, StartedChange) == 1


async def test_job_that_meets_fault_of_node_as_it_runs_keeps_resume_points_and_is_done_elsewhere(
    shared: Jobs, hold: Hold
) -> None:
    async with services(1, shared) as (full,):
        job_id = shared.send()
        await until(lambda: shared.get(job_id).resume_points)
        job = full.queue.live(job_id)
        assert job is not None
        full.met(job, errors.DiskFull())
        await until(lambda: not shared.claimed and not full.node.held)
        waits = shared.get(job_id)
        assert (waits.state, waits.attempts, waits.passed) == (JobState.QUEUED, 0, 0)
        assert waits.resume_points
        hold.spare_new_workers()
        async with services(1, shared):
            await shared.done(job_id)


@virtual_time
async def test_node_whose_upstream_is_away_leaves_jobs_to_others_until_it_is_back(
    claimer: Service, shared: Jobs
) -> None:
    claimer.queue.breakers.failed(UpstreamBusy(retry_after=3600))
    await asyncio.sleep(LONG_S)  # it has seen that
    job_id = shared.send()
    await asyncio.sleep(LONG_S)
    assert claimer.claims.claimed == []
    claimer.queue.breakers.succeeded()
    await until(lambda: claimer.claims.claimed == [job_id])


@virtual_time
async def test_node_with_a_fault_claims_one_job_at_a_time_until_one_succeeds(
    shared: Jobs,
) -> None:
    async with services(1, shared, concurrency=3, run=False) as (node,):
        node.queue.breakers.failed(errors.DiskFull())
        ids = [shared.send() for _ in range(3)]
        await asyncio.sleep(LONG_S)
        assert node.claims.claimed == ids[:1], "other nodes may do the others meanwhile"
        node.queue.breakers.succeeded()
        await until(lambda: node.claims.claimed == ids)


async def test_recording_of_a_job_claimed_as_a_fault_of_all_was_met_is_opened_and_the_job_done(
    shared: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with services(1, shared, retry_s=0.01) as (node,):
        resume = node.queue.resume

        def met(job: Job) -> None:
            node.queue.breakers.failed(errors.DiskFull())
            resume(job)

        monkeypatch.setattr(node.queue, "resume", met)
        await shared.done(shared.send())


@virtual_time
async def test_jobs_rest_while_their_storage_is_unreachable_and_the_node_names_the_fault(
    shared: Jobs,
) -> None:
    async with services(1, shared, UNHURRIED, run=False) as (node,):
        claimed = node.claims.claimed
        node.fault = errors.StorageUnreachable()
        ids = [shared.send() for _ in range(3)]
        await node.claims.claims_until(lambda: len(claimed) == 3)
        await until(lambda: not shared.claimed)
        await asyncio.sleep(0.5 * REST_S)
        assert claimed == ids
        assert node.queue.faults == {errors.Fault.STORAGE: node.fault}
        await node.claims.claims_until(lambda: len(claimed) == 6)
        await until(lambda: not shared.claimed)
        node.fault = None
        await node.claims.claims_until(lambda: len(claimed) == 7)
        await until(lambda: node.queue.live(ids[0]))


@virtual_time
async def test_job_whose_storage_hangs_as_it_is_opened_is_left_to_others_for_twice_as_long(
    claimer: Service, shared: Jobs
) -> None:
    timeout_s = 10 * LONG_S
    claimer.queue.opener.timeout_s = lambda record: timeout_s
    claimer.opening.go_on.clear()
    job_id = shared.send()
    await until(lambda: shared.claimed)
    await asyncio.sleep(timeout_s + LONG_S)
    waits = shared.get(job_id)
    assert not shared.claimed
    assert (waits.state, waits.attempts, waits.passed) == (JobState.QUEUED, 0, 0)
    assert code_of(claimer.claims.put_offs[job_id].failure) == "storage_unreachable"
    claimer.opening.go_on.set()
    await asyncio.sleep(timeout_s + LONG_S)
    assert claimer.claims.claimed == [job_id], "it would have this node for most of the time"
    await asyncio.sleep(timeout_s)
    await until(lambda: claimer.queue.live(job_id))


async def begun_job(claimer: Service, shared: Jobs) -> Job:
    """A job that this node has claimed and begun."""
    job_id = shared.send()
    job: Job = await until(lambda: claimer.queue.live(job_id))
    job.begin()
    return job


@virtual_time
async def test_job_that_hung_on_storage_as_it_ran_is_left_to_other_nodes_for_twice_as_long(
    claimer: Service, shared: Jobs
) -> None:
    """Its disk hung as it ran alone."""
    job = await begun_job(claimer, shared)
    job_id = job.id
    claimer.met(job, WorkerDied("killed", reading=True), 4 * REST_S)
    await until(lambda: not shared.claimed)
    waits = shared.get(job_id)
    assert (waits.state, waits.attempts, waits.alone) == (JobState.QUEUED, 0, True)
    assert code_of(claimer.claims.put_offs[job_id].failure) == "storage_unreachable"
    await asyncio.sleep(2 * REST_S)
    assert claimer.claims.claimed == [job_id], "it would have this node for most of the time"
    await asyncio.sleep(6 * REST_S)
    await until(lambda: len(claimer.claims.claimed) > 1)


@virtual_time
async def test_job_put_off_after_long_work_is_claimed_again_as_soon_as_after_short_work(
    claimer: Service, shared: Jobs
) -> None:
    job = await begun_job(claimer, shared)
    job.worked_s = 100 * REST_S
    claimer.met(job, errors.StorageUnreachable())
    await until(lambda: not shared.claimed)
    begun = asyncio.get_running_loop().time()  # real time: none, it is virtual
    await until(lambda: len(claimer.claims.claimed) > 1)
    assert asyncio.get_running_loop().time() - begun < 10 * REST_S


async def test_job_whose_model_does_not_load_on_one_node_is_done_by_another(
    shared: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAILS", "int8")
    async with services(1, shared) as (broken,):
        await broken.slot.preload()
        job = job_of(shared.recording, TranscribeOptions(precision=Precision.INT8), durable=True)
        shared.add(job.record)
        await until(lambda: shared.changes(job.id, RequeuedChange) == 1 and not shared.claimed)
        waits = shared.get(job.id)
        assert (waits.state, waits.attempts) == (JobState.QUEUED, 0)
        monkeypatch.delenv("VIBEVOICE_SCRIPTED_FAILS")
        async with services(1, shared) as (other,):
            await shared.done(job.id)
            assert other.claims.claimed == [job.id]
        assert not broken.tally.ended.total


async def test_kept_job_of_a_node_without_upstream_is_left_to_another_and_costs_no_attempt(
    claimer: Service, shared: Jobs
) -> None:
    job = await begun_job(claimer, shared)
    claimer.met(job, UpstreamUnreachable())
    await until(lambda: not shared.claimed)
    waits = shared.get(job.id)
    assert (waits.state, waits.attempts, waits.passed) == (JobState.QUEUED, 0, 0)
    assert code_of(claimer.claims.put_offs[job.id].failure) == "upstream_unreachable"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (errors.LoadInterrupted(), None),
        (errors.MachineBusy(), None),
        (UpstreamLost(), None),
        (errors.AudioPathInvalid(), OSError(errno.EMFILE, "no descriptors are left")),
        (errors.AudioPathInvalid(), OSError(errno.EIO, "a disk that is away")),
    ],
)
async def test_fault_that_may_pass_ends_no_job_that_all_nodes_refuse_for_it(
    claimer: Service, shared: Jobs, error: errors.SidecarError, cause: OSError | None
) -> None:
    error.__cause__ = cause
    job = await begun_job(claimer, shared)
    claimer.met(job, error)
    await until(lambda: not shared.claimed)
    refusal = claimer.claims.put_offs[job.id].failure
    assert not are_final([refusal])
    assert "audio_path" not in refusal.detail


@pytest.mark.parametrize(
    ("fault", "final"), [(errors.Fault.RECORDING, True), (errors.Fault.DEVICE, False)]
)
async def test_job_for_which_nodes_lack_memory_is_unschedulable_only_if_it_never_fits_them(
    claimer: Service, shared: Jobs, fault: errors.Fault, final: bool
) -> None:
    claimer.refusal = errors.WontFit("An hour needs 90 GB.", fault=fault)
    job_id = shared.send()
    await until(lambda: job_id in claimer.claims.put_offs and not shared.claimed)
    refusal = claimer.claims.put_offs[job_id].failure
    assert refusal.detail == "An hour needs 90 GB."
    assert are_final([refusal]) is final


@pytest.mark.parametrize("error", [errors.WontFit, errors.GpuOutOfMemory])
async def test_job_with_new_resume_point_after_it_was_passed_on_is_passed_on_again(
    one: Service, shared: Jobs, error: type[errors.SidecarError], hold: Hold
) -> None:
    with one.claims.aside():
        job_id = shared.send()
        for change in (StartedChange(), RequeuedChange(CountsAs.UNABLE_NODE)):
            shared.append(job_id, change)
        assert shared.get(job_id).passed == 1
    await until(lambda: shared.get(job_id).resume_points)
    job = one.queue.live(job_id)
    assert job is not None
    met = error(fault=errors.Fault.RECORDING)
    job.end_attempt(attempt_end(replace(job.record, crashes=1), met, shared=True))
    await until(lambda: not shared.claimed)
    assert shared.get(job_id).state is JobState.QUEUED
    assert shared.get(job_id).passed == 1


@virtual_time
async def test_node_that_cannot_open_a_recording_passes_the_job_on_with_its_resume_points(
    claimer: Service, shared: Jobs
) -> None:
    done = ReportedChange(ResumePoint(1.0, "scripted-0"))
    with claimer.claims.aside():
        job_id = shared.send()
        for change in (StartedChange(), done, RequeuedChange()):
            shared.append(job_id, change)
        claimer.faults[job_id] = errors.AudioLost()
    await until(lambda: shared.get(job_id).passed)
    assert shared.get(job_id).resume_points == (done.event,)


async def test_ineligible_node_refuses_job_with_reason_and_another_does_it(
    one: Service, shared: Jobs
) -> None:
    one.refuses_all()
    with one.claims.aside():
        ids = [shared.send() for _ in range(3)]
    await until(lambda: len(one.claims.put_offs) == 3 and not shared.claimed)
    assert {code_of(put_off.failure) for put_off in one.claims.put_offs.values()} == {"wont_fit"}
    await until(lambda: all(shared.get(each).refused for each in ids))
    assert {*Counter(one.claims.claimed).values()} <= {1}, "one that was refused is claimed again"
    async with services(1, shared) as (able,):
        await shared.done(*ids)
        assert {*able.claims.claimed} == {*ids}
    assert [shared.changes(each, StartedChange) for each in ids] == [1] * 3


async def test_exception_while_a_job_is_admitted_leaves_it_to_others_as_internal(
    one: Service, shared: Jobs
) -> None:
    one.refusal = KeyError("a bug")
    job_id = shared.send()
    await until(lambda: job_id in one.claims.put_offs and not shared.claimed)
    assert code_of(one.claims.put_offs[job_id].failure) == "internal"


async def test_claimed_job_that_the_new_model_of_its_node_cannot_do_is_done_by_another(
    claimer: Service, shared: Jobs
) -> None:
    ids = [shared.send()]
    await until(lambda: claimer.queue.live(ids[0]))
    claimer.model_changed(errors.LanguageUnsupported())
    await claimer.slot.change(lambda model: model)
    async with services(1, shared):
        await shared.done(*ids)
    assert claimer.claims.claimed == ids


@virtual_time
async def test_draining_node_tells_nothing_of_waiting_jobs(claimer: Service, shared: Jobs) -> None:
    await claimer.node.drain(0.0)
    claimer.claims.can = NodeCapabilities(("engine:moonshine",))
    job_id = shared.send()
    await asyncio.sleep(LONG_S)
    assert shared.get(job_id).refused is None
