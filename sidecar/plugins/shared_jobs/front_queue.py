"""Queue of a front, with the jobs that clients await here."""

import asyncio
import secrets
from collections.abc import Callable, Mapping

from sidecar import errors
from sidecar.audio.audio_source import AudioSource
from sidecar.concurrency import cancel_after
from sidecar.jobs.job_queue import SubmissionQueue
from sidecar.jobs.job_runner import Job
from sidecar.jobs.reservations import Reservation
from sidecar.plugins.shared_jobs.claim_loop import ClaimLoop
from sidecar.plugins.shared_jobs.job_follower import JobFollower
from sidecar.plugins.shared_jobs.membership import Membership
from sidecar.plugins.shared_jobs.postgres_jobs import PostgresJobStore


class SharedJobQueue(SubmissionQueue):
    """Queue that accepts jobs for all services, and runs some if there is a ``claim_loop``."""

    def __init__(
        self,
        store: PostgresJobStore,
        follower: JobFollower,
        limit: int,
        membership: Membership,
        claim_loop: ClaimLoop | None = None,
        begun_in_s: Callable[[int], float | None] = lambda count: None,
    ) -> None:
        """``limit``: jobs that may wait, of all services together; the database decides at the
        end."""
        super().__init__(limit, begun_in_s)
        self._store, self._follower = store, follower
        self._membership, self._claim_loop = membership, claim_loop
        self._awaited: dict[Job, str] = {}
        """Private jobs whose clients wait here, and as of `PostgresJobStore.leave_soon` by which
        names."""
        self.follows_all = False
        """True if jobs are followed that no client waits for."""

    def open(self) -> None:
        """Start to claim and run jobs, if this service is a node."""
        if self._claim_loop is not None:
            self._claim_loop.queue.open()
            self._claim_loop.open()

    async def close(self) -> None:
        """Stop. Accepted jobs are run by other services, or at the next start."""
        self.draining = True
        if self._claim_loop is not None:
            await self._claim_loop.close()
            await self._claim_loop.queue.close()

    async def drain(self, grace_s: float) -> None:
        """Accept no more jobs and start none. After ``grace_s`` those that run here are released,
        and those whose clients wait here end with `errors.ShuttingDown`."""
        self.draining = True
        await self._membership.drain()
        drains = [self._part(grace_s)]
        if self._claim_loop is not None:
            drains.append(self._claim_loop.drain(grace_s))
        await asyncio.gather(*drains)

    async def broken(self) -> None:
        """Wait for a fault that ends all work here."""
        if self._claim_loop is None:
            await asyncio.Event().wait()
        else:
            await self._claim_loop.queue.broken()

    @property
    def depth(self) -> int:
        """Return the number of jobs that wait, of all services, as of a second ago."""
        return self._membership.waiting

    @property
    def running(self) -> int:
        """Return the number of jobs that run, in all services, as of a second ago."""
        return self._membership.running

    @property
    def paused(self) -> errors.SidecarError | None:
        """Return why this node starts no jobs now, although some wait: the storage of recordings
        does not answer, for example."""
        return next(iter(self.faults.values()), None) if self.depth else None

    @property
    def faults(self) -> Mapping[errors.Fault, errors.SidecarError]:
        """As `SubmissionQueue.faults`, of this node."""
        return {} if self._claim_loop is None else self._claim_loop.queue.faults

    async def submit(self, job: Job, *, reservation: Reservation | None = None) -> None:
        """Accept a job, as `JobQueue.submit`.

        Raises:
            errors.QueueFull: the queue has no free position.
            errors.JournalUnreachable: it cannot be persisted; there is no job.
            DuplicateRequestKey: its owner has a job with its key.
        """
        owner = job.record.owner
        self.check_capacity(owner=owner) if reservation is None else self.check_open()
        with self._follower.submitting(job.id):
            if not job.record.kept:  # now, since its events may arrive before the answer
                self.expect(job)
            elif self.follows_all:
                self._follower.follow(job)
            try:
                await self._store.submit(job.record, followed=self.follows_all)
            except BaseException as error:
                self._awaited.pop(job, None)
                self._follower.unfollow(job)
                if isinstance(error, errors.QueueFull):  # other services were faster
                    later_s = self._retry_after_s(1, owner)
                    raise errors.QueueFull(error.detail, retry_after=later_s) from None
                raise
        if reservation is not None:
            reservation.close()
        job.close()  # the nodes read it from the storage

    def expect(self, job: Job, name: str = "") -> None:
        """Follow a private job whose client waits here, by its id or this ``name``; it is deleted
        once it has ended."""
        if job.ended:
            self._store.delete_soon(job.id)
            return
        self._awaited[job] = name or job.id
        self._follower.follow(job)
        job.when_over(lambda: self._over(job))

    def leave(self, job: Job, digest: str) -> None:
        """As `SubmissionQueue.leave`. Unless all jobs are followed here, tasks that still wait for
        the job get `errors.JobCancelled`."""
        if (name := self._awaited.pop(job, None)) is None:
            return
        if not self.follows_all:
            self._follower.unfollow(job)
            job.fail_clients(errors.JobCancelled())
        self._store.leave_soon(name, digest)

    async def take(self, owner: str, digest: str, source: AudioSource) -> Job | None:
        """As `SubmissionQueue.take`.

        Raises:
            errors.ShuttingDown: this service stops; the job stays left.
        """
        name = secrets.token_hex(8)
        record = await self._store.take(owner, digest, name)
        if self.draining:
            self._store.leave_soon(name, digest)
            raise errors.ShuttingDown()
        if record is None:
            return None
        source.close()
        job = Job(source, record)
        self.expect(job, name)
        return job

    async def has_left(self, owner: str) -> bool:
        """As `SubmissionQueue.has_left`."""
        return await self._store.has_left(owner)

    def interrupt(self) -> None:
        """Put back the jobs that run here."""
        if self._claim_loop is not None:
            self._claim_loop.queue.interrupt()

    def _over(self, job: Job) -> None:
        if self._awaited.pop(job, None) is not None:
            self._store.delete_soon(job.id)

    async def _part(self, grace_s: float) -> None:
        """Wait until the clients here have their answers, at most ``grace_s``;
        the others get an error."""
        await cancel_after(grace_s, asyncio.gather(*(job.over() for job in self._awaited)))
        for job in [*self._awaited]:
            del self._awaited[job]
            self._follower.unfollow(job)  # the error replaces its end elsewhere
            self._store.delete_soon(job.id)
            job.fail_clients(errors.ShuttingDown())
