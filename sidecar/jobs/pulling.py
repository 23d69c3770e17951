"""Who works on jobs that several services share: claims the next when it is free for one.

What is claimed goes through the queue of this service like what it took in itself. A job that is
ours no more (its lease was over, somebody ended it) stops, untold. While the journal does not
answer nothing is claimed, and what runs goes on: another may have it by then, which is said once it
answers, and what is reported of it is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from sidecar import errors
from sidecar.audio.source import AudioSource
from sidecar.jobs.claimed import ClaimedJob
from sidecar.jobs.claims import BEAT_S, LEASE_S, TRIES, Claims
from sidecar.jobs.events import Begun, Failed, Failure, JobEvent, PutBack
from sidecar.jobs.job import Job
from sidecar.jobs.log import JobLog
from sidecar.jobs.record import JobRecord
from sidecar.threads import Threads

log = logging.getLogger(__name__)

LOOK_S = LEASE_S
"""So often one who is free looks by itself: nobody tells that a lease is over, or memory free."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
"""How long a journal that does not answer is left alone, twice as long each time."""
ALOOF_S = 30.0
"""So long a service leaves a job to others that it could not do."""
REST_S = 5.0
"""So long nothing is claimed where the storage of recordings did not answer."""
CUT_OFF_S = 30.0
"""So long what runs goes on without a word of the journal; by then another has it, or nobody."""
STOPS_S = 5.0
"""What is put back has stopped after so long, or its lease ends by itself."""
STOPPING_S = 0.02
"""So often it is looked at whether it has."""
GIVING_S = LEASE_S
"""So long the end of the service waits until all is given back: then leases are over, too."""


class Works(Protocol):
    """What does the work: the queue of this service."""

    @property
    def running(self) -> int:
        """Jobs that run."""
        ...

    def resume(self, job: Job) -> None:
        """Take in a job that was accepted elsewhere, or before."""
        ...

    def cancel(self, job: Job) -> None:
        """End a job, waiting or running."""
        ...

    async def drain(self, grace_s: float) -> None:
        """Begin none; those that run have so long to end."""
        ...


