"""Jobs on an engine whose process answers nothing any more, and on one that is only busy."""

import asyncio
import dataclasses
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import psutil
import pytest
from instrumented_slot import OverheardJoint, OverheardSlot, queue_on, started
from job_fixtures import Hold
from service_process import PATIENCE_S, until, wait_until
from virtual_time import virtual_time

from sidecar import errors
from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.audio_decoder import DecodedAudio
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import choose_engine
from sidecar.jobs.job_runner import Job
from sidecar.service.facade import Service
from sidecar.workers import rpc_client, worker_process
from sidecar.workers.engine_lease import EngineState
from sidecar.workers.worker_operations import ReadWatch

NewJob = Callable[..., Job]

DEAF_S = 0.05
HEARS = worker_process.WorkerProcess.answers_ping
STOPPED: set[int] = set()
"""Processes of workers that a test has stopped."""


async def answers_ping(worker: worker_process.WorkerProcess, within_s: float) -> bool:
    """Ask one that was not stopped again until it answers: a busy machine is not deaf."""
    while not (heard := await HEARS(worker, within_s)) and worker.alive:
        if worker.pid in STOPPED:
            break
        await asyncio.sleep(0)
    return heard


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Callable[..., OverheardSlot]:
    """Makes engines that may be deaf for a moment only, at half a second for each of audio."""
    STOPPED.clear()
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "2")

    def make(
        kind: type[OverheardSlot], second_ping_s: float = DEAF_S, **worker: float
    ) -> OverheardSlot:
        monkeypatch.setattr(worker_process.WorkerProcess, "answers_ping", answers_ping)
        pings = worker_process.PingTimes(DEAF_S, second_ping_s, 0.05, 0.05)
        options = dataclasses.replace(kind.shares.worker, cancel_grace_s=4.0, **worker)
        impatient = dataclasses.replace(kind.shares, pings=pings, worker=options)
        monkeypatch.setattr(kind, "shares", impatient)
        return kind()

    return make


def stop(slot: OverheardSlot) -> int:
    """Have the worker of a slot answer nothing any more; its process."""
    assert slot.worker_pid is not None
    psutil.Process(slot.worker_pid).suspend()
    STOPPED.add(slot.worker_pid)
    return slot.worker_pid


@pytest.mark.slow_except("OverheardSlot")
@pytest.mark.parametrize("kind", [OverheardSlot, OverheardJoint])
async def test_job_whose_engine_hangs_is_done_by_a_fresh_engine_and_counts_one_crash(
    kind: type[OverheardSlot], build: Callable[..., OverheardSlot], new_job: NewJob, hold: Hold
) -> None:
    slot = build(kind)
    async with queue_on(slot) as queue:
        job, after = new_job(), new_job()
        await started(queue, job)
        await until(lambda: job.record.segments)
        hung = stop(slot)
        hold.spare_new_workers()
        transcript = await job.result()
        assert slot.worker_pid != hung
        await queue.submit(after)
        assert (await after.result()).text == transcript.text != ""
        assert (job.record.attempts, job.record.crashes) == (2, 1)
        assert (after.record.attempts, slot.loader.loads) == (1, 2)


@pytest.mark.parametrize("remote", [False, True])
async def test_engine_that_reports_nothing_for_long_hangs_unless_it_waits_for_another_server(
    remote: bool,
    build: Callable[..., OverheardSlot],
    new_job: NewJob,
    hold: Hold,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rpc_client.RpcConnection, "max_silent_pings", 5)
    slot, answered = build(OverheardSlot, second_ping_s=PATIENCE_S), list[bool]()
    slot.set_spec(remote=remote)

    async def noted(worker: worker_process.WorkerProcess, within_s: float) -> bool:
        answered.append(await answers_ping(worker, within_s))
        return answered[-1]

    monkeypatch.setattr(worker_process.WorkerProcess, "answers_ping", noted)
    async with queue_on(slot, fault_retry_s=0.01) as queue:
        (job,) = await started(queue, new_job())
        await until(lambda: job.record.segments)
        answered.clear()
        await until(lambda: len(answered) > 20 or job.record.crashes)
        hold.release()
        await job.result()
        assert job.record.crashes == (not remote)
    notes = "".join(line for one in slot.crashed for line in one.last_lines)
    assert ("reported nothing of a transcription" in notes) is not remote


@pytest.mark.slow
async def test_idle_engine_that_hangs_is_replaced_before_the_next_job(
    build: Callable[..., OverheardSlot], new_job: NewJob
) -> None:
    slot = build(OverheardSlot)
    async with queue_on(slot) as queue:
        await slot.preload()
        stop(slot)
        await until(lambda: slot.state is EngineState.ABSENT)
        (job,) = await started(queue, new_job())
        assert (await job.result()).text
        assert (job.record.attempts, job.record.crashes, slot.loader.loads) == (1, 0, 2)


@pytest.mark.slow
async def test_jobs_wait_and_no_other_worker_starts_until_unkillable_one_ends(
    build: Callable[..., OverheardSlot],
    new_job: NewJob,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    hold: Hold,
) -> None:
    """A process that SIGKILL does not end cannot be had on purpose: it takes a driver that hangs,
    or a hard mount whose server is gone. Here one is stopped, and killing it does nothing."""
    slot = build(OverheardSlot, exit_grace_s=0.1)
    async with queue_on(slot, fault_retry_s=0.01) as queue:
        job, after = new_job(), new_job()
        await started(queue, job)
        await until(lambda: job.record.segments)
        hold.spare_new_workers()
        with monkeypatch.context() as nothing_ends_it:
            nothing_ends_it.setattr(subprocess.Popen, "kill", lambda process: None)
            hung = stop(slot)
            await queue.submit(after)
            await until(lambda: isinstance(queue.paused, errors.EngineStuck))
            assert (job.record.crashes, slot.state) == (1, EngineState.STUCK)
            assert f"pid {hung}" in caplog.text
            assert not job.ended
            assert not after.ended
        assert (slot.loader.loads, slot.worker_pid) == (1, None)
        psutil.Process(hung).kill()
        assert (await job.result()).text
        assert (await after.result()).text


