"""Lease of an engine: transcription of one recording or of a batch; lease of consecutive jobs."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import Any, Self

from sidecar import errors
from sidecar.audio.audio_decoder import AudioInfo
from sidecar.audio.audio_source import AudioSource
from sidecar.interfaces.engine_interface import MemoryPlan, Precision, TranscribeOptions
from sidecar.transcripts.transcript import Checkpoint, TranscriptionEvent, from_wire, to_wire
from sidecar.workers.rpc_client import RpcCall
from sidecar.workers.worker_process import WorkerProcess

BatchedRecording = tuple[AudioSource, AudioInfo, TranscribeOptions]
"""One recording of a batch that is transcribed together."""


class EngineLease:
    """Right to use a loaded engine, until the lease ends.

    The engine may end earlier: it dies, or is reloaded under live sessions. Calls then raise
    `WorkerDied`, and their caller takes another lease.
    """

    def __init__(
        self,
        worker: WorkerProcess,
        precision: Precision,
        set_memory: Callable[[MemoryPlan], None],
        *,
        beside: bool = False,
    ) -> None:
        """``set_memory`` is called with the plan of each job. ``beside``: its calls run
        concurrently with earlier ones."""
        self._worker = worker
        self._call_options = {"beside": True} if beside else {}
        self._set_memory = set_memory
        self._batch: RpcCall | None = None
        self.precision = precision
        """Precision at which the engine is loaded."""

    @property
    def alive(self) -> bool:
        """Return whether it can be called."""
        return self._worker.alive

    def calling(
        self, operation: str, fds: Sequence[int] = (), **arguments: Any
    ) -> AbstractAsyncContextManager[RpcCall]:
        """Start one operation; its call can be read and sent more messages. Leaving early cancels
        this call only.

        Raises:
            WorkerDied: the engine's process ended.
        """
        return self._worker.calling(operation, fds, **arguments)

    async def transcribe(
        self,
        source: AudioSource,
        facts: AudioInfo,
        options: TranscribeOptions,
        max_s: float,
        settled: Sequence[Checkpoint] | None = None,
    ) -> AsyncGenerator[TranscriptionEvent, None]:
        """Yield the events of one transcription; leaving early cancels it. ``settled``: its
        checkpoints to resume from (`engine_interface.ResumableEngine`); None if no checkpoints are
        wanted.

        Raises:
            WorkerDied: the engine's process ended.
            errors.SidecarError: the engine refused or failed.
        """
        self._set_memory(options.memory)
        frames = self._worker.call(
            "transcribe",
            [source.fd],
            facts=facts.to_wire(),
            options=options.to_wire(),
            max_s=max_s,
            settled=None if settled is None else [to_wire(one) for one in settled],
            **self._call_options,
        )
        async with aclosing(frames):
            async for frame in frames:
                yield from_wire(frame)

    async def transcribe_together(
        self, requests: Sequence[BatchedRecording], max_s: float
    ) -> AsyncGenerator[tuple[int, TranscriptionEvent | errors.SidecarError], None]:
        """Yield the events of a batch of transcriptions, with their numbers; leaving early cancels
        all.

        Raises:
            WorkerDied: the engine's process ended.
            errors.SidecarError: the engine refused or failed all of them.
        """
        self._set_memory(requests[0][2].memory)
        wanted = [
            {"facts": facts.to_wire(), "options": options.to_wire(), "max_s": max_s}
            for _, facts, options in requests
        ]
        fds = [source.fd for source, _, _ in requests]
        calling = self.calling("transcribe_together", fds, requests=wanted, **self._call_options)
        async with calling as call:
            self._batch = call
            async for frame, _ in call.answers():
                if "failed" in frame:
                    yield frame["number"], errors.from_wire(frame["failed"])
                else:
                    yield frame["number"], from_wire(frame["event"])

    def leave(self, number: int) -> None:
        """Cancel one transcription of the batch."""
        if self._batch is not None:
            self._batch.send_nowait(leave=number)


class SequentialLease:
    """Lease that consecutive jobs share; it ends when the last of them has left."""

    def __init__(self, engine: EngineLease, ends: AsyncExitStack) -> None:
        self.engine = engine
        self._ends = ends
        self._holders = 1
        self.since = time.monotonic()
        """Time when the engine was free for the current job (`time.monotonic`)."""

    @classmethod
    async def begin(cls, lease: AbstractAsyncContextManager[EngineLease]) -> Self:
        """Wait for the lease; the first job holds it."""
        ends = AsyncExitStack()
        return cls(await ends.enter_async_context(lease), ends)

    def joined(self) -> Self:
        """Add a job."""
        self._holders += 1
        return self

    async def leave(self) -> None:
        """Remove a job; end the lease after the last one."""
        self._holders -= 1
        self.since = time.monotonic()
        if not self._holders:
            await self._ends.aclose()
