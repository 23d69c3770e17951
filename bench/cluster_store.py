"""The store of shared jobs against its goals: ``python -m bench.cluster_store``.

One PostgreSQL is started for each part, which does not wait for its disk. A table has each figure
beside its goal and beside what it was before 22 November 2026.

overhead   of a job of a tenth of a second that comes alone, over a front and three nodes, which
           have rested until their pools have no more connections than such jobs need.
memory     a front (PSS) with `--waiting` jobs more than before; one that accepted them all, and one
           that did not.
throughput of the engines' time, with recordings that take an engine `WORK_S` each, all at once.
claims     how long one takes while `--waiting` jobs of 50 owners wait, before and after PostgreSQL
           has analyzed the tables (which its autovacuum does), and how many 50 nodes get in a
           second: 50 tasks over one store, so a simulation.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import serving
from bench.deployment import Deployment, deployment
from bench.queue_clients import FORM, Connection, Recording
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import ClientFileRef
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_record import (
    JobChange,
    JobEvent,
    JobRecord,
    ReportedChange,
    StartedChange,
    apply_event,
)
from sidecar.plugins.shared_jobs.claims import ClaimPreferences
from sidecar.plugins.shared_jobs.postgres_settings import IDLE_CONNECTION_S
from sidecar.transcripts.transcript import Finished, Transcript
from tests.support.postgres import Cluster, cluster
from tests.support.shared_job_services import Service, service

OWNERS = 50
NODES = 50
SENDERS = 16
CLAIMS = 300  # one after the other
CLAIMS_EACH = 20  # of each node at once
WARM = 200  # jobs after which a front has loaded what it needs
REST_S = 5 * IDLE_CONNECTION_S  # one connection less each time, down to one of four
ENGINES, SPEED = 3, 10  # nodes that are up, and seconds of audio that each hears in one
SMALL = 30  # recordings of a second, one after the other
EACH, WORK_S = 3, 20  # recordings for each node, and real seconds that one takes it
AUDIO = ClientFileRef("/recordings/voice.wav", 42, 1_700_000_000_000_000_000)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    what: str
    value: float
    unit: str
    goal: float | None
    at_least: bool = False

    def row(self) -> list[str]:
        """As cells."""
        verdict = ""
        if self.goal is not None:
            verdict = serving.verdict(self.value, self.goal, at_least=self.at_least)
        value = f"{self.value:,.0f}" if self.value >= 100 else f"{self.value:.3g}"
        return [self.what, f"{value} {self.unit}".strip(), verdict]


def waiting(owner: str, seconds: float) -> JobRecord:
    """A job as it comes."""
    facts = AudioInfo("wav", "sndfile", seconds)
    return JobRecord.submitted(
        time.time(), AUDIO, facts, TranscribeOptions(), owner=owner, durable=True
    )


def p95(values: Sequence[float]) -> float:
    """The value that nineteen of twenty do not exceed."""
    return sorted(values)[round(0.95 * len(values)) - 1]


async def fill(store: Service, count: int) -> None:
    """Persist so many waiting jobs of `OWNERS` owners."""
    chance = random.Random(1)
    jobs = iter([waiting(f"owner {n % OWNERS}", chance.uniform(10, 600)) for n in range(count)])

    async def some() -> None:
        for record in jobs:
            await store.jobs.submit(record)

    await asyncio.gather(*(some() for _ in range(SENDERS)))


async def claimed(store: Service) -> Any:
    """Claim the next job, of which there is one."""
    claim = await store.claims.claim(uuid.uuid4().hex, ClaimPreferences(store.can))
    assert claim is not None, "nothing to claim"
    return claim


async def done(store: Service, claim: Any) -> None:
    """Report that a claimed job is done."""
    record, base, now = claim.record, claim.record.seq, time.time()
    transcript = Transcript((), "", record.audio_info.total_s, "scripted", "fp32")
    changes: tuple[JobChange, ...] = (StartedChange(), ReportedChange(Finished(transcript), 1.0))
    events = [JobEvent(base + 1 + at, now, change) for at, change in enumerate(changes)]
    for event in events:
        record = apply_event(record, event)
    assert await store.claims.report(claim.token, base, record, events), "the claim is lost"


async def claims(store: Service, count: int) -> Iterator[Figure]:
    """How long a claim takes, and how many a second there are."""
    await fill(store, count)
    many, found = f"{count:,} of {OWNERS} owners wait", list[Figure]()
    for state in ("not analyzed", "analyzed"):
        if state == "analyzed":
            await store.database.fetch("ANALYZE")
        took = []
        for _ in range(CLAIMS):
            begun = time.perf_counter()
            await claimed(store)
            took.append(1000 * (time.perf_counter() - begun))
        what = f"a claim, {many}, {state}"
        found.append(Figure(f"{what}, p50", statistics.median(took), "ms", None))
        found.append(Figure(f"{what}, p95", p95(took), "ms", 10))

    async def node(report: bool) -> None:
        for _ in range(CLAIMS_EACH):
            claim = await claimed(store)
            if report:
                await done(store, claim)

    rates = []
    for report in (False, True):
        begun = time.perf_counter()
        await asyncio.gather(*(node(report) for _ in range(NODES)))
        rates.append(NODES * CLAIMS_EACH / (time.perf_counter() - begun))
    return iter(
        [
            *found,
            Figure(f"claims by {NODES} nodes", rates[0], "a second", 100, True),
            Figure("the same, each reported as done", rates[1], "a second", None),
        ]
    )


@contextmanager
def front_and_nodes() -> Iterator[int]:
    """A front and nodes with all engines loaded; the front's port."""
    settings: dict[str, Any] = {"scripted_speed": SPEED, "keep_alive": -1}
    with serving.workshop() as folder, deployment(folder, 1, ENGINES, **settings) as served:
        asyncio.run(heard(served.ports[0], [Recording(0, 10)] * (3 * ENGINES)))
        yield served.ports[0]


