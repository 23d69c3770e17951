"""An engine's way into memory, and workers' way out of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from sidecar import errors
from sidecar.interfaces.engine import LoadOptions, ModelSpec
from sidecar.workers.slot_interface import WorkerDied
from sidecar.workers.worker import Worker
from sidecar.workers.worker_environment import Manner

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 600.0


class Loading:
    """One engine on its way into a process of its own."""

    def __init__(self, spec: ModelSpec, options: LoadOptions, manner: Manner) -> None:
        self.part = 0.0
        """How much of it is there, from 0 to 1."""
        self._spec = spec
        self._options = options
        self._manner = manner
        self.worker: Worker | None = None
        """The process, once there is one."""

    async def run(self) -> Worker:
        """Start a worker and load the engine in it; of one that comes to nothing nothing is left.

        Raises:
            errors.ModelLoadFailed: it does not load.
        """
        name = self._spec.name
        try:
            worker = self.worker = Worker(name, manner=self._manner)
        except OSError as error:
            raise _failed(name, error) from None
        begun = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                call = worker.call("load", engine=name, options=self._options.to_wire())
                async with aclosing(call) as frames:
                    async for frame in frames:
                        self.part = frame["loaded"]
        except (WorkerDied, TimeoutError, errors.SidecarError) as error:
            await worker.close()
            raise _failed(name, error) from None
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


def _failed(name: str, error: Exception) -> errors.ModelLoadFailed:
    log.error("the engine %s did not load: %s", name, error)
    return errors.ModelLoadFailed(
        f"The engine '{name}' could not be loaded: {error}", hint=getattr(error, "hint", None)
    )


class Leaving:
    """Workers on their way out: each ends in a task of its own, and somebody sees to the last."""

    def __init__(
        self, on_crash: Callable[[Worker], None], left: Callable[[], None] = lambda: None
    ) -> None:
        self._on_crash = on_crash
        self._left = left
        self._ends: set[asyncio.Task[None]] = set()
        self._stay: list[Worker] = []

    @property
    def stays(self) -> bool:
        """Whether there is one that nothing ends, with all that it holds."""
        self._stay = [worker for worker in self._stay if worker.stays]
        return bool(self._stay)

    def note(self, worker: Worker | None) -> None:
        """Know of one that was to end, in case that it does not."""
        if worker is not None and worker.stays:
            self._stay.append(worker)

    def take(self, worker: Worker) -> None:
        """End it; returns at once."""
        task = asyncio.get_running_loop().create_task(self._end(worker))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def gone(self) -> None:
        """Wait until none is left that ends: what they held is free again."""
        while self._ends:
            await asyncio.wait(self._ends)

    async def _end(self, worker: Worker) -> None:
        crashed = await worker.crashed()
        await worker.close()
        self.note(worker)
        self._left()
        if crashed:
            await asyncio.to_thread(self._on_crash, worker)
