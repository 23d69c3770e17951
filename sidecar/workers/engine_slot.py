"""Engine slots: exclusive, concurrent, shared, serial (TTS); leased engine of a job; TTS client.

For an engine whose work is done elsewhere: its process mostly waits, so that a second one would
only cost memory, and what it learned of the others is there once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, ClassVar, Self

from sidecar import errors
from sidecar.audio.audio_decoder import AudioInfo
from sidecar.audio.audio_source import AudioSource
from sidecar.interfaces.engine_interface import (
    MAX_TTS_CHARACTERS,
    EngineSpec,
    MemoryPlan,
    Precision,
    SynthesisOptions,
    SynthesizedAudio,
    TranscribeOptions,
    WordMark,
)
from sidecar.transcripts.transcript import Checkpoint, TranscriptionEvent, from_wire, to_wire
from sidecar.workers.engine_lifecycle import EngineLifecycle
from sidecar.workers.rpc_client import RpcCall
from sidecar.workers.slot_interface import BatchedRecording, EngineLease, WorkerDied
from sidecar.workers.worker_environment import WorkerOptions
from sidecar.workers.worker_process import WorkerProcess

TTS_PING_TIMEOUT_S = 5.0
"""So long at most people wait for the answer to a ping (`pulse`): they speak meanwhile."""
TTS_CANCEL_TIMEOUT_S = 10.0
"""So long at least a voice may take to stop: some make a clause in one go."""


class SharedEngineLease:
    """An engine that is loaded and held, by who got this among others.

    It may end under its holders: it is loaded anew, or dies. Each hears of it in its next word to
    it or from it (`WorkerDied`), lets go, and asks for a share again.
    """

    def __init__(self, worker: WorkerProcess, precision: Precision) -> None:
        self._worker = worker
        self.precision = precision

    @property
    def alive(self) -> bool:
        """Whether it can be called."""
        return self._worker.alive

    def calling(
        self, operation: str, fds: Sequence[int] = (), **arguments: Any
    ) -> AbstractAsyncContextManager[RpcCall]:
        """One operation, to be read and told more; leaving early cancels it, and it alone.

        Raises:
            WorkerDied: the engine's process ended.
        """
        return self._worker.calling(operation, fds, **arguments)


class SharedSlot(EngineLifecycle):
    """One engine for all who want it. Somebody waits for each of its words, so that its process
    does not stand back behind others, and one that hangs is ended soon, so that its holders hear of
    it.

    The turn is had only while the engine is brought in: while many hold it, it can be loaded anew.
    """

    manner: ClassVar[WorkerOptions] = WorkerOptions(
        niceness=0, shared=True, deaf_s=TTS_PING_TIMEOUT_S
    )

    @asynccontextmanager
    async def share(self) -> AsyncIterator[SharedEngineLease]:
        """Wait for the engine, loaded if need be, and hold it: it does not leave for being idle.

        Raises:
            errors.ModelLoadFailed: it does not load.
            errors.WontFit: there is no room for it.
            errors.ShuttingDown: the slot is closed.
        """
        async with self._in_turn():
            await self._supervisor.settle(self.precision)
            worker = await self._supervisor.standing(self.precision)
            engine = SharedEngineLease(worker, self.precision)
            self._hold(1)
            self._used_load = self._supervisor.loads
        try:
            yield engine
        finally:
            self._hold(-1)
            if not self._turn.locked():  # else who has the turn sees to it
                self._rest()

    def _hold(self, more: int) -> None:
        super()._hold(more)
        self._account.held(self._holders)


class SerialSlot(SharedSlot):
    """An engine that does what its holders ask one after the other: a call that does not stop keeps
    all of them waiting, so the process ends with it."""

    manner: ClassVar[WorkerOptions] = WorkerOptions(
        niceness=0, patience_s=TTS_CANCEL_TIMEOUT_S, deaf_s=TTS_PING_TIMEOUT_S
    )


class ExclusiveEngineLease:
    """A process of ours with an engine that is loaded (`place.Lease`)."""

    def __init__(
        self,
        worker: WorkerProcess,
        precision: Precision,
        begins: Callable[[MemoryPlan], None],
        *,
        beside: bool = False,
    ) -> None:
        """``beside``: its calls wait for none before them."""
        self._worker = worker
        self._manner = {"beside": True} if beside else {}
        self._begins = begins
        self._company: RpcCall | None = None
        self.precision = precision

    async def transcribe_together(
        self, requests: Sequence[BatchedRecording], max_s: float
    ) -> AsyncGenerator[tuple[int, TranscriptionEvent | errors.SidecarError], None]:
        """As `EngineLease`: in one process, which hears them in step."""
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
        facts: AudioInfo,
        options: TranscribeOptions,
        max_s: float,
        settled: Sequence[Checkpoint] | None = None,
    ) -> AsyncGenerator[TranscriptionEvent, None]:
        """As `EngineLease`: the process takes over the open file."""
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


class SequentialLease:
    """A lease that jobs have one behind the other: it ends when the last of them has left."""

    def __init__(self, engine: EngineLease, ends: AsyncExitStack) -> None:
        self.engine = engine
        self._ends = ends
        self._there = 1
        self.since = time.monotonic()
        """When the engine was free for whom it works on now."""

    @classmethod
    async def begin(cls, lease: AbstractAsyncContextManager[EngineLease]) -> Self:
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


class ExclusiveSlot(EngineLifecycle):
    """One engine, which whoever has the turn has alone. Memory is looked at before each lease."""

    spec: EngineSpec
    follows: ClassVar[bool] = True
    """Whether a call waits in the process for the one before it."""

    @asynccontextmanager
    async def lease(
        self, wanted: Precision = Precision.AUTO, since: float = math.inf, alone: bool = True
    ) -> AsyncIterator[ExclusiveEngineLease]:
        """Wait for the engine, loaded as `resolve` says if need be, and have it,
        which here is always ``alone``.

        Raises:
            errors.ModelLoadFailed: it does not load.
            errors.WontFit: there is no room for it at that precision.
            errors.ShuttingDown: the slot is closed.
        """
        async with self._in_turn():
            worker = await self._brought_in(wanted, since)
            self._hold(1)
            try:
                yield ExclusiveEngineLease(worker, self.precision, self._begins)
            finally:
                self._hold(-1)

    async def _brought_in(self, wanted: Precision, since: float) -> WorkerProcess:
        """The engine, for who has the turn; what memory is free is looked at."""
        await self._supervisor.settle(self.resolve(wanted, since))
        worker = await self._supervisor.standing(self.resolve(wanted, since))
        await self._supervisor.gone()
        await self._look()
        self._used_load = self._supervisor.loads
        return worker

    def _begins(self, memory: MemoryPlan) -> None:
        self._supervisor.memory = memory


class ConcurrentSlot(ExclusiveSlot):
    """One engine, and whoever has the turn shares it with all who come before somebody waits who
    wants it alone: a reload, or a job that may have killed an engine.

    A process that dies ends the calls of all. Each of their jobs then goes on alone, so that one
    which does it again costs nobody else a second attempt.
    """

    manner: ClassVar[WorkerOptions] = WorkerOptions(shared=True)
    follows: ClassVar[bool] = False

    def __init__(self, *args: Any, **more: Any) -> None:
        """As `ExclusiveSlot`."""
        super().__init__(*args, **more)
        self._coming = asyncio.Lock()
        self._shared: AsyncExitStack | None = None
        """Ends the turn that is shared; None while there is none."""

    @asynccontextmanager
    async def lease(
        self, wanted: Precision = Precision.AUTO, since: float = math.inf, alone: bool = False
    ) -> AsyncIterator[ExclusiveEngineLease]:
        """Wait for the engine, loaded if need be, and have it with others or ``alone``.

        Raises:
            errors.ModelLoadFailed: it does not load.
            errors.ShuttingDown: the slot is closed.
        """
        if alone:
            async with super().lease(wanted, since) as engine:
                yield engine
            return
        async with self._coming:
            if self._shared is None or self.awaited or self._supervisor.worker is None:
                turn = AsyncExitStack()
                await turn.enter_async_context(self._in_turn())
                try:
                    worker = await self._brought_in(wanted, since)
                except BaseException:
                    await turn.aclose()
                    raise
                self._shared = turn
            else:
                turn, worker = self._shared, self._supervisor.worker
            self._hold(1)
        try:
            yield ExclusiveEngineLease(worker, self.precision, self._begins, beside=True)
        finally:
            self._hold(-1)
            if not self._holders:
                self._shared = None
                await turn.aclose()


class TtsSlot:
    """The engine that speaks, one for all. Pieces of text are said in the order in which they were
    asked for, one after the other."""

    def __init__(self, slot: SharedSlot) -> None:
        self._slot = slot

    async def ready(self) -> tuple[str, ...]:
        """Load the engine, if it is not there; whose voices it has.

        Raises:
            errors.ModelLoadFailed, errors.WontFit, errors.ShuttingDown: it does not come.
            errors.EngineFailed: its process ended.
        """
        try:
            async with self._slot.share() as engine, engine.calling("voices") as call:
                async for answer, _ in call.answers():
                    return tuple(answer["voices"])
        except WorkerDied:
            raise _engine_failed_error() from None
        return ()

    async def say(
        self, text: str, options: SynthesisOptions | None = None
    ) -> AsyncGenerator[SynthesizedAudio, None]:
        """The sound of ``text`` (`MAX_TTS_CHARACTERS` at most), loading the engine if need be.
        Leaving early ends it: at once for who leaves, between two pieces of sound for the engine.
        Where the process ends before there is any sound (of another's text, or before this began),
        it is tried once more in a new one.

        Raises:
            errors.VoiceUnknown: there is no such voice.
            errors.ModelLoadFailed, errors.WontFit, errors.ShuttingDown: the engine does not come.
            errors.EngineFailed: it broke, or its process ended.
        """
        if len(text) > MAX_TTS_CHARACTERS:
            raise ValueError(f"more than {MAX_TTS_CHARACTERS} characters at once")
        values = (options or SynthesisOptions()).to_wire()
        again, begun = True, False
        while True:
            try:
                async with (
                    self._slot.share() as engine,
                    engine.calling("say", text=text, options=values) as call,
                ):
                    async for answer, pcm in call.answers():
                        begun = True
                        marks = tuple(WordMark(at, start) for at, start in answer["marks"])
                        yield SynthesizedAudio(pcm, answer["rate"], marks)
                return
            except WorkerDied:
                if begun or not again:
                    raise _engine_failed_error() from None
                again = False


def _engine_failed_error() -> errors.EngineFailed:
    return errors.EngineFailed("The process of the engine that speaks ended.")
