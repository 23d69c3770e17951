"""Clients for benchmarks of the queue: recordings no two alike, over all wires, for five owners.

What they send and what they expect is made before the clock runs: it is none of the service's work.
Those of the load test (`vibevoice_asr_load_test`) take several times as much of the processor that
both sides share here, and follow no job over a kill.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import psutil

from bench import serving
from bench.serving import Server
from sidecar.audio.audio_format import wav_head

RATE = 16_000
OWNERS = ("many", "ada", "bob", "cleo", "dan")
SHARE_OF_MANY = 0.6
"""Of the clients; the others have the same number each."""
WIRES = ("jobs", "vvv", "sidecar")
LONGEST_S = 20
FORM = {"Content-Type": serving.FORM_TYPE}


class Refused(Exception):
    """The answer is no success."""


class Event(NamedTuple):
    """One server-sent event; without an id it is 0."""

    name: str
    data: dict[str, Any]
    id: int


class Connection:
    """HTTP/1.1 on asyncio's streams, one request after the other; opened again where the server
    closed it. Many fit into one process, and it takes little of the processor that the server needs
    beside it."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._port = port
        self._fixed = f"Host: 127.0.0.1:{port}\r\n"
        if token is not None:
            self._fixed += f"Authorization: Bearer {token}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._head: dict[str, str] = {}

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a request, and read the head of its answer.

        Raises:
            Refused: it is no success; what it says.
        """
        over = self._streams is not None and self._streams[0].at_eof()
        if self._streams is None or over or self._head.get("connection") == "close":
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"{method} {path} HTTP/1.1\r\n{self._fixed}{lines}Content-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()
        status, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = (line.partition(":") for line in rest if line)
        self._head = {name.lower(): value.strip().lower() for name, _, value in fields}
        if not 200 <= (code := int(status.split()[1])) < 300:
            raise Refused(f"{method} {path}: {code} {(await self.body())[:300]!r}")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body of the answer, as it comes."""
        assert self._streams is not None
        reader, _ = self._streams
        if "chunked" not in self._head.get("transfer-encoding", ""):
            yield await reader.readexactly(int(self._head.get("content-length", "0")))
            return
        while size := int(await reader.readuntil(b"\r\n"), 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)

    async def body(self) -> bytes:
        """All of it."""
        return b"".join([piece async for piece in self.pieces()])

    async def json(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Any:
        """Ask, and read a JSON document."""
        await self.ask(method, path, body, headers)
        return json.loads(await self.body())

    async def events(self) -> AsyncIterator[Event]:
        """The body as server-sent events."""
        rest = b""
        async for piece in self.pieces():
            *frames, rest = (rest + piece).split(b"\n\n")
            for frame in frames:
                fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if b": " in line)
                if b"data" in fields:
                    name = fields.get(b"event", b"data").decode()
                    yield Event(name, json.loads(fields[b"data"]), int(fields.get(b"id", b"0")))

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *of: object) -> None:
        self.close()


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
        samples = self.samples().tobytes()
        return wav_head(RATE, 2, len(samples)) + samples

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


async def watch_memory(server: Server, seen: Seen, jobs: int) -> None:
    """Of the API process, after each hundredth of the jobs, until cancelled."""
    process = psutil.Process(server.pid)
    while True:
        if len(seen.ended) * 100 >= jobs * len(seen.rss):
            seen.rss.append(serving.rss([process]))
        await asyncio.sleep(0.02)


def jain(values: Iterable[float]) -> float:
    """Jain's index of fairness (Jain, Chiu, Hawe 1984)."""
    values = list(values)
    squares = len(values) * sum(value * value for value in values)
    return sum(values) ** 2 / squares if squares else 1.0


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
