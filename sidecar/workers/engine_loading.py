"""Loading of an engine into its worker process: deadline, replacement, unload, stuck processes."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sidecar import errors
from sidecar.checkpoints.checkpoint import checkpoint_name
from sidecar.concurrency import BackgroundTaskGroup
from sidecar.gpu_memory import memory_admission
from sidecar.interfaces.engine_interface import LoadOptions, MemoryPlan, ModelSpec, Precision
from sidecar.workers.worker_environment import WorkerOptions
from sidecar.workers.worker_process import WorkerDied, WorkerProcess

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 600.0
NOTE_TIMEOUT_S = 10.0
"""Time for the notes of crashes at the end of an engine: their disk may hang."""


def _load_failed_error(name: str, error: Exception) -> errors.ModelLoadFailed:
    log.error("engine %s could not be loaded: %s", name, error)
    interrupted = isinstance(error, (WorkerDied, TimeoutError))
    error_class = errors.LoadInterrupted if interrupted else errors.ModelLoadFailed
    return error_class(
        f"The engine '{name}' could not be loaded: {error}", hint=getattr(error, "hint", None)
    )


class WorkerShutdowns:
    """Shutdowns of worker processes, each in a task of its own."""

    def __init__(
        self,
        on_worker_crash: Callable[[WorkerProcess], None] = lambda worker: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_worker_crash`` is called in a thread for each worker that crashed, one at a time; no
        load waits for it. ``on_end`` is called after each end."""
        self._on_worker_crash = on_worker_crash
        self._on_end = on_end
        self.ends, self._notes = BackgroundTaskGroup(), BackgroundTaskGroup()
        """``ends``: to wait for, until all have ended and freed their memory, or are stuck."""
        self._note_lock = asyncio.Lock()
        self._stuck: list[WorkerProcess] = []

    @property
    def stuck(self) -> bool:
        """Return whether there is a process that even SIGKILL does not end, so that it keeps its
        memory."""
        self._stuck = [worker for worker in self._stuck if worker.stuck]
        return bool(self._stuck)

    def note_stuck(self, worker: WorkerProcess | None) -> None:
        """Remember a process that should have ended, if it has not."""
        if worker is not None and worker.stuck:
            self._stuck.append(worker)

    def begin(self, worker: WorkerProcess) -> None:
        """Start to end a process; return at once."""
        self.ends.spawn("end of a worker", self._end(worker))

    async def close(self) -> None:
        """Wait for all ends, and a moment until the crashes are noted."""
        await self.ends.wait()
        await self._notes.close(NOTE_TIMEOUT_S)

    async def _end(self, worker: WorkerProcess) -> None:
        crashed = await worker.crashed()
        await worker.close()
        self.note_stuck(worker)
        self._on_end()
        if crashed:
            self._notes.spawn("note of a crash", self._note_crash(worker))

    async def _note_crash(self, worker: WorkerProcess) -> None:
        async with self._note_lock:
            await asyncio.to_thread(self._on_worker_crash, worker)


@dataclass(frozen=True, slots=True)
class _EngineChange:
    """Load in progress."""

    precision: Precision
    task: asyncio.Task[WorkerProcess]


