"""Lease of an engine: what its holder may call, and how an engine is shared."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from sidecar import errors
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import AudioSource
from sidecar.interfaces.engine_interface import MemoryPlan, Precision, TranscribeOptions
from sidecar.transcripts.transcript import (
    Finished,
    ResumePoint,
    Transcript,
    TranscriptionEvent,
    from_wire,
    join_parts,
    to_wire,
)
from sidecar.workers import worker_process
from sidecar.workers.rpc_client import RpcCall
from sidecar.workers.worker_environment import WorkerOptions

TTS_CANCEL_TIMEOUT_S = 10.0
"""Minimum time for a TTS engine to stop: some synthesize a whole clause in one call."""


class RecordingRequest(NamedTuple):
    """Recording to transcribe. ``resume_points``: those to resume from
    (`engine_interface.ResumableEngine`); None if none are wanted."""

    source: AudioSource
    audio_info: AudioInfo
    options: TranscribeOptions
    resume_points: Sequence[ResumePoint] | None = None


@dataclass(frozen=True, slots=True)
class EngineLease:
    """Right to use a loaded engine, until the lease ends. ``precision``: of the model.
    ``set_memory`` is called with the plan of each job. ``beside``: its calls run concurrently with
    earlier ones. ``blame``: returns what is to blame for a recording in which memory ran out.

    The engine may end earlier: it dies, or is reloaded under live sessions. Calls then raise
    `WorkerDied`, and their caller takes another lease.
    """

    worker: worker_process.WorkerProcess
    precision: Precision
    set_memory: Callable[[MemoryPlan], None]
    beside: bool = False
    blame: Callable[[], Awaitable[errors.Fault]] | None = None

    @property
    def alive(self) -> bool:
        """Return whether it can be called."""
        return self.worker.alive

    def calling(
        self, operation: str, fds: Sequence[int] = (), **arguments: Any
    ) -> AbstractAsyncContextManager[RpcCall]:
        """Start one operation; its call can be read and sent more messages. Leaving early cancels
        this call only.

        Raises:
            WorkerDied: the engine's process ended.
        """
        return self.worker.calling(operation, fds, **arguments)

    async def transcribe(
        self, recording: RecordingRequest, max_s: float
    ) -> AsyncGenerator[TranscriptionEvent, None]:
        """Yield the events of a transcription; leaving early cancels it.

        Raises:
            WorkerDied: the engine's process ended.
            errors.SidecarError: the engine refused or failed it.
        """
        self.set_memory(recording.options.memory)
        resume_points = recording.resume_points
        wanted = {
            "facts": recording.audio_info.to_wire(),
            "options": recording.options.to_wire(),
            "max_s": max_s,
            "resume_points": None if resume_points is None else len(resume_points),
        }
        fds = [recording.source.fd]
        beside = {"beside": True} if self.beside else {}
        async with self.calling("transcribe", fds, **wanted, **beside) as call:
            if resume_points:
                await call.send_all(map(to_wire, resume_points))
            parts: list[Transcript] = []
            try:
                async for frame, _ in call.answers():
                    event = from_wire(frame.get("part") or frame["event"])
                    if isinstance(event, Finished):
                        parts.append(event.transcript)
                        if "part" in frame:
                            continue
                        event = Finished(join_parts(parts)) if len(parts) > 1 else event
                    yield event
            except errors.GpuOutOfMemory as error:
                if self.blame is not None:
                    error.fault = await self.blame()
                raise


class EngineState(StrEnum):
    """State of the engine in a slot."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    STUCK = "stuck"
    """Its process does not end, and no other is loaded until it has."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """Sharing of an engine: the number of leases at once, and the behaviour of its process.

    ``concurrent``: any number of leases (else one); a lease that is ``alone``, or a reload, waits
    for the end of all earlier ones. ``sessions``: its leases are sessions, which take memory of
    their own and start again if their engine ends. So a reload does not wait for them, and
    the free memory is not queried when one starts. ``pings``: of its `Heartbeat`.
    """

    concurrent: bool = False
    sessions: bool = False
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    pings: worker_process.PingTimes = field(default_factory=worker_process.PingTimes)


EXCLUSIVE = Sharing()
"""One job at a time."""
CONCURRENT = Sharing(concurrent=True, worker=WorkerOptions(shared=True))
"""Jobs that share a model, or whose work is done elsewhere: a second process would only cost
memory. If it dies, all calls end. Each job then runs alone, so that a job which kills it again
costs no other job a second attempt."""
LIVE = Sharing(
    concurrent=True,
    sessions=True,
    worker=WorkerOptions(niceness=0, shared=True),
    pings=worker_process.PingTimes(worker_process.LIVE_PING_TIMEOUT_S),
)
"""Live sessions run at normal priority, and a process that hangs is killed soon."""
SERIAL = replace(LIVE, worker=WorkerOptions(niceness=0, patience_s=TTS_CANCEL_TIMEOUT_S))
"""TTS: a call that does not stop blocks all others, and the process is killed."""