class Pulling:
    """Jobs of a shared store for the queue of this service, as it has room for them."""

    def __init__(
        self,
        claims: Claims,
        store: JobLog,
        queue: Works,
        opened: Callable[[JobRecord], AudioSource],
        takes: Callable[[JobRecord], bool],
        threads: Threads,
        beside: Callable[[JobRecord], int] = lambda record: 1,
        places: int = 1,
    ) -> None:
        """``opened``: a job's recording, from where all services find it; in a thread. ``takes``:
        whether a job could be done here. ``beside``: how many are heard in step where a job is one
        of them. ``places``: jobs that are worked on at once."""
        self._claims, self._store, self._queue = claims, store, queue
        self._opened, self._takes, self._threads = opened, takes, threads
        self._beside, self._places = beside, places
        self._held: dict[str, ClaimedJob | None] = {}
        """What is claimed, by id; None while its recording is opened."""
        self._left: dict[str, float] = {}
        """What could not be done here, and until when it is left to others."""
        self._aside = 0
        """Who wants nothing claimed for now."""
        self._freed = asyncio.Event()
        self._claiming: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._begun: set[asyncio.Task[None]] = set()
        store.listen(self._heard)

    def open(self) -> None:
        """Begin to claim."""
        spawn = asyncio.get_running_loop().create_task
        self._claiming = spawn(self._claim(), name="claims")
        self._beating = spawn(self._beat(), name="beats")

    async def drain(self, grace_s: float) -> None:
        """Claim no more; what runs has ``grace_s`` to end, then another goes on with it from what
        is settled."""
        await _ended(self._claiming, *self._begun)
        await self._queue.drain(grace_s)
        until = time.monotonic() + STOPS_S
        while self._queue.running and time.monotonic() < until:  # an engine takes a moment to stop
            self._freed.clear()
            await _at_most(STOPPING_S, self._freed.wait())
        await self._give_all_back()

    async def close(self) -> None:
        """Let go of all that is claimed."""
        await _ended(self._claiming, self._beating, *self._begun)
        await self._give_all_back()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """As long as it lasts nothing is claimed, and others have what waits."""
        self._aside += 1
        try:
            yield
        finally:
            self._aside -= 1
            self._freed.set()

    @property
    def held(self) -> int:
        """Jobs that are claimed and have not ended."""
        return len(self._held)

    async def _claim(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            while len(self._held) >= self._places or self._aside:
                self._freed.clear()
                await self._freed.wait()
            try:
                records = await self._next()
                if records:
                    self._begin(records)
                else:
                    await _at_most(LOOK_S, self._claims.news())
                pause_s = FIRST_PAUSE_S
            except errors.JournalUnreachable:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            except Exception:
                log.exception("a fault of ours while a job was claimed")
                await asyncio.sleep(LONGEST_PAUSE_S)

    async def _next(self) -> Sequence[JobRecord]:
        """The job that is next, and those that can be heard in step with it; none where none is."""
        records: list[JobRecord] = []
        most, takes = 1, self._takes_now
        while len(records) < most:
            try:
                record = await self._claims.claim(takes)
            except errors.JournalUnreachable:
                if not records:
                    raise
                record = None
            if record is None:
                break
            self._held[record.id] = None
            records.append(record)
            if len(records) == 1 and not record.alone:
                most, takes = self._beside(record), self._takes_beside
        return records

    def _takes_beside(self, record: JobRecord) -> bool:
        return not record.alone and self._beside(record) > 1 and self._takes_now(record)

    def _takes_now(self, record: JobRecord) -> bool:
        if self._left.get(record.id, 0.0) > time.monotonic() or record.id in self._held:
            return False
        return self._takes(record)

    def _begin(self, records: Sequence[JobRecord]) -> None:
        self._begin_task(self._taken(records), records[0].id)

    def _begin_task(self, work: Coroutine[None, None, None], job_id: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=job_id)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def _taken(self, records: Sequence[JobRecord]) -> None:
        """Open what was claimed, and have it worked on, at once what is to be heard in step."""
        jobs = await asyncio.gather(*map(self._job, records))
        for job in jobs:
            if job is not None and job.ours:
                self._queue.resume(job)

    async def _job(self, record: JobRecord) -> ClaimedJob | None:
        try:
            source = await self._threads.run(self._opened, record)
        except errors.StorageUnreachable:
            await self._put_off(record)
            return None
        except errors.SidecarError as error:
            await self._not_opened(record, error)
            return None
        except Exception:  # or it was held here for ever, and its lease renewed
            log.exception("a fault of ours while job %s was opened", record.id)
            await self._not_opened(record, errors.SidecarError())
            return None
        now = self._known(record.id)
        if now is None or now.over or record.id not in self._held:
            source.close()  # somebody ended it meanwhile, or another has it
            self._gone(record.id)
            return None
        job = ClaimedJob(source, now, self._stop, self._passes_on)
        self._held[record.id] = job
        return job

    async def _put_off(self, record: JobRecord) -> None:
        """The storage of recordings does not answer: the job waits as it did, for whoever reaches
        it first."""
        log.warning("the recording of job %s cannot be reached now", record.id)
        self._begin_task(self._rest(), record.id)
        await self._passed_on(record.id)

    async def _rest(self) -> None:
        with self.aside():
            await asyncio.sleep(REST_S)

    async def _not_opened(self, record: JobRecord, error: errors.SidecarError) -> None:
        """The storage of this machine may be at fault: another tries it once, too."""
        log.warning("the recording of job %s cannot be opened: %s", record.id, error)
        with contextlib.suppress(errors.JobNotFound):
            if self._another(self._known(record.id) or record):
                self._store.append(record.id, Begun())
                self._store.append(record.id, PutBack(counted=True, passed=True))
                await self._give_back(record.id)
            else:
                self._store.append(record.id, Failed(Failure.of(error)))
        self._gone(record.id)

    def _known(self, job_id: str) -> JobRecord | None:
        try:
            return self._store.get(job_id)
        except errors.JobNotFound:
            return None

    def _passes_on(self, job: ClaimedJob) -> bool:
        """Whether another is to try what could not be done here; it gets it then."""
        if not self._another(job.record):
            return False
        self._begin_task(self._passed_on(job.id), job.id)
        return True

    def _another(self, record: JobRecord) -> bool:
        self._left = {one: until for one, until in self._left.items() if until > time.monotonic()}
        self._left[record.id] = time.monotonic() + ALOOF_S
        return record.passed + 1 < TRIES

    async def _passed_on(self, job_id: str) -> None:
        await self._give_back(job_id)
        self._gone(job_id)

    async def _beat(self) -> None:
        heard_at = time.monotonic()
        while True:
            await asyncio.sleep(BEAT_S)
            said_at = time.monotonic()
            try:
                async with asyncio.timeout(LEASE_S):
                    lost = await self._claims.beat()
                heard_at = said_at
            except (errors.JournalUnreachable, TimeoutError):
                cut_off = time.monotonic() - heard_at >= CUT_OFF_S
                lost = [*self._held] if cut_off else ()
            except Exception:
                log.exception("a fault of ours while the journal was told that we are here")
                continue
            for job_id in lost:
                self._lose(job_id)

    def _lose(self, job_id: str) -> None:
        """A job is ours no more."""
        job = self._held.get(job_id)
        if job_id in self._held:
            log.warning("job %s is another's now: its lease was over", job_id)
        if job is not None and job.ours:
            self._stop(job)
        self._gone(job_id)

    def _stop(self, job: ClaimedJob) -> None:
        job.let_go()
        self._queue.cancel(job)
        self._gone(job.id)

    def _gone(self, job_id: str) -> None:
        if job_id in self._held:
            del self._held[job_id]
            self._freed.set()

    def _heard(self, record: JobRecord, event: JobEvent) -> None:
        if record.over and event.ends:
            self._left.pop(record.id, None)
            if self._held.get(record.id) is not None:
                self._gone(record.id)

    async def _give_all_back(self) -> None:
        """Let others have what is held, all without a name; where nobody can be told in time, their
        leases end."""
        held = [*self._held]
        if held:
            await _at_most(GIVING_S, asyncio.gather(*map(self._give_back, held)))
        for job_id in held:
            self._gone(job_id)

    async def _give_back(self, job_id: str) -> None:
        """Let others have a job; where nobody can be told, its lease ends."""
        with contextlib.suppress(errors.SidecarError):
            await self._store.written(job_id)
            await self._claims.give_back(job_id)


async def _at_most(most_s: float, what: Awaitable[object]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(most_s):
            await what


async def _ended(*tasks: asyncio.Task[None] | None) -> None:
    there = [task for task in tasks if task is not None]
    for task in there:
        task.cancel()
    await asyncio.gather(*there, return_exceptions=True)
