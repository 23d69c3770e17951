"""Queue of a service that shares its jobs: accepts for all nodes, answers clients waiting here."""

from __future__ import annotations

import asyncio
import contextlib

from sidecar import errors
from sidecar.cluster.job_follower import Follower
from sidecar.cluster.membership import Membership
from sidecar.cluster.node import Node
from sidecar.cluster.postgres_jobs import PostgresJobs
from sidecar.jobs.job import Job
from sidecar.jobs.queue import JobQueue
from sidecar.jobs.room import Hold


class SharedQueue:
    """Accepts jobs for all services; runs some if there is a ``node`` with its ``queue``."""

    def __init__(
        self,
        store: PostgresJobs,
        follower: Follower,
        limit: int,
        members: Membership,
        node: Node | None = None,
        queue: JobQueue | None = None,
    ) -> None:
        """``limit``: jobs that may wait, of all services together."""
        self._store, self._follower, self._limit = store, follower, limit
        self._members, self._node, self._queue = members, node, queue
        self._awaited: dict[str, Job] = {}
        """Jobs whose clients wait here, and which nobody asks for later."""
        self.follows_all = False
        """Whether jobs are followed that no client waits for."""
        self._draining = False
        self._parted = False
        """Whether clients that wait here were told that the service ends."""

    def open(self) -> None:
        """Start to work."""
        if self._queue is not None and self._node is not None:
            self._queue.open()
            self._node.open()

    async def close(self) -> None:
        """Stop. Accepted jobs are run by other services, or at the next start."""
        self._draining = True
        if self._node is not None:
            await self._node.close()
        if self._queue is not None:
            await self._queue.close()

    async def drain(self, grace_s: float) -> None:
        """Accept no more jobs and start none. After ``grace_s`` those that run here are released,
        and those whose clients wait here end with `errors.ShuttingDown`."""
        self._draining = True
        await self._members.drain()
        node = self._node.drain(grace_s) if self._node is not None else asyncio.sleep(0)
        await asyncio.gather(self._part(grace_s), node)

    async def broken(self) -> None:
        """Wait for a fault that ends all work here."""
        if self._queue is None:
            await asyncio.Event().wait()
        else:
            await self._queue.broken()

    @property
    def draining(self) -> bool:
        """Whether no job is accepted any more."""
        return self._draining

    @property
    def depth(self) -> int:
        """Jobs that wait, of all services, as of a second ago."""
        return self._members.waiting

    @property
    def running(self) -> int:
        """Jobs that run, in all services, as of a second ago."""
        return self._members.running

    def check_open(self) -> None:
        """Raise `errors.ShuttingDown` if no job is accepted any more."""
        if self._draining:
            raise errors.ShuttingDown()

    def check_room(self, promised: int = 0) -> None:
        """Raise `errors.QueueFull` if no more job is accepted, `errors.ShuttingDown` for ever.

        ``promised``: places that are kept here for others; the database has the last word.
        """
        self.check_open()
        taken = self.depth + promised
        if taken >= self._limit:
            raise errors.QueueFull(
                f"{taken} jobs are waiting or on their way, and the queue takes no more."
            )

    async def submit(self, job: Job, *, promised: Hold | None = None) -> None:
        """Accept a job, as `JobQueue.submit`.

        Raises:
            errors.QueueFull: there is no place.
            errors.JournalUnreachable: it cannot be persisted; there is no job.
            KeyTaken: its owner has a job with its key.
        """
        self.check_room() if promised is None else self.check_open()
        with self._follower.submitting(job.id):
            await self._store.submit(job.record)
            if promised is not None:
                promised.release()
            job.source.settle()
            job.source.close()  # it was kept where the nodes find it
            if not job.record.kept:
                self.expect(job)
            elif self.follows_all:
                self._follower.follow(job)

    def expect(self, job: Job) -> None:
        """Note that a client waits here for a job, which nobody asks for later: it is followed,
        and deleted once it has ended."""
        if self._parted and not job.ended:
            job.part(errors.ShuttingDown())
        if job.ended:
            self._store.delete_soon(job.id)
            return
        self._awaited[job.id] = job
        self._follower.follow(job)
        job.when_over(lambda: self._over(job))

    def give_up(self, job: Job) -> None:
        """Note that no client waits here for a job any more; it goes on. Whatever still follows it
        here hears that it has ended."""
        if self._awaited.get(job.id) is job:  # and not that of the client's next request
            del self._awaited[job.id]
            if not self.follows_all:
                self._follower.unfollow(job)
                job.part(errors.JobCancelled())

    def interrupt(self) -> None:
        """Put back what runs here."""
        if self._queue is not None:
            self._queue.interrupt()

    def _over(self, job: Job) -> None:
        if self._awaited.get(job.id) is job:
            del self._awaited[job.id]
            self._store.delete_soon(job.id)

    async def _part(self, grace_s: float) -> None:
        """Let clients that wait here have their answers, as long as there is time."""
        left = [*self._awaited.values()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                for job in left:
                    await job.over()
        self._parted = True
        for job in [*self._awaited.values()]:
            del self._awaited[job.id]
            self._follower.unfollow(job)  # its end elsewhere is not told over this one
            self._store.delete_soon(job.id)
            job.part(errors.ShuttingDown())
