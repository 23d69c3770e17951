"""An engine that several jobs have at once, each in a call that goes on beside the others.

For an engine whose work is done elsewhere: its process mostly waits, so that a second one would
only cost memory, and what it learned of the others is there once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar

from sidecar.interfaces.engine import Precision
from sidecar.workers.lease import LeasedEngine
from sidecar.workers.slot import EngineSlot
from sidecar.workers.worker_environment import Manner


class JointSlot(EngineSlot):
    """One engine, and whoever has the turn shares it with all who come before somebody waits who
    wants it alone: a reload, or a job that may have killed an engine.

    A process that dies ends the calls of all. Each of their jobs then goes on alone, so that one
    which does it again costs nobody else a second attempt.
    """

    manner: ClassVar[Manner] = Manner(shared=True)
    follows: ClassVar[bool] = False

    def __init__(self, *args: Any, **more: Any) -> None:
        """As `EngineSlot`."""
        super().__init__(*args, **more)
        self._coming = asyncio.Lock()
        self._shared: AsyncExitStack | None = None
        """Ends the turn that is shared; None while there is none."""

    @asynccontextmanager
    async def lease(
        self, wanted: Precision = Precision.AUTO, since: float = math.inf, alone: bool = False
    ) -> AsyncIterator[LeasedEngine]:
        """Wait for the engine, loaded if need be, and have it with others or ``alone``.

        Raises:
            errors.ModelLoadFailed: it does not load.
            errors.ShuttingDown: the slot is closed.
        """
        if alone:
            async with super().lease(wanted, since) as engine:
                yield engine
            return
        async with self._coming:
            if self._shared is None or self.awaited or self._berth.worker is None:
                turn = AsyncExitStack()
                await turn.enter_async_context(self._in_turn())
                try:
                    worker = await self._brought_in(wanted, since)
                except BaseException:
                    await turn.aclose()
                    raise
                self._shared = turn
            else:
                turn, worker = self._shared, self._berth.worker
            self._hold(1)
        try:
            yield LeasedEngine(worker, self.precision, self._begins, beside=True)
        finally:
            self._hold(-1)
            if not self._holders:
                self._shared = None
                await turn.aclose()
