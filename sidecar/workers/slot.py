"""An engine that is leased to one job at a time."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sidecar.speech.engine import EngineSpec, MemoryPlan, Precision
from sidecar.workers.lease import LeasedEngine
from sidecar.workers.lifecycle import EngineLife


class EngineSlot(EngineLife):
    """One engine, which whoever has the turn has alone. Memory is looked at before each lease."""

    spec: EngineSpec

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
            await self._berth.settle(self.resolve(wanted, since))
            worker = await self._berth.standing(self.resolve(wanted, since))
            await self._berth.gone()
            await self._look()
            self._holders, self._used_load = 1, self._berth.loads
            try:
                yield LeasedEngine(worker, self.precision, self._begins)
            finally:
                self._holders = 0

    def _begins(self, memory: MemoryPlan) -> None:
        self._berth.memory = memory
