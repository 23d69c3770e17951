"""Supervisor of an engine's worker process: load, replace, unload, stuck processes."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from sidecar import errors
from sidecar.gpu_memory.memory_admission import (
    LoadPlacement,
    MemoryAccount,
    MemoryProbe,
    PlacementDecision,
)
from sidecar.interfaces.engine_interface import LoadOptions, MemoryPlan, ModelSpec, Precision
from sidecar.workers.slot_interface import WorkerDied
from sidecar.workers.worker_environment import WorkerOptions
from sidecar.workers.worker_process import WorkerProcess

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 600.0


class EngineLoading:
    """One engine on its way into a process of its own."""

    def __init__(self, spec: ModelSpec, options: LoadOptions, manner: WorkerOptions) -> None:
        self.part = 0.0
        """How much of it is there, from 0 to 1."""
        self._spec = spec
        self._options = options
        self._manner = manner
        self.worker: WorkerProcess | None = None
        """The process, once there is one."""

    async def run(self) -> WorkerProcess:
        """Start a worker and load the engine in it; of one that comes to nothing nothing is left.

        Raises:
            errors.ModelLoadFailed: it does not load.
        """
        name = self._spec.name
        try:
            worker = self.worker = WorkerProcess(name, manner=self._manner)
        except OSError as error:
            raise _load_failed_error(name, error) from None
        begun = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                call = worker.call("load", engine=name, options=self._options.to_wire())
                async with aclosing(call) as frames:
                    async for frame in frames:
                        self.part = frame["loaded"]
        except (WorkerDied, TimeoutError, errors.SidecarError) as error:
            await worker.close()
            raise _load_failed_error(name, error) from None
        except BaseException:
            worker.kill()
            await worker.close()
            raise
        worker.patience_s = asyncio.get_running_loop().time() - begun
        log.info("engine %s loaded (%s)", name, self._options.precision)
        return worker

    def abandon(self) -> None:
        """End the process at once; whoever runs this is to be cancelled."""
        if self.worker is not None:
            self.worker.kill()


def _load_failed_error(name: str, error: Exception) -> errors.ModelLoadFailed:
    log.error("the engine %s did not load: %s", name, error)
    return errors.ModelLoadFailed(
        f"The engine '{name}' could not be loaded: {error}", hint=getattr(error, "hint", None)
    )


class WorkerShutdowns:
    """Workers on their way out: each ends in a task of its own, and somebody sees to the last."""

    def __init__(
        self, on_crash: Callable[[WorkerProcess], None], left: Callable[[], None] = lambda: None
    ) -> None:
        self._on_crash = on_crash
        self._left = left
        self._ends: set[asyncio.Task[None]] = set()
        self._stay: list[WorkerProcess] = []

    @property
    def stays(self) -> bool:
        """Whether there is one that nothing ends, with all that it holds."""
        self._stay = [worker for worker in self._stay if worker.stays]
        return bool(self._stay)

    def note(self, worker: WorkerProcess | None) -> None:
        """Know of one that was to end, in case that it does not."""
        if worker is not None and worker.stays:
            self._stay.append(worker)

    def take(self, worker: WorkerProcess) -> None:
        """End it; returns at once."""
        task = asyncio.get_running_loop().create_task(self._end(worker))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def gone(self) -> None:
        """Wait until none is left that ends: what they held is free again."""
        while self._ends:
            await asyncio.wait(self._ends)

    async def _end(self, worker: WorkerProcess) -> None:
        crashed = await worker.crashed()
        await worker.close()
        self.note(worker)
        self._left()
        if crashed:
            await asyncio.to_thread(self._on_crash, worker)


@dataclass(frozen=True, slots=True)
class _EngineChange:
    """Another engine is brought in."""

    precision: Precision
    task: asyncio.Task[WorkerProcess]


class EngineSupervisor:
    """Owns the worker of one engine. Asked for changes by one at a time: who has the turn.

    Who waits for a change does not own it: it is a task of the supervisor's and goes on when who
    asked for it hangs up. The next who has the turn finds it under way (`settle`); where nobody
    comes, ``arrived`` is called in its end.
    """

    def __init__(
        self,
        spec: ModelSpec,
        load: LoadOptions,
        place: PlacementDecision,
        look: MemoryProbe,
        on_crash: Callable[[WorkerProcess], None],
        account: MemoryAccount,
        arrived: Callable[[], None],
        manner: WorkerOptions,
    ) -> None:
        self.precision = spec.resolve_precision(load.precision)
        """Of the engine that is there, or that is on its way."""
        self.checkpoint = load.checkpoint
        """The folder of its weights."""
        self.memory = MemoryPlan()
        """By which plan the engine was loaded, or works."""
        self.loads = 0
        """How often an engine came in."""
        self.loaded_at = -math.inf
        """When it did last (`time.monotonic`)."""
        self.load_s = 0.0
        """How long that took."""
        self._spec = spec
        self._options = load
        self._place = place
        self._look = look
        self._account = account
        self._arrived = arrived
        self._manner = manner
        self._worker: WorkerProcess | None = None
        self._change: _EngineChange | None = None
        self._loading: EngineLoading | None = None
        self._leaving = WorkerShutdowns(on_crash, account.settled)
        self._closed = False

    @property
    def worker(self) -> WorkerProcess | None:
        """The engine's process, None while there is none that lives."""
        return self._worker if self._worker is not None and self._worker.alive else None

    @property
    def loading(self) -> float | None:
        """How much of an engine that is being loaded is there (0 to 1), None at other times."""
        return self._loading.part if self._loading is not None else None

    @property
    def stuck(self) -> bool:
        """Whether a process was here that nothing ends. As long as it is there none comes in: what
        hangs is most likely what the next would need, too."""
        return self._leaving.stays

    @property
    def changing(self) -> bool:
        """Whether an engine is coming in."""
        return self._change is not None

    async def settle(self, precision: Precision) -> None:
        """Wait for the change that somebody began and did not wait for, where it is to the same
        ``precision``; one to another is given up, as nobody waits for it any more.

        Raises:
            errors.ShuttingDown: the supervisor is closed.
        """
        change = self._change
        if change is not None and change.precision is precision:
            await asyncio.wait({change.task})
        elif change is not None:
            await self._give_up(change)
        if self._closed:
            raise errors.ShuttingDown()

    async def standing(self, precision: Precision) -> WorkerProcess:
        """The engine at ``precision``, brought in if it is not there.

        Raises:
            errors.ModelLoadFailed, errors.EngineStuck, errors.WontFit, errors.ShuttingDown: it does
                not come.
        """
        if self.worker is None:
            self.let_go()
        if self._worker is not None and self.precision is precision:
            return self._worker
        return await self.replace_engine(precision)

    async def replace_engine(
        self, precision: Precision, checkpoint: str | None = None
    ) -> WorkerProcess:
        """A new engine at ``precision``, with other weights where there is a ``checkpoint``; the
        one that stands goes, unless that fails.

        Raises:
            errors.ModelLoadFailed, errors.EngineStuck, errors.WontFit, errors.ShuttingDown: it does
                not come.
        """
        task = asyncio.get_running_loop().create_task(self._change_to(precision, checkpoint))
        task.add_done_callback(_consume_result)
        self._change = _EngineChange(precision, task)
        await asyncio.wait({task})
        if task.cancelled():
            raise errors.ShuttingDown()
        return task.result()

    def let_go(self) -> None:
        """The engine leaves, by itself; `gone` waits for that."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._leaving.take(worker)

    async def gone(self) -> None:
        """Wait until none is left that was let go: what they held is free again."""
        await self._leaving.gone()

    async def close(self) -> None:
        """End all, what is there and what is coming."""
        self._closed = True
        if self._change is not None:
            await self._give_up(self._change)
        self.let_go()
        await self.gone()

    async def _give_up(self, change: _EngineChange) -> None:
        if self._loading is not None:
            self._loading.abandon()
        change.task.cancel()
        await asyncio.wait({change.task})
        if self._change is change:  # it had not even begun
            self._change = None

    async def _change_to(self, precision: Precision, checkpoint: str | None) -> WorkerProcess:
        before = self.checkpoint
        self.checkpoint = checkpoint or before
        try:
            return await self._bring_in(precision, before)
        except BaseException:
            self.checkpoint = before
            raise
        finally:
            self._change = None
            self._account.settled()
            self._arrived()

    async def _bring_in(self, precision: Precision, weights_before: str | None) -> WorkerProcess:
        await self._cleared()
        await self._look()
        plan = self._place(precision)
        self._account.comes(precision, plan)
        before, stood = self.precision, self.worker is not None
        self.precision = precision
        try:
            if plan.placement is LoadPlacement.INSTEAD:
                self.let_go()
                await self._cleared()
            new = await self._load(precision, plan.memory)
        except errors.ModelLoadFailed:
            self.precision, self.checkpoint = before, weights_before
            if stood and plan.placement is LoadPlacement.INSTEAD:
                log.warning("engine %s: back to %s", self._spec.name, before)
                self._stands(await self._load(before, self.memory))
            raise
        except BaseException:
            self.precision = before
            raise
        self.let_go()
        self._stands(new)
        self.memory = plan.memory
        return new

    def _stands(self, worker: WorkerProcess) -> None:
        """It is the one; if it dies it leaves at once, also where nobody has asked for it since."""
        self._worker = worker
        worker.on_end = partial(self._ended, worker)

    def _ended(self, worker: WorkerProcess) -> None:
        if worker is self._worker:
            self.let_go()

    async def _cleared(self) -> None:
        await self.gone()
        if self.stuck:
            raise errors.EngineStuck()

    async def _load(self, precision: Precision, memory: MemoryPlan) -> WorkerProcess:
        options = dataclasses.replace(
            self._options,
            precision=precision,
            checkpoint=self.checkpoint,
            evict_encoders=memory.evict_encoders,
            host_token_table=memory.host_token_table,
        )
        loading, begun = EngineLoading(self._spec, options, self._manner), time.monotonic()
        self._loading = loading
        try:
            worker = await loading.run()
        finally:
            self._loading = None
            self._leaving.note(loading.worker)
        self.loads += 1
        self.loaded_at = time.monotonic()
        self.load_s = self.loaded_at - begun
        return worker


def _consume_result(task: asyncio.Task[WorkerProcess]) -> None:
    """What a change came to is known, also where nobody waits for it any more."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, errors.SidecarError):
        log.error("the engine could not be changed", exc_info=error)
