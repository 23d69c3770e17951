"""Fair order by one table: the scheduler of a service and jobs that services share keep to it."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from shared_job_services import SAID, Service, services, submitted

from sidecar.interfaces.engine_interface import Precision
from sidecar.jobs.job_record import JobRecord, ReportedChange, StartedChange
from sidecar.jobs.scheduler import OwnerShares, SchedulerMoment, WaitingJob, schedule_jobs
from sidecar.plugins.shared_jobs.claims import Claim
from sidecar.transcripts.transcript import Finished, Transcript


@dataclass(frozen=True)
class Sent:
    """An owner sends a recording of so many seconds, with so many separate channels."""

    owner: str
    seconds: float | None
    channels: int = 1


@dataclass(frozen=True)
class Begins:
    """The next job begins; it is this owner's."""

    owner: str


@dataclass(frozen=True)
class Ends:
    """The job of an owner that began first is done: its recording had so many seconds."""

    owner: str
    seconds: float


@dataclass(frozen=True)
class Released:
    """The job of an owner that began first is queued again."""

    owner: str


Steps = list[Sent | Begins | Ends | Released]
VECTORS: dict[str, tuple[Steps, dict[str, float]]] = {
    # what happens, and the seconds of work that each owner is charged in the end
    "two owners take turns": (
        [*[Sent("a", 10), Sent("b", 10)] * 2, *[Begins("a"), Begins("b")] * 2],
        {"a": 20, "b": 20},
    ),
    "short jobs go before a long one": (
        [Sent("a", 30), *[Sent("b", 10)] * 3, *[Begins("b")] * 2, Begins("a"), Begins("b")],
        {"a": 30, "b": 30},
    ),
    "each channel counts as a recording": (
        [Sent("a", 10, channels=3), Sent("b", 20), Sent("b", 20), Begins("b"), Begins("a")],
        {"a": 30, "b": 20},
    ),
    "each channel of a job that is done counts as a recording": (
        [
            *[Sent("a", 10, channels=3)] * 2,
            *[Sent("b", 30)] * 2,
            Begins("a"),
            Ends("a", 10),
            Begins("b"),
            Begins("a"),
        ],
        {"a": 60, "b": 30},
    ),
    "each channel of a recording of unknown length counts": (
        [Sent("a", None, channels=2), Sent("b", 119), Begins("b"), Begins("a")],
        {"a": 120, "b": 119},
    ),
    "a header that said too little is settled": (
        [*[Sent("a", 1)] * 2, Sent("b", 5), Begins("a"), Ends("a", 30), Begins("b"), Begins("a")],
        {"a": 31, "b": 5},
    ),
    "a header that said too much is settled, in each channel": (
        [Sent("a", 100, channels=2), Sent("b", 9), Begins("b"), Begins("a"), Ends("a", 2)],
        {"a": 4, "b": 9},
    ),
    "a released job costs nothing": (
        [Sent("a", 10), Sent("b", 20), Begins("a"), Released("a"), Begins("a"), Begins("b")],
        {"a": 10, "b": 20},
    ),
    "an owner that comes later starts at the work that has passed for all that have jobs": (
        [Sent("a", 10), Begins("a"), Sent("b", 30), Begins("b"), Sent("c", 8), Begins("c")],
        {"a": 10, "b": 40, "c": 33},
    ),
}


class FairOrder(ABC):
    """An implementation of fair order."""

    @abstractmethod
    async def send(self, record: JobRecord) -> None:
        """Have a job wait."""

    @abstractmethod
    async def begin(self) -> str:
        """Begin the next job; return its owner."""

    @abstractmethod
    async def end(self, owner: str, seconds: float | None) -> None:
        """End the first job of an owner; None: queue it again."""

    @abstractmethod
    async def charges(self) -> dict[str, float]:
        """What each owner is charged."""


class OfScheduler(FairOrder):
    """That of one service."""

    def __init__(self) -> None:
        self.shares = OwnerShares()
        self.waiting: list[tuple[WaitingJob, int]] = []
        self.running: list[tuple[WaitingJob, int]] = []

    def owners(self) -> set[str]:
        return {job.owner for job, _ in (*self.waiting, *self.running)}

    async def send(self, record: JobRecord) -> None:
        if record.owner not in self.owners():
            self.shares = self.shares.joined(record.owner)
        work_s = record.audio_info.work_s or 60 * record.audio_info.channels
        job = WaitingJob(record.owner, Precision.AUTO, work_s)
        self.waiting.append((job, record.audio_info.channels))

    async def begin(self) -> str:
        jobs = [job for job, _ in self.waiting]
        first = next(schedule_jobs(jobs, self.shares, SchedulerMoment()))
        job = jobs[first.index]
        self.shares = self.shares.charged(job.owner, job.work_s, self.owners())
        self.running.append(self.waiting.pop(first.index))
        return job.owner

    async def end(self, owner: str, seconds: float | None) -> None:
        one = next(one for one in self.running if one[0].owner == owner)
        self.running.remove(one)
        job, channels = one
        self.shares = self.shares.refunded(owner, job.work_s - (seconds or 0) * channels)
        if seconds is None:
            self.waiting.insert(0, one)

    async def charges(self) -> dict[str, float]:
        return {owner: self.shares.tag(owner) for owner in self.shares.tags}


class OfDatabase(FairOrder):
    """That of services that share their jobs."""

    def __init__(self, node: Service) -> None:
        self.node = node
        self.running: list[Claim] = []

    async def send(self, record: JobRecord) -> None:
        await self.node.jobs.submit(record)

    async def begin(self) -> str:
        self.running.append(await self.node.claimed())
        return self.running[-1].record.owner

    async def end(self, owner: str, seconds: float | None) -> None:
        claim = next(one for one in self.running if one.record.owner == owner)
        self.running.remove(claim)
        if seconds is None:
            await self.node.claims.release(claim.token)
            return
        done = ReportedChange(Finished(Transcript((SAID,), "en", seconds, "scripted", "fp32")))
        assert await self.node.report(claim, claim.record, StartedChange(), done)

    async def charges(self) -> dict[str, float]:
        return dict(await self.node.database.fetch("SELECT owner, had_s FROM vibevoice.owners"))


@pytest.fixture(params=["scheduler", "database"])
async def order(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FairOrder]:
    if request.param == "scheduler":
        yield OfScheduler()
        return
    async with services(request.getfixturevalue("journal"), tmp_path) as shared:
        yield OfDatabase(shared.one)


@pytest.mark.parametrize("vector", VECTORS)
async def test_owners_take_turns_and_are_charged_by_the_same_table_alone_and_in_a_cluster(
    order: FairOrder, vector: str
) -> None:
    steps, charges = VECTORS[vector]
    for step in steps:
        match step:
            case Sent(owner, seconds, channels):
                record = submitted(owner, seconds or 0.0)
                facts = replace(record.audio_info, total_s=seconds, channels=channels)
                await order.send(replace(record, audio_info=facts))
            case Begins(owner):
                assert await order.begin() == owner
            case Ends(owner, seconds):
                await order.end(owner, seconds)
            case Released(owner):
                await order.end(owner, None)
    assert await order.charges() == charges
