"""A worker process that is killed at any step of a job costs no word."""

import itertools
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from instrumented_slot import Overheard, OverheardSlot, queue_on, started
from service_process import until, worker_pids

from sidecar import errors
from sidecar.jobs.job_record import JobState
from sidecar.jobs.job_runner import Job
from sidecar.transcripts.transcript import TranscriptionEvent

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills with a POSIX signal")
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
            os.kill(pid, signal.SIGKILL)
        assert (await job.result()).text
        assert job.state is JobState.DONE


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
            os.kill(await next_worker(), signal.SIGKILL)
        with pytest.raises(errors.ModelLoadFailed):
            await request.result()
        last = await next_worker()
        assert isinstance(queue.paused, errors.ModelLoadFailed)
        monkeypatch.delenv("VIBEVOICE_SCRIPTED_LOAD")
        os.kill(last, signal.SIGKILL)
        assert [(await job.result()).text != "" for job in kept] == [True, True]
        assert {job.record.crashes for job in kept} == {0}
