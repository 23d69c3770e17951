"""Jobs whose clients timed out, where services share them: whichever is asked again has the job.

The service that took it in gives it up, so that it is nobody's for a moment; who sends the same
request to another finds it there, or nobody does and it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

from sidecar import errors
from sidecar.audio.source import AudioSource
from sidecar.jobs.events import Cancelled
from sidecar.jobs.job import Job
from sidecar.jobs.log import JobLog

LOOK_S = 5.0
"""So often it is looked whose time is over."""


class Requests(Protocol):
    """Jobs by what was sent, for all services."""

    async def leave(self, owner: str, job_id: str, digest: str, for_s: float) -> None:
        """Leave a job there for so many seconds."""
        ...

    async def take(self, owner: str, digest: str) -> str | None:
        """The job of the same request, which nobody else has then; None where there is none."""
        ...

    async def overdue(self) -> Sequence[str]:
        """The jobs for which nobody came in time; told once."""
        ...


class Awaits(Protocol):
    """Who knows which clients wait here (`jobs.taking.SharedQueue`)."""

    def expect(self, job: Job) -> None:
        """A client waits here for a job, and nobody asks for it later."""
        ...

    def give_up(self, job: Job) -> None:
        """No client waits here for it any more; it goes on."""
        ...


class Unanswered:
    """Jobs between two requests."""

    def __init__(
        self,
        requests: Requests,
        store: JobLog,
        queue: Awaits,
        seek: Callable[[str], Awaitable[None]],
    ) -> None:
        """``seek``: has the store know of a job what others did to it."""
        self._requests, self._store, self._queue = requests, store, queue
        self._seek = seek

    async def leave(self, job: Job, digest: str, for_s: float) -> None:
        """Leave a job for who sends the same request (``digest``) within so many seconds; where
        nobody can be told of it, it ends."""
        try:
            await self._requests.leave(job.record.owner, job.id, digest, for_s)
        except errors.JournalUnreachable:
            job.cancel()
            return
        self._queue.give_up(job)

    async def take(self, owner: str, digest: str, source: AudioSource) -> Job | None:
        """The job that was left of the same request, followed here from now on; its recording is
        not that in ``source``, which is closed then.

        Raises:
            errors.JournalUnreachable: nobody can say whether there is one.
        """
        job_id = await self._requests.take(owner, digest)
        if job_id is None:
            return None
        await self._seek(job_id)
        try:
            record = self._store.get(job_id)
        except errors.JobNotFound:
            return None
        source.close()
        job = Job(source, record)
        job.enter_again(self._store)
        if record.over:
            self._store.forget(job_id)
        else:
            self._queue.expect(job)
        return job

    async def end_in_time(self) -> None:
        """End those for which nobody came, now and from then on."""
        while True:
            with suppress(errors.JournalUnreachable):
                for job_id in await self._requests.overdue():
                    await self._seek(job_id)  # nobody else is told of it
                    with suppress(errors.JobNotFound):
                        self._end(job_id)
            await asyncio.sleep(LOOK_S)

    def _end(self, job_id: str) -> None:
        self._store.append(job_id, Cancelled())
        self._store.forget(job_id)
