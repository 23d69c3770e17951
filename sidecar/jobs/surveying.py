"""A node looks at the jobs that wait, also while it works, and says which it cannot do, and why."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sidecar import errors
from sidecar.jobs.claims import Claims
from sidecar.jobs.record import Failure, JobRecord
from sidecar.jobs.store import JobStore
from sidecar.jobs.strays import LOOK_S

log = logging.getLogger(__name__)

MOST = 500
"""So many are looked at, those that came first."""


class Survey:
    """Says every few seconds that this service is there to work, and what it refuses."""

    def __init__(
        self,
        claims: Claims,
        store: JobStore,
        refusal: Callable[[JobRecord], errors.SidecarError | None],
        patience_s: float,
    ) -> None:
        """``refusal``: why a job cannot be done here now; None of one that can. ``patience_s``: so
        long one waits that all refuse."""
        self._claims, self._store, self._refusal = claims, store, refusal
        self._patience_s = patience_s
        self._looking: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to look."""
        self._looking = asyncio.get_running_loop().create_task(self._look(), name="survey")

    async def close(self) -> None:
        """Look no more; a moment later this service is not there any more for the others."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            try:
                await self._looked()
            except errors.JournalUnreachable:
                log.debug("nobody can be told what is refused here")
            except Exception:
                log.exception("a fault of ours while it was looked at what waits")
            await asyncio.sleep(LOOK_S)

    async def _looked(self) -> None:
        refused: dict[str, Failure] = {}
        able: list[str] = []
        waiting = [one for one in self._store.all() if one.durable and not one.over]
        for record in waiting[:MOST]:  # who runs one may be gone, and nobody else can do it
            error = self._refusal(record)
            if error is not None:
                refused[record.id] = Failure.of(error)
            else:
                able.append(record.id)
        await self._claims.look(refused, able, self._patience_s)
