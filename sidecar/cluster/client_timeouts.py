"""Jobs whose clients timed out: the repeated request takes its job over at whichever service."""

from __future__ import annotations

import secrets
from functools import partial
from weakref import WeakKeyDictionary

from sidecar import errors
from sidecar.audio.source import AudioSource
from sidecar.background import Background
from sidecar.cluster.front import SharedQueue
from sidecar.cluster.postgres_jobs import PostgresJobs
from sidecar.jobs.job import Job
from sidecar.storage.database import Database
from sidecar.storage.retrying import patiently, repeatedly
from sidecar.storage.sealing import Seal

AGAIN_S = 30.0
"""Time for a client to come once more after an answer was lost."""
LOOK_S = 5.0
"""Interval of looks for jobs whose clients did not come back; they may run so much longer."""
_OVERDUE = """
    SELECT id FROM vibevoice.jobs
    WHERE left_until IS NOT NULL AND left_until < clock_timestamp() LIMIT 100"""


class ClientTimeouts:
    """Jobs between two requests of the same client."""

    def __init__(
        self,
        database: Database,
        seal: Seal,
        service_id: str,
        store: PostgresJobs,
        queue: SharedQueue,
    ) -> None:
        self._database, self._seal, self._service_id = database, seal, service_id
        self._store, self._queue, self._leaving = store, queue, Background()
        self._takers: WeakKeyDictionary[Job, str] = WeakKeyDictionary()
        """By which call this service took jobs over."""

    async def leave(self, job: Job, digest: str, for_s: float) -> None:
        """Leave a job for the same request (``digest``) within so many seconds; where the database
        cannot be told, the job ends."""
        try:
            code = self._seal.code(f"request {digest}")
            await self._left(job.id, code, for_s, self._takers.pop(job, None))
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
        taker = secrets.token_hex(8)
        for (job_id,) in await self._database.call("take_1", owner, code, taker):
            try:
                return await self._awaited(job_id, taker, source)
            except errors.JobNotFound:
                break
            except BaseException:  # it may be awaited here, and its client comes once more
                again = partial(self._left, job_id, code, AGAIN_S, taker)
                self._leaving.spawn("leave a job again", patiently(again))
                raise
        return None

    async def _left(self, job_id: str, code: str, for_s: float, taker: str | None) -> None:
        await self._database.call("leave_1", job_id, code, for_s, taker)

    async def _awaited(self, job_id: str, taker: str, source: AudioSource) -> Job:
        record = await self._store.get(job_id)
        if not await self._database.call("await_1", job_id, self._service_id, taker):
            raise errors.JobNotFound()  # another call has it by now
        source.close()
        job = Job(source, record)
        self._takers[job] = taker
        self._queue.expect(job)
        return job

    async def close(self) -> None:
        """Give up what is done in the background."""
        await self._leaving.close()

    async def end_in_time(self) -> None:
        """End jobs whose clients did not come back in time, for ever."""
        await repeatedly(self._end_overdue, LOOK_S)

    async def _end_overdue(self) -> None:
        for (job_id,) in await self._database.fetch(_OVERDUE):
            await self._store.delete_overdue(job_id)
