"""Queue of a service whose jobs are shared: accepts jobs for all nodes, and answers its clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import partial
from typing import Protocol

from sidecar import errors
from sidecar.cluster.node import Node
from sidecar.cluster.retrying import patiently
from sidecar.jobs.job import Job
from sidecar.jobs.queue import JobQueue
from sidecar.jobs.record import JobRecord

# as long as a node that stops takes for its last reports
CLEANING_S = 3.0
"""Seconds for the last deletions of a front that stops."""


class SharedJobs(Protocol):
    """Shared jobs, as far as a front changes them."""

    async def submit(self, record: JobRecord) -> None:
        """Persist a new job.

        Raises:
            KeyTaken: its owner has a job with its key.
            errors.QueueFull: too many jobs wait.
            errors.JournalUnreachable: the database is away.
        """
        ...

    async def cancel(self, job_id: str) -> JobRecord:
        """End a job; one that has ended stays as it is."""
        ...

    async def delete(self, job_id: str) -> None:
        """End a job if needed, and forget it with its recording."""
        ...


class Follows(Protocol):
    """Keeps jobs of this process up to date with the database."""

    def follow(self, job: Job) -> None:
        """Have a job hear of its events, from its number on, until it has ended."""
        ...

    def unfollow(self, job_id: str) -> None:
        """Let it hear of no more; does nothing for a job that is not followed."""
        ...


class SharedQueue:
    """Jobs of all services that share a database, as one of them sees them."""

    def __init__(
        self,
        store: SharedJobs,
        follower: Follows,
        limit: int,
        node: Node | None = None,
        queue: JobQueue | None = None,
    ) -> None:
        """``limit``: jobs that may wait, of all services together. ``node``: claims jobs for
        ``queue``; a front that runs no jobs has neither."""
        self._store, self._follower, self._limit = store, follower, limit
        self._node, self._queue = node, queue
        self._awaited: dict[str, Job] = {}
        """Jobs whose clients wait here."""
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._waiting, self._running = 0, 0
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Start to work."""
        if self._queue is not None:
            self._queue.open()
        if self._node is not None:
            self._node.open()

    async def close(self) -> None:
        """Stop. Accepted jobs are done by other nodes, or after the next start."""
        self._draining = True
        if self._node is not None:
            await self._node.close()
        if self._queue is not None:
            await self._queue.close()
        for job in [*self._awaited.values()]:
            if not job.ended:
                self.give_up(job)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLEANING_S)
        for task in self._tasks:
            task.cancel()

    async def drain(self, grace_s: float) -> None:
        """Accept and start no more jobs. After ``grace_s`` running jobs are given back, and jobs
        whose clients wait here end with `errors.ShuttingDown`."""
        self._draining = True
        stops = self._node.drain(grace_s) if self._node is not None else asyncio.sleep(0)
        await asyncio.gather(self._answer(grace_s), stops)

    async def broken(self) -> None:
        """Wait until jobs are worked on no more although the queue was not closed: a fault."""
        if self._queue is None:
            await asyncio.Event().wait()
        else:
            await self._queue.broken()

    def standing(self, waiting: int, running: int) -> None:
        """Note how many jobs wait and run now, of all services."""
        self._waiting, self._running = waiting, running

    @property
    def draining(self) -> bool:
        """Whether no more jobs are accepted."""
        return self._draining

    @property
    def depth(self) -> int:
        """Number of jobs that wait, of all services, as last noted."""
        return self._waiting

    @property
    def running(self) -> int:
        """Number of jobs that run, in all services, as last noted."""
        return self._running

    def check_open(self) -> None:
        """Raise `errors.ShuttingDown` if no more jobs are accepted."""
        if self._draining:
            raise errors.ShuttingDown()

    def check_room(self, promised: int = 0) -> None:
        """Raise `errors.QueueFull` if the queue has no room, as far as this service knows.

        ``promised``: places that this service keeps for others.

        Raises:
            errors.ShuttingDown: no more jobs are accepted.
        """
        self.check_open()
        taken = self._waiting + promised
        if taken >= self._limit:
            raise errors.QueueFull(
                f"{taken} jobs are waiting or on their way, and the queue takes no more."
            )

    async def submit(self, job: Job, *, promised: bool = False) -> None:
        """Return once a job is accepted: it is persisted. ``promised``: a place was kept for it.

        Raises:
            KeyTaken: its owner has a job with its key.
            errors.QueueFull: there is no room.
            errors.JournalUnreachable: the database is away.
        """
        self.check_open() if promised else self.check_room()
        try:
            await self._store.submit(job.record)
        except (asyncio.CancelledError, errors.JournalUnreachable):
            self._spawn(self._delete(job.id))  # it may be persisted, and its client is not told
            raise
        job.source.close()  # nodes open what is stored
        if not job.record.kept:
            self.expect(job)

    def expect(self, job: Job) -> None:
        """Follow a job for a client that waits here. One that is not kept is deleted at its end."""
        if job.id in self._awaited:
            return
        self._awaited[job.id] = job
        self._follower.follow(job)
        self._watches[job.id] = self._spawn(self._see_to_end(job))

    def give_up(self, job: Job) -> None:
        """Follow a job no longer: its client waits here no more, and it goes on."""
        if job.id in self._awaited:
            self._watches[job.id].cancel()
            self._leave(job)

    def awaits(self, record: JobRecord) -> bool:
        """Return whether a client waits here for a job."""
        return record.id in self._awaited

    def interrupt(self) -> None:
        """Stop what runs here, to start it again."""
        if self._queue is not None:
            self._queue.interrupt()

    async def _see_to_end(self, job: Job) -> None:
        await job.over()
        self._leave(job)
        if not job.record.kept:
            await self._delete(job.id)

    def _leave(self, job: Job) -> None:
        del self._awaited[job.id], self._watches[job.id]
        self._follower.unfollow(job.id)

    async def _delete(self, job_id: str) -> None:
        await patiently(partial(self._store.delete, job_id))

    async def _answer(self, grace_s: float) -> None:
        """Let clients have their answers within the grace; the others are told of the end."""
        left = [job for job in self._awaited.values() if not job.ended]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                for job in left:
                    await job.over()
        for job in left:
            if not job.ended:
                if job.record.kept:
                    self._spawn(patiently(partial(self._cancel, job.id)))
                job.part(errors.ShuttingDown())  # one that is not kept is deleted now

    async def _cancel(self, job_id: str) -> None:
        with contextlib.suppress(errors.JobNotFound):
            await self._store.cancel(job_id)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
