"""Loading of an engine into a worker process: deadline, end of processes, stuck processes."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar.checkpoints.checkpoint import checkpoint_name
from sidecar.concurrency import BackgroundTaskGroup, ThreadLimiter
from sidecar.interfaces.engine_interface import LoadOptions
from sidecar.workers.worker_environment import WorkerOptions
from sidecar.workers.worker_process import WorkerDied, WorkerProcess

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 600.0
NOTE_TIMEOUT_S = 10.0
"""Time for the notes of crashes at the end of an engine: their disk may hang."""


def _load_failed_error(name: str, error: BaseException) -> errors.ModelLoadFailed:
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
        self._note_threads = ThreadLimiter("crash notes", 1)
        self._stuck: list[WorkerProcess] = []

    @property
    def stuck(self) -> bool:
        """Return whether there is a process that even SIGKILL does not end, so that it keeps its
        memory."""
        self._stuck = [worker for worker in self._stuck if worker.stuck]
        return bool(self._stuck)

    def note_stuck(self, worker: WorkerProcess) -> None:
        """Remember a process that should have ended, if it has not."""
        if worker.stuck:
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
            note = self._note_threads.run(self._on_worker_crash, worker)
            self._notes.spawn("note of a crash", note)


class WorkerLoader:
    """Loader of models into worker processes, and the end of these; it decides on no change."""

    def __init__(
        self,
        worker_options: WorkerOptions,
        on_worker_crash: Callable[[WorkerProcess], None],
        on_end: Callable[[], None],
    ) -> None:
        """The arguments are as of `WorkerProcess` and `WorkerShutdowns`."""
        self.loads = 0
        """Number of loads that succeeded."""
        self.loaded_at = -math.inf
        """End of the last load (`time.monotonic`)."""
        self.load_s = 0.0
        """Seconds that the last load took."""
        self.loading: float | None = None
        """Share of a load that is done (0 to 1); None if no load is in progress."""
        self._worker_options = worker_options
        self.shutdowns = WorkerShutdowns(on_worker_crash, on_end)

    def last_load(self, now: float) -> tuple[float, float]:
        """Return start and end of the last load, in seconds since 1970 as ``now``; if there was
        none, both are in the distant past."""
        end = now - (time.monotonic() - self.loaded_at)
        return end - self.load_s, end

    async def check_not_stuck(self) -> None:
        """Wait for processes that are ending. Refuse a load while one is stuck: its cause would
        most likely block the next process, too.

        Raises:
            errors.EngineStuck: one is stuck.
        """
        await self.shutdowns.ends.wait()
        if self.shutdowns.stuck:
            raise errors.EngineStuck()

    async def load(self, name: str, factory: str, options: LoadOptions) -> WorkerProcess:
        """Return a process in which the engine called ``name`` is loaded.

        Raises:
            errors.ModelLoadFailed, errors.MachineBusy: as `start_worker`.
        """
        begun = time.monotonic()
        self.loading = 0.0
        try:
            worker = await self.start_worker(name, factory, options)
        finally:
            self.loading = None
        self.loads += 1
        self.loaded_at = time.monotonic()
        self.load_s = worker.patience_s = self.loaded_at - begun
        return worker

    async def start_worker(
        self, name: str, factory: str, options: LoadOptions, *, again: bool = True
    ) -> WorkerProcess:
        """Start a worker process and load the engine in it; end the process if that fails.
        ``again``: if the process dies, once more in another, as for a job.

        Raises:
            errors.ModelLoadFailed: it does not load.
            errors.MachineBusy: no process can be started now, or it lacks a disk or descriptors.
        """
        try:
            worker = WorkerProcess(name, options=self._worker_options)
        except OSError as error:
            if error.errno in errors.MACHINE_ERRNOS:
                raise errors.MachineBusy(
                    f"No process for the engine '{name}' can be started now: {error.strerror}.",
                    hint="Try again when the machine is less busy.",
                ) from None
            raise _load_failed_error(name, error) from None
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                asked: dict[str, Any] = {"engine": factory, "options": options.to_wire()}
                async with worker.calling("load", **asked) as call:
                    async for answer, _ in call.answers():
                        self.loading = answer["loaded"]
        except BaseException as error:
            worker.kill()
            await worker.close()
            self.shutdowns.note_stuck(worker)
            if isinstance(error, WorkerDied) and again and not worker.stuck:
                log.warning("the worker process of engine %s died as it loaded: %s", name, error)
                return await self.start_worker(name, factory, options, again=False)
            failed = isinstance(error, (WorkerDied, TimeoutError, errors.SidecarError))
            if failed and not isinstance(error, errors.MachineBusy):
                raise _load_failed_error(name, error) from None
            raise
        folder = options.checkpoint
        weights = f", checkpoint {checkpoint_name(Path(folder))}" if folder else ""
        log.info("engine %s loaded (%s%s)", name, options.precision, weights)
        return worker
