"""Clients for benchmarks of the queue: recordings no two alike, over all wires, for five owners.

What they send and what they expect is made before the clock runs: it is none of the service's work.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import time
import wave
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import psutil

from bench import serving
from bench.connection import Connection
from bench.fairness import jain
from bench.serving import Server

RATE = 16_000
OWNERS = ("many", "ada", "bob", "cleo", "dan")
SHARE_OF_MANY = 0.6
"""Of the clients; the others have the same number each."""
WIRES = ("jobs", "vvv", "sidecar")
LONGEST_S = 20
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

    def wav(self) -> bytes:
        """As a file."""
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setparams((1, 2, RATE, 0, "NONE", ""))
            out.writeframes(self.samples().tobytes())
        return file.getvalue()

    def form(self, **fields: str) -> bytes:
        """As it is sent."""
        return serving.form(self.wav(), **fields)

    def said(self) -> list[str]:
        """What the scripted engine makes of it: a line a second, each hanging on all before."""
        heard = (self.samples() / np.float32(32768)).astype(np.float32).reshape(-1, RATE)
        lines, fingerprint = [], 0
        for second in heard:
            fingerprint = zlib.crc32(second.tobytes(), fingerprint)
            lines.append(f"{fingerprint:08x}")
        return lines


def recordings(count: int, longest_s: int = LONGEST_S, seed: int = 1) -> list[Recording]:
    """As many short ones as long ones of each size, by the logarithm."""
    chance = random.Random(seed)
    return [Recording(number, round(longest_s ** chance.random())) for number in range(count)]


@dataclass(frozen=True)
class Sendable:
    """A recording as it is sent, and what has to come back."""

    seconds: int
    file: bytes
    lines: list[str]

    @classmethod
    def of(cls, recording: Recording) -> Sendable:
        """All of it made now."""
        return cls(recording.seconds, recording.wav(), recording.said())

    @property
    def body(self) -> bytes:
        """A form with it."""
        return serving.form(self.file)


@dataclass
class Seen:
    """What came of it all."""

    ids: Counter[str] = field(default_factory=Counter)
    ended: list[tuple[float, str, int]] = field(default_factory=list)
    """When, whose, and how many seconds of audio."""
    health_s: list[float] = field(default_factory=list)
    event_s: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)

    def note(self, job_id: str, owner: str, sent: Sendable, lines: Sequence[str]) -> None:
        """One is answered."""
        assert [*lines] == sent.lines, f"{job_id} has another's words"
        self.ids[job_id] += 1
        self.ended.append((time.perf_counter(), owner, sent.seconds))


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
    server: Server, tokens: dict[str, str], work: Sequence[Sendable], clients: int
) -> Seen:
    """All clients, each with the next recording as soon as it has its answer."""
    seen, left, port = Seen(), iter(work), server.port
    many = round(clients * SHARE_OF_MANY)

    async def one(number: int) -> None:
        owner = OWNERS[0] if number < many else OWNERS[1 + number % (len(OWNERS) - 1)]
        async with Connection(port, tokens[owner]) as client:
            for sent in left:
                job_id, lines = await SENDS[WIRES[number % len(WIRES)]](client, sent.body)
                seen.note(job_id, owner, sent, lines)

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


async def ahead(port: int, token: str, work: Sequence[Sendable]) -> float:
    """Seconds that one client's recordings take, all of them submitted ahead."""
    async with Connection(port, token) as client:
        begun, last = time.perf_counter(), ""
        for sent in work:
            last = (await client.json("POST", "/v1/jobs", sent.body, FORM))["id"]
        await client.ask("GET", f"/v1/jobs/{last}/events")
        names = [event.name async for event in client.events()]
        assert names[-1] == "done", names
        return time.perf_counter() - begun


async def watch_memory(server: Server, seen: Seen, jobs: int) -> None:
    """Of the API process, after each hundredth of the jobs, until cancelled."""
    process = psutil.Process(server.pid)
    while True:
        if len(seen.ended) * 100 >= jobs * len(seen.rss):
            seen.rss.append(serving.rss([process]))
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
