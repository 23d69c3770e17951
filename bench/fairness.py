"""``python -m bench.fairness``: how the engine's time is shared between owners, by `jobs.scheduler`
and by first come, first served, in one run.

A simulation on the pure policy: one engine, jobs with known work, loads that cost time. Jain's
index is of the work that each owner had while all of them had something waiting (1: all the same;
1/n: one had it all).
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sidecar.interfaces.engine_interface import Precision
from sidecar.jobs.job_record import Priority
from sidecar.jobs.scheduler import OwnerShares, SchedulerMoment, WaitingJob, next_job

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


def jain(values: Iterable[float]) -> float:
    """Jain's index of fairness (Jain, Chiu, Hawe 1984)."""
    values = list(values)
    squares = len(values) * sum(value * value for value in values)
    return sum(values) ** 2 / squares if squares else 1.0


def shared(done: Sequence[Served]) -> dict[str, float]:
    """Seconds of work that each owner had until the first of them had nothing left."""
    last: dict[str, float] = {}
    for one in done:
        last[one.job.owner] = max(last.get(one.job.owner, 0.0), one.ended)
    until = min(last.values())
    had = dict.fromkeys(last, 0.0)
    for one in done:
        had[one.job.owner] += max(0.0, min(one.ended, until) - min(one.began, until))
    return had


def behind_forty() -> list[Arrival]:
    """Forty long recordings of one owner, and soon after a short one of another."""
    return [*(Arrival(0.0, "many", 300.0) for _ in range(40)), Arrival(1.0, "one", 10.0)]


def four_owners(seed: int = 1) -> list[Arrival]:
    """Four owners, who come at once with one to eight hours of work, cut up in different ways."""
    chance = random.Random(seed)
    sizes = {"notes": (120.0, 8), "talks": (180.0, 4), "meetings": (300.0, 2), "days": (1200.0, 1)}
    jobs = []
    for owner, (size, hours) in sizes.items():
        left = 3600.0 * hours
        while left > 0:
            work = min(left, size * chance.uniform(0.5, 1.5))
            jobs.append(Arrival(chance.uniform(0.0, 1.0), owner, work))
            left -= work
    return jobs


def two_precisions(seed: int = 2) -> list[Arrival]:
    """Two owners with different precisions, each with a recording every minute for two hours."""
    chance = random.Random(seed)
    return [
        Arrival(60.0 * minute + chance.uniform(0, 60), owner, chance.uniform(10, 40), wanted)
        for owner, wanted in (("eight", Precision.INT8), ("four", Precision.INT4))
        for minute in range(120)
    ]


def main() -> None:
    """Print a table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    policies = {"first come, first served": first_come_first_served, "by jobs.order": next_job}
    print("| policy | a short job behind forty long ones waits | Jain's index, four owners |")
    print("|---|---|---|")
    for name, policy in policies.items():
        (short,) = [one for one in served(behind_forty(), policy) if one.job.owner == "one"]
        index = jain(shared(served(four_owners(), policy)).values())
        print(f"| {name} | {short.wait_s:.0f} s | {index:.3f} |")
    print("\n| policy | two precisions, two hours: loads | median wait | longest |")
    print("|---|---|---|---|")
    for name, policy in policies.items():
        done = served(two_precisions(), policy)
        loads = 1 + sum(a.job.wanted is not b.job.wanted for a, b in pairwise(done))
        waits = [one.wait_s for one in done]
        print(f"| {name} | {loads} | {statistics.median(waits):.0f} s | {max(waits):.0f} s |")


if __name__ == "__main__":
    main()
