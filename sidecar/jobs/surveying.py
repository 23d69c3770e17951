"""A node looks at the jobs that wait, also while it works, and says which it cannot do, and why."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar import errors
from sidecar.jobs.claims import Claims
from sidecar.jobs.events import Failure
from sidecar.jobs.log import JobLog
from sidecar.jobs.record import JobRecord
from sidecar.jobs.strays import LOOK_S

log = logging.getLogger(__name__)

MOST = 20
"""So many are thought about at each look: a plan of the memory for one takes milliseconds."""
AGAIN_S = 30.0
"""So often about the same one: memory comes and goes."""


@dataclass(frozen=True, slots=True)
class _Thought:
    """What was thought of a job, when (`time.monotonic`); why it cannot be done here, or None."""

    at: float
    refusal: Failure | None


class Survey:
    """Says every few seconds what this service refuses of the jobs that wait."""

    def __init__(
        self,
        claims: Claims,
        store: JobLog,
        refusal: Callable[[JobRecord], errors.SidecarError | None],
        patience_s: float,
        node_id: str,
    ) -> None:
        """``refusal``: why a job cannot be done here now; None of one that can. ``patience_s``: so
        long one waits that all refuse. ``node_id``: which node this service is."""
        self._node_id = node_id
        self._claims, self._store, self._refusal = claims, store, refusal
        self._patience_s = patience_s
        self._thoughts: dict[str, _Thought] = {}
        self._looking: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to look."""
        self._looking = asyncio.get_running_loop().create_task(self._look(), name="survey")

    async def close(self) -> None:
        """Look no more, and say that this node is gone."""
        if self._looking is None:
            return
        looking, self._looking = self._looking, None
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        with contextlib.suppress(errors.JournalUnreachable, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._claims.leave(self._node_id)

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
        # Who runs one may be gone, and nobody else can do it.
        open_ = [one for one in self._store.all() if one.durable and not one.over]
        known = {one.id for one in open_}
        self._thoughts = {one: said for one, said in self._thoughts.items() if one in known}
        for record in self._due(open_, time.monotonic()):
            error = self._refusal(record)
            said = None if error is None else Failure.of(error)
            self._thoughts[record.id] = _Thought(time.monotonic(), said)
            await asyncio.sleep(0)
        thoughts = self._thoughts.items()
        refused = {one: said.refusal for one, said in thoughts if said.refusal is not None}
        able = [one for one, said in thoughts if said.refusal is None]
        await self._claims.look(self._node_id, refused, able, self._patience_s)

    def _due(self, records: Sequence[JobRecord], now: float) -> Sequence[JobRecord]:
        """Who is thought about next: those first which all others refuse, then whoever was thought
        about longest ago."""

        def at(record: JobRecord) -> float:
            thought = self._thoughts.get(record.id)
            return -math.inf if thought is None else thought.at

        due = [one for one in records if at(one) <= now - AGAIN_S]
        return sorted(due, key=lambda one: (one.refused is None, at(one)))[:MOST]