class EngineSupervisor:
    """Owner of one engine's worker process; `engine_slot.EngineSlot` decides on its changes.

    Each change is a task of the supervisor, and goes on if its caller is cancelled. The next caller
    finds it in progress (`_finish_change`). At its end `_settled` is called.
    """

    def __init__(
        self,
        spec: ModelSpec,
        load: LoadOptions,
        account: memory_admission.MemoryAccount,
        on_worker_crash: Callable[[WorkerProcess], None],
        worker_options: WorkerOptions,
    ) -> None:
        self.precision = spec.resolve_precision(load.precision)
        """Precision of the engine that is loaded, or being loaded, or was loaded last."""
        self.checkpoint = load.checkpoint
        """Folder of its weights."""
        self.memory = MemoryPlan()
        """Memory plan of the load, then of the job that began last."""
        self.loads = 0
        """Number of loads that succeeded."""
        self.loaded_at = -math.inf
        """End of the last load (`time.monotonic`)."""
        self.load_s = 0.0
        """Seconds that the last load took."""
        self._spec = spec
        self._options = load
        self._account = account
        self._worker_options = worker_options
        self._worker: WorkerProcess | None = None
        self._change: _EngineChange | None = None
        self._starting: WorkerProcess | None = None
        """The process in which the engine is being loaded."""
        self.loading: float | None = None
        """Share of a load that is done (0 to 1); None if no load is in progress."""
        self._shutdowns = WorkerShutdowns(on_worker_crash, account.settled)
        self._closed = False

    @property
    def worker(self) -> WorkerProcess | None:
        """Return the engine's process; None if none is alive."""
        return self._worker if self._worker is not None and self._worker.alive else None

    @property
    def worker_pid(self) -> int | None:
        """Return the process id of the engine; None if it is not loaded."""
        return self.worker.pid if self.worker is not None else None

    @property
    def changing(self) -> bool:
        """Return whether a change is in progress."""
        return self._change is not None

    async def close(self) -> None:
        """End all processes, including one that is being loaded."""
        self._closed = True
        if self._change is not None:
            await self._cancel_change(self._change)
        self._unload()
        await self._shutdowns.close()

    async def _finish_change(self, precision: Precision) -> None:
        """Wait for an earlier change to the same ``precision``, if one goes on after its caller
        was cancelled. Cancel one to another precision, as no caller waits for it any more.

        Raises:
            errors.ShuttingDown: the supervisor is closed.
        """
        change = self._change
        if change is not None and change.precision is precision:
            await asyncio.wait({change.task})
        elif change is not None:
            await self._cancel_change(change)
        if self._closed:
            raise errors.ShuttingDown()

    async def _ensure_loaded(self, precision: Precision) -> WorkerProcess:
        """Return the engine at ``precision``, loaded if necessary.

        Raises:
            errors.ModelLoadFailed, errors.EngineStuck, errors.WontFit, errors.ShuttingDown: it
                cannot be loaded.
        """
        worker = self.worker
        if worker is not None and self.precision is precision:
            return worker
        return await self._replace(precision)

    async def _replace(self, precision: Precision, checkpoint: str | None = None) -> WorkerProcess:
        """Load the engine at ``precision``, with the weights of ``checkpoint`` (None: the same as
        before). The old engine is unloaded unless the load fails.

        Raises:
            errors.ModelLoadFailed, errors.EngineStuck, errors.WontFit, errors.ShuttingDown: it
                cannot be loaded.
        """
        if self.worker is None:
            self._unload()
        task = asyncio.get_running_loop().create_task(self._change_to(precision, checkpoint))
        task.add_done_callback(_log_fault)
        self._change = _EngineChange(precision, task)
        await asyncio.wait({task})
        if task.cancelled():
            raise errors.ShuttingDown()
        return task.result()

    def _unload(self) -> None:
        """Unload the engine; its process ends in the background (`_shutdowns.ends.wait`)."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._shutdowns.begin(worker)

    def _settled(self) -> None:
        """Called at the end of each change, whether it succeeded or not."""

    async def _cancel_change(self, change: _EngineChange) -> None:
        if self._starting is not None:
            self._starting.kill()
        change.task.cancel()
        await asyncio.wait({change.task})
        if self._change is change:  # the task had not started
            self._change = None

    async def _change_to(self, precision: Precision, checkpoint: str | None) -> WorkerProcess:
        old_precision, old_checkpoint = self.precision, self.checkpoint
        self.checkpoint = checkpoint or old_checkpoint
        try:
            await self._check_not_stuck()
            await self._account.query_memory()
            plan = self._account.place(precision)
            self._account.load_begins(precision, plan)
            instead = plan.placement is memory_admission.LoadPlacement.INSTEAD
            restored = instead and self.worker is not None
            self.precision = precision
            try:
                if instead:
                    self._unload()
                    await self._check_not_stuck()
                worker = await self._load(plan.memory)
            except (errors.ModelLoadFailed, errors.MachineBusy):
                self.precision, self.checkpoint = old_precision, old_checkpoint
                if restored:
                    log.warning(
                        "engine %s could not be reloaded; the previous precision %s is loaded "
                        "again",
                        self._spec.name,
                        old_precision,
                    )
                    self._set_worker(await self._load(self.memory))
                raise
            self._unload()
            self._set_worker(worker)
            self.memory = plan.memory
            return worker
        except BaseException:
            self.precision, self.checkpoint = old_precision, old_checkpoint
            raise
        finally:
            self._change = None
            self._account.settled()
            self._settled()

    def _set_worker(self, worker: WorkerProcess) -> None:
        """Make ``worker`` the engine; if it dies, it is unloaded at once, even without a lease."""
        self._worker = worker
        worker.on_end = partial(self._worker_ended, worker)

    def _worker_ended(self, worker: WorkerProcess) -> None:
        if worker is self._worker:
            self._unload()

    async def _check_not_stuck(self) -> None:
        """Wait for processes that are ending. Refuse a load while one is stuck: its cause would
        most likely block the next process, too."""
        await self._shutdowns.ends.wait()
        if self._shutdowns.stuck:
            raise errors.EngineStuck()

    async def _load(self, memory: MemoryPlan) -> WorkerProcess:
        options = replace(
            self._options,
            precision=self.precision,
            checkpoint=self.checkpoint,
            evict_encoders=memory.evict_encoders,
            host_token_table=memory.host_token_table,
        )
        begun = time.monotonic()
        self.loading = 0.0
        try:
            worker = await self.start_worker(options)
        finally:
            self.loading = None
            self._shutdowns.note_stuck(self._starting)
            self._starting = None
        self.loads += 1
        self.loaded_at = time.monotonic()
        self.load_s = worker.patience_s = self.loaded_at - begun
        return worker

    async def start_worker(self, options: LoadOptions, *, again: bool = True) -> WorkerProcess:
        """Start a worker process and load the engine in it; end the process if that fails.
        ``again``: if the process dies, once more in another, as for a job.

        Raises:
            errors.ModelLoadFailed: it does not load.
            errors.MachineBusy: no process can be started now, or it lacks a disk or descriptors.
        """
        name = self._spec.name
        try:
            worker = self._starting = WorkerProcess(name, options=self._worker_options)
        except OSError as error:
            if error.errno in errors.MACHINE_ERRNOS:
                raise errors.MachineBusy(
                    f"No process for the engine '{name}' can be started now: {error.strerror}.",
                    hint="Try again when the machine is less busy.",
                ) from None
            raise _load_failed_error(name, error) from None
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                engine, given = self._spec.factory, options.to_wire()
                call = worker.call("load", engine=engine, options=given)
                async with aclosing(call) as frames:
                    async for frame in frames:
                        self.loading = frame["loaded"]
        except (WorkerDied, TimeoutError, errors.SidecarError) as error:
            await worker.close()
            if isinstance(error, errors.MachineBusy):
                raise
            if isinstance(error, WorkerDied) and again and not worker.stuck:
                log.warning("the worker process of engine %s died as it loaded: %s", name, error)
                return await self.start_worker(options, again=False)
            raise _load_failed_error(name, error) from None
        except BaseException:
            worker.kill()
            await worker.close()
            raise
        folder = options.checkpoint
        weights = f", checkpoint {checkpoint_name(Path(folder))}" if folder else ""
        log.info("engine %s loaded (%s%s)", name, options.precision, weights)
        return worker


def _log_fault(worker_task: asyncio.Task[WorkerProcess]) -> None:
    """Log an internal error of a change, even if no caller waits for it any more."""
    error = None if worker_task.cancelled() else worker_task.exception()
    if error is not None and not isinstance(error, errors.SidecarError):
        log.error("internal error while an engine was loaded or replaced", exc_info=error)
