"""What sharing jobs costs: ``python -m bench.scale``.

A service that keeps its jobs to itself beside a front and three nodes over one PostgreSQL, in one
run: recordings that take the scripted engine `WORK_S` each, as many to each engine. What is told:
how much of its engines' time each side used (the goal is 0.95), what is added to a job,
how long an event takes from the service that it happens in to another, and memory and processor of
every process while nothing happens. The database of the benchmark does not wait for its disk
(`fsync=off`): what that takes is a matter of the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from bench import serving
from bench.connection import Connection
from bench.crowd import FORM, Recording
from bench.deployment import Deployment, deployment
from bench.load import KEY
from bench.serving import Server
from sidecar.audio.decode import AudioFacts
from sidecar.audio.ref import Held
from sidecar.jobs.postgres.store import PostgresStore
from sidecar.jobs.record import Begun, JobEvent, JobRecord, Reported
from sidecar.speech.engine import TranscribeOptions
from sidecar.speech.transcript import Segment, SegmentReady

WORK_S = 20
NODES = 3
GOAL = 0.95
REST_S = 10.0
EVENTS = 200


async def worked(port: int, count: int) -> float:
    """Seconds until so many recordings are done."""
    forms = [Recording(number, WORK_S).form() for number in range(count)]

    async def client(form: bytes) -> None:
        async with Connection(port) as connection:
            job = await connection.json("POST", "/v1/jobs", form, FORM)
            await connection.ask("GET", f"/v1/jobs/{job['id']}/events")
            names = [event.name async for event in connection.events()]
            assert names[-1] == "done", names[-1]

    begun = time.perf_counter()
    await asyncio.gather(*map(client, forms))
    return time.perf_counter() - begun


def warm(port: int) -> None:
    """Have engines loaded: by a recording each, and some more."""
    asyncio.run(_warm(port))


async def _warm(port: int) -> None:
    async def one(number: int) -> None:
        async with Connection(port) as connection:
            await connection.json("POST", "/transcribe", Recording(number, 1).form(), FORM)

    await asyncio.gather(*map(one, range(2 * NODES)))


async def delays(address: str, folder: Path) -> list[float]:
    """Seconds from what happens in one service to another's knowing of it."""
    here, there = (PostgresStore(address, KEY, folder) for _ in range(2))
    try:
        await here.open()
        await there.open()
        facts = AudioFacts("wav", "sndfile", 3.0)
        audio = Held(-1, 0, 0)
        record = JobRecord.submitted(0.0, audio, facts, TranscribeOptions(), durable=True)
        here.add(record)
        here.append(record.id, Begun())
        await here.written(record.id)
        await there.seek(record.id)
        heard: asyncio.Queue[float] = asyncio.Queue()

        def hear(record: JobRecord, event: JobEvent) -> None:
            if isinstance(event.change, Reported):
                heard.put_nowait(time.perf_counter())

        there.listen(hear, record.id)
        found = []
        for number in range(EVENTS):
            begun = time.perf_counter()
            segment = SegmentReady(number, Segment(float(number), number + 1.0, "said"))
            here.append(record.id, Reported(segment))
            found.append(await heard.get() - begun)
        return found
    finally:
        here.close()
        there.close()


def at_rest(sides: dict[str, Sequence[psutil.Process]]) -> list[list[str]]:
    """Memory and processor of each while nothing happens."""
    before = {name: serving.cpu_s(processes) for name, processes in sides.items()}
    time.sleep(REST_S)
    rows = []
    for name, processes in sides.items():
        memory = [serving.memory(process.pid) for process in processes]
        held = sum(one.rss if one.pss is None else one.pss for one in memory)
        busy = (serving.cpu_s(processes) - before[name]) / REST_S
        rows.append([name, str(len(processes)), f"{held:.0f} MB", f"{busy:.2%}"])
    return rows


def database(served: Deployment) -> list[psutil.Process]:
    """PostgreSQL's processes."""
    port = f"port={served.cluster.port}"
    for process in psutil.process_iter(["cmdline"]):
        if port in (process.info["cmdline"] or []) and process.ppid() in (0, 1):
            return [process, *process.children(recursive=True)]
    return []


def side(name: str, engines: int, count: int, wall_s: float) -> list[str]:
    """A row of the table of work."""
    ideal_s = count * WORK_S / engines
    used = ideal_s / wall_s
    added_ms = 1000 * (wall_s - ideal_s) * engines / count
    return [
        name,
        str(count),
        f"{wall_s:.2f} s",
        f"{used:.3f}",
        f"{added_ms:.0f} ms",
        serving.verdict(used, GOAL, at_least=True),
    ]


def measured(folder: Path, each: int) -> dict[str, Any]:
    """All of it."""
    settings = {"engine": "scripted", "scripted_speed": "1", "keep_alive": "-1"}
    (folder / "alone").mkdir()
    (folder / "shared").mkdir()
    (folder / "alone" / "config.toml").touch()
    found: dict[str, Any] = {}
    with serving.ours(folder / "alone", **settings) as alone:
        warm(alone.port)
        found["alone"] = asyncio.run(worked(alone.port, each))
        shared = {"scripted_speed": 1, "keep_alive": "-1"}
        with deployment(folder / "shared", 1, NODES, **shared) as served:
            port = served.ports[0]
            warm(port)
            found["shared"] = asyncio.run(worked(port, NODES * each))
            found["delays"] = asyncio.run(delays(served.cluster.new_database(), folder))
            front, *nodes = [one for one in served.servers if one is not None]
            found["rest"] = at_rest(_sides(alone, front, nodes, served))
    return found


def _sides(
    alone: Server, front: Server, nodes: list[Server], served: Deployment
) -> dict[str, Sequence[psutil.Process]]:
    return {
        "a service by itself": alone.tree(),
        "the front": front.tree(),
        f"{len(nodes)} nodes": [process for node in nodes for process in node.tree()],
        "PostgreSQL": database(served),
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=3, help="recordings for each engine")
    given = parser.parse_args()
    print(serving.machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="vibevoice-scale-") as folder:
        found = measured(Path(folder), given.each)
    serving.table(
        f"Recordings that take {WORK_S} s each",
        ["side", "jobs", "wall", "of the engines' time", "added to each", "goal"],
        [
            side("a service by itself", 1, given.each, found["alone"]),
            side(f"{NODES} nodes", NODES, NODES * given.each, found["shared"]),
        ],
    )
    took = sorted(1000 * one for one in found["delays"])
    print(
        f"\nan event, from one service to another: median {statistics.median(took):.1f} ms, "
        f"p95 {took[round(0.95 * len(took)) - 1]:.1f} ms, most {took[-1]:.1f} ms (of {len(took)})"
    )
    serving.table("While nothing happens", ["", "processes", "memory", "a core"], found["rest"])


if __name__ == "__main__":
    main()
