"""Engine: the model that is loaded, its worker process, turns, leases, changes.

A *turn* is the right to change the model; turns are first in, first out. An exclusive lease keeps
its turn. A concurrent lease gives it back once the model is loaded, so that the next one can share
the engine. `Engine.model` is set once the worker process that has loaded it has answered.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic

from sidecar import errors
from sidecar.engines.engine_selection import Spec
from sidecar.gpu_memory.memory_admission import LoadPlacement, LoadPlan
from sidecar.interfaces.engine_interface import EngineSpec, LoadOptions, MemoryPlan, Precision
from sidecar.workers.engine_lease import EXCLUSIVE, EngineLease, EngineState, Sharing
from sidecar.workers.engine_loading import WorkerLoader
from sidecar.workers.engine_memory import MemoryAccount, ModelHolder
from sidecar.workers.loaded_model import LoadedModel
from sidecar.workers.worker_process import Heartbeat, WorkerProcess

log = logging.getLogger(__name__)
PRELOADED_KEEP_S = 60.0
"""Idle time of a model that was loaded ahead of its first lease, if ``keep_alive_s`` is 0."""
_RESTORED_AFTER = (errors.ModelLoadFailed, errors.MachineBusy, errors.WontFit)
"""Errors of a load after which the model that was unloaded for it is loaded again."""

Wanted = Callable[[LoadedModel[Spec]], LoadedModel[Spec]]
"""What a change wants of the model."""


@dataclass(slots=True, eq=False)
class _Change(Generic[Spec]):
    """Change of the model, which waits for its turn or (``begun``) has it."""

    requests: list[Wanted[Spec]]
    """Equal ones; a later one may give the model another name."""
    target: LoadedModel[Spec]
    """What is wanted of the model at the first request, and then as it begins."""
    least_loads: int
    """Number of loads with which it is done: one more than at the request if the same model is to
    be loaded again, else 0."""
    begun: bool = False
    cause_of_end: errors.SidecarError = field(default_factory=errors.ShuttingDown)
    """Error of its callers if its task is cancelled."""

    def wanted(self, model: LoadedModel[Spec]) -> LoadedModel[Spec]:
        """Return what all requests want of a model, the last one last."""
        for request in self.requests:
            model = request(model)
        return model


class Engine(Generic[Spec]):
    """Owner of the worker process of one role: no other code starts or ends it.

    ``model``: loaded at the first use. ``memory`` plans the memory of each load and is notified of
    its result. ``keep_alive_s``: idle time until the model is unloaded; negative: never. ``load``:
    options of each load, beside those of the model. ``preloaded_keep_s``: as `PRELOADED_KEEP_S`.
    """

    def __init__(
        self,
        model: LoadedModel[Spec],
        keep_alive_s: float,
        memory: MemoryAccount | None = None,
        on_worker_crash: Callable[[WorkerProcess], None] = lambda worker: None,
        sharing: Sharing = EXCLUSIVE,
        load: LoadOptions | None = None,
        *,
        preloaded_keep_s: float = PRELOADED_KEEP_S,
    ) -> None:
        self.model = model
        """Model that is loaded, or was loaded last; before the first load: that of the start."""
        self.memory_plan = MemoryPlan()
        """Memory plan of the load, then of the job that began last; without places if none runs."""
        self.sharing = sharing
        self._memory = memory or MemoryAccount()
        self._watchers: list[Callable[[], None]] = []
        self._options = load or LoadOptions()
        self._keep_alive_s, self._preloaded_keep_s = keep_alive_s, preloaded_keep_s
        self._worker: WorkerProcess | None = None
        self.loader = WorkerLoader(sharing.worker, on_worker_crash, self._memory.settled)
        self.heartbeat = Heartbeat(lambda: self._worker, sharing.pings)
        self._turn = asyncio.Lock()
        self._holders = 0
        self._unheld = asyncio.Event()
        """Set if there is no lease that a load must wait for."""
        self._unheld.set()
        self._idle: asyncio.TimerHandle | None = None
        self._used_load = 0
        """The load that the last lease used."""
        self._loading: LoadedModel[Spec] | None = None
        """Model that is being loaded."""
        self._load: asyncio.Task[WorkerProcess] | None = None
        """Load for a lease, which goes on if that is given up."""
        self._changes: dict[_Change[Spec], asyncio.Task[LoadedModel[Spec]]] = {}
        """Changes that have not ended; at most the last one waits for its turn."""
        self._changed_at = -math.inf
        self._closed = False
        self._memory.open(self._holder)

    @property
    def spec(self) -> Spec:
        """Return the spec of the model's engine."""
        return self.model.spec

    @property
    def precision(self) -> Precision:
        """Return the precision of the model."""
        return self.model.precision

    @property
    def models(self) -> list[LoadedModel[Spec]]:
        """Return the model, that which is being loaded, and those that are wanted."""
        return [self.model, self.coming, *(change.target for change in self._changes)]

    @property
    def coming(self) -> LoadedModel[Spec]:
        """Return the model that is being loaded; else `model`."""
        return self._loading or self.model

    @property
    def worker(self) -> WorkerProcess | None:
        """Return the worker process; None if none is alive."""
        return self._worker if self._worker is not None and self._worker.alive else None

    @property
    def worker_pid(self) -> int | None:
        """Return the id of the worker process; None if none is alive."""
        return self.worker.pid if self.worker is not None else None

    @property
    def in_use(self) -> bool:
        """Return whether there is a lease."""
        return self._holders > 0

    @property
    def loaded(self) -> bool:
        """Return whether the model is in memory."""
        return self.loader.loading is None and self._worker is not None

    @property
    def state(self) -> EngineState:
        """Return the current state."""
        if self.loader.loading is not None:
            return EngineState.LOADING
        if self.worker is None:
            return EngineState.STUCK if self.loader.shutdowns.stuck else EngineState.ABSENT
        return EngineState.BUSY if self.in_use else EngineState.READY

    def resolve(self, precision: Precision, since: float) -> Precision:
        """Return the precision for a job that requested ``precision`` at ``since``
        (`time.monotonic`).

        AUTO takes the loaded one, and so does a job from before the last change.
        """
        if precision is Precision.AUTO or since < self._changed_at:
            return self.coming.precision
        return self.coming.spec.resolve_precision(precision)

    @property
    def resolution(self) -> tuple[LoadedModel[Spec], float]:
        """Return a value that changes whenever answers of `resolve` may change."""
        return self.coming, self._changed_at

    @asynccontextmanager
    async def lease(
        self, precision: Precision = Precision.AUTO, since: float = math.inf, alone: bool = False
    ) -> AsyncIterator[EngineLease]:
        """Wait for the engine, loaded as `resolve` determines if necessary, and hold it: it is not
        unloaded for being idle. ``alone``: without other leases at the same time.

        Raises:
            errors.ModelLoadFailed, errors.EngineStuck: it does not load.
            errors.WontFit: its memory at that precision does not fit.
            errors.ShuttingDown: the engine is closed.
        """
        beside = self.sharing.concurrent and not alone
        async with AsyncExitStack() as turn:
            await turn.enter_async_context(self._in_turn())
            if not beside:
                await self._unheld.wait()
            worker, wanted = self.worker, self.resolve(precision, since)
            if worker is None or self._load is not None or wanted is not self.model.precision:
                worker = await self._loaded(lambda model: model.at(self.resolve(precision, since)))
            if not (self.in_use or self.sharing.sessions):
                await self.loader.shutdowns.ends.wait()
                await self._memory.query_memory(self.model)
            self._used_load = self.loader.loads
            self._hold(1)
            try:
                if beside:
                    await turn.aclose()
                model = self.model
                yield EngineLease(
                    worker, model.precision, self._set_memory, beside, partial(self._blame, model)
                )
            finally:
                self._hold(-1)

    async def preload(self) -> None:
        """Load the model ahead of the first job.

        Raises:
            errors.ModelLoadFailed: it does not load.
            errors.WontFit: its memory does not fit.
        """
        async with self._in_turn():
            await self._loaded(lambda model: model)

    async def check_room(self, precision: Precision) -> None:
        """Raise `errors.WontFit` if the memory of a reload at ``precision`` would not fit now."""
        wanted = self.model.checked_at(precision)
        await self._memory.query_memory(wanted)
        if self._loading is None:  # else the free memory is not known
            self._memory.place(wanted)

    async def reload(self, precision: Precision) -> Precision:
        """Load the model again, at a precision; return that. Else as `change`."""
        return (await self.change(lambda model: model.checked_at(precision), again=True)).precision

    async def change(self, wanted: Wanted[Spec], *, again: bool = False) -> LoadedModel[Spec]:
        """Load what is ``wanted`` of the model, in its turn; return it. A model like the one in use
        is loaded beside that if memory allows, another one instead of it. ``again``: also if the
        same is loaded.

        If a caller is cancelled, the change goes on. Equal changes that wait share one load; of
        different ones, the last one wins.

        Raises:
            errors.ReloadSuperseded: another change was requested before this one had its turn.
            errors.WontFit, errors.ModelLoadFailed: it cannot be loaded; the old model goes on
                serving.
            errors.SidecarError: as ``wanted`` raises.
        """
        target = wanted(self.coming)
        if not (again or self._changes or self._load) and target.loads_as(self.model):
            self._set_model(target)  # the same may have another name
            return target
        change = self._request(wanted, again=again)
        task = self._changes[change]
        await asyncio.wait({task})
        if task.cancelled():
            raise change.cause_of_end
        return task.result()

    async def discard(self) -> None:
        """Unload the model once it has no lease, unless that has happened meanwhile: the next lease
        starts another process."""
        worker = self._worker
        async with self._in_turn():
            await self._unheld.wait()
            if self._worker is worker:
                self._unload()

    async def close(self) -> None:
        """Unload the model at once, whatever is in progress, and load nothing any more."""
        self._closed = True
        self._settled()
        tasks = [*self._changes.values(), *((self._load,) if self._load is not None else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._settled()
        await self.loader.shutdowns.close()

    def _holder(self) -> ModelHolder:
        changing = self._loading is not None
        held = self.model, self.worker_pid, self.memory_plan, self.loaded, changing, self._holders
        return ModelHolder(*held)

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        try:
            async with self._turn:
                self._settled()
                yield
        finally:  # also after a failed load that kept the old model
            self._settled()

    async def _blame(self, model: LoadedModel[Spec]) -> errors.Fault:
        """Return what is to blame for a recording in which memory ran out just now."""
        await self._memory.query_memory(model)
        return self._memory.blame(model)

    def _set_memory(self, memory: MemoryPlan) -> None:
        self.memory_plan = memory

    def _hold(self, more: int) -> None:
        """Add ``more`` leases; a negative number removes them."""
        self._holders += more
        if self.sharing.sessions:
            self._memory.settled()
        elif self.in_use:
            self._unheld.clear()
        else:
            self._unheld.set()
            self.memory_plan = replace(self.memory_plan, places=0)
        self._settled()

    def _request(self, wanted: Wanted[Spec], *, again: bool = False) -> _Change[Spec]:
        """Return the change that will do what is wanted: an equal one, or a new one."""
        target, pending = wanted(self.coming), [*self._changes.items()]
        last = next((one for one, task in reversed(pending) if not task.done()), None)
        least_loads = self.loader.loads + 1 if again else 0
        if last is not None and last.target.loads_as(target) and not (last.begun and again):
            last.requests.append(wanted)
            last.least_loads = max(least_loads, last.least_loads)
            return last
        if last is not None and not last.begun:
            last.cause_of_end = errors.ReloadSuperseded(
                f"Before the load of {last.target.title} began, {target.title} was requested."
            )
            self._changes[last].cancel()
        change = _Change([wanted], target, least_loads)
        task = asyncio.get_running_loop().create_task(self._carry_out(change))
        self._changes[change] = task
        task.add_done_callback(_log_fault)
        task.add_done_callback(lambda task: self._changes.pop(change))
        return change

    def _is_done(self, change: _Change[Spec]) -> bool:
        loaded = self.loaded and self.loader.loads >= change.least_loads
        return loaded and change.wanted(self.model).loads_as(self.model)

    async def _carry_out(self, change: _Change[Spec]) -> LoadedModel[Spec]:
        async with self._in_turn():
            await self._end_load(change.wanted)
            if not self._is_done(change):
                await self._unheld.wait()
            change.begun, change.target = True, change.wanted(self.model)
            if not self._is_done(change):
                await self._load_model(change.target)
            self._changed_at = time.monotonic()
            await self.loader.shutdowns.ends.wait()
            self._set_model(change.wanted(self.model))  # the same may have another name by now
            return self.model

    async def _loaded(self, wanted: Wanted[Spec]) -> WorkerProcess:
        """Return the process with the ``wanted`` model, loaded if necessary, for a caller that has
        the turn. If that is cancelled, the load goes on, and the next caller finds it in progress.

        Raises:
            errors.ModelLoadFailed, errors.EngineStuck, errors.WontFit, errors.ShuttingDown: it
                cannot be loaded.
        """
        await self._end_load(wanted)
        if (worker := self.worker) is not None and wanted(self.model).loads_as(self.model):
            return worker
        await self._unheld.wait()
        load = asyncio.get_running_loop().create_task(self._load_model(wanted(self.model)))
        self._load = load
        load.add_done_callback(_log_fault)
        await asyncio.wait({load})
        if load.cancelled():
            raise errors.ShuttingDown()
        return load.result()

    async def _end_load(self, wanted: Wanted[Spec]) -> None:
        """Wait for a load that goes on after its caller was cancelled, or cancel it if another
        model is wanted."""
        if self._load is not None:
            if not wanted(self.coming).loads_as(self.coming):
                self._load.cancel()
            await asyncio.wait({self._load})

    async def _load_model(self, wanted: LoadedModel[Spec]) -> WorkerProcess:
        """Load a model beside the one in use or, if memory is short or it is of another kind,
        instead of it. If that fails, the old one is loaded again."""
        if self._closed:
            raise errors.ShuttingDown()
        serves, self._loading = self.worker is not None, wanted
        try:
            if not wanted.is_like(self.model):
                self._unload()
            await self.loader.check_not_stuck()
            await self._memory.query_memory(wanted)
            plan = self._memory.place(wanted)
            self._memory.load_begins(wanted, plan)
            if plan.placement is LoadPlacement.INSTEAD:
                self._unload()
                await self.loader.check_not_stuck()
            worker = await self._start(wanted, plan.memory)
            self._set_model(wanted)
            return worker
        except _RESTORED_AFTER:
            if serves and self.worker is None:
                log.warning("the engine could not be changed; %s is loaded again", self.model.title)
                self._memory.load_begins(self.model, LoadPlan(memory=self.memory_plan))
                with suppress(errors.SidecarError):  # then the next lease tells why
                    await self._start(self.model, self.memory_plan)
            raise
        finally:
            self._loading = self._load = None
            self._memory.settled()
            self._settled()

    async def _start(self, model: LoadedModel[Spec], memory: MemoryPlan) -> WorkerProcess:
        options = replace(
            self._options,
            precision=model.precision,
            checkpoint=model.checkpoint,
            upstream=model.choice.upstream,
            evict_encoders=memory.evict_encoders,
            host_token_table=memory.host_token_table,
        )
        worker = await self.loader.load(model.spec.name, model.spec.factory, options)
        self._unload()
        self._worker, self.memory_plan = worker, memory
        if isinstance(model.spec, EngineSpec) and model.spec.remote:
            worker.allow_silence()
        worker.on_end = self._settled  # if it dies, it is unloaded at once, even without a lease
        return worker

    def watch(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each change of the model."""
        self._watchers.append(callback)

    def _set_model(self, model: LoadedModel[Spec]) -> None:
        self.model = model
        for callback in self._watchers:
            callback()

    def _unload(self) -> None:
        """Unload the model; its process ends in the background."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self.loader.shutdowns.begin(worker)

    def _settled(self) -> None:
        """Bring process, heartbeat and idle timer in line with the state, after each change of
        it."""
        if self.worker is None or self._closed:
            self._unload()
        if not self._closed and (self.in_use or self._worker is not None):
            self.heartbeat.start(in_use=self.in_use)
        else:
            self.heartbeat.stop()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._turn.locked() or self._loading is not None or self.in_use or self._closed:
            return
        if self._worker is not None and self._keep_alive_s >= 0:
            unused = self._used_load != self.loader.loads
            idle_s = self._keep_alive_s or (self._preloaded_keep_s if unused else 0.0)
            self._idle = asyncio.get_running_loop().call_later(idle_s, self._idled)

    def _idled(self) -> None:
        if self.worker is not None and not self._changes:
            log.info("engine %s unloaded: it was idle for keep_alive", self.spec.name)
            self._unload()
            self._settled()


def _log_fault(task: asyncio.Task[Any]) -> None:
    """Log an internal error of a load, even if no caller waits for it any more."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, errors.SidecarError):
        log.error("internal error while a model was loaded", exc_info=error)
