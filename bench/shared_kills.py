"""Services that share their jobs, killed at random: ``python -m bench.shared_kills``.

Two fronts and three nodes over one PostgreSQL. While clients send recordings to any front, and
follow their events at another after each loss with `Last-Event-ID`, nodes and fronts are killed in
turn and together, and the database is restarted twice, once as if its machine had failed.

Every accepted job has to end with its own words, once: one job for each key, one end in its events,
no number of an event twice. Some recordings are poison: an engine's process that hears one dies,
and of every third the whole service with it; a node that is gone is started again. What is told:
how many ended, how many were given up because too many died in them before anything was settled
(`sidecar.jobs.job_record`), how many attempts a poison cost, and how much of what a client had been
told was heard again after each interruption, where a stretch of `SETTLES` seconds is settled.
"""

import asyncio
import contextlib
import random
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import serving
from bench.deployment import Deployment, deployment
from bench.queue_clients import FORM, Connection, Recording, Refused

SECONDS = 20
SPEED = 10
SETTLES = 5
WAYS = ("node", "node", "nodes", "front", "fronts", "all")
AT_ONCE = 12
"""Jobs that are on their way at a time."""
PAUSE_S = (1.0, 4.0)
"""Between two kills."""
ENDED = ("done", "failed", "cancelled")
LOST = OSError, asyncio.IncompleteReadError, ValueError, Refused
PATIENCE_S = 1800.0


@dataclass
class Told:
    """What the clients know, and what became of their jobs."""

    keys: dict[str, Recording] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)
    last_id: dict[str, int] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    poison: set[str] = field(default_factory=set)
    """Jobs that kill."""
    cost: list[int] = field(default_factory=list)
    """Attempts of each of these."""
    again: list[int] = field(default_factory=list)
    """Of each attempt that was not the first: segments of before that were told anew."""


class Trial:
    """Clients, and who kills."""

    def __init__(
        self, served: Deployment, jobs: int, seed: int, poison: int, pause_s: tuple[float, float]
    ) -> None:
        """``poison``: so many of the jobs kill."""
        self.served, self.told = served, Told()
        self.chance = random.Random(seed)
        self._count, self._poison, self._pause_s = jobs, poison, pause_s
        self._busy = asyncio.Lock()
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self, kills: int, restarts: int) -> Told:
        """All jobs to their ends, with so many kills while they last."""
        killing = asyncio.create_task(self._kill(kills, restarts))
        tending = asyncio.create_task(self._tend())
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(self._clients(), killing)
            await self._check_all()
        tending.cancel()
        return self.told

    async def _clients(self) -> None:
        numbers = range(self._count)
        await asyncio.gather(*(self._client(f"request-{one}", one) for one in numbers))

    async def _tend(self) -> None:
        """Whoever looks after nodes starts one that is gone."""
        while True:
            await asyncio.sleep(0.5)
            async with self._busy:
                if gone := self.served.gone():
                    self.told.kills["node, by what it transcribed"] += len(gone)
                    await asyncio.to_thread(self.served.start, *gone)

    async def _kill(self, kills: int, restarts: int) -> None:
        modes = ["fast", "immediate"]
        at = {round(kills * (one + 1) / (restarts + 1)) for one in range(restarts)}
        for number in range(kills):
            await asyncio.sleep(self.chance.uniform(*self._pause_s))
            async with self._busy:
                if number in at:
                    mode = modes[sum("database" in one for one in self.told.kills) % 2]
                    self.told.kills[f"database ({mode})"] += 1
                    await asyncio.to_thread(self.served.restart_database, mode)
                way = self.chance.choice(WAYS)
                self.told.kills[way] += 1
                victims = self._victims(way)
                self.served.kill(*victims)
                await asyncio.to_thread(self.served.start, *victims)

    def _victims(self, way: str) -> list[int]:
        fronts, nodes = self.served.fronts, self.served.nodes
        return {
            "node": [self.chance.choice(nodes)],
            "nodes": nodes,
            "front": [self.chance.choice(fronts)],
            "fronts": fronts,
            "all": [*fronts, *nodes],
        }[way]

    @contextlib.asynccontextmanager
    async def _front(self) -> Any:
        """Any of them; what is lost meanwhile is tried again by whoever asked."""
        port = self.served.ports[self.chance.choice(self.served.fronts)]
        try:
            async with Connection(port) as client:
                yield client
        except LOST:
            await asyncio.sleep(0.1)

    async def _client(self, key: str, number: int) -> None:
        async with self._room:
            recording = self.told.keys[key] = Recording(number, SECONDS)
            headers = {**FORM, "Idempotency-Key": key}
            while key not in self.told.jobs:
                async with self._front() as client:
                    job = await client.json("POST", "/v1/jobs", recording.form(), headers)
                    self.told.jobs[key] = job["id"]
                    if number in poisons(self._poison):
                        self.told.poison.add(job["id"])
            while not self.told.ends[self.told.jobs[key]]:
                await self._follow(self.told.jobs[key])

    async def _follow(self, job_id: str) -> None:
        told = self.told
        last = {"Last-Event-ID": str(told.last_id[job_id])} if job_id in told.last_id else {}
        async with self._front() as client:
            await client.ask("GET", f"/v1/jobs/{job_id}/events", headers=last)
            async for event in client.events():
                assert event.id > told.last_id.get(job_id, 0), "a number came twice"
                told.last_id[job_id] = event.id
                if event.name in ENDED:
                    told.ends[job_id] += 1

    async def _check_all(self) -> None:
        for front in self.served.fronts:
            async with Connection(self.served.ports[front]) as client:
                page = await client.json("GET", "/v1/jobs?limit=500")
                ids = {job["id"] for job in page["jobs"]}
                assert ids == {*self.told.jobs.values()}, "not one job for each request"
        async with Connection(self.served.ports[0]) as client:
            for key, job_id in self.told.jobs.items():
                await self._check(client, self.told.keys[key], job_id)

    async def _check(self, client: Connection, recording: Recording, job_id: str) -> None:
        job = await client.json("GET", f"/v1/jobs/{job_id}")
        poison = job_id in self.told.poison
        self.told.states[f"{job['state']} (poison)" if poison else job["state"]] += 1
        await client.ask("GET", f"/v1/jobs/{job_id}/events")
        events = [event async for event in client.events()]
        assert sum(event.name in ENDED for event in events) == 1, "not one end"
        assert self.told.ends[job_id] == 1, "a client got two ends"
        self.told.again += again(events)
        if poison:
            self.told.cost.append(sum(event.name == "begun" for event in events))
        if job["state"] != "done":
            assert job["error"]["code"] == "engine_crashed", job
            return
        assert not poison, "no engine can have transcribed it"
        said = await client.json("GET", f"/v1/jobs/{job_id}/transcript")
        assert [one["text"] for one in said["segments"]] == recording.said(), "other words"


