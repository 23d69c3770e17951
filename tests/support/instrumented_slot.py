"""A slot whose leases can be listened to and meddled with; the engine in it is a real process."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import psutil
from service_process import PATIENCE_S

from sidecar import errors
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import AudioSource, open_recording_file, recording_ref
from sidecar.engines import engine_spec
from sidecar.engines.engine_selection import EngineChoice
from sidecar.interfaces.engine_interface import EngineSpec, Precision, TranscribeOptions
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.jobs.wait_queue import QueueOptions
from sidecar.transcripts.transcript import TranscriptionEvent
from sidecar.workers import engine_lease
from sidecar.workers.engine import Engine
from sidecar.workers.loaded_model import DEFAULT_MODEL_ID, LoadedModel
from sidecar.workers.worker_process import WorkerProcess

FACTS = AudioInfo("wav", "sndfile", 3.0)


def job_of(path: Path, options: TranscribeOptions | None = None, **more: Any) -> Job:
    """A job that nobody has submitted yet."""
    source = open_recording_file(str(path))
    made = JobRecord.submitted(
        0.0, recording_ref(source), FACTS, options or TranscribeOptions(), **more
    )
    return Job(source, made)


def model_of(engine: str, precision: Precision = Precision.AUTO) -> LoadedModel[EngineSpec]:
    """An engine that needs no checkpoint, at a precision."""
    spec = engine_spec(engine)
    used = spec.resolve_precision(precision)
    return LoadedModel(DEFAULT_MODEL_ID, EngineChoice(spec, ""), spec, used)


def scripted_model(precision: Precision) -> LoadedModel[EngineSpec]:
    """The scripted engine at a precision."""
    return model_of("scripted", precision)


async def as_asked(job: Job, precision: Precision) -> TranscribeOptions:
    """The plan of a job that gets what it asks for."""
    return job.record.options


class OverheardSlot(Engine[EngineSpec]):
    """The scripted engine.

    ``poison``: the inode of a recording that kills whoever begins to read it. ``release``:
    a lease does not end before it is set. ``given``: what the engine said last to a job, until the
    job asks for more. ``refusal``: what a lease fails with, as if the engine could not be had.
    """

    shares: ClassVar[engine_lease.Sharing] = engine_lease.EXCLUSIVE

    def __init__(self, keep_alive_s: float = -1, precision: Precision = Precision.AUTO) -> None:
        self.crashed: list[WorkerProcess] = []
        """Its processes of which a crash is noted."""
        crashed = self.crashed.append
        super().__init__(
            scripted_model(precision), keep_alive_s, on_worker_crash=crashed, sharing=self.shares
        )
        self.asked = 0
        self.refusal: errors.SidecarError | None = None
        self.poison: int | None = None
        self.deaths = 0
        self.given: TranscriptionEvent | None = None
        self.release = asyncio.Event()
        self.release.set()

    def set_spec(self, **changes: Any) -> None:
        """Change the spec of its model."""
        self.model = replace(self.model, spec=replace(self.model.spec, **changes))

    @asynccontextmanager
    async def lease(self, *wanted: Any) -> AsyncIterator[Any]:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        async with super().lease(*wanted) as engine:
            yield Overheard(engine, self)
        await self.release.wait()

    def sip(self, source: AudioSource) -> None:
        if self.poison == os.fstat(source.fd).st_ino:
            self.kill()

    def kill(self) -> None:
        assert self.worker_pid is not None
        self.deaths += 1
        process = psutil.Process(self.worker_pid)
        process.kill()
        process.wait(PATIENCE_S)


class DyingSlot(OverheardSlot):
    """Its worker process dies as it begins to read any recording, while it is ``broken``."""

    broken = True

    def sip(self, source: AudioSource) -> None:
        if self.broken:
            self.kill()
        super().sip(source)


class OverheardJoint(OverheardSlot):
    """The same, which several jobs have at once."""

    shares: ClassVar[engine_lease.Sharing] = engine_lease.CONCURRENT


class Overheard:
    """A leased engine, and its slot listens."""

    def __init__(self, engine: engine_lease.EngineLease, slot: OverheardSlot) -> None:
        self._engine, self._slot = engine, slot

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def transcribe(
        self, recording: engine_lease.RecordingRequest, max_s: float
    ) -> AsyncGenerator[TranscriptionEvent, None]:
        self._slot.sip(recording.source)
        async with aclosing(self._engine.transcribe(recording, max_s)) as events:
            async for event in events:
                self._slot.given = event
                yield event
                self._slot.given = None


def queue_options(**rest: Any) -> QueueOptions:
    """Options of a queue; all jobs that run at once may be long."""
    usual = {"plan": as_asked, "max_s": 60, "limit": 64}
    return QueueOptions(**{**usual, "long_concurrency": rest.get("concurrency", 1), **rest})


@asynccontextmanager
async def queue_on(
    slot: Any, event_log: JobEventLog | None = None, **rest: Any
) -> AsyncIterator[JobQueue]:
    """A queue that is closed until the test opens it."""
    queue = JobQueue(slot, event_log or JobEventLog(), queue_options(**rest))
    try:
        yield queue
    finally:
        await queue.close()
        await slot.close()


async def submitted(queue: Any, *jobs: Job) -> list[Job]:
    """Put jobs in a queue, in this order."""
    for job in jobs:
        await queue.submit(job)
    return [*jobs]


async def started(queue: JobQueue, *jobs: Job) -> list[Job]:
    """Put jobs in a queue, and open it."""
    await submitted(queue, *jobs)
    queue.open()
    return [*jobs]
