"""One machine or more, side by side: ``python -m bench.scale``.

The same recordings through three arrangements of the same program, one after the other in one run:
a service and its own queue, a service in front of three others, a front and three nodes over one
PostgreSQL.

overhead    what is added to a job of a tenth of a second that comes alone, median and p95.
throughput  of the engines' time, with recordings that take an engine `WORK_S` each, as many to each
            engine (the goal is 0.95), and what is added to each.
events      from when the engine has a line until a client who follows the job has it, p50 and p95.
at rest     memory (PSS) and processor of all processes, engines loaded.

All that happens on the way counts. The database does not wait for its disk (`fsync=off`): what
that takes is a matter of the disk, and `bench.database_journal` says how much.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import arrangements, serving
from bench.arrangements import SPEED, Arrangement
from bench.connection import Connection
from bench.queue_clients import FORM, Recording

WORK_S = 20
"""Of an engine, for each recording of the throughput: real seconds."""
FOLLOWED_S = 20
"""Of work in the recording whose lines are timed, one each `1 / SPEED` s."""
SMALL = 30
"""Recordings of a second, one after the other."""
GOAL = 0.95
REST_S = 15.0

Sides = dict[str, Callable[[Path], contextlib.AbstractContextManager[Arrangement]]]
SIDES: Sides = {
    "alone": arrangements.alone,
    "upstream": arrangements.in_front,
    "postgres": arrangements.over_postgres,
}


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured of one; times in seconds."""

    name: str
    engines: int
    started_s: float
    overhead_s: list[float]
    jobs: int
    wall_s: float
    delays_s: list[float]
    rest: dict[str, tuple[int, float, float]]
    """Of each part: processes, MB, and share of a core."""

    @property
    def ideal_s(self) -> float:
        """The wall time of engines that never wait."""
        return self.jobs * WORK_S / self.engines


async def followed(connection: Connection, form: bytes) -> list[float]:
    """A job from its submission to its end; of each line, how late it is."""
    job = await connection.json("POST", "/v1/jobs", form, FORM)
    await connection.ask("GET", f"/v1/jobs/{job['id']}/events")
    late, name = [], ""
    async for name, data, _ in connection.events():
        if name == "segment":
            late.append(time.monotonic() - float(data["segment"]["text"]))
    assert name == "done", name
    return late


async def overhead(of: Arrangement) -> list[float]:
    """What is added to the work of recordings that come alone."""
    found = []
    async with Connection(of.port, of.token) as connection:
        for number in range(SMALL):
            form = Recording(number, 1).form(diarize="false")
            begun = time.perf_counter()
            await connection.json("POST", "/transcribe", form, FORM)
            found.append(time.perf_counter() - begun - 1 / SPEED)
    return found


async def throughput(of: Arrangement, count: int) -> float:
    """Seconds until so many recordings are done that came at once."""
    forms = [Recording(number, WORK_S * SPEED).form(diarize="false") for number in range(count)]

    async def client(form: bytes) -> None:
        async with Connection(of.port, of.token) as connection:
            await followed(connection, form)

    begun = time.perf_counter()
    await asyncio.gather(*map(client, forms))
    return time.perf_counter() - begun


async def delays(of: Arrangement) -> list[float]:
    """How late the lines of one recording are."""
    async with Connection(of.port, of.token) as connection:
        return await followed(connection, Recording(99, FOLLOWED_S * SPEED).form(diarize="false"))


def at_rest(of: Arrangement) -> dict[str, tuple[int, float, float]]:
    """Memory and processor of each part while nothing happens."""
    before = {name: serving.cpu_s(processes) for name, processes in of.parts.items()}
    begun = time.perf_counter()
    time.sleep(REST_S)
    span_s, found = time.perf_counter() - begun, {}
    for name, processes in of.parts.items():
        busy = (serving.cpu_s(processes) - before[name]) / span_s
        memory = [serving.memory(process.pid) for process in processes if process.is_running()]
        held = sum(one.rss if one.pss is None else one.pss for one in memory)
        found[name] = len(memory), held, busy
    return found


def measured(name: str, folder: Path, each: int) -> Found:
    """One arrangement, from its start to its end."""
    begun = time.perf_counter()
    with SIDES[name](folder) as of:
        started_s = time.perf_counter() - begun
        over = asyncio.run(overhead(of))
        late = asyncio.run(delays(of))
        rest = at_rest(of)
        wall_s = asyncio.run(throughput(of, each * of.engines))
        return Found(of.name, of.engines, started_s, over, each * of.engines, wall_s, late, rest)


def ms(values: list[float]) -> str:
    """The half and nineteen of twenty, in milliseconds."""
    ordered = sorted(values)
    p95 = ordered[round(0.95 * len(ordered)) - 1]
    return f"{1000 * statistics.median(ordered):.1f} / {1000 * p95:.1f} ms"


def rows(found: list[Found]) -> Iterator[list[str]]:
    """The table of work."""
    for one in found:
        used = one.ideal_s / one.wall_s
        added_s = (one.wall_s - one.ideal_s) * one.engines / one.jobs
        yield [
            one.name,
            f"{one.started_s:.1f} s",
            ms(one.overhead_s),
            f"{one.jobs}: {one.wall_s:.2f} s of {one.ideal_s:.0f}",
            f"{used:.3f}",
            serving.verdict(used, GOAL, at_least=True),
            f"{1000 * added_s:.0f} ms",
            ms(one.delays_s),
        ]


def resting(found: list[Found]) -> Iterator[list[str]]:
    """The table of what nothing costs."""
    for one in found:
        parts = one.rest
        if len(parts) > 1:
            counts, memory, busy = zip(*parts.values(), strict=True)
            parts = {**parts, "all": (sum(counts), sum(memory), sum(busy))}
        for part, (count, memory_mb, share) in parts.items():
            yield [one.name, part, str(count), f"{memory_mb:.0f} MB", f"{100 * share:.1f} %"]


def main() -> int:
    """Print the tables; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=3, help="recordings for each engine")
    parser.add_argument("--only", nargs="*", choices=SIDES, default=[*SIDES])
    given = parser.parse_args()
    print(serving.machine(), flush=True)
    found = []
    for name in given.only:
        with serving.workshop() as folder:
            found.append(measured(name, folder, given.each))
            print(f"{name}: measured, load {serving.load():.1f}", flush=True)
    serving.table(
        f"{SMALL} jobs of {1 / SPEED:g} s alone; jobs of {WORK_S} s at once; {WORK_S} s of events",
        ["", "start", "overhead p50 / p95", "jobs", "of the engines' time", "goal", "added",
         "an event p50 / p95"],
        [*rows(found)],
    )  # fmt: skip
    serving.table(
        "While nothing happens, engines loaded",
        ["", "part", "processes", "memory (PSS)", "of a core"],
        [*resting(found)],
    )
    return int(any(one.ideal_s / one.wall_s < GOAL for one in found))


if __name__ == "__main__":
    sys.exit(main())
