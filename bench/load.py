"""Two hundred clients at one queue: ``python -m bench.load``.

The scripted engine works at a known speed and takes hardly any processor, so what is measured is
the service. Recordings of 1 to 20 s, no two alike, go over all wires (`/v1/jobs` with its events,
the vvv wire, `/transcribe`) in the names of five owners, one of whom has most of the clients.

throughput  seconds of audio a second, beside the same recordings from one client that never waits
            (it submits all of them ahead), and beside the engine's own speed.
right       every recording is answered once, with its own words; who is not stops the run.
fair        Jain's index of the work that each owner had while all of them had something waiting.
/health     asked every 50 ms meanwhile, by somebody without a token.
event       from DELETE of a job that waits to `cancelled` at who follows it, twice a second.
memory      of the API process after a fifth of the jobs, and at the end.

All of it once without and once with `--keep-jobs`.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import time
import wave
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import serving
from bench.connection import Connection
from bench.fairness import jain
from bench.serving import Server, ours, table, verdict
from sidecar.access.issuing import Issuer

RATE = 16_000
OWNERS = ("many", "ada", "bob", "cleo", "dan")
SHARE_OF_MANY = 0.6
"""Of the clients; the others have the same number each."""
WIRES = ("jobs", "vvv", "sidecar")
KEY = "0123456789abcdef0123456789abcdef"
FORM = {"Content-Type": serving.FORM_TYPE}


@dataclass(frozen=True)
class Recording:
    """``seconds`` of noise that is like no other."""

    number: int
    seconds: int

    def samples(self) -> np.ndarray:
        """16 bit."""
        noise = np.random.default_rng(self.number).integers(-9999, 9999, RATE, np.int16)
        return np.tile(noise, self.seconds)

    def form(self, **fields: str) -> bytes:
        """As it is sent."""
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setparams((1, 2, RATE, 0, "NONE", ""))
            out.writeframes(self.samples().tobytes())
        return serving.form(file.getvalue(), **fields)

    def said(self) -> list[str]:
        """What the scripted engine makes of it: a line a second, each hanging on all before."""
        heard = (self.samples() / np.float32(32768)).astype(np.float32).reshape(-1, RATE)
        lines, fingerprint = [], 0
        for second in heard:
            fingerprint = zlib.crc32(second.tobytes(), fingerprint)
            lines.append(f"{fingerprint:08x}")
        return lines


def recordings(count: int, seed: int = 1) -> list[Recording]:
    """As many short ones as long ones of each size, by the logarithm."""
    chance = random.Random(seed)
    return [Recording(number, round(20 ** chance.random())) for number in range(count)]


@dataclass
class Seen:
    """What came of it all."""

    ids: Counter[str] = field(default_factory=Counter)
    ended: list[tuple[float, str, int]] = field(default_factory=list)
    """When, whose, and how many seconds of audio."""
    waited: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    health_s: list[float] = field(default_factory=list)
    event_s: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)

    def note(self, job_id: str, owner: str, recording: Recording, lines: Sequence[str]) -> None:
        """One is answered."""
        assert [*lines] == recording.said(), f"recording {recording.number} has another's words"
        self.ids[job_id] += 1
        self.ended.append((time.perf_counter(), owner, recording.seconds))


async def over_jobs(client: Connection, body: bytes) -> tuple[str, list[str]]:
    """Submit, follow, fetch, and every second time delete."""
    job = await client.json("POST", "/v1/jobs", body, FORM)
    path = f"/v1/jobs/{job['id']}"
    await client.ask("GET", f"{path}/events")
    names = Counter([event.name async for event in client.events()])
    assert names["done"] == names["begun"] == 1, names
    transcript = await client.json("GET", f"{path}/transcript")
    if int(job["id"], 16) % 2:
        await client.ask("DELETE", path)
    return job["id"], [segment["text"] for segment in transcript["segments"]]


async def over_vvv(client: Connection, body: bytes) -> tuple[str, list[str]]:
    """Send, and read to the end."""
    await client.ask("POST", "/v1/transcribe", body, FORM)
    said, job_id = "", ""
    async for event in client.events():
        assert event.name != "error", event.data
        said += event.data.get("text", "")
        job_id = event.data["job_id"] if event.name == "done" else job_id
    return job_id, [line["Content"] for line in json.loads(said)]


async def over_sidecar(client: Connection, body: bytes) -> tuple[str, list[str]]:
    """Post, and wait for the answer."""
    answer = await client.json("POST", "/transcribe", body, FORM)
    lines = [segment["text"] for segment in answer["segments"]]
    return answer["metadata"]["job_id"], lines


SENDS = {"jobs": over_jobs, "vvv": over_vvv, "sidecar": over_sidecar}


async def crowd(
    server: Server, tokens: dict[str, str], work: list[Recording], clients: int
) -> Seen:
    """All clients, each with the next recording as soon as it has its answer."""
    seen, left, port = Seen(), iter(work), server.port
    many = round(clients * SHARE_OF_MANY)

    async def one(number: int) -> None:
        owner = OWNERS[0] if number < many else OWNERS[1 + number % (len(OWNERS) - 1)]
        async with Connection(port, tokens[owner]) as client:
            for recording in left:
                begun = time.perf_counter()
                body = recording.form()
                job_id, lines = await SENDS[WIRES[number % len(WIRES)]](client, body)
                seen.note(job_id, owner, recording, lines)
                seen.waited[owner].append(time.perf_counter() - begun)

    async with asyncio.TaskGroup() as group:
        meanwhile = [
            group.create_task(ask_health(port, seen)),
            group.create_task(time_events(port, tokens[OWNERS[0]], seen)),
            group.create_task(watch_memory(server, seen, len(work))),
        ]
        await asyncio.gather(*(one(number) for number in range(clients)))
        for task in meanwhile:
            task.cancel()
    return seen


async def ask_health(port: int, seen: Seen) -> None:
    """Every 50 ms, until cancelled."""
    async with Connection(port) as client:
        while True:
            begun = time.perf_counter()
            await client.json("GET", "/health")
            seen.health_s.append(time.perf_counter() - begun)
            await asyncio.sleep(0.05)


async def time_events(port: int, token: str, seen: Seen) -> None:
    """Follow a job that waits behind all others, and end it, until cancelled."""
    body = Recording(1 << 30, 1).form(priority="batch")
    async with Connection(port, token) as client, Connection(port, token) as follower:
        while True:
            await asyncio.sleep(0.5)
            job = await client.json("POST", "/v1/jobs", body, FORM)
            path = f"/v1/jobs/{job['id']}"
            await follower.ask("GET", f"{path}/events")
            begun = time.perf_counter()
            await client.ask("DELETE", path)
            names = [event.name async for event in follower.events()]
            if names == ["cancelled"]:  # it did wait
                seen.event_s.append(time.perf_counter() - begun)


async def alone(port: int, token: str, work: Sequence[Recording]) -> float:
    """Seconds that one client's recordings take, all of them submitted ahead."""
    async with Connection(port, token) as client:
        begun, last = time.perf_counter(), ""
        for recording in work:
            last = (await client.json("POST", "/v1/jobs", recording.form(), FORM))["id"]
        await client.ask("GET", f"/v1/jobs/{last}/events")
        names = [event.name async for event in client.events()]
        assert names[-1] == "done", names
        return time.perf_counter() - begun


