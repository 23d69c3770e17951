"""Probe of an engine with a second of speech.

After an error that a recording may have caused, kept jobs wait until the probe succeeds. So an
attempt counts against a recording only if the engine worked since the attempt before. An engine
that raises an error in its probe, too, gets another process.
"""

import asyncio
import logging
import time
from contextlib import aclosing

from sidecar import errors
from sidecar.audio.audio_info import probe_plain_wav
from sidecar.audio.audio_source import recording_ref
from sidecar.audio.spoken_second import SPEECH_S, open_spoken_second
from sidecar.interfaces.engine_interface import EngineSpec, TranscribeOptions
from sidecar.jobs.faults import known_error, passes
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.jobs.wait_queue import QueueOptions, WaitQueue
from sidecar.workers.engine import Engine
from sidecar.workers.engine_lease import RecordingRequest

log = logging.getLogger(__name__)


class EngineProbe:
    """Probe of the engine of a queue; one at a time."""

    def __init__(
        self, engine: Engine[EngineSpec], wait_queue: WaitQueue, options: QueueOptions
    ) -> None:
        self._engine, self._wait_queue, self._plan = engine, wait_queue, options.plan
        self._breakers = wait_queue.breakers
        self._task: asyncio.Task[errors.SidecarError | None] | None = None

    @property
    def due(self) -> bool:
        """Return whether the next kept job has to wait for a probe, which may begin now."""
        return self._breakers.doubted and self._breakers.held_until(kept=True) <= time.monotonic()

    async def was_due(self) -> bool:
        """Return whether a probe was due, after its end."""
        if due := self.due:
            await asyncio.wait({self.begin()})
        return due

    def begin(self) -> asyncio.Task[errors.SidecarError | None]:
        """Begin a probe, unless one goes on; its result is what it met, None if it succeeded."""
        if self._task is None or self._task.done():
            self._breakers.begin_probe()
            self._task = asyncio.get_running_loop().create_task(self._run(), name="engine-probe")
        return self._task

    async def prove(self) -> None:
        """Raise what a probe of the engine meets; then kept jobs are held."""
        if (error := await asyncio.shield(self.begin())) is not None:
            raise error

    async def close(self) -> None:
        """Stop a probe that goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> errors.SidecarError | None:
        error: errors.SidecarError | None = None
        try:
            await self._transcribe()
        except Exception as raised:
            error = known_error(raised)
            if not passes(raised):  # it is of the probe, and shows that the engine does not die
                log.warning("the probe of the engine could not be done: %s", error, exc_info=raised)
                error = None
            elif type(error) in (errors.EngineFailed, errors.OutOfMemory):
                await self._engine.discard()
        self._breakers.end_probe(error)
        self._wait_queue.changed()
        return error

    async def _transcribe(self) -> None:
        """Transcribe the second as a job is transcribed, whose result nobody waits for."""
        with await asyncio.to_thread(open_spoken_second) as source:
            info = probe_plain_wav(source.fd, SPEECH_S)
            assert info is not None, "it is a plain WAV"
            ref = recording_ref(source)
            job = Job(source, JobRecord.submitted(0.0, ref, info, TranscribeOptions(), kept=False))
            async with self._engine.lease() as engine:
                plan = await self._plan(job, engine.precision)
                events = engine.transcribe(RecordingRequest(source, info, plan), SPEECH_S)
                async with aclosing(events):
                    async for _ in events:
                        pass
