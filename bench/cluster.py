"""``python -m bench.cluster``: a day of many owners on many cards, in the order of `jobs.scheduler`
and first come, first served, in one run.

Discrete events, with the ordering code that services run inside: whenever a card is free, what it
takes is asked of `order.next_job`. Nothing else of a service is here: no card fails, work is known,
and what is written to a database takes no time.

Three kinds of owners, in numbers that are made up: *people* who wait for a recording of some
minutes, *teams* with meetings in office hours, and *archives* that send hundreds of hours at once
and wait for none of them. All their work is scaled to the share of the cards' day that ``--load``
says. A tenth of the owners wants another precision, for which a card has to load anew.

Of each kind: how long its recordings waited. Jain's index (1: all the same; 1/n: one had it all) is
of how well owners were served: of each one's seconds from arrivals to ends, the share that was work
on them. Utilisation is work, without loads, of the cards' time until the last recording has come.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import statistics
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from bench.fairness import Arrival, Policy, Served
from sidecar.interfaces.engine_interface import Precision
from sidecar.jobs.job_record import Priority
from sidecar.jobs.scheduler import OwnerShares, SchedulerMoment, WaitingJob, next_job

DAY_S = 86_400.0
HOUR_S = 3_600.0
LOAD_S = 60.0
"""To load anew, per card."""
ODD = 0.1
"""Of the owners want the precision that the others do not."""


@dataclass(frozen=True)
class Kind:
    """Owners of one kind. ``share`` of all owners; ``demand`` of all work."""

    name: str
    share: float
    demand: float
    priority: Priority
    sends: Callable[[random.Random], list[tuple[float, float]]]
    """Of a day of one owner: when recordings come, and how long they are, in seconds."""


@dataclass(slots=True)
class Card:
    """One that works: on one recording at a time, at the precision that is loaded."""

    loaded: Precision = Precision.INT8
    loaded_at: float = 0.0


def people(rng: random.Random) -> list[tuple[float, float]]:
    """Some recordings of some minutes, at any hour but mostly by day."""
    hours = [rng.gauss(14, 4) % 24 for _ in range(rng.randint(2, 10))]
    return [(hour * HOUR_S, rng.lognormvariate(6.2, 0.8)) for hour in hours]


def team(rng: random.Random) -> list[tuple[float, float]]:
    """Meetings, which end at the full hour or the half."""
    ends = [rng.randint(18, 36) * HOUR_S / 2 for _ in range(rng.randint(5, 30))]
    return [(end + rng.uniform(0, 300), rng.uniform(20, 70) * 60) for end in ends]


def archive(rng: random.Random) -> list[tuple[float, float]]:
    """Twice a day hundreds at once."""
    return [
        (at, rng.uniform(0.5, 2) * HOUR_S)
        for at in (rng.uniform(0, 20) * HOUR_S for _ in range(2))
        for _ in range(rng.randint(150, 400))
    ]


KINDS = (
    Kind("people", 0.90, 0.25, Priority.INTERACTIVE, people),
    Kind("teams", 0.08, 0.25, Priority.INTERACTIVE, team),
    Kind("archives", 0.02, 0.50, Priority.BATCH, archive),
)


def day(owners: int, work_s: float, rng: random.Random) -> list[Arrival]:
    """All that comes in a day, which is so much work."""
    coming: list[Arrival] = []
    for kind in KINDS:
        own: list[Arrival] = []
        for number in range(max(1, round(owners * kind.share))):
            wanted = Precision.FP16 if rng.random() < ODD else Precision.INT8
            owner = f"{kind.name}-{number}"
            own += [Arrival(at, owner, s, wanted, kind.priority) for at, s in kind.sends(rng)]
        scale = work_s * kind.demand / sum(job.work_s for job in own)
        coming += [replace(job, work_s=job.work_s * scale) for job in own]
    return sorted(coming, key=lambda job: job.at)


def first_come_first_served(
    waiting: Sequence[WaitingJob], shares: OwnerShares, moment: SchedulerMoment
) -> int:
    """Whoever has waited longest."""
    return min(range(len(waiting)), key=lambda index: waiting[index].came)


class Lines:
    """Who waits, an owner and a priority at a time in order of arrival: only the first of each can
    be next, so no policy is asked of the others."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, Priority], deque[Arrival]] = defaultdict(deque)
        self.owners: Counter[str] = Counter()
        """Those with something waiting or running."""

    def __bool__(self) -> bool:
        return bool(self._lines)

    def join(self, job: Arrival) -> None:
        """One more."""
        self._lines[job.owner, job.priority].append(job)
        self.owners[job.owner] += 1

    def take(self, policy: Policy, shares: OwnerShares, moment: SchedulerMoment) -> Arrival:
        """The one that is next by a policy."""
        lines = sorted(self._lines.items(), key=lambda line: line[1][0].at)
        waiting = [
            WaitingJob(first.owner, first.wanted, first.work_s, first.at, first.priority)
            for _, (first, *_) in ((key, itertools.islice(line, 1)) for key, line in lines)
        ]
        key, line = lines[policy(waiting, shares, moment)]
        job = line.popleft()
        if not line:
            del self._lines[key]
        return job

    def gone(self, job: Arrival) -> None:
        """One has ended."""
        self.owners[job.owner] -= 1
        if not self.owners[job.owner]:
            del self.owners[job.owner]


