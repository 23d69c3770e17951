"""A worker process that is killed at any step of a job costs no word."""

import itertools
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import psutil
import pytest
from instrumented_slot import Overheard, OverheardSlot, queue_on, started
from job_fixtures import Hold
from service_process import until, worker_pids

from sidecar import errors
from sidecar.jobs.job_record import JobState
from sidecar.jobs.job_runner import Job
from sidecar.transcripts.transcript import TranscriptionEvent
from sidecar.workers.engine_lease import EXCLUSIVE
from sidecar.workers.worker_process import PingTimes

NewJob = Callable[..., Job]


class KillingSlot(OverheardSlot):
    """Its worker is killed after so many ``steps`` of an attempt: 0 before it reads, and then one
    for each event of the engine."""

    steps = -1

    @asynccontextmanager
    async def lease(self, *wanted: Any) -> AsyncIterator[Any]:
        async with super().lease(*wanted) as engine:
            yield KilledEngine(engine, self)

    def step(self) -> None:
        if self.steps == 0:
            self.kill()
        self.steps -= 1


class KilledEngine(Overheard):
    _slot: KillingSlot

    async def transcribe(self, *request: Any) -> AsyncGenerator[TranscriptionEvent, None]:
        self._slot.step()
        async for event in self._engine.transcribe(*request):
            self._slot.step()
            yield event


@pytest.mark.parametrize("durable", [False, True])
async def test_worker_killed_at_any_step_of_a_job_leaves_its_text_complete(
    durable: bool, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SETTLES", "1")
    slot = KillingSlot()
    async with queue_on(slot) as queue:
        (first,) = await started(queue, new_job(durable=durable))
        words = (await first.result()).text
        for steps in itertools.count():
            slot.steps = steps
            job = new_job(durable=durable)
            await queue.submit(job)
            assert (await job.result()).text == words != ""
            assert job.record.crashes <= 1
            if slot.steps >= 0:
                break
        assert slot.deaths == steps > 5


async def test_job_whose_worker_is_killed_as_it_loads_is_done_by_another_worker(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_LOAD", "60")
    known, slot = worker_pids(), OverheardSlot()
    async with queue_on(slot, fault_retry_s=0.01) as queue:
        (job,) = await started(queue, new_job())
        await until(lambda: slot.loader.loading)
        monkeypatch.delenv("VIBEVOICE_SCRIPTED_LOAD")
        for pid in worker_pids() - known:
            psutil.Process(pid).kill()
        assert (await job.result()).text
        assert job.state is JobState.DONE


async def test_job_of_killed_worker_whose_connection_is_held_open_is_done_by_another(
    new_job: NewJob, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a process that it started."""
    pair, held = socket.socketpair, list[socket.socket]()

    def held_pair(*words: int) -> tuple[socket.socket, socket.socket]:
        ours, theirs = pair(*words)
        held.append(theirs.dup())
        return ours, theirs

    impatient = replace(EXCLUSIVE.worker, exit_grace_s=0.1)
    shares = replace(EXCLUSIVE, pings=PingTimes(interval_s=0.05), worker=impatient)
    monkeypatch.setattr(OverheardSlot, "shares", shares)
    monkeypatch.setattr(socket, "socketpair", held_pair)
    slot = OverheardSlot()
    async with queue_on(slot, fault_retry_s=0.01) as queue:
        (job,) = await started(queue, new_job())
        await until(lambda: job.record.segments)
        hold.spare_new_workers()
        slot.kill()
        assert (await job.result()).text
        assert (job.record.crashes, slot.loader.loads) == (1, 2)
    for end in held:
        end.close()


async def test_kept_jobs_wait_uncounted_while_workers_are_killed_as_they_load_and_a_request_fails(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the kernel, for lack of memory."""
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_LOAD", "60")
    known, slot = worker_pids(), OverheardSlot()
    kept, request = [new_job(), new_job()], new_job(kept=False)

    async def next_worker() -> int:
        (pid,) = await until(lambda: worker_pids() - known)
        known.add(pid)
        return pid

    async with queue_on(slot, fault_retry_s=0.01) as queue:
        await started(queue, *kept, request)
        for _ in range(6):  # two each for a job, the request, and again a job
            psutil.Process(await next_worker()).kill()
        with pytest.raises(errors.ModelLoadFailed):
            await request.result()
        last = await next_worker()
        assert isinstance(queue.paused, errors.ModelLoadFailed)
        monkeypatch.delenv("VIBEVOICE_SCRIPTED_LOAD")
        psutil.Process(last).kill()
        assert [(await job.result()).text != "" for job in kept] == [True, True]
        assert {job.record.crashes for job in kept} == {0}
