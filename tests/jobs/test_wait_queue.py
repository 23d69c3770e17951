"""Who waits and who is next, on a real engine: several owners share it, and positions say so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from instrumented_slot import OverheardSlot, job_of, queue_on, queue_options, started, submitted
from job_fixtures import Hold
from service_process import until
from virtual_time import virtual_time

from sidecar import errors
from sidecar.interfaces.engine_interface import Precision
from sidecar.jobs.attempt_end import REQUEUED, AttemptEnd
from sidecar.jobs.duration_prediction import MIN_JOB_S, DurationPredictor
from sidecar.jobs.faults import RETRY_S
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import CountsAs, JobState, Priority, RequeuedChange
from sidecar.jobs.job_runner import Job
from sidecar.jobs.wait_queue import LONG_AUDIO_S, WaitQueue, is_long
from sidecar.plugins.upstream.errors import UpstreamBusy
from sidecar.transcripts.transcript import Finished, Progress, ResumePoint, Transcript

NewJob = Callable[..., Job]


def by_owner(job: Job, precision: Precision) -> float:
    """How long a job of these tests is said to take: its owner's name ends with it."""
    return float(job.record.owner.rpartition(" ")[2])


class LoadedSlot(OverheardSlot):
    """A slot whose engine nobody had to load."""

    loaded = True


def lineup_on(slot: OverheardSlot, **terms: Any) -> WaitQueue:
    """The waiting jobs of an engine."""
    return WaitQueue(slot, queue_options(**terms))


async def runs(
    lineup: WaitQueue,
    log: JobEventLog,
    takes_s: Callable[[Job, Precision], float],
    waits_s: float = 0.0,
) -> AsyncIterator[Job]:
    """Run one job after the other, each for so long in virtual time, and yield them. ``waits_s``:
    until each has the engine."""
    while (job := lineup.due(0)) is not None:
        job.enter(log)
        lineup.begin(job, 0)
        job.begin()
        job.worked_s = takes_s(job, Precision.FP32)
        await asyncio.sleep(waits_s + job.worked_s)  # real time: none, it is virtual
        job.apply_report(Finished(Transcript((), "en", 1.0, "scripted", "fp32")), 1.0)
        lineup.finish(job, 0)
        yield job


async def ran(queue: JobQueue, jobs: list[Job]) -> list[int]:
    """The jobs, by number, in the order in which they ended."""
    ended: list[int] = []

    async def wait(number: int) -> None:
        await jobs[number].result()
        ended.append(number)

    waiting = asyncio.gather(*(wait(number) for number in range(len(jobs))))
    queue.open()
    await waiting
    return ended


@virtual_time
async def test_positions_and_waits_match_the_order_of_runs(recording: Path) -> None:
    lineup, log = lineup_on(LoadedSlot(), guess=by_owner), JobEventLog()
    owners = ["a 10", "a 10", "b 25", "b 25", "c 5", "a 10", "c 5", "c 5"]
    jobs = [job_of(recording, owner=owner) for owner in owners]
    for job in jobs:
        lineup.join(job)
    turns = [lineup.position(job.id) or (-1, -1.0) for job in jobs]
    in_order = sorted(range(len(jobs)), key=lambda number: turns[number])
    assert sorted(place for place, _ in turns) == [*range(len(jobs))]
    works = [by_owner(jobs[number], Precision.FP32) for number in in_order]
    assert [turns[number][1] for number in in_order] == [
        sum(works[:place]) for place in range(len(works))
    ]
    assert in_order[0] == 4
    ran = [jobs.index(job) async for job in runs(lineup, log, by_owner)]
    assert ran == in_order
    assert [lineup.position(job.id) for job in jobs] == [None] * len(jobs)


async def test_waiting_jobs_have_growing_waits_behind_a_running_one_and_move_up_after_a_cancel(
    new_job: NewJob, hold: Hold
) -> None:
    async with queue_on(OverheardSlot()) as queue:
        running, next_, last = await started(queue, *(new_job() for _ in range(3)))
        await until(lambda: running.record.progress.audio_s_done)
        (first, first_s), (second, second_s) = queue.position(next_.id), queue.position(last.id)
        assert 0.0 < first_s < second_s
        assert queue.position(running.id) is None
        assert (first, second) == (0, 1)
        queue.cancel(next_)
        assert queue.position(last.id)[0] == 0


