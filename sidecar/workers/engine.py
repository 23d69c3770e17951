"""Engine: the model that is loaded, its worker process, turns, leases, changes, idle time.

A *turn* is the right to change the model; turns are first in, first out. An exclusive lease keeps
its turn. A concurrent lease gives it back once the model is loaded, so that the next one can share
the engine. `Engine.model` is set once the worker process that has loaded it has answered.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic

from sidecar import errors
from sidecar.engines.engine_selection import Spec
from sidecar.gpu_memory.memory_admission import LoadPlacement, LoadPlan
from sidecar.interfaces.engine_interface import LoadOptions, MemoryPlan, Precision
from sidecar.workers.engine_lease import EXCLUSIVE, EngineLease, EngineState, Sharing
from sidecar.workers.engine_loading import WorkerLoader
from sidecar.workers.engine_memory import MemoryAccount, ModelHolder
from sidecar.workers.loaded_model import LoadedModel, check_precision
from sidecar.workers.worker_process import Heartbeat, WorkerProcess

log = logging.getLogger(__name__)
PRELOADED_KEEP_S = 60.0
"""Idle time of a model that was loaded ahead of its first lease, if ``keep_alive_s`` is 0."""
_RESTORED_AFTER = (errors.ModelLoadFailed, errors.MachineBusy, errors.WontFit)
"""Errors of a load after which the model that was unloaded for it is loaded again."""


@dataclass(slots=True)
class _PendingChange(Generic[Spec]):
    """Change that waits for its turn; a later one to another model replaces it."""

    wanted: Callable[[LoadedModel[Spec]], LoadedModel[Spec]]
    target: LoadedModel[Spec]
    """What is wanted of the model at the request."""
    again: bool
    """Whether the same model is loaded again."""
    loads: int
    """Number of loads at the request: a load since then may have done it."""
    outcome: asyncio.Future[LoadedModel[Spec]] = field(default_factory=asyncio.Future)

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` in all waiting callers; there may be none left."""
        self.outcome.set_exception(error)
        self.outcome.exception()  # else asyncio logs that it was never retrieved


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
        self.coming = model
        """Model that is being loaded; else `model`."""
        self.memory_plan = MemoryPlan()
        """Memory plan of the load, then of the job that began last."""
        self.shared_memory: MemoryPlan | None = None
        """Plan of the recordings that run beside each other; None if there are none."""
        self.sharing = sharing
        self.exclusive = 0
        """Leases without others at the same time that are held or waited for, of an engine that
        has several."""
        self._memory = memory or MemoryAccount()
        self._watchers: list[Callable[[], None]] = []
        self._options = load or LoadOptions()
        self._keep_alive_s, self._preloaded_keep_s = keep_alive_s, preloaded_keep_s
        self._worker: WorkerProcess | None = None
        self.loader = WorkerLoader(sharing.worker, on_worker_crash, self._memory.settled)
        self.heartbeat = Heartbeat(lambda: self.worker, sharing.pings)
        self._turn = asyncio.Lock()
        self._holders = 0
        self._unheld = asyncio.Event()
        self._unheld.set()
        self._idle: asyncio.TimerHandle | None = None
        self._used_load = 0
        """The load that the last lease used."""
        self._load: asyncio.Task[WorkerProcess] | None = None
        """Load in progress."""
        self._pending: _PendingChange[Spec] | None = None
        self._current: _PendingChange[Spec] | None = None
        """Change that has its turn."""
        self._changes: set[asyncio.Task[LoadedModel[Spec]]] = set()
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
        """Return the model, that which is being loaded, and that which waits for it."""
        waiting = [self._pending.target] if self._pending is not None else []
        return [self.model, self.coming, *waiting]

    @property
    def worker(self) -> WorkerProcess | None:
        """Return the worker process; None if none is alive."""
        return self._worker if self._worker is not None and self._worker.alive else None

    @property
    def worker_pid(self) -> int | None:
        """Return the id of the worker process; None if none is alive."""
        return self.worker.pid if self.worker is not None else None

    @property
    def reading_s(self) -> float:
        """Return the seconds for which the engine has waited for a recording's disk."""
        return self.worker.reading_s if self.worker is not None and self.in_use else 0.0

    @property
    def in_use(self) -> bool:
        """Return whether there is a lease."""
        return self._holders > 0

    @property
    def loading(self) -> float | None:
        """Return the share of a load that is done (0 to 1); None if no load is in progress."""
        return self.loader.loading

    @property
    def loaded(self) -> bool:
        """Return whether the model is in memory."""
        return self.loader.loading is None and self._worker is not None

    @property
    def state(self) -> EngineState:
        """Return the current state."""
        if self.loading is not None:
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
            if alone:
                turn.enter_context(self._exclusively())
            await turn.enter_async_context(self._in_turn(joins=beside))
            wanted = self.resolve(precision, since)
            if not self.sharing.sessions and wanted is not self.model.precision:
                await self._unheld.wait()
            worker = await self._leased_worker(precision, since)
            self._hold(1)
            try:
                if beside:
                    await turn.aclose()
                yield EngineLease(worker, self.model.precision, self._set_memory, beside=beside)
            finally:
                self._hold(-1)

    async def preload(self) -> None:
        """Load the model ahead of the first job.

        Raises:
            errors.ModelLoadFailed: it does not load.
            errors.WontFit: its memory does not fit.
        """
        async with self._in_turn():
            await self._end_load(self.coming)
            await self._ensure_loaded(self.model)

    async def check_room(self, precision: Precision) -> None:
        """Raise `errors.WontFit` if the memory of a reload at ``precision`` would not fit now."""
        wanted = self.model.at(check_precision(self.spec, precision))
        await self._memory.query_memory(wanted)
        if self._load is None:  # else the free memory is not known
            self._memory.place(wanted)

    async def reload(self, precision: Precision) -> Precision:
        """Load the model again, at a precision; return that. Else as `change`."""
        wanted = lambda model: model.at(check_precision(model.spec, precision))  # noqa: E731
        return (await self.change(wanted, again=True)).precision

    async def change(
        self,
        wanted: Callable[[LoadedModel[Spec]], LoadedModel[Spec]],
        *,
        again: bool = False,
    ) -> LoadedModel[Spec]:
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
        target, pending = wanted(self.coming), self._pending
        if pending is None and not again:
            if self._current is not None and self._current.target.loads_as(target):
                return await asyncio.shield(self._current.outcome)
            if self._current is None and target.loads_as(self.model):
                self._set_model(target)  # the same may have another name
                return target
        if pending is None:
            pending = self._pending = _PendingChange(wanted, target, again, self.loader.loads)
            task = asyncio.get_running_loop().create_task(self._carry_out(pending))
            self._changes.add(task)
            task.add_done_callback(partial(self._change_ended, pending))
        elif pending.target.loads_as(target):
            pending.wanted, pending.target, pending.again = wanted, target, pending.again or again
        else:
            pending.fail(_superseded_error(pending.target, target))
            pending.wanted, pending.target, pending.again = wanted, target, again
            pending.loads, pending.outcome = self.loader.loads, asyncio.Future()
        return await asyncio.shield(pending.outcome)

    async def close(self) -> None:
        """Unload the model at once, whatever is in progress, and load nothing any more."""
        self._closed = True
        self._settled()
        for task in self._changes:
            task.cancel()
        await asyncio.gather(*self._changes, return_exceptions=True)
        if self._load is not None:
            await self._cancel_load(self._load)
        self._unload()
        await self.loader.shutdowns.close()

    def _holder(self) -> ModelHolder:
        changing = self._load is not None
        held = self.model, self.worker_pid, self.memory_plan, self.loaded, changing, self.in_use
        return ModelHolder(*held)

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        self.exclusive += 1
        try:
            yield
        finally:
            self.exclusive -= 1

    @asynccontextmanager
    async def _in_turn(self, *, joins: bool = False) -> AsyncIterator[None]:
        """Hold the turn, once all leases have ended that a change must wait for. ``joins``: do not
        wait for leases of a model that is loaded."""
        try:
            async with self._turn:
                if not (self.sharing.sessions or (joins and self.worker is not None)):
                    await self._unheld.wait()
                self._settled()
                if self._closed:
                    raise errors.ShuttingDown()
                yield
        finally:  # also after a failed load that kept the old model
            self._settled()

    async def _leased_worker(self, precision: Precision, since: float) -> WorkerProcess:
        """Return the worker process for a lease that has the turn: the one in use, or one loaded if
        necessary, after which the memory is queried."""
        worker, wanted = self.worker, self.resolve(precision, since)
        if self.in_use and not self.sharing.sessions and worker is not None:
            return worker
        if worker is None or self._load is not None or wanted is not self.model.precision:
            await self._end_load(self.coming.at(wanted))
            worker = await self._ensure_loaded(self.model.at(self.resolve(precision, since)))
        if not self.sharing.sessions:
            await self.loader.shutdowns.ends.wait()
            await self._memory.query_memory(self.model)
        self._used_load = self.loader.loads
        return worker

    def _set_memory(self, memory: MemoryPlan) -> None:
        self.memory_plan = memory
        self.shared_memory = memory if memory.places else None

    def _hold(self, more: int) -> None:
        """Add ``more`` leases; a negative number removes them."""
        self._holders += more
        if self.in_use:
            self._unheld.clear()
        else:
            self._unheld.set()
            self.shared_memory = None
        self._settled()
        if self.sharing.sessions:
            self._memory.held(self._holders)

    async def _carry_out(self, change: _PendingChange[Spec]) -> LoadedModel[Spec]:
        async with self._in_turn():
            self._pending, self._current = None, change  # later requests are another change
            await self._end_load(change.wanted(self.coming))
            wanted = change.wanted(self.model)
            same, new = wanted.loads_as(self.model), self.loader.loads != change.loads
            if not same or (change.again and not (self.loaded and new)):
                await self._replace(wanted)
            self._set_model(wanted)  # the same may have another name
            if change.again or not same:
                self._changed_at = time.monotonic()
            await self.loader.shutdowns.ends.wait()
            return wanted

    def _change_ended(
        self, change: _PendingChange[Spec], task: asyncio.Task[LoadedModel[Spec]]
    ) -> None:
        self._changes.discard(task)
        if self._pending is change:  # it never had its turn
            self._pending = None
        if self._current is change:
            self._current = None
        error = errors.ShuttingDown() if task.cancelled() else task.exception()
        if error is None:
            change.outcome.set_result(task.result())
        else:
            change.fail(error)

    async def _ensure_loaded(self, wanted: LoadedModel[Spec]) -> WorkerProcess:
        """Return the process with a model, loaded if necessary.

        Raises:
            errors.ModelLoadFailed, errors.EngineStuck, errors.WontFit, errors.ShuttingDown: it
                cannot be loaded.
        """
        if self.worker is not None and self.model.loads_as(wanted):
            return self.worker
        return await self._replace(wanted)

    async def _end_load(self, wanted: LoadedModel[Spec]) -> None:
        """Wait for a load of the same model that goes on after its caller was cancelled. Cancel one
        of another, as no caller waits for it any more.

        Raises:
            errors.ShuttingDown: the engine is closed.
        """
        if self._load is not None and self.coming.loads_as(wanted):
            await asyncio.wait({self._load})
        elif self._load is not None:
            await self._cancel_load(self._load)
        if self._closed:
            raise errors.ShuttingDown()

    async def _cancel_load(self, load: asyncio.Task[WorkerProcess]) -> None:
        self.loader.kill_starting()
        load.cancel()
        await asyncio.wait({load})
        if self._load is load:  # the task had not started
            self._load, self.coming = None, self.model

    async def _replace(self, wanted: LoadedModel[Spec]) -> WorkerProcess:
        """Load a model in a task that goes on if its caller is cancelled; the next caller finds it
        in progress (`_end_load`). The old one is unloaded unless the load fails."""
        if self.worker is None:
            self._unload()
        task = asyncio.get_running_loop().create_task(self._load_model(wanted))
        task.add_done_callback(_log_fault)
        self._load, self.coming = task, wanted
        await asyncio.wait({task})
        if task.cancelled():
            raise errors.ShuttingDown()
        return task.result()

    async def _load_model(self, wanted: LoadedModel[Spec]) -> WorkerProcess:
        serves = self.worker is not None
        try:
            try:
                worker, memory = await self._placed(wanted)
            except _RESTORED_AFTER:
                if serves and self.worker is None:
                    await self._restore()
                raise
            self._unload()
            self.memory_plan = memory
            self._set_worker(worker)
            self._set_model(wanted)
            return worker
        finally:
            self._load, self.coming = None, self.model
            self._memory.settled()
            self._settled()

    async def _placed(self, wanted: LoadedModel[Spec]) -> tuple[WorkerProcess, MemoryPlan]:
        """Load a model beside the one in use or, if memory is short or it is of another kind,
        instead of it. Return its process, and the parts that are on the host."""
        if not wanted.is_like(self.model):
            self._unload()
        await self.loader.check_not_stuck()
        await self._memory.query_memory(wanted)
        plan = self._memory.place(wanted)
        self._memory.load_begins(wanted, plan)
        if plan.placement is LoadPlacement.INSTEAD:
            self._unload()
            await self.loader.check_not_stuck()
        return await self._start(wanted, plan.memory), plan.memory

    async def _restore(self) -> None:
        """Load the model again that was unloaded for another; if that fails, the next lease tells
        why."""
        log.warning("the engine could not be changed; %s is loaded again", self.model.title)
        self._memory.load_begins(self.model, LoadPlan(memory=self.memory_plan))
        with suppress(errors.SidecarError):
            self._set_worker(await self._start(self.model, self.memory_plan))

    async def _start(self, model: LoadedModel[Spec], memory: MemoryPlan) -> WorkerProcess:
        options = replace(
            self._options,
            precision=model.precision,
            checkpoint=model.checkpoint,
            upstream=model.choice.upstream,
            evict_encoders=memory.evict_encoders,
            host_token_table=memory.host_token_table,
        )
        return await self.loader.load(model.spec.name, model.spec.factory, options)

    def watch(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each change of the model."""
        self._watchers.append(callback)

    def _set_model(self, model: LoadedModel[Spec]) -> None:
        self.model = self.coming = model
        for callback in self._watchers:
            callback()

    def _set_worker(self, worker: WorkerProcess) -> None:
        """Make ``worker`` the process; if it dies, it is unloaded at once, even without a lease."""
        self._worker = worker
        worker.on_end = partial(self._worker_ended, worker)

    def _worker_ended(self, worker: WorkerProcess) -> None:
        if worker is self._worker:
            self._unload()

    def _unload(self) -> None:
        """Unload the model; its process ends in the background."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self.loader.shutdowns.begin(worker)

    def _settled(self) -> None:
        """Bring process, heartbeat and idle timer in line with the state, after each change of
        it."""
        alive = self.worker is not None
        if not alive:
            self._unload()
        if not self._closed and (self.in_use or alive):
            self.heartbeat.start(in_use=self.in_use)
        else:
            self.heartbeat.stop()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._turn.locked() or self._load is not None or self.in_use or self._closed:
            return
        if alive and self._keep_alive_s >= 0:
            unused = self._used_load != self.loader.loads
            idle_s = self._keep_alive_s or (self._preloaded_keep_s if unused else 0.0)
            self._idle = asyncio.get_running_loop().call_later(idle_s, self._idled)

    def _idled(self) -> None:
        self._idle = None
        if self.worker is not None:
            log.info("engine %s unloaded: it was idle for keep_alive", self.spec.name)
            self._unload()
            self._settled()


def _superseded_error(
    first: LoadedModel[Spec], second: LoadedModel[Spec]
) -> errors.ReloadSuperseded:
    what = f"Before the load of {first.title} began, {second.title} was requested."
    return errors.ReloadSuperseded(what)


def _log_fault(task: asyncio.Task[WorkerProcess]) -> None:
    """Log an internal error of a load, even if no caller waits for it any more."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, errors.SidecarError):
        log.error("internal error while a model was loaded", exc_info=error)
