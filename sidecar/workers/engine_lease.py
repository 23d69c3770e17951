"""Lease of an engine: transcription of one recording or several; lease of consecutive jobs."""

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
"""One of several recordings that are transcribed in step."""


class EngineLease:
    """The right to use an engine that is loaded, until the lease ends.

    The engine may end before: it dies, or is loaded anew under sessions. Calls then raise
    `WorkerDied`, and their caller asks for another lease.
    """

    def __init__(
        self,
        worker: WorkerProcess,
        precision: Precision,
        set_memory: Callable[[MemoryPlan], None],
        *,
        beside: bool = False,
    ) -> None:
        """``set_memory`` is called with the plan of each job; ``beside``: its calls do not wait
        for those before them."""
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
        """Begin one operation, whose call can be read and sent more; leaving early cancels it, and
        it alone.

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
        """Yield the events of one transcription; leaving early cancels it. ``settled``: where it
        goes on from (`engine_interface.ResumableEngine`); None if no checkpoints are wanted.

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
        """Yield the events of several transcriptions in step, with their numbers; leaving early
        cancels all.

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
        """Cancel one of several transcriptions in step."""
        if self._batch is not None:
            self._batch.send_nowait(leave=number)


class SequentialLease:
    """A lease that consecutive jobs have; it ends when the last of them has left."""

    def __init__(self, engine: EngineLease, ends: AsyncExitStack) -> None:
        self.engine = engine
        self._ends = ends
        self._holders = 1
        self.since = time.monotonic()
        """Time when the engine was free for the current job."""

    @classmethod
    async def begin(cls, lease: AbstractAsyncContextManager[EngineLease]) -> Self:
        """Wait for the lease; the first job has it."""
        ends = AsyncExitStack()
        return cls(await ends.enter_async_context(lease), ends)

    def joined(self) -> Self:
        """Count one more job."""
        self._holders += 1
        return self

    async def leave(self) -> None:
        """Count one job less."""
        self._holders -= 1
        self.since = time.monotonic()
        if not self._holders:
            await self._ends.aclose()
