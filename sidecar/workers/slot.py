"""An engine that is leased to one job at a time."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from sidecar.interfaces.engine import EngineSpec, MemoryPlan, Precision
from sidecar.workers.lease import LeasedEngine
from sidecar.workers.lifecycle import EngineLife
from sidecar.workers.worker import Worker


class EngineSlot(EngineLife):
    """One engine, which whoever has the turn has alone. Memory is looked at before each lease."""

    spec: EngineSpec
    follows: ClassVar[bool] = True
    """Whether a call waits in the process for the one before it."""

    @asynccontextmanager
    async def lease(
        self, wanted: Precision = Precision.AUTO, since: float = math.inf, alone: bool = True
    ) -> AsyncIterator[LeasedEngine]:
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
                yield LeasedEngine(worker, self.precision, self._begins)
            finally:
                self._hold(-1)

    async def _brought_in(self, wanted: Precision, since: float) -> Worker:
        """The engine, for who has the turn; what memory is free is looked at."""
        await self._berth.settle(self.resolve(wanted, since))
        worker = await self._berth.standing(self.resolve(wanted, since))
        await self._berth.gone()
        await self._look()
        self._used_load = self._berth.loads
        return worker

    def _begins(self, memory: MemoryPlan) -> None:
        self._berth.memory = memory
