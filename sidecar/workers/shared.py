"""An engine that many hold at the same time: each has calls of its own in the one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar

from sidecar.interfaces.engine import Precision
from sidecar.workers.calls import Call
from sidecar.workers.lifecycle import EngineLife
from sidecar.workers.worker import Worker
from sidecar.workers.worker_environment import Manner

DEAF_S = 5.0
"""So long at most people wait for the answer to a ping (`pulse`): they speak meanwhile."""
SLOW_S = 10.0
"""So long at least a voice may take to stop: some make a clause in one go."""


class SharedEngine:
    """An engine that is loaded and held, by who got this among others.

    It may end under its holders: it is loaded anew, or dies. Each hears of it in its next word to
    it or from it (`WorkerDied`), lets go, and asks for a share again.
    """

    def __init__(self, worker: Worker, precision: Precision) -> None:
        self._worker = worker
        self.precision = precision

    @property
    def alive(self) -> bool:
        """Whether it can be called."""
        return self._worker.alive

    def calling(
        self, operation: str, fds: Sequence[int] = (), **arguments: Any
    ) -> AbstractAsyncContextManager[Call]:
        """One operation, to be read and told more; leaving early cancels it, and it alone.

        Raises:
            WorkerDied: the engine's process ended.
        """
        return self._worker.calling(operation, fds, **arguments)


class SharedSlot(EngineLife):
    """One engine for all who want it. Somebody waits for each of its words, so that its process
    does not stand back behind others, and one that hangs is ended soon, so that its holders hear of
    it.

    The turn is had only while the engine is brought in: while many hold it, it can be loaded anew.
    """

    manner: ClassVar[Manner] = Manner(niceness=0, shared=True, deaf_s=DEAF_S)

    @asynccontextmanager
    async def share(self) -> AsyncIterator[SharedEngine]:
        """Wait for the engine, loaded if need be, and hold it: it does not leave for being idle.

        Raises:
            errors.ModelLoadFailed: it does not load.
            errors.WontFit: there is no room for it.
            errors.ShuttingDown: the slot is closed.
        """
        async with self._in_turn():
            await self._berth.settle(self.precision)
            worker = await self._berth.standing(self.precision)
            engine = SharedEngine(worker, self.precision)
            self._hold(1)
            self._used_load = self._berth.loads
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

    manner: ClassVar[Manner] = Manner(niceness=0, patience_s=SLOW_S, deaf_s=DEAF_S)