async def watch_memory(server: Server, seen: Seen, jobs: int) -> None:
    """Of the API process, after each hundredth of the jobs, until cancelled."""
    while True:
        if len(seen.ended) * 100 >= jobs * len(seen.rss):
            seen.rss.append(serving.memory(server.pid).rss)
        await asyncio.sleep(0.02)


def evenness(seen: Seen) -> float:
    """Jain's index of the audio that each owner had done while all had something waiting."""
    until = min(
        max(at for at, one, _ in seen.ended if one == owner) for owner in {*OWNERS} & {*seen.waited}
    )
    had = Counter(dict.fromkeys(seen.waited, 0))
    for at, owner, seconds in seen.ended:
        had[owner] += seconds * (at <= until)
    return jain(had.values())


def high(values: Sequence[float], share: float = 0.99) -> float:
    """The value that ``share`` of them do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


@dataclass(frozen=True)
class Figures:
    """A run: seconds of audio a second, shares of what one client and the engine do, the rest."""

    rate: float
    of_one: float
    of_engine: float
    rest: list[str]


def measured(folder: Path, given: argparse.Namespace, keep: bool) -> Figures:
    """One run; ``keep``: with jobs that outlive the process."""
    issuer = Issuer(folder / f"tokens-{keep}")
    tokens = {owner: issuer.create(owner)[0] for owner in OWNERS}
    work = recordings(given.jobs)
    audio_s = sum(one.seconds for one in work)
    kept = {"keep_jobs": "1", "jobs_dir": str(folder / "jobs"), "journal_key": KEY}
    with ours(
        folder,
        engine="scripted",
        keep_alive="-1",
        scripted_speed=str(given.speed),
        queue_limit=str(given.jobs + given.clients),
        job_retention="10s",
        token_keys=str(issuer.keys.public),
        **(kept if keep else {}),
    ) as server:
        asyncio.run(alone(server.port, tokens["ada"], work[:3]))  # the engine is loaded
        own_s = asyncio.run(alone(server.port, tokens["ada"], work))
        begun = time.perf_counter()
        seen = asyncio.run(crowd(server, tokens, work, given.clients))
        taken_s = time.perf_counter() - begun
    assert len(seen.ids) == sum(seen.ids.values()) == given.jobs
    flat = seen.rss[-1] / seen.rss[len(seen.rss) // 5]
    return Figures(
        audio_s / taken_s,
        own_s / taken_s,
        audio_s / given.speed / taken_s,
        [
            f"{evenness(seen):.3f}",
            f"{high(seen.health_s, 0.5) * 1e3:.1f}, {high(seen.health_s) * 1e3:.1f}",
            f"{high(seen.event_s, 0.5) * 1e3:.1f}, {high(seen.event_s) * 1e3:.1f}",
            f"{seen.rss[len(seen.rss) // 5]:.1f}, {seen.rss[-1]:.1f}; {verdict(flat, 1.1)}",
        ],
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--speed", type=int, default=100, help="of the engine: audio a second")
    parser.add_argument("--only", choices=("memory", "kept"))
    given = parser.parse_args()
    print(serving.machine())
    rows, without = [], None
    with serving.workshop() as folder:
        for keep in (False, True):
            if given.only not in (None, "kept" if keep else "memory"):
                continue
            figures = measured(folder, given, keep)
            kept = verdict(figures.rate / without, 0.85, at_least=True) if without else ""
            rows.append(
                [
                    "kept" if keep else "in memory",
                    f"{figures.rate:.1f}",
                    f"{figures.of_engine:.3f}",
                    f"{figures.of_one:.3f}; {verdict(figures.of_one, 0.95, at_least=True)}",
                    f"{figures.rate / without:.3f}; {kept}" if without else "",
                    *figures.rest,
                ]
            )
            without = figures.rate
    headers = (
        *("jobs", "audio s/s", "of the engine's", "of one client's", "of that in memory"),
        *("Jain's index", "/health p50, p99 ms", "event p50, p99 ms", "MB at a fifth, at the end"),
    )
    title = f"{given.clients} clients, {given.jobs} recordings, an engine of {given.speed} s/s"
    table(title, headers, rows)


if __name__ == "__main__":
    main()
