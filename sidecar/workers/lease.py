"""An engine that is yours for a while: what a job does with it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import Self

from sidecar import errors
from sidecar.audio.audio_decoder import AudioFacts
from sidecar.audio.source import AudioSource
from sidecar.interfaces.engine import MemoryPlan, Precision, TranscribeOptions
from sidecar.transcripts.transcript import Checkpoint, Event, from_wire, to_wire
from sidecar.workers.calls import Call
from sidecar.workers.slot_interface import Lease, Wanted
from sidecar.workers.worker import Worker


class LeasedEngine:
    """A process of ours with an engine that is loaded (`place.Lease`)."""

    def __init__(
        self,
        worker: Worker,
        precision: Precision,
        begins: Callable[[MemoryPlan], None],
        *,
        beside: bool = False,
    ) -> None:
        """``beside``: its calls wait for none before them."""
        self._worker = worker
        self._manner = {"beside": True} if beside else {}
        self._begins = begins
        self._company: Call | None = None
        self.precision = precision

    async def transcribe_together(
        self, requests: Sequence[Wanted], max_s: float
    ) -> AsyncGenerator[tuple[int, Event | errors.SidecarError], None]:
        """As `Lease`: in one process, which hears them in step."""
        self._begins(requests[0][2].memory)
        wanted = [
            {"facts": facts.to_wire(), "options": options.to_wire(), "max_s": max_s}
            for _, facts, options in requests
        ]
        fds = [source.fd for source, _, _ in requests]
        calling = self._worker.calling("transcribe_together", fds, requests=wanted, **self._manner)
        async with calling as call:
            self._company = call
            async for frame, _ in call.answers():
                if "failed" in frame:
                    yield frame["number"], errors.from_wire(frame["failed"])
                else:
                    yield frame["number"], from_wire(frame["event"])

    def leave(self, number: int) -> None:
        """One of several does not want its transcription any more."""
        if self._company is not None:
            self._company.tell(leave=number)

    async def transcribe(
        self,
        source: AudioSource,
        facts: AudioFacts,
        options: TranscribeOptions,
        max_s: float,
        settled: Sequence[Checkpoint] | None = None,
    ) -> AsyncGenerator[Event, None]:
        """As `Lease`: the process takes over the open file."""
        self._begins(options.memory)
        frames = self._worker.call(
            "transcribe",
            [source.fd],
            facts=facts.to_wire(),
            options=options.to_wire(),
            max_s=max_s,
            settled=None if settled is None else [to_wire(one) for one in settled],
            **self._manner,
        )
        async with aclosing(frames):
            async for frame in frames:
                yield from_wire(frame)


class Stay:
    """A lease that jobs have one behind the other: it ends when the last of them has left."""

    def __init__(self, engine: Lease, ends: AsyncExitStack) -> None:
        self.engine = engine
        self._ends = ends
        self._there = 1
        self.since = time.monotonic()
        """When the engine was free for whom it works on now."""

    @classmethod
    async def begin(cls, lease: AbstractAsyncContextManager[Lease]) -> Self:
        """Wait for the lease; the first is there."""
        ends = AsyncExitStack()
        return cls(await ends.enter_async_context(lease), ends)

    def joined(self) -> Self:
        """One more is there."""
        self._there += 1
        return self

    async def leave(self) -> None:
        """One is there no more."""
        self._there -= 1
        self.since = time.monotonic()
        if not self._there:
            await self._ends.aclose()
