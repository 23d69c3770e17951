"""Reporter of one claimed job: from the node's log to the database.

The events of a claimed job have the same numbers in both. A report contains all events since the
last one, and is repeated unchanged until the database has answered it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from sidecar.cluster.claims import Claim, Claims
from sidecar.cluster.job_rows import worn
from sidecar.jobs.events import JobEvent
from sidecar.jobs.log import MemoryLog
from sidecar.jobs.record import JobRecord
from sidecar.storage.retrying import at_most, patiently

GATHER_S = 0.005
"""Seconds in which events come together: of the last segment and the end of a recording that is
done, each would be a commit, and the end waits for that of the segment."""


class Reporter:
    """Reports what the log has of a job, from `open` until the job has ended, the claim is lost, or
    `close`."""

    def __init__(self, claims: Claims, log: MemoryLog, claim: Claim) -> None:
        """``log`` has the job, as it was claimed."""
        self._claims, self._log, self._claim = claims, log, claim
        self._base = claim.record.seq
        """Number of the last event that the database has."""
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        """Set when somebody waits for a report, or the job has ended."""
        self._moved = asyncio.Event()
        """Set, and replaced, each time that the database has more."""
        self._over = False
        self._task: asyncio.Task[bool] | None = None
        log.listen(self._heard, claim.record.id)

    def open(self, ended: Callable[[bool], None]) -> None:
        """Start to report. ``ended`` is called with True once the end of the job is persisted, with
        False once the claim is lost."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="reports")

        def done(task: asyncio.Task[bool]) -> None:
            if not task.cancelled():
                ended(task.result())

        self._task.add_done_callback(done)

    def close(self) -> None:
        """Stop to report; what is not reported by then is dropped."""
        if self._task is not None:
            self._task.cancel()
        self._finish()

    async def flushed(self) -> None:
        """Wait until all events of the job so far are persisted, or will never be."""
        if self._over:
            return
        last = self._log.get(self._claim.record.id).seq
        self._urgent.set()
        while self._base < last and not self._over:
            await self._moved.wait()

    async def _run(self) -> bool:
        try:
            while True:
                await self._news.wait()
                await at_most(GATHER_S, self._urgent.wait())
                self._news.clear()
                self._urgent.clear()
                record = self._log.get(self._claim.record.id)
                if not await self._reported(record):
                    return False
                if record.over:
                    return True
        finally:
            self._finish()

    async def _reported(self, record: JobRecord) -> bool:
        """Report the events that made the job what it is; False if the claim is lost."""
        events = tuple(self._log.events(record.id, self._base))
        lost = self._worn() if record.over else ()
        token, base = self._claim.token, self._base
        if not await patiently(partial(self._claims.report, token, base, record, events, lost)):
            return False
        self._base = record.seq
        self._move()
        return True

    def _worn(self) -> Sequence[JobEvent]:
        """Return the checkpoints that the database has, without their state: no attempt goes on
        from them any more."""
        events = self._log.events(self._claim.record.id)
        return (*self._claim.worn, *worn([one for one in events if one.seq <= self._base]))

    def _heard(self, record: JobRecord, event: JobEvent) -> None:
        self._news.set()
        if record.over:
            self._urgent.set()

    def _finish(self) -> None:
        self._over = True
        self._move()

    def _move(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
