"""Ten thousand who follow one job over server-sent events: ``python -m bench.subscribers``.

The scripted engine says a line a second; everybody follows the same job, which is the most that one
event can cost. Half of them vanish without a word, the others are there to the end.

memory    of the API process for each subscriber, once all are there.
heard     from the first who heard a line to the last, for each line: median and worst.
end       from DELETE to the end of the last stream.
left      descriptors and memory of the process afterwards, over those before.
waves     500 at a time, twenty times, on one service: memory after the first and the last.
slow      two hundred that read nothing of a job of three hours that is heard in 18 s: memory for
          each, and what they cost the one who reads (seconds to the end, beside alone).
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import time
import wave
from collections import defaultdict
from dataclasses import dataclass, field

import psutil

from bench import serving
from bench.connection import Connection
from bench.queue_clients import FORM
from bench.serving import ours, table

LINE = b"event: segment"
WAVE = 500
PATIENCE_S = 300.0


@dataclass
class Heard:
    """What all subscribers heard: for each line the first and the last, and how many."""

    first: dict[int, float] = field(default_factory=dict)
    last: dict[int, float] = field(default_factory=dict)
    count: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    ended: int = 0
    ended_at: float = 0.0

    def spread_s(self, everybody: int, since: int) -> list[float]:
        """Of the lines that everybody heard, from the first who did to the last."""
        whole = [line for line, n in self.count.items() if n == everybody and line > since]
        return [self.last[line] - self.first[line] for line in whole]


class Subscriber(asyncio.Protocol):
    """Asks for the events of a job and counts lines; keeps nothing."""

    def __init__(self, question: bytes, heard: Heard) -> None:
        self._question, self._heard = question, heard
        self._lines = 0
        self._rest = b""
        self.begun = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._question)

    def data_received(self, data: bytes) -> None:
        """asyncio: whole frames or parts of one."""
        now, heard = time.perf_counter(), self._heard
        self.begun.set()
        data = self._rest + data
        self._rest = data[-len(LINE) + 1 :]
        for _ in range(data.count(LINE)):
            self._lines += 1
            heard.first.setdefault(self._lines, now)
            heard.last[self._lines] = now
            heard.count[self._lines] += 1
        if b"event: cancelled" in data:
            heard.ended += 1
            heard.ended_at = now

    def sleep(self) -> None:
        """Read nothing any more."""
        assert self.transport is not None
        self.transport.pause_reading()

    def leave(self) -> None:
        """Go without a word."""
        assert self.transport is not None
        self.transport.abort()


async def follow(port: int, job_id: str, count: int, heard: Heard) -> list[Subscriber]:
    """So many more, all of them answered."""
    path = f"/v1/jobs/{job_id}/events"
    question = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    loop, everybody = asyncio.get_running_loop(), []
    for begin in range(0, count, 200):
        made = [
            loop.create_connection(lambda: Subscriber(question, heard), "127.0.0.1", port)
            for _ in range(min(200, count - begin))
        ]
        everybody += [subscriber for _, subscriber in await asyncio.gather(*made)]
    await asyncio.gather(*(subscriber.begun.wait() for subscriber in everybody))
    return everybody


def quiet(seconds: int) -> bytes:
    """A form with a recording in which nothing is heard, 8 bit at 2 kHz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 1, 2000, 0, "NONE", ""))
        out.writeframes(b"\x80" * 2000 * seconds)
    return serving.form(file.getvalue())


async def begin(client: Connection, seconds: int) -> str:
    """A job that runs; its id."""
    job = await client.json("POST", "/v1/jobs", quiet(seconds), FORM)
    await client.ask("GET", f"/v1/jobs/{job['id']}/events")
    async for event in client.events():
        if event.name == "begun":
            break
    client.close()
    return str(job["id"])


@dataclass(frozen=True)
class Cost:
    """Of many who follow one job: seconds until all are there, kB for each, from the first to the
    last who heard a line, seconds to the end of all,
    descriptors and MB that are left."""

    joined_s: float
    each_kb: float
    spread_s: list[float]
    end_s: float
    left_fds: int
    left_mb: float


