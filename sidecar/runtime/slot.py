"""One engine's life: absent, loading, ready, working; leased to one job at a time."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from enum import StrEnum

from sidecar import errors
from sidecar.engine import EngineSpec, LoadOptions, MemoryPlan, Precision
from sidecar.runtime.lease import LeasedEngine
from sidecar.runtime.placement import Look, Place, Placement, always_beside, nothing
from sidecar.runtime.worker import Worker, WorkerDied

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 600.0


class SlotState(StrEnum):
    """Where the engine is in its life."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"


class EngineSlot:
    """Owns the worker of one engine, and nobody else starts or ends it.

    ``load`` says how it loads; its precision is the first, others come by `reload` and `lease`.
    ``look`` is awaited before each load and each lease, for ``place`` and who leases to decide by.
    """

    def __init__(
        self,
        spec: EngineSpec,
        load: LoadOptions,
        keep_alive_s: float,
        place: Place = always_beside,
        look: Look = nothing,
        on_crash: Callable[[Worker], None] = lambda worker: None,
    ) -> None:
        self.spec = spec
        self.precision = spec.resolve_precision(load.precision)
        self.loading: float | None = None
        """How much of an engine that is being loaded is there (0 to 1), None at other times."""
        self.loaded_at = -math.inf
        """When the engine came into memory last (`time.monotonic`)."""
        self.memory = MemoryPlan()
        """By which plan its parts lie: that of the load, then that of the job which came last."""
        self._options = load
        self._keep_alive_s = keep_alive_s
        self._place = place
        self._look = look
        self._on_crash = on_crash
        self._turn = asyncio.Lock()
        self._worker: Worker | None = None
        self._loads = 0
        self._reloaded_at = -math.inf
        self._idle: asyncio.TimerHandle | None = None
        self._unloading: asyncio.Task[None] | None = None
        self._state = SlotState.ABSENT

    @property
    def state(self) -> SlotState:
        """Where the engine is now."""
        if self._worker is not None and not self._worker.alive:
            return SlotState.ABSENT
        return self._state

    @property
    def loaded(self) -> bool:
        """Whether the engine is in memory."""
        return self.state in (SlotState.READY, SlotState.BUSY)

    @property
    def worker_pid(self) -> int | None:
        """The process the engine lives in, None while it is not loaded."""
        return self._worker.pid if self._worker is not None and self._worker.alive else None

    def resolve(self, wanted: Precision, since: float) -> Precision:
        """The precision for a job that asked for ``wanted`` at ``since`` (`time.monotonic`).

        AUTO takes what is there, and so does what was asked for before somebody had the engine
        loaded anew.
        """
        if wanted is Precision.AUTO or since < self._reloaded_at:
            return self.precision
        return self.spec.resolve_precision(wanted)

    @asynccontextmanager
    async def lease(
        self, wanted: Precision = Precision.AUTO, since: float = math.inf
    ) -> AsyncIterator[LeasedEngine]:
        """Wait for the engine, loaded as `resolve` says if need be, and have it alone.

        Raises:
            errors.ModelLoadFailed: it does not load.
            errors.WontFit: there is no room for it at that precision.
        """
        async with self._turn:
            self._stop_idling()
            try:
                worker = await self._ready_worker(self.resolve(wanted, since))
                await self._look()
                self._state = SlotState.BUSY
                yield LeasedEngine(worker, self.precision, self._begins)
            finally:  # also after a load that failed and left the old one standing
                if self._worker is not None:
                    self._state = SlotState.READY
                    if not self._worker.alive or self._keep_alive_s == 0:
                        await self._drop()
                    else:
                        self._start_idling()

    async def preload(self) -> None:
        """Load the engine ahead of the first job.

        Raises:
            errors.ModelLoadFailed: it does not load.
        """
        async with self.lease():
            pass

    async def reload(self, precision: Precision) -> None:
        """Load the engine anew at another precision, after the job that runs.

        Of several that ask for the same meanwhile, one does it for all.

        Raises:
            errors.PrecisionUnavailable: the engine has no such precision.
            errors.WontFit: there is no room for it; the old one goes on serving.
            errors.ModelLoadFailed: it does not load; the old one goes on serving.
        """
        target = self.spec.resolve_precision(precision)
        if precision not in (Precision.AUTO, target, *self.spec.stands_for):
            raise errors.PrecisionUnavailable(
                f"The engine '{self.spec.name}' has no precision '{precision}'.",
                hint=f"It has: {', '.join(self.spec.precisions)}.",
            )
        asked = self._loads
        async with self._turn:
            self._stop_idling()
            try:
                if self._loads == asked or self.precision is not target or not self.loaded:
                    await self._swap(target)
                self._reloaded_at = time.monotonic()
            finally:
                if self._worker is not None:
                    self._start_idling()

    async def close(self) -> None:
        """Unload, whatever is going on."""
        self._stop_idling()
        if self._unloading is not None:
            await self._unloading
        await self._drop()

    async def _ready_worker(self, precision: Precision) -> Worker:
        if self._worker is not None and not self._worker.alive:
            await self._drop()
        if self._worker is None or self.precision is not precision:
            await self._swap(precision)
        assert self._worker is not None
        return self._worker

    async def _swap(self, precision: Precision) -> None:
        """Bring in the engine at ``precision``; the one that stands goes, unless that fails."""
        await self._look()
        plan = self._place(precision)
        before = self.precision if self.loaded else None
        if plan.placement is Placement.INSTEAD:
            await self._drop()
        try:
            new = await self._load(precision, plan.memory)
        except errors.ModelLoadFailed:
            if plan.placement is Placement.INSTEAD and before is not None:
                log.warning("engine %s: back to %s", self.spec.name, before)
                self._worker = await self._load(before, self.memory)
                self._state = SlotState.READY
            raise
        await self._drop()
        self._worker, self._state, self.precision = new, SlotState.READY, precision
        self.memory = plan.memory

    async def _load(self, precision: Precision, memory: MemoryPlan) -> Worker:
        before, self._state, self.loading = self._state, SlotState.LOADING, 0.0
        worker = Worker(self.spec.name)
        options = dataclasses.replace(
            self._options,
            precision=precision,
            evict_encoders=memory.evict_encoders,
            host_token_table=memory.host_token_table,
        )
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                call = worker.call("load", engine=self.spec.name, options=options.to_wire())
                async with aclosing(call) as frames:
                    async for frame in frames:
                        self.loading = frame["loaded"]
        except (WorkerDied, TimeoutError, errors.SidecarError) as error:
            await self._end(worker)
            self._state = before
            log.error("the engine %s did not load: %s", self.spec.name, error)
            raise errors.ModelLoadFailed(
                f"The engine '{self.spec.name}' could not be loaded: {error}",
                hint=getattr(error, "hint", None),
            ) from None
        except asyncio.CancelledError:
            worker.kill()
            await worker.close()
            self._state = before
            raise
        finally:
            self.loading = None
        self._loads += 1
        self.loaded_at = time.monotonic()
        log.info("engine %s loaded (%s)", self.spec.name, precision)
        return worker

    def _begins(self, memory: MemoryPlan) -> None:
        self.memory = memory

    async def _drop(self) -> None:
        worker, self._worker, self._state = self._worker, None, SlotState.ABSENT
        if worker is not None:
            await self._end(worker)

    async def _end(self, worker: Worker) -> None:
        if await worker.crashed():
            self._on_crash(worker)
        await worker.close()

    def _start_idling(self) -> None:
        if self._keep_alive_s > 0:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._keep_alive_s, self._idled)

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _idled(self) -> None:
        self._unloading = asyncio.get_running_loop().create_task(self._unload_idle(self._idle))

    async def _unload_idle(self, timer: asyncio.TimerHandle | None) -> None:
        async with self._turn:
            if self._idle is timer:  # no lease came in between
                self._idle = None
                log.info("engine %s unloaded after being idle", self.spec.name)
                await self._drop()
        self._unloading = None