async def test_batch_job_runs_after_interactive_job_of_same_owner(recording: Path) -> None:
    async with queue_on(OverheardSlot()) as queue:
        jobs = [
            job_of(recording, priority=priority)
            for priority in (Priority.BATCH, Priority.INTERACTIVE, Priority.BATCH)
        ]
        await submitted(queue, *jobs)
        assert await ran(queue, jobs) == [1, 0, 2]


@pytest.mark.slow
async def test_requeued_job_is_next_and_its_owner_is_refunded(new_job: NewJob, hold: Hold) -> None:
    async with queue_on(OverheardSlot(), guess=by_owner) as queue:
        mine, yours = await started(queue, new_job(owner="me 100"), new_job(owner="you 150"))
        for _ in range(3):
            # which is the last that a held attempt reports
            await until(lambda: mine.record.progress.audio_s_done)
            reported = mine.record.seq
            queue.interrupt()
            await until(lambda reported=reported: mine.record.seq > reported)
            assert yours.state is JobState.QUEUED
        hold.release()
        assert (await mine.result()).text == (await yours.result()).text
        assert mine.record.attempts == 1


async def test_failed_duration_estimate_at_submission_leaves_no_job(new_job: NewJob) -> None:
    def guess(job: Job, precision: Precision) -> float:
        raise OSError("nobody knows")

    async with queue_on(OverheardSlot(), guess=guess) as queue:
        with pytest.raises(OSError, match="nobody knows"):
            await queue.submit(new_job())
        assert queue.depth == 0
        assert queue.event_log.all() == []


async def test_attempt_in_vain_costs_its_owner_the_time_that_it_took(recording: Path) -> None:
    lineup = lineup_on(OverheardSlot(), guess=by_owner)
    mine, yours = job_of(recording, owner="me 10"), job_of(recording, owner="you 10")
    for job in (mine, yours):
        lineup.join(job)
    lineup.begin(mine, 0)
    mine.worked_s = 8.0
    lineup.finish(mine, 0)
    assert [*lineup.in_order()] == [yours, mine]


@pytest.mark.parametrize("fault", [errors.StorageUnreachable(), errors.DiskFull()])
async def test_jobs_that_were_tried_in_vain_go_last_only_while_jobs_are_tried_one_by_one(
    recording: Path, fault: errors.SidecarError
) -> None:
    lineup = lineup_on(OverheardSlot(), fault_retry_s=0.0, guess=by_owner)
    mine, yours = job_of(recording, owner="me 10"), job_of(recording, owner="you 10")
    for job in (mine, yours):
        lineup.join(job)
    mine.vain_attempts = 1
    lineup.breakers.failed(fault)
    one_by_one = isinstance(fault, errors.DiskFull)
    assert [*lineup.in_order()] == ([yours, mine] if one_by_one else [mine, yours])