def again(events: list[Any]) -> list[int]:
    """How many segments each later attempt told that had been told before."""
    counts: list[int] = []
    seen: set[int] = set()
    for event in events:
        if event.name == "begun":
            counts.append(0)
        elif event.name == "segment":
            counts[-1] += event.data["index"] in seen
            seen.add(event.data["index"])
    return counts[1:]


def poisons(count: int) -> range:
    """The numbers of so many recordings that kill."""
    return range(0, 5 * count, 5)


def named(count: int) -> str:
    """The same as the scripted engine is told: what it hears in the third second."""
    texts = [Recording(number, 3).said()[-1] for number in poisons(count)]
    return ",".join(text + "!" * (at % 3 == 2) for at, text in enumerate(texts))


async def tried(
    folder: Path,
    jobs: int,
    kills: int,
    restarts: int,
    seed: int,
    poison: int = 0,
    pause_s: tuple[float, float] = PAUSE_S,
) -> Told:
    """What became of so many jobs, of which some are ``poison``."""
    settings: dict[str, Any] = {
        "scripted_speed": SPEED,
        "scripted_settles": SETTLES,
        "scripted_poison": named(poison),
    }
    with deployment(folder, 2, 3, **settings) as served:
        return await Trial(served, jobs, seed, poison, pause_s).run(kills, restarts)


def main() -> None:
    """Print what came of it."""
    parser = serving.argument_parser(__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--poison", type=int, default=0, help="jobs that kill their engine")
    parser.add_argument("--pause", type=float, nargs=2, default=PAUSE_S, help="between two kills")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    given = parser.parse_args()
    print(f"{serving.machine()}; seed {given.seed}", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vibevoice-shared-") as folder:
        counts = given.jobs, given.kills, given.restarts, given.seed, given.poison
        told = asyncio.run(tried(Path(folder), *counts, (given.pause[0], given.pause[1])))
    kills = ", ".join(f"{way} {count}" for way, count in sorted(told.kills.items()))
    print(f"{given.kills} kills ({kills}) in {time.monotonic() - begun:.0f} s")
    ends = ", ".join(f"{count} {state}" for state, count in sorted(told.states.items()))
    print(f"{len(told.jobs)} jobs accepted: {ends}; {len(told.again)} attempts more than jobs")
    if told.cost:
        print(f"attempts of poison: {', '.join(map(str, sorted(told.cost)))}")
    most, mean = max(told.again, default=0), statistics.mean(told.again or [0])
    print(
        f"reported again of an attempt that was cut off: {most} s at most, {mean:.1f} s on average"
    )


if __name__ == "__main__":
    main()