async def heard(port: int, recordings: Sequence[Recording]) -> float:
    """Seconds until so many recordings are done that came at once."""
    forms = [one.form(diarize="false") for one in recordings]

    async def client(form: bytes) -> None:
        async with Connection(port) as connection:
            job = await connection.json("POST", "/v1/jobs", form, FORM)
            await connection.ask("GET", f"/v1/jobs/{job['id']}/events")
            names = [event.name async for event in connection.events()]
            assert names[-1] == "done", names

    begun = time.perf_counter()
    await asyncio.gather(*map(client, forms))
    return time.perf_counter() - begun


async def alone(port: int) -> list[float]:
    """What is added to the work of recordings that come alone, in milliseconds."""
    found = []
    async with Connection(port) as connection:
        for number in range(SMALL):
            form = Recording(number, 1).form(diarize="false")
            begun = time.perf_counter()
            await connection.json("POST", "/transcribe", form, FORM)
            found.append(1000 * (time.perf_counter() - begun - 1 / SPEED))
    return found


def overhead() -> Iterator[Figure]:
    """What a front, nodes and the database add to a job that comes alone."""
    with front_and_nodes() as port:
        time.sleep(REST_S)
        took = asyncio.run(alone(port))
    yield Figure("overhead of a job alone, p50", statistics.median(took), "ms", 25)
    yield Figure("overhead of a job alone, p95", p95(took), "ms", None)


def throughput() -> Iterator[Figure]:
    """How much of their time the engines work while there is something to do."""
    recordings = [Recording(number, WORK_S * SPEED) for number in range(EACH * ENGINES)]
    with front_and_nodes() as port:
        used = EACH * WORK_S / asyncio.run(heard(port, recordings))
    yield Figure(f"of the engines' time, {ENGINES} nodes", used, "", 0.95, True)


def memory(server: Cluster, folder: Path, count: int) -> Iterator[Figure]:
    """How much a front grows by so many waiting jobs; there are no nodes."""
    served = Deployment(folder, server, 2, 0, queue_limit=2 * count, log_level="error")
    try:
        served.start()
        asyncio.run(send(served, WARM))
        before = [held_mb(served, front) for front in served.fronts]
        asyncio.run(send(served, count))
        for front, was in zip(served.fronts, before, strict=True):
            how = "that accepted none" if front else "that accepted them"
            more = held_mb(served, front) - was
            yield Figure(f"a front {how}, {count:,} wait", more, "MB more", 5)
    finally:
        served.stop()


def held_mb(served: Deployment, front: int) -> float:
    """What the processes of a front hold (PSS), after a request."""
    there = served.servers[front]
    assert there is not None
    there.request("GET", "/v1/jobs?limit=20")
    found = [serving.memory(process.pid) for process in there.tree()]
    return sum(one.rss if one.pss is None else one.pss for one in found)


async def send(served: Deployment, count: int) -> None:
    """Have the first front accept so many jobs."""
    form = Recording(1, 1).form(diarize="false")
    numbers = iter(range(count))

    async def some() -> None:
        async with Connection(served.ports[0]) as connection:
            for _ in numbers:
                await connection.json("POST", "/v1/jobs", form, FORM)

    await asyncio.gather(*(some() for _ in range(SENDERS)))


async def of_claims(server: Cluster, folder: Path, count: int) -> list[Figure]:
    """The figures of claims, which need no services."""
    async with service(server.new_database(), folder) as store:
        return [*await claims(store, count)]


def main() -> int:
    """Print the table; 1 where a goal is missed."""
    parts = ("overhead", "throughput", "memory", "claims")
    parser = serving.argument_parser(__doc__)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--only", nargs="*", choices=parts, default=parts)
    given = parser.parse_args()
    print(serving.machine(), flush=True)
    found: list[Figure] = []
    if "overhead" in given.only:
        found += overhead()
    if "throughput" in given.only:
        found += throughput()
    with cluster() as server, tempfile.TemporaryDirectory(prefix="vibevoice-store-") as name:
        if "memory" in given.only:
            found += memory(server, Path(name), given.waiting)
        if "claims" in given.only:
            found += asyncio.run(of_claims(server, Path(name), given.waiting))
    headers = ["", "", "goal"]
    serving.table("Jobs shared over PostgreSQL", headers, [one.row() for one in found])
    return int(any("MISSED" in one.row()[2] for one in found))


if __name__ == "__main__":
    sys.exit(main())