def simulated(arrivals: Sequence[Arrival], cards: int, policy: Policy) -> Iterator[Served]:
    """All recordings, as each is begun on the card that is free."""
    coming, lines, shares = deque(arrivals), Lines(), OwnerShares()
    free = [Card() for _ in range(cards)]
    busy: list[tuple[float, int, Card, Arrival]] = []
    number = itertools.count()
    while coming or lines:
        now = min(
            coming[0].at if coming else float("inf"),
            busy[0][0] if busy else float("inf"),
        )
        while busy and busy[0][0] <= now:
            _, _, card, job = heapq.heappop(busy)
            lines.gone(job)
            free.append(card)
        while coming and coming[0].at <= now:
            job = coming.popleft()
            if job.owner not in lines.owners:
                shares = shares.joined(job.owner)
            lines.join(job)
        while free and lines:
            card = free.pop()
            job = lines.take(policy, shares, SchedulerMoment(now, card.loaded, card.loaded_at))
            shares = shares.charged(job.owner, job.work_s, lines.owners)
            began = now
            if job.wanted is not card.loaded:
                began += LOAD_S
                card.loaded, card.loaded_at = job.wanted, began
            done = Served(job, began, began + job.work_s)
            heapq.heappush(busy, (done.ended, next(number), card, job))
            yield done


def jain(values: Sequence[float]) -> float:
    """Jain's index of fairness (Jain, Chiu, Hawe 1984)."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


def served_well(done: Sequence[Served]) -> list[float]:
    """Of each owner, the share of its time that was work."""
    worked: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for one in done:
        worked[one.job.owner] += one.job.work_s
        spent[one.job.owner] += one.ended - one.job.at
    return [worked[owner] / spent[owner] for owner in spent]


def minutes(seconds: float) -> str:
    """As people say it."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def row(name: str, done: Sequence[Served], cards: int) -> str:
    """A line of the table."""
    until = max(one.job.at for one in done)
    worked_s = sum(max(0.0, min(one.ended, until) - one.began) for one in done)
    cells = [name]
    for kind in KINDS:
        waits = sorted(one.wait_s for one in done if one.job.owner.startswith(kind.name))
        cut = statistics.quantiles(waits, n=20)
        cells += [f"{minutes(cut[9])} / {minutes(cut[18])} / {minutes(waits[-1])}"]
    cells += [f"{jain(served_well(done)):.3f}", f"{worked_s / (cards * until):.3f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--owners", type=int, default=1_000)
    parser.add_argument("--cards", type=int, default=200)
    parser.add_argument("--load", type=float, default=0.85, help="of the cards' day")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    work_s = given.load * given.cards * DAY_S
    arrivals = day(given.owners, work_s, random.Random(given.seed))
    print(
        f"{given.owners} owners, {given.cards} cards, {len(arrivals)} recordings in a day, "
        f"{work_s / HOUR_S:.0f} hours of work; waits: p50 / p95 / longest\n"
    )
    heads = (*(kind.name for kind in KINDS), "Jain's index", "utilisation")
    print(f"| order | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for name, policy in (
        ("`jobs.order`", next_job),
        ("first come, first served", first_come_first_served),
    ):
        began = time.process_time()
        done = list(simulated(arrivals, given.cards, policy))
        assert len(done) == len(arrivals)
        print(row(name, done, given.cards))
        each_us = (time.process_time() - began) / len(done) * 1e6
        print(f"  {each_us:.0f} µs of this machine for each decision", flush=True)


if __name__ == "__main__":
    main()
