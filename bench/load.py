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
memory      of the API process after the round that is thrown away, and at the end.

All of it without and with `--keep-jobs`, in turns: a service each.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import statistics
import time
import wave
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
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
                body = recording.form()
                job_id, lines = await SENDS[WIRES[number % len(WIRES)]](client, body)
                seen.note(job_id, owner, recording, lines)

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
    last = {owner: at for at, owner, _ in seen.ended}
    had = Counter(dict.fromkeys(last, 0))
    for at, owner, seconds in seen.ended:
        had[owner] += seconds * (at <= min(last.values()))
    return jain(had.values())


def high(values: Sequence[float], share: float = 0.99) -> float:
    """The value that ``share`` of them do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Side:
    """A service, and what its clients saw in all rounds; ``keep``: its jobs outlive it."""

    def __init__(self, folder: Path, given: argparse.Namespace, keep: bool) -> None:
        self._given, issuer = given, Issuer(folder / f"tokens-{keep}")
        self._tokens = {owner: issuer.create(owner)[0] for owner in OWNERS}
        self.seen: list[Seen] = []
        kept = {"keep_jobs": "1", "jobs_dir": str(folder / "jobs"), "journal_key": KEY}
        self.server = ours(
            folder,
            engine="scripted",
            keep_alive="-1",
            scripted_speed=str(given.speed),
            queue_limit=str(given.jobs + given.clients),
            job_retention="10s",
            token_keys=str(issuer.keys.public),
            **(kept if keep else {}),
        )

    def by_one(self) -> float:
        """Seconds of audio a second, of one client that never waits."""
        work = recordings(self._given.jobs)
        token = self._tokens[OWNERS[1]]
        return _audio_s(work) / asyncio.run(alone(self.server.port, token, work))

    def by_all(self) -> float:
        """The same of all clients; each answer was looked at."""
        work = recordings(self._given.jobs)
        begun = time.perf_counter()
        seen = asyncio.run(crowd(self.server, self._tokens, work, self._given.clients))
        taken_s = time.perf_counter() - begun
        assert len(seen.ids) == sum(seen.ids.values()) == len(work)
        self.seen.append(seen)
        return _audio_s(work) / taken_s

    def rest(self) -> list[str]:
        """Of the rounds that count: how even, `/health`, events, memory."""
        after, counted = self.seen[0].rss[-1], self.seen[1:]
        health_s = [one for seen in counted for one in seen.health_s]
        event_s = [one for seen in counted for one in seen.event_s]
        end = counted[-1].rss[-1]
        return [
            f"{statistics.median(evenness(seen) for seen in counted):.3f}",
            f"{high(health_s, 0.5) * 1e3:.1f}, {high(health_s) * 1e3:.1f}",
            f"{high(event_s, 0.5) * 1e3:.1f}, {high(event_s) * 1e3:.1f}",
            f"{after:.1f}, {end:.1f}; {verdict(end / after, 1.1)}",
        ]


def _audio_s(work: Sequence[Recording]) -> int:
    return sum(one.seconds for one in work)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=400, help="of each side in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--speed", type=int, default=100, help="of the engine: audio a second")
    given = parser.parse_args()
    print(serving.machine())
    with serving.workshop() as folder, ExitStack() as stack:
        sides = {"in memory": Side(folder, given, False), "kept": Side(folder, given, True)}
        for side in sides.values():
            stack.enter_context(side.server)
        measures = {}
        for name, side in sides.items():
            measures |= {f"{name}, one": side.by_one, f"{name}, all": side.by_all}
        taken = serving.interleaved(given.rounds, measures)
        rows = []
        for name, side in sides.items():
            rate, one = taken[f"{name}, all"], taken[f"{name}, one"]
            pairs = zip(rate, one, strict=True)
            of_one = statistics.median(many / alone for many, alone in pairs)
            pairs = zip(rate, taken["in memory, all"], strict=True)
            of_memory = statistics.median(kept / without for kept, without in pairs)
            rows.append(
                [
                    name,
                    f"{statistics.median(rate):.1f}",
                    f"{statistics.median(rate) / given.speed:.3f}",
                    f"{of_one:.3f}; {verdict(of_one, 0.95, at_least=True)}",
                    f"{of_memory:.3f}; {verdict(of_memory, 0.85, at_least=True)}",
                    *side.rest(),
                ]
            )
    headers = (
        *("jobs", "audio s/s", "of the engine's", "of one client's", "of that in memory"),
        *(
            "Jain's index",
            "/health p50, p99 ms",
            "event p50, p99 ms",
            "MB after one round, all",
        ),
    )
    title = f"{given.clients} clients, an engine of {given.speed} s/s, median of {given.rounds}"
    table(f"{title} x {given.jobs} recordings", headers, rows)


if __name__ == "__main__":
    main()
