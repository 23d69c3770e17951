"""Services that share jobs over a real database, as far as tests of their parts need them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from fake_claims import ANYTHING, refusal_of
from postgres import KEY
from retention_of_jobs import job_metrics
from service_process import PATIENCE_S, until

from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import OpenUploadRef, StoredRecordingRef
from sidecar.clock import Clock, wall_time
from sidecar.concurrency import ThreadLimiter
from sidecar.errors import SidecarError
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_record import JobChange, JobEvent, JobRecord, ReportedChange, StartedChange
from sidecar.observability.metrics import JobMetrics
from sidecar.plugins.shared_jobs.claims import Claim, ClaimPreferences, ClaimStore
from sidecar.plugins.shared_jobs.job_follower import JobFollower
from sidecar.plugins.shared_jobs.job_needs import NodeCapabilities
from sidecar.plugins.shared_jobs.job_rows import JobRows, replay_events
from sidecar.plugins.shared_jobs.membership import Membership
from sidecar.plugins.shared_jobs.postgres_database import PostgresDatabase, migrate_postgres
from sidecar.plugins.shared_jobs.postgres_jobs import PostgresJobStore
from sidecar.plugins.shared_jobs.shared_retention import RetentionLimits, SharedRetention
from sidecar.storage.recording_storage import FolderStorage, RecordingStorage, store_code
from sidecar.transcripts.transcript import Finished, Segment, SegmentReady, Transcript

T = TypeVar("T")
LIMITS = RetentionLimits(retention_s=600, result_bytes=64 << 20, recording_bytes=0)
SAID = Segment(0.0, 1.0, "hello", 0)
DONE = ReportedChange(Finished(Transcript((SAID,), "en", 3.0, "scripted", "fp32")))
SEGMENT = ReportedChange(SegmentReady(0, SAID))


def submitted(owner: str = "owner", seconds: float = 3.0, **more: object) -> JobRecord:
    """A job that an owner sends."""
    facts = AudioInfo("wav", "soundfile", seconds)
    return JobRecord.submitted(
        time.time(),
        OpenUploadRef(-1, 0, 0),
        facts,
        TranscribeOptions(),
        owner=owner,
        durable=True,
        **more,  # type: ignore[arg-type]
    )


def kept(name: str, size: int = 4) -> StoredRecordingRef:
    """A recording in the storage."""
    return StoredRecordingRef(name, "0" * 64, size)


@dataclass
class Service:
    """One service of several."""

    database: PostgresDatabase
    rows: JobRows
    storage: RecordingStorage
    follower: JobFollower
    retention: SharedRetention
    membership: Membership
    jobs: PostgresJobStore
    claims: ClaimStore
    tally: JobMetrics
    code: str
    can: NodeCapabilities = ANYTHING
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _next: int = 0

    async def submit(self, *owners: str, seconds: float = 3.0) -> list[JobRecord]:
        """Submit a job for each of the owners."""
        records = [submitted(owner, seconds) for owner in owners]
        for record in records:
            await self.jobs.submit(record)
        return records

    async def claim(self, offer: ClaimPreferences | None = None) -> Claim | None:
        """Claim the next job with a token of its own."""
        self._next += 1
        token = f"{self.membership.id}-{self._next}"
        return await self.claims.claim(token, offer or ClaimPreferences(self.can))

    async def claimed(self, offer: ClaimPreferences | None = None) -> Claim:
        """Claim the next job, which there is."""
        claim = await self.claim(offer)
        assert claim is not None
        return claim

    async def refuse(self, error: SidecarError, *jobs: JobRecord, for_s: float = 1e6) -> None:
        """Leave these jobs to others, as if this node had claimed them."""
        for job in jobs:
            await self.database.fetch(
                "UPDATE vibevoice.jobs SET claim = id, node = %s WHERE id = %s",
                (self.membership.id, job.id),
            )
            await self.claims.put_off(job.id, job.id, error, for_s)

    async def accept(self, *jobs: JobRecord) -> None:
        """Leave these jobs to others no more."""
        forget = "DELETE FROM vibevoice.put_offs WHERE node = %s AND job = ANY (%s)"
        ids = [job.id for job in jobs]
        await self.database.fetch(forget, (self.membership.id, ids))

    async def report(self, claim: Claim, base: JobRecord, *changes: JobChange) -> JobRecord | None:
        """Report what happens to a job; the record after it, None where the claim is lost."""
        first = base.seq + 1
        events = [JobEvent(first + at, time.time(), one) for at, one in enumerate(changes)]
        after = replay_events(base, events)
        persisted = await self.claims.report(claim.token, base.seq, after, events)
        return after if persisted else None

    async def events(self, job_id: str) -> list[JobEvent]:
        """All events of a job as they are persisted."""
        found = await self.database.fetch(
            """SELECT job, seq, at, kind, coalesce(whole, change) FROM vibevoice.events
                WHERE job = %s ORDER BY seq""",
            (job_id,),
        )
        return [self.rows.event(*row) for row in found]

    async def run(self, claim: Claim) -> JobRecord:
        """Do a claimed job to its end, and delete what its owner has too much of then."""
        done = await self.report(claim, claim.record, StartedChange(), SEGMENT, DONE)
        assert done is not None
        await self.retention.settled()
        await self.retention.delete_recordings()
        return done


@asynccontextmanager
async def service(
    journal: str,
    folder: Path,
    name: str = "one",
    *,
    works: bool = True,
    limits: RetentionLimits = LIMITS,
    queue_limit: int = 10_000,
    storage: RecordingStorage | None = None,
    now: Clock = wall_time,
) -> AsyncIterator[Service]:
    """A service of this name, registered, whose follower runs; it beats when the test says so.
    ``now``: the clock of its retention."""
    seal = await asyncio.to_thread(migrate_postgres, journal, KEY)
    database, rows, code = PostgresDatabase(journal), JobRows(seal), store_code(seal)
    database.listen_check_s = 0.1  # who has it listen to one more channel waits for as long
    storage = storage or FolderStorage(folder / "uploads")
    disk = ThreadLimiter("disk", 1)
    tally = job_metrics()
    follower = JobFollower(database, rows, name)
    retention = SharedRetention(database, storage, code, disk, limits, tally, now)
    retention.clock_set_within_s = 0.0  # the machine booted long ago
    jobs = PostgresJobStore(
        database, rows, name, follower, retention, lambda s: s / 10, queue_limit, tally
    )
    claims = ClaimStore(database, rows, name, retention, tally, refusal_of)
    membership = Membership(database, name, works=works, capabilities=lambda: made.can)
    await database.open()
    made = Service(
        database, rows, storage, follower, retention, membership, jobs, claims, tally, code
    )
    await membership.register()
    made.tasks.append(asyncio.create_task(follower.run()))
    try:
        yield made
    finally:
        await stop(made.tasks)
        await jobs.close()
        await database.close()


class Services:
    """Services over one database; the first is ``one``."""

    def __init__(self, journal: str, folder: Path, opened: AsyncExitStack) -> None:
        self._journal, self._folder, self._opened = journal, folder, opened
        self.all: list[Service] = []

    @property
    def one(self) -> Service:
        """The first of them."""
        return self.all[0]

    async def more(self, *, works: bool = True) -> Service:
        """Start one more."""
        name = f"service {len(self.all)}"
        made = service(self._journal, self._folder, name, works=works)
        self.all.append(await self._opened.enter_async_context(made))
        return self.all[-1]


@asynccontextmanager
async def services(
    journal: str, folder: Path, count: int = 1, *, works: bool = True
) -> AsyncIterator[Services]:
    """So many services, and more when the test wants them."""
    async with AsyncExitStack() as opened:
        made = Services(journal, folder, opened)
        for _ in range(count):
            await made.more(works=works)
        yield made


def watched(
    database: PostgresDatabase,
    patch: pytest.MonkeyPatch,
    before: Callable[[str], Awaitable[None]] | None = None,
    method: str = "call",
) -> list[str]:
    """The functions, or with ``method`` "fetch" the statements, that a service has a database
    execute from now on. ``before``: what happens, or fails, in place of a network before each."""
    asked, own = list[str](), getattr(database, method)

    async def noted(what: str, *values: object, **how: object) -> object:
        asked.append(what)
        if before is not None:
            await before(what)
        return await own(what, *values, **how)

    patch.setattr(database, method, noted)
    return asked


async def listening(*databases: PostgresDatabase) -> None:
    """Return once these listen to all that they were asked to listen to: a new channel is told
    within one round, so the next one comes after that."""
    for database in databases * 2:
        heard = list[str]()
        database.listen("test", heard.append)
        await until(lambda heard=heard: heard)


async def until_told(ask: Callable[[], Awaitable[T]], pause_s: float = 0.02) -> T:
    """Ask again and again, until the answer is true; the answer."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if answer := await ask():
                return answer
            await asyncio.sleep(pause_s)  # real time: only how often is asked


async def stop(tasks: Sequence[asyncio.Task[None]]) -> None:
    """End tasks that run for ever."""
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
