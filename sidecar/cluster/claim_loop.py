"""Claim loop of a node."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from sidecar import errors
from sidecar.audio.audio_source import AudioSource
from sidecar.cluster.claims import TRIES, ClaimedJob, Claims, Held, HeldClaims, Offer
from sidecar.concurrency import Background, Threads
from sidecar.jobs import job_record
from sidecar.jobs.job_log import MemoryLog
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import Begun, Failed, Failure, JobRecord, PutBack
from sidecar.storage.postgres_database import FAULT_PAUSE_S, at_most, patiently, repeatedly

log = logging.getLogger(__name__)

# a memory plan takes milliseconds of the event loop
AT_ONCE = 20
"""Jobs that are judged at once."""


class Judging:
    """Judges jobs for one node."""

    def __init__(
        self,
        claims: Claims,
        refusal: Callable[[JobRecord], errors.SidecarError | None],
        patience_s: float,
    ) -> None:
        """``refusal``: why this node cannot do a job now; None if it can. ``patience_s``: seconds
        that a job waits which all nodes refuse."""
        self._claims, self._refusal, self._patience_s = claims, refusal, patience_s

    def failure(self, record: JobRecord) -> Failure | None:
        """Return why this node cannot do a job; None if it can."""
        try:
            error = self._refusal(record)
        except Exception:
            log.exception("job %s could not be judged", record.id)
            error = errors.SidecarError()
        return None if error is None else Failure.of(error)

    async def refuse(self, job_id: str, failure: Failure) -> None:
        """Persist that this node cannot do a job, however long the database is away."""
        await patiently(partial(self._claims.judge, {job_id: failure}))

    async def judge_waiting(self) -> None:
        """Judge the next jobs that no node is known to be able to do.

        Raises:
            errors.JournalUnreachable: the database is away.
        """
        if verdicts := await self._verdicts(await self._claims.unjudged(AT_ONCE)):
            await self._claims.judge(verdicts)

    async def end_unschedulable(self) -> None:
        """End jobs that all nodes have refused for long.

        Raises:
            errors.JournalUnreachable: the database is away.
        """
        await self._claims.end_unschedulable(self._patience_s)

    async def _verdicts(self, records: Sequence[JobRecord]) -> Mapping[str, Failure | None]:
        verdicts = dict[str, Failure | None]()
        for record in records:
            verdicts[record.id] = self.failure(record)
            await asyncio.sleep(0)  # each may take a while
        return verdicts


# a claim that is lost costs another node's work until it is noticed
CHECK_S = 3.0
"""Seconds between two checks of claims and of waiting jobs."""
# memory that comes free, or a notice that is lost, is told by nothing
LOOK_S = 3.0
"""Seconds after which an idle node asks for a job without being told of one."""
# a storage that is away is asked by all nodes
REST_S = 5.0
"""Seconds without claims after the storage of recordings could not be reached."""
# an engine ends within its grace for cancels, and is killed then
STOPS_S = 5.0
"""Seconds for engines to stop at the end of a drain."""
STOPPING_S = 0.02
"""Seconds between two looks whether an engine has stopped."""
# after so long without this service others take it for dead and free its jobs
GIVING_S = 3.0
"""Seconds, at least, for the last reports of a node that stops."""


class Node:
    """Claims jobs for the queue of this service as it has places for them."""

    def __init__(
        self,
        claims: Claims,
        log: MemoryLog,
        queue: JobQueue,
        opened: Callable[[JobRecord], AudioSource],
        judging: Judging,
        threads: Threads,
        *,
        offer: Callable[[], Offer] = Offer,
        beside: Callable[[JobRecord], int] = lambda record: 1,
        places: int = 1,
    ) -> None:
        """``log``: that of ``queue``, with the claimed jobs only. ``opened``: opens the recording
        of a job, in one of ``threads``. ``beside``: how many jobs at most run in step if this job
        is one of them. ``places``: jobs that run at once."""
        self._claims, self._queue = claims, queue
        self._opened, self._judging, self._threads = opened, judging, threads
        self._offer, self._beside, self._places = offer, beside, places
        self._held = HeldClaims(claims, log, queue)
        self._asking = ""
        """Token of a claim that is not answered yet: it may have been made."""
        self._aside = 0
        self._draining = False
        self._waiting, self._missed = asyncio.Event(), asyncio.Event()
        self._claiming, self._checking = Background(), Background()

    def open(self) -> None:
        """Start to claim."""
        self._claims.on_waiting(self._waiting.set)
        self._claims.on_ended(self._ended_elsewhere)
        self._spawn(self._claim_forever())
        self._checking.spawn("check claims", repeatedly(self._check, 0.0))

    async def drain(self, grace_s: float) -> None:
        """Claim no more. Running jobs have ``grace_s`` to end, then other nodes go on with them
        from their checkpoints."""
        self._draining = True
        over_at = time.monotonic() + grace_s
        await self._claiming.close()
        await self._queue.drain(grace_s)
        stops_at = time.monotonic() + STOPS_S
        while self._queue.running and time.monotonic() < stops_at:
            await self._a_moment()
        await self._release_all(max(GIVING_S, over_at - time.monotonic()))

    async def close(self) -> None:
        """Release all claims and stop."""
        self._draining = True
        await self._claiming.close()
        await self._release_all(GIVING_S)
        await self._checking.close()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Claim nothing as long as this lasts."""
        self._aside += 1
        try:
            yield
        finally:
            self._aside -= 1
            self._held.freed.set()

    @property
    def held(self) -> int:
        """Number of claims, also those whose last report is on its way."""
        return len(self._held)

    async def _claim_forever(self) -> None:
        while True:
            while self._held.busy >= self._places or self._aside:
                self._held.freed.clear()
                await self._held.freed.wait()
            self._waiting.clear()
            company: list[Held] = []
            try:
                await self._claim_company(company)
            except Exception:
                log.exception("jobs could not be claimed")
                for held in company:
                    self._spawn(self._held.release(held))
                await asyncio.sleep(FAULT_PAUSE_S)
                continue
            if company:
                self._spawn(self._begin(company))
            else:
                await at_most(LOOK_S, self._waiting.wait())

    async def _claim_company(self, company: list[Held]) -> None:
        """Claim the next job and those that can run in step with it; none if none waits."""
        if (first := await self._claimed_fit()) is None:
            return
        company.append(first)
        most = 1 if first.record.alone else self._beside(first.record)
        while len(company) < most:
            if (other := await self._claimed()) is None:
                return
            company.append(other)
            if not self._fits_beside(other.record):
                self._spawn(self._held.release(company.pop()))
                return

    def _fits_beside(self, record: JobRecord) -> bool:
        sociable = not record.alone and self._beside(record) > 1
        return sociable and _given_up(record) is None and self._judging.failure(record) is None

    async def _claimed_fit(self) -> Held | None:
        """Claim the next job that this node can do. The others are refused, and a job that killed
        too many engines ends."""
        while (held := await self._claimed()) is not None:
            if (end := _given_up(held.record)) is not None:
                self._held.append(held, Failed(Failure.of(end)))
            elif (failure := self._judging.failure(held.record)) is not None:
                await self._refuse(held, failure)
            else:
                return held
        return None

    async def _claimed(self) -> Held | None:
        """Claim the next job, however long the database is away."""
        token = self._asking = uuid.uuid4().hex
        claim = await patiently(lambda: self._claims.claim(token, self._offer()))
        self._asking = ""
        if claim is None:
            return None
        return self._held.add(claim)

    async def _refuse(self, held: Held, failure: Failure) -> None:
        """Let other nodes have a job that this one cannot do, and look what else there is."""
        await self._judging.refuse(held.id, failure)
        await self._held.release(held)
        with contextlib.suppress(errors.JournalUnreachable):
            await self._judging.judge_waiting()

    async def _begin(self, company: Sequence[Held]) -> None:
        """Open the recordings, and have all run at once that are to run in step."""
        jobs = await asyncio.gather(*map(self._job, company))
        while any(self._queue.live(held.id) is not None for held in company):
            await self._a_moment()  # one had been lost here, and its engine has yet to stop
        for job in jobs:
            if job is not None and job.claimed:
                self._queue.resume(job)

    async def _a_moment(self) -> None:
        self._held.freed.clear()
        await at_most(STOPPING_S, self._held.freed.wait())

    async def _job(self, held: Held) -> ClaimedJob | None:
        try:
            source = await self._threads.run(self._opened, held.record)
        except errors.StorageUnreachable:
            self._put_off(held)
        except errors.SidecarError as error:
            self._not_opened(held, error)
        except Exception:
            log.exception("the recording of job %s could not be opened", held.id)
            self._not_opened(held, errors.SidecarError())
        else:
            return self._made(held, source)
        return None

    def _made(self, held: Held, source: AudioSource) -> ClaimedJob | None:
        if held not in self._held:  # it was ended, or the claim was lost, meanwhile
            source.close()
            return None
        passes_on = partial(self._passes_on, held)
        held.job = ClaimedJob(source, held.record, held.reporter.flushed, passes_on)
        return held.job

    def _put_off(self, held: Held) -> None:
        """Release a job, uncounted, for a node that reaches the storage of recordings sooner."""
        log.warning("the recording of job %s cannot be reached now", held.id)
        if held in self._held:
            self._spawn(self._rest())
            self._spawn(self._held.release(held))

    async def _rest(self) -> None:
        with self.aside():
            await asyncio.sleep(REST_S)

    def _not_opened(self, held: Held, error: errors.SidecarError) -> None:
        log.warning("the recording of job %s cannot be opened: %s", held.id, error)
        if held not in self._held:
            return
        if held.record.passed + 1 < TRIES:
            self._held.append(held, Begun())
            self._held.append(held, PutBack(counted=True, passed=True))
            self._spawn(self._pass_on(held, error))
        else:
            self._held.append(held, Failed(Failure.of(error)))

    def _passes_on(self, held: Held, job: ClaimedJob, error: errors.SidecarError) -> bool:
        """Return whether another node will try a job, which it gets once that is reported."""
        if job.record.passed + 1 >= TRIES:
            return False
        self._spawn(self._pass_on(held, error))
        return True

    async def _pass_on(self, held: Held, error: errors.SidecarError) -> None:
        await held.reporter.flushed()
        await self._judging.refuse(held.id, Failure.of(error))
        await self._held.release(held)

    async def _release_all(self, within_s: float) -> None:
        asking, self._asking = self._asking, ""
        await self._held.release_all(within_s, asking)

    async def _check(self) -> None:
        await at_most(CHECK_S, self._missed.wait())
        self._missed.clear()
        await self._held.check(self._asking)
        if not self._draining:
            await self._judging.judge_waiting()
            await self._judging.end_unschedulable()

    def _ended_elsewhere(self, job_id: str) -> None:
        if job_id:
            self._held.end(job_id)
        else:
            self._missed.set()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self._claiming.spawn("claims", work)


def _given_up(record: JobRecord) -> errors.EngineCrashed | None:
    return job_record.given_up(record.crashes, record.interruptions)