async def test_service_with_unkillable_worker_reports_trouble_engine_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(engine="scripted")
    service = Service(settings, choose_engine(settings), live=choose_engine(settings))
    assert service.trouble is None
    with monkeypatch.context() as hanging:
        hanging.setattr(type(service.fleet.live), "state", EngineState.STUCK)
        assert service.trouble == "engine_stuck"
    await service.close()


@pytest.mark.parametrize("heard", ["first", "second"])
async def test_busy_engine_that_answers_first_or_second_ping_is_not_killed(
    heard: str,
    build: Callable[..., OverheardSlot],
    new_job: NewJob,
    hold: Hold,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A service that was blocked itself has not read the first answer."""
    slot, answered = build(OverheardSlot, second_ping_s=PATIENCE_S), list[bool]()
    pings = slot.sharing.pings
    heard_s = pings.timeout_s if heard == "first" else pings.second_timeout_s

    async def noted(worker: worker_process.WorkerProcess, within_s: float) -> bool:
        answered.append(within_s == heard_s and await answers_ping(worker, within_s))
        return answered[-1]

    monkeypatch.setattr(worker_process.WorkerProcess, "answers_ping", noted)
    async with queue_on(slot) as queue:
        (job,) = await started(queue, new_job())
        await until(lambda: job.record.segments or job.ended)
        answered.clear()
        await until(lambda: any(answered) or job.ended)
        hold.release()
        await job.result()
        assert (job.record.attempts, slot.loader.loads) == (1, 1)
        await until(lambda: not slot.in_use)
        assert not slot.heartbeat.in_use, "nobody has it"


@virtual_time
async def test_engine_in_use_is_pinged_often_and_one_at_rest_seldom() -> None:
    class Answers:
        alive, silent, pings, reading_s = True, False, 0, 0.0

        async def answers_ping(self, within_s: float) -> bool:
            self.pings += 1
            return True

    worker = Answers()
    heartbeat = worker_process.Heartbeat(lambda: worker)  # type: ignore[arg-type,return-value]
    counts = []
    for in_use in (True, False):
        heartbeat.start(in_use=in_use)
        await asyncio.sleep(10.5 * worker_process.IDLE_HEARTBEAT_INTERVAL_S)
        counts.append(worker.pings)
    heartbeat.stop()
    often = int(
        10.5 * worker_process.IDLE_HEARTBEAT_INTERVAL_S / worker_process.HEARTBEAT_INTERVAL_S
    )
    assert counts == [often, often + 10]


@virtual_time
async def test_engine_whose_read_of_a_recording_hangs_is_killed_only_after_the_limit() -> None:
    class Reads:
        silent = False
        alive, note = True, ""

        def __init__(self) -> None:
            self.began = time.monotonic()

        @property
        def reading_s(self) -> float:
            return time.monotonic() - self.began

        async def answers_ping(self, within_s: float) -> bool:
            return True

        def kill(self, *, hung: bool, note: str) -> None:
            assert hung
            self.note = note

    worker = Reads()
    heartbeat = worker_process.Heartbeat(lambda: worker)  # type: ignore[arg-type,return-value]
    heartbeat.start(in_use=True)
    await asyncio.sleep(worker_process.READ_TIMEOUT_S - worker_process.HEARTBEAT_INTERVAL_S)
    assert not worker.note
    await asyncio.sleep(3 * worker_process.HEARTBEAT_INTERVAL_S)
    assert worker.note == worker_process.READ_NOTE
    heartbeat.stop()


async def test_job_whose_disk_hangs_goes_uncounted_behind_others(
    new_job: NewJob, hold: Hold
) -> None:
    slot = OverheardSlot()
    async with queue_on(slot, fault_retry_s=0.0) as queue:
        hangs, other = new_job(), new_job()
        ended = list[str]()
        for job in (hangs, other):
            job.when_over(lambda job_id=job.id: ended.append(job_id))
            await queue.submit(job)
        queue.open()
        await until(lambda: hangs.record.segments)
        hold.spare_new_workers()
        assert slot.worker is not None
        slot.worker.kill(hung=True, note=worker_process.READ_NOTE)
        await until(lambda: hangs.not_before)
        for job in (other, hangs):
            assert (await job.result()).text
        assert [(job.record.attempts, job.record.crashes) for job in (hangs, other)] == [(1, 0)] * 2
        assert ended == [other.id, hangs.id]


def test_read_watch_has_growing_duration_of_a_hanging_read_until_it_ends() -> None:
    asked, answers = threading.Event(), threading.Event()

    class HangingDisk:
        def __iter__(self) -> Iterator[Block]:
            yield np.zeros(1, np.float32)
            asked.set()
            answers.wait(PATIENCE_S)
            yield np.zeros(1, np.float32)

    reads = ReadWatch()
    blocks = iter(DecodedAudio(cast(Any, HangingDisk()), SAMPLE_RATE, 9.0, reading=reads.reading))
    next(blocks)
    assert reads.longest_s == 0.0, "the engine has the block, and nothing is read"
    reader = threading.Thread(target=next, args=(blocks,))
    reader.start()
    asked.wait(PATIENCE_S)
    first = reads.longest_s
    wait_until(lambda: reads.longest_s > first, "it grows")
    answers.set()
    reader.join()
    assert reads.longest_s == 0.0
    assert [*blocks] == []