@pytest.mark.parametrize("error", [errors.ModelLoadFailed(), UpstreamBusy()])
async def test_requests_that_fail_again_and_again_keep_no_kept_job_from_its_try(
    recording: Path, error: errors.SidecarError, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lineup = lineup_on(OverheardSlot(), fault_retry_s=20.0)
    kept = job_of(recording)
    lineup.join(kept)
    for now in (1000.0, 1010.0, 1020.0):
        lineup.hold(job_of(recording, kept=False), error, 0.0)
        assert ([*lineup.in_order()] == [kept]) is (now == 1020.0)


async def test_each_free_dispatcher_has_its_own_next_job(recording: Path) -> None:
    lineup = lineup_on(OverheardSlot(), concurrency=3, guess=by_owner)
    jobs = [job_of(recording, owner="me 10") for _ in range(3)]
    for job in jobs[:2]:
        lineup.join(job)
    assert [lineup.due(at) for at in range(3)] == [*jobs[:2], None]
    lineup.begin(jobs[0], 1)
    assert (lineup.due(0), lineup.due(2), lineup.free()) == (jobs[1], None, 2)
    lineup.join(jobs[2])
    assert (lineup.due(0), lineup.due(2)) == (*jobs[1:],)
    assert (lineup.position(jobs[1].id), lineup.position(jobs[2].id)) == ((0, 0.0), (1, 0.0))


async def test_long_recordings_take_at_most_their_places_and_short_one_gets_the_rest(
    recording: Path,
) -> None:
    lineup = lineup_on(OverheardSlot(), concurrency=3, guess=by_owner, long_concurrency=2)

    def job(owner: str, total_s: float | None) -> Job:
        made = job_of(recording, owner=owner)
        made.record = replace(
            made.record, audio_info=replace(made.record.audio_info, total_s=total_s)
        )
        lineup.join(made)
        return made

    long = [job("me 10", length_s) for length_s in (1000, None, 3600)]
    assert [lineup.due(at) for at in range(3)] == [*long[:2], None]
    lineup.begin(long[0], 0)
    lineup.begin(long[1], 1)
    assert lineup.due(2) is None
    short = job("you 15", 900)
    assert lineup.due(2) is short
    lineup.begin(short, 2)
    lineup.finish(long[0], 0)
    assert lineup.due(0) in long, "one of two has its place"


async def test_measured_duration_of_first_job_shortens_expected_waits_of_others(
    new_job: NewJob,
) -> None:
    slot, pace = OverheardSlot(), DurationPredictor()
    async with queue_on(slot, guess=lambda job, precision: 500.0, predictor=pace) as queue:
        first, *rest = await submitted(queue, *(new_job(owner="a") for _ in range(4)))
        assert [queue.position(job.id)[1] for job in rest] == [500.0, 1000.0, 1500.0]
        slot.release.clear()
        queue.open()
        await first.result()

        def let_it_go() -> bool:
            slot.release.set()
            slot.release.clear()  # for the next one keeps the engine, too
            return pace.knows("fp32")

        await until(let_it_go)
        assert pace.load_s("fp32") == slot.loader.load_s > 0.0
        await rest[0].result()
        waits = [queue.position(job.id)[1] for job in rest[1:]]
        assert waits[0] < waits[1] < 50.0
        slot.release.set()
        for job in rest:
            await job.result()


@pytest.mark.parametrize("resumed", [True, False])
async def test_duration_is_learned_from_a_whole_attempt_and_not_from_a_resumed_one(
    resumed: bool, recording: Path
) -> None:
    pace, job = DurationPredictor(), job_of(recording)
    job.enter(JobEventLog())
    lineup = lineup_on(OverheardSlot(), predictor=pace)
    lineup.join(job)
    lineup.begin(job, 0)
    job.begin()
    if resumed:
        job.apply_report(ResumePoint(60.0, "test"), 9.0)
        job.end_attempt(REQUEUED)
        job.begin()
    job.apply_report(Finished(Transcript((), "en", 100.0, "scripted", "fp32")), 2.0)
    lineup.finish(job, 0)
    assert pace.knows("fp32") is not resumed


@virtual_time
async def test_owner_whose_headers_claim_too_little_is_charged_what_its_jobs_took(
    new_job: NewJob,
) -> None:
    """All of the liar's jobs are said to take a second, and take ten."""
    lineup, log = lineup_on(LoadedSlot(), guess=by_owner), JobEventLog()
    for owner in ["liar 1"] * 6 + ["bob 5"] * 2:
        lineup.join(new_job(owner=owner))

    def takes_s(job: Job, precision: Precision) -> float:
        return 10.0 if job.record.owner == "liar 1" else 5.0

    order = [job.record.owner async for job in runs(lineup, log, takes_s)]
    assert order == ["liar 1", "bob 5", "bob 5", *["liar 1"] * 5]


@virtual_time
async def test_owner_is_not_charged_for_the_time_that_its_jobs_waited_for_the_engine(
    new_job: NewJob,
) -> None:
    lineup, log = lineup_on(LoadedSlot(), guess=by_owner), JobEventLog()
    for owner in ["ann 2"] * 3 + ["bob 5"] * 2:
        lineup.join(new_job(owner=owner))
    order = [job.record.owner async for job in runs(lineup, log, by_owner, waits_s=100.0)]
    assert order == ["ann 2", "ann 2", "bob 5", "ann 2", "bob 5"]


@pytest.mark.parametrize("remote", [False, True])
async def test_duration_of_job_beside_another_is_learned_only_for_remote_engines(
    remote: bool, recording: Path
) -> None:
    """Those that share a model slow each other down."""
    pace, slot = DurationPredictor(), OverheardSlot()
    slot.set_spec(remote=remote)
    lineup, jobs = (
        lineup_on(slot, concurrency=2, predictor=pace),
        [job_of(recording) for _ in range(3)],
    )
    for job, at in zip(jobs, (0, 1, 0), strict=True):
        job.enter(JobEventLog())
        lineup.join(job)
        lineup.begin(job, at)
        job.begin()
        if job is not jobs[0]:
            ends = jobs[jobs.index(job) - 1]
            ends.apply_report(Finished(Transcript((), "en", 100.0, "scripted", "fp32")), 2.0)
            lineup.finish(ends, 1 - at)
            assert pace.knows("fp32") is remote


@virtual_time
async def test_wait_behind_a_running_job_is_its_remaining_time(recording: Path) -> None:
    lineup = lineup_on(LoadedSlot(), guess=by_owner)
    running, waiting = (job_of(recording, owner=owner) for owner in ("a 100", "b 10"))
    running.enter(JobEventLog())
    for job in (running, waiting):
        lineup.join(job)
    lineup.begin(running, 0)
    running.begin()
    for done_s, wait_s in ((0.0, 60.0), (1.5, 65.0)):  # 40 s, then 80 s and half of the work
        await asyncio.sleep(40.0)  # real time: none, it is virtual
        running.apply_report(Progress(done_s, 3.0), 1.0)
        assert lineup.position(waiting.id) == (0, pytest.approx(wait_s, abs=1e-3))


async def test_time_until_so_many_jobs_have_begun_is_the_wait_of_the_last_or_estimated_beyond(
    recording: Path,
) -> None:
    lineup = lineup_on(LoadedSlot(), guess=by_owner)
    assert lineup.begun_in_s(2) == 2 * MIN_JOB_S
    for owner in ("a 10", "b 25", "c 40"):
        lineup.join(job_of(recording, owner=owner))
    assert [lineup.begun_in_s(count) for count in (1, 2, 3, 5)] == [0.0, 10.0, 35.0, 85.0]


@pytest.mark.parametrize("channels", [1, 2])
def test_recording_is_long_by_the_audio_of_all_its_channels(
    channels: int, tmp_path: Path, voice: bytes
) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(voice)
    job = job_of(path)
    facts = replace(job.record.audio_info, total_s=0.6 * LONG_AUDIO_S, channels=channels)
    assert is_long(replace(job.record, audio_info=facts)) is (channels == 2)
    job.source.close()


def test_job_that_is_held_is_not_started_before_its_time_and_delays_no_other(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    lineup = lineup_on(LoadedSlot(), guess=by_owner)
    held, other = job_of(recording, owner="a 10"), job_of(recording, owner="b 10")
    lineup.join(held)
    held.not_before = 4600.0
    assert lineup.due(0) is None
    assert lineup.next_start_in_s(1000.0) == 3600.0
    lineup.join(other)
    assert lineup.due(0) is other
    held.not_before = 1000.0
    assert lineup.due(0) is held


def test_job_whose_time_comes_while_the_queue_is_looked_at_is_looked_for_again_at_once(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = began_s = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    lineup, held = lineup_on(LoadedSlot(), guess=by_owner), job_of(recording, owner="a 10")
    lineup.join(held)
    held.not_before = 1001.0
    assert lineup.due(0) is None
    now_s = 1002.0
    assert lineup.next_start_in_s(began_s) == 0.0
    assert lineup.due(0) is held
    assert lineup.next_start_in_s(now_s) is None


def test_one_kept_job_is_tried_while_the_upstream_is_away_and_all_start_once_it_is_back(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    lineup = lineup_on(LoadedSlot(), guess=by_owner, concurrency=2)
    failed, other, request = (
        job_of(recording, owner=owner, kept=owner != "c 10") for owner in ("a 10", "b 10", "c 10")
    )
    lineup.join(failed)
    lineup.hold(failed, errors.ModelLoadFailed(), 0.0)
    lineup.join(other)
    assert lineup.due(0) is None
    lineup.join(request)
    assert lineup.due(0) is request, "it gets the error at once"
    lineup.leave(request)
    now_s += RETRY_S
    assert lineup.due(0) is other, "the one that failed rests for longer"
    lineup.begin(other, 0)
    now_s += 2 * RETRY_S - 0.1
    assert lineup.due(1) is None
    lineup.breakers.succeeded()
    later = job_of(recording, owner="d 10", kept=True)
    lineup.join(later)
    assert lineup.due(1) is later


def test_job_that_kept_the_engine_in_vain_rests_for_twice_as_long(recording: Path) -> None:
    lineup, job = lineup_on(LoadedSlot(), guess=by_owner), job_of(recording, owner="a 10")
    lineup.join(job)
    lineup.hold(job, errors.StorageUnreachable(), vain_s=1e6)
    assert 1.9e6 < (lineup.next_start_in_s(0.0) or 0.0) <= 2e6


@virtual_time
async def test_jobs_that_end_before_running_ones_pass_one_that_waits_to_be_by_itself(
    recording: Path,
) -> None:
    """Their own ends count for none that comes later, so they cannot keep it waiting for ever."""
    lineup = lineup_on(LoadedSlot(), guess=by_owner, concurrency=3)
    running, alone, longer, short, shorter = jobs = [
        job_of(recording, owner=owner) for owner in ("a 3600", "b 10", "c 4000", "d 900", "e 800")
    ]
    alone.record = replace(alone.record, alone=True)
    lineup.join(running)
    lineup.begin(running, 0)
    for job in jobs[1:]:
        lineup.join(job)
    assert [lineup.due(at) for at in (1, 2)] == [shorter, short]
    lineup.begin(shorter, 1)
    await asyncio.sleep(2000)  # real time: none, it is virtual
    assert lineup.due(2) is short, "1600 s of the first are left"
    lineup.leave(longer)
    await asyncio.sleep(900)  # real time: none, it is virtual
    assert lineup.due(2) is None, "700 s are left"
    for job, at in ((running, 0), (shorter, 1)):
        assert lineup.due(2) is None
        job.enter(JobEventLog())
        job.cancel()
        lineup.finish(job, at)
    assert [lineup.due(at) for at in range(3)] == [alone, None, None]
    lineup.begin(alone, 0)
    assert lineup.due(1) is None


@virtual_time
@pytest.mark.parametrize(
    ("remote", "counts_as", "beside"),
    [
        *((False, CountsAs.DEATH, False), (True, CountsAs.DEATH, True)),
        *((True, CountsAs.CRASH, False), (True, CountsAs.ALONE, False)),
    ],
)
async def test_job_starts_beside_others_at_a_remote_engine_unless_its_own_process_ended_in_it(
    remote: bool, counts_as: CountsAs, beside: bool, recording: Path
) -> None:
    slot = LoadedSlot()
    slot.set_spec(remote=remote)
    lineup = lineup_on(slot, guess=by_owner, concurrency=2)
    runs_now = job_of(recording, owner="a 10")
    died = job_of(recording, owner="b 10")
    died.enter(JobEventLog())
    died.begin()
    died.end_attempt(AttemptEnd((RequeuedChange(counts_as),)))
    for job in (runs_now, died):
        lineup.join(job)
    lineup.begin(runs_now, 0)
    assert lineup.due(1) is (died if beside else None)
