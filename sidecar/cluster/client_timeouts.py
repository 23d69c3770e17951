"""Jobs whose clients timed out, among services that share jobs.

The repeated request takes its job over, whichever service it comes to.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import Protocol

from sidecar import errors
from sidecar.audio.source import AudioSource
from sidecar.database.database import Database
from sidecar.jobs.job import Job
from sidecar.jobs.store import JobStore
from sidecar.vault.sealing import Seal

LOOK_S = 5.0
"""Interval of looks for jobs whose clients did not come back; they may run so much longer."""
_OVERDUE = """
    SELECT id FROM vibevoice.jobs
    WHERE left_as IS NOT NULL AND left_until < clock_timestamp()"""


class Awaits(Protocol):
    """Knows which jobs clients wait for at this service (`cluster.front.SharedQueue`)."""

    def expect(self, job: Job) -> None:
        """Note that a client waits here for a job, which nobody asks for later."""
        ...

    def give_up(self, job: Job) -> None:
        """Note that no client waits here for a job any more; it goes on."""
        ...


class ClientTimeouts:
    """Jobs between two requests of the same client."""

    def __init__(self, database: Database, seal: Seal, store: JobStore, queue: Awaits) -> None:
        self._database, self._seal = database, seal
        self._store, self._queue = store, queue

    async def leave(self, job: Job, digest: str, for_s: float) -> None:
        """Leave a job for the same request (``digest``) within so many seconds; where the database
        cannot be told, the job ends."""
        try:
            code = self._seal.code(f"request {digest}")
            await self._database.call("leave_1", job.id, code, for_s)
        except errors.JournalUnreachable:
            self._store.cancel_soon(job.id)
        else:
            self._queue.give_up(job)

    async def take(self, owner: str, digest: str, source: AudioSource) -> Job | None:
        """Return the job that the same request left, followed here from now on; its recording is
        not that in ``source``, which is closed then. None if there is none.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        code = self._seal.code(f"request {digest}")
        rows = await self._database.call("take_1", owner, code, secrets.token_hex(8))
        if not rows:
            return None
        try:
            record = await self._store.get(rows[0][0])
        except errors.JobNotFound:
            return None
        source.close()
        job = Job(source, record)
        self._queue.expect(job)
        return job

    async def end_in_time(self) -> None:
        """End jobs whose clients did not come back in time, for ever."""
        while True:
            with suppress(errors.JournalUnreachable):
                for (job_id,) in await self._database.fetch(_OVERDUE):
                    await self._store.delete(job_id)
            await asyncio.sleep(LOOK_S)
