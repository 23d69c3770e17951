"""How an engine's time is shared between owners by `jobs.scheduler`, simulated on the pure policy:
one engine, jobs with known work, loads that cost time."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sidecar.interfaces.engine_interface import Precision
from sidecar.jobs.job_record import Priority
from sidecar.jobs.scheduler import OwnerShares, SchedulerMoment, WaitingJob, schedule_jobs

LOAD_S = 20.0
Policy = Callable[[Sequence[WaitingJob], OwnerShares, SchedulerMoment], int]


@dataclass(frozen=True)
class Arrival:
    """A job that comes ``at`` seconds and takes ``work_s`` of the engine's time."""

    at: float
    owner: str
    work_s: float
    wanted: Precision = Precision.INT8
    priority: Priority = Priority.INTERACTIVE


@dataclass(frozen=True)
class Served:
    """When a job began and ended."""

    job: Arrival
    began: float
    ended: float

    @property
    def wait_s(self) -> float:
        """From its arrival to its begin."""
        return self.began - self.job.at


def next_job(waiting: Sequence[WaitingJob], shares: OwnerShares, moment: SchedulerMoment) -> int:
    """The index of the job to run; ``waiting`` is in order of arrival and not empty."""
    return next(schedule_jobs(waiting, shares, moment)).index


def first_come_first_served(
    waiting: Sequence[WaitingJob], shares: OwnerShares, moment: SchedulerMoment
) -> int:
    """Whoever has waited longest."""
    return 0


def served(arrivals: Iterable[Arrival], policy: Policy, load_s: float = LOAD_S) -> list[Served]:
    """All jobs, in the order in which they ran."""
    coming = sorted(arrivals, key=lambda job: job.at)
    waiting: list[Arrival] = []
    done: list[Served] = []
    shares, now, loaded, loaded_at = OwnerShares(), 0.0, None, 0.0
    while coming or waiting:
        if not waiting:
            now = max(now, coming[0].at)
        while coming and coming[0].at <= now:
            job = coming.pop(0)
            if job.owner not in {one.owner for one in waiting}:
                shares = shares.joined(job.owner)
            waiting.append(job)
        values = [
            WaitingJob(job.owner, job.wanted, job.work_s, job.at, job.priority) for job in waiting
        ]
        job = waiting[policy(values, shares, SchedulerMoment(now, loaded, loaded_at))]
        shares = shares.charged(job.owner, job.work_s, {one.owner for one in waiting})
        waiting.remove(job)
        if job.wanted is not loaded:
            now += load_s
            loaded, loaded_at = job.wanted, now
        done.append(Served(job, now, now + job.work_s))
        now += job.work_s
    return done


def behind_forty() -> list[Arrival]:
    """Forty long recordings of one owner, and soon after a short one of another."""
    return [*(Arrival(0.0, "many", 300.0) for _ in range(40)), Arrival(1.0, "one", 10.0)]


def two_precisions(seed: int = 2) -> list[Arrival]:
    """Two owners with different precisions, each with a recording every minute for two hours."""
    chance = random.Random(seed)
    return [
        Arrival(60.0 * minute + chance.uniform(0, 60), owner, chance.uniform(10, 40), wanted)
        for owner, wanted in (("eight", Precision.INT8), ("four", Precision.INT4))
        for minute in range(120)
    ]