async def many(port: int, pid: int, count: int, lines: int) -> Cost:
    """So many follow a job for so many lines; half of them vanish, and it is ended."""
    process, heard = psutil.Process(pid), Heard()
    async with Connection(port) as client:
        job_id = await begin(client, 3600)
        before, open_before = serving.memory(pid).rss, process.num_fds()
        begun = time.perf_counter()
        everybody = await follow(port, job_id, count, heard)
        joined_s = time.perf_counter() - begun
        each_kb = (serving.memory(pid).rss - before) * 1e3 / count
        since = max(heard.first, default=0)
        while len(spread := heard.spread_s(count, since)) < lines:
            assert time.perf_counter() - begun < PATIENCE_S, "not everybody hears everything"
            await asyncio.sleep(0.1)
        for subscriber in everybody[::2]:
            subscriber.leave()
        begun = time.perf_counter()
        await client.ask("DELETE", f"/v1/jobs/{job_id}")
        while heard.ended < count // 2:
            assert time.perf_counter() - begun < PATIENCE_S, "not everybody hears the end"
            await asyncio.sleep(0.02)
        end_s = heard.ended_at - begun
        for subscriber in everybody:
            subscriber.leave()
        client.close()
        while (still := process.num_fds()) >= open_before:  # with the client's own
            assert time.perf_counter() - begun < PATIENCE_S, "descriptors are left"
            await asyncio.sleep(0.1)
        left = still + 1 - open_before, serving.memory(pid).rss - before
    return Cost(joined_s, each_kb, spread, end_s, *left)


async def to_the_end(port: int, pid: int, idle: int) -> tuple[float, float]:
    """Seconds until one who reads has all of a long job beside so many who read nothing, and the kB
    that each of those costs."""
    heard = Heard()
    async with Connection(port) as client:
        job_id = await begin(client, 3 * 3600)
        before, begun = serving.memory(pid).rss, time.perf_counter()
        sleepers = await follow(port, job_id, idle, heard)
        for sleeper in sleepers:
            sleeper.sleep()
        name, last = "behind", 0
        while name == "behind":
            after = {"Last-Event-ID": str(last)} if last else {}
            await client.ask("GET", f"/v1/jobs/{job_id}/events", headers=after)
            async for event in client.events():
                name, last = event.name, event.id or last
        assert name == "done", name
        taken_s = time.perf_counter() - begun
        each_kb = (serving.memory(pid).rss - before) * 1e3 / max(1, idle)
        for sleeper in sleepers:
            sleeper.leave()
    return taken_s, each_kb


def most_descriptors() -> int:
    """As many as there may be, here and in a service that is started now: it inherits the limit."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, nargs="+", default=[500, 10_000])
    parser.add_argument("--lines", type=int, default=10)
    parser.add_argument("--waves", type=int, default=20)
    given = parser.parse_args()
    print(serving.machine())
    limit = most_descriptors()
    print(f"{limit} descriptors for each process")
    rows = []
    with serving.workshop() as folder:
        for count in (min(count, limit - 200) for count in given.count):
            with ours(folder, engine="scripted", keep_alive="-1", scripted_speed="1") as server:
                cost = asyncio.run(many(server.port, server.pid, count, given.lines))
                spread = f"{statistics.median(cost.spread_s):.2f}, {max(cost.spread_s):.2f}"
                rows.append(
                    [
                        *(f"{count}", f"{cost.joined_s:.1f}", f"{cost.each_kb:.1f}"),
                        *(spread, f"{cost.end_s:.2f}"),
                        *(f"{cost.left_fds}", f"{cost.left_mb:.1f}"),
                    ]
                )
        headers = (
            *("subscribers", "all there s", "kB each", "a line heard by all: median, worst s"),
            *("end s", "descriptors left", "MB left"),
        )
        table("subscribers of one job, a line a second", headers, rows)
        with ours(folder, engine="scripted", keep_alive="-1", scripted_speed="1") as server:
            left = []
            for _ in range(given.waves):
                asyncio.run(many(server.port, server.pid, WAVE, 1))
                left.append(serving.memory(server.pid).rss)
        with ours(folder, engine="scripted", keep_alive="-1", scripted_speed="600") as server:
            alone_s, _ = asyncio.run(to_the_end(server.port, server.pid, 0))
            beside_s, each_kb = asyncio.run(to_the_end(server.port, server.pid, 200))
    print(f"\n{given.waves} waves of {WAVE}: {left[0]:.1f} MB after one, {left[-1]:.1f} after all")
    print(f"200 who read nothing: {each_kb:.1f} kB each; {beside_s:.1f} s, alone {alone_s:.1f}")


if __name__ == "__main__":
    main()
