"""Queue of a front, and takeover of jobs whose clients timed out."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from weakref import WeakKeyDictionary

from sidecar import errors
from sidecar.audio.audio_source import AudioSource
from sidecar.concurrency import BackgroundTaskGroup, cancel_after
from sidecar.jobs.faults import fault_of
from sidecar.jobs.job_queue import SubmissionQueue
from sidecar.jobs.job_runner import Job
from sidecar.jobs.job_store import ClientTimeouts
from sidecar.jobs.reservations import Reservation
from sidecar.plugins.shared_jobs import postgres_database
from sidecar.plugins.shared_jobs.claim_loop import ClaimLoop
from sidecar.plugins.shared_jobs.job_follower import JobFollower
from sidecar.plugins.shared_jobs.membership import Membership
from sidecar.plugins.shared_jobs.postgres_jobs import CLOSE_TIMEOUT_S, PostgresJobStore
from sidecar.storage.encryption import Cipher

CLIENT_RETURN_S = 30.0
"""Time in which a client can repeat its request after an answer was lost."""
TIMEOUT_POLL_S = 5.0
"""Interval of the search for jobs whose clients did not return, which may run longer by as much."""


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
        self._awaited: dict[str, Job] = {}
        """Private jobs whose clients wait here, by id."""
        self.follows_all = False
        """True if jobs are followed that no client waits for."""
        self._parted = False
        """True if waiting clients got `errors.ShuttingDown`."""

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
        return (
            None
            if self._claim_loop is None
            else self._claim_loop.paused or self._claim_loop.queue.paused
        )

    @property
    def faults(self) -> Mapping[errors.Fault, errors.SidecarError]:
        """As `SubmissionQueue.faults`, of this node."""
        if self._claim_loop is None:
            return {}
        paused, faults = self._claim_loop.paused, self._claim_loop.queue.faults
        return faults if paused is None else {**faults, fault_of(paused): paused}

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
                self._awaited.pop(job.id, None)
                self._follower.unfollow(job)
                if isinstance(error, errors.QueueFull):  # other services were faster
                    later_s = self._refused_clients.retry_after_s(1, owner)
                    raise errors.QueueFull(error.detail, retry_after=later_s) from None
                raise
        if reservation is not None:
            reservation.release()
        job.source.settle()
        job.source.close()  # the nodes read it from the storage

    def expect(self, job: Job) -> None:
        """Follow a private job whose client waits here; it is deleted once it has ended."""
        if self._parted and not job.ended:
            job.fail_clients(errors.ShuttingDown())
        if job.ended:
            self._store.delete_soon(job.id)
            return
        self._awaited[job.id] = job
        self._follower.follow(job)
        job.when_over(lambda: self._over(job))

    def give_up(self, job: Job) -> None:
        """Record that no client waits here for a job any more; the job goes on. Unless all jobs are
        followed here, tasks that still wait for it get `errors.JobCancelled`."""
        if self._awaited.get(job.id) is job:  # not the job of the client's next request
            del self._awaited[job.id]
            if not self.follows_all:
                self._follower.unfollow(job)
                job.fail_clients(errors.JobCancelled())

    def interrupt(self) -> None:
        """Put back the jobs that run here."""
        if self._claim_loop is not None:
            self._claim_loop.queue.interrupt()

    def _over(self, job: Job) -> None:
        if self._awaited.get(job.id) is job:
            del self._awaited[job.id]
            self._store.delete_soon(job.id)

    async def _part(self, grace_s: float) -> None:
        """Wait until the clients here have their answers, at most ``grace_s``;
        the others get an error."""
        await cancel_after(grace_s, asyncio.gather(*(job.over() for job in self._awaited.values())))
        self._parted = True
        for job in [*self._awaited.values()]:
            del self._awaited[job.id]
            self._follower.unfollow(job)  # the error replaces its end elsewhere
            self._store.delete_soon(job.id)
            job.fail_clients(errors.ShuttingDown())


class SharedClientTimeouts(ClientTimeouts):
    """Jobs between two requests of the same client."""

    def __init__(
        self,
        database: postgres_database.PostgresDatabase,
        cipher: Cipher,
        service_id: str,
        store: PostgresJobStore,
        queue: SharedJobQueue,
        poll_s: float = TIMEOUT_POLL_S,
    ) -> None:
        """``poll_s``: interval of the search for jobs whose clients did not return."""
        self._poll_s = poll_s
        self._database, self._cipher, self._service_id = database, cipher, service_id
        self._store, self._queue = store, queue
        self.leaving = BackgroundTaskGroup()
        self._takers: WeakKeyDictionary[Job, str] = WeakKeyDictionary()
        """The token of the call by which this service took each job over."""

    def leave(self, job: Job, digest: str, for_s: float) -> None:
        """Leave a job for ``for_s`` seconds to the same request (``digest``), in the background;
        retried while the database does not answer. From now on no client waits for it here: if it
        ends meanwhile, its result is for the next request."""
        self._queue.give_up(job)
        self._leave(job.id, self._code(digest), for_s, self._takers.pop(job, None))

    async def take(self, owner: str, digest: str, source: AudioSource) -> Job | None:
        """Return the job that the same request left, followed here from now on; None if there is
        none. The job has its own recording; ``source`` is closed then.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        code, taker = self._code(digest), secrets.token_hex(8)
        for (job_id,) in await self._database.call("take_1", owner, code, taker):
            try:
                return await self._awaited(job_id, taker, source)
            except errors.JobNotFound:
                break
            except BaseException:  # a client may wait for it here, and repeats its request
                self._leave(job_id, code, CLIENT_RETURN_S, taker)
                raise
        return None

    def _leave(self, job_id: str, code: str, for_s: float, taker: str | None) -> None:
        """Leave a job. If an answer was lost, another front may have it already: then the
        repeated call has no effect."""
        front = None if self._queue.follows_all else self._service_id
        values = job_id, code, for_s, taker, front
        leave = partial(self._database.call, "leave_1", *values)
        self.leaving.spawn("leave a job", postgres_database.retry_while_unavailable(leave))

    def _code(self, digest: str) -> str:
        return self._cipher.code(f"request {digest}")

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
        """Wait a moment for the background tasks."""
        await self.leaving.close(CLOSE_TIMEOUT_S)

    async def end_in_time(self) -> None:
        """End jobs whose clients did not return in time, for ever."""
        await postgres_database.run_periodically(self.end_overdue, self._poll_s)

    async def end_overdue(self) -> None:
        """End jobs whose clients did not return in time, now."""
        while await self._store.delete_overdue():
            pass
