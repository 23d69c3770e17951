"""Ten thousand who follow one job over server-sent events: ``python -m bench.subscribers``.

The scripted engine says a line a second; everybody follows the same job, which is the most that one
event can cost. Half of them vanish without a word, the others are there to the end.

memory    of the API process for each subscriber, once all are there.
heard     from the first who heard a line to the last, for each line: median and worst.
end       from DELETE to the end of the last stream.
slow      what a reader that reads nothing costs: memory for each, once it has been told to resume
          later and its connection's buffers are full; and what the others hear meanwhile.
left      descriptors and memory of the process afterwards, over those before.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field

import psutil

from bench import serving
from bench.connection import Connection
from bench.load import FORM, Recording
from bench.serving import Server, ours, table

LINE = b"event: segment"
MIB = 1 << 20


@dataclass
class Heard:
    """What all subscribers heard: for each line the first and the last, and how many."""

    first: dict[int, float] = field(default_factory=dict)
    last: dict[int, float] = field(default_factory=dict)
    count: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    ended: int = 0
    ended_at: float = 0.0

    def spread_s(self, everybody: int) -> list[float]:
        """Of the lines that everybody heard, from the first who did to the last."""
        whole = [line for line, count in self.count.items() if count == everybody]
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


async def begin(client: Connection, seconds: int) -> str:
    """A job that runs; its id."""
    job = await client.json("POST", "/v1/jobs", Recording(0, seconds).form(), FORM)
    await client.ask("GET", f"/v1/jobs/{job['id']}/events")
    async for event in client.events():
        if event.name == "begun":
            break
    client.close()
    return str(job["id"])


async def many(server: Server, count: int, lines: int) -> list[str]:
    """A row: so many follow a job for so many lines; half of them vanish, and it is ended."""
    process, heard = psutil.Process(server.pid), Heard()
    async with Connection(server.port) as client:
        job_id = await begin(client, 3600)
        before, open_before = serving.memory(server.pid).rss, process.num_fds()
        begun = time.perf_counter()
        everybody = await follow(server.port, job_id, count, heard)
        joined_s = time.perf_counter() - begun
        each_kb = (serving.memory(server.pid).rss - before) * 1e3 / count
        since, used = max(heard.first, default=0), process.cpu_times().user
        begun = time.perf_counter()
        while sum(heard.count[line] == count for line in list(heard.count) if line > since) < lines:
            assert time.perf_counter() - begun < 60 + 10 * lines, "not everybody hears everything"
            await asyncio.sleep(0.1)
        cpu = (process.cpu_times().user - used) / (time.perf_counter() - begun)
        spread = [
            heard.last[line] - heard.first[line]
            for line, number in heard.count.items()
            if line > since and number == count
        ]
        for subscriber in everybody[::2]:
            assert subscriber.transport is not None
            subscriber.transport.abort()
        begun = time.perf_counter()
        await client.ask("DELETE", f"/v1/jobs/{job_id}")
        while heard.ended < count // 2:
            assert time.perf_counter() - begun < 60, "not everybody hears the end"
            await asyncio.sleep(0.02)
        end_s = heard.ended_at - begun
        for subscriber in everybody[1::2]:
            assert subscriber.transport is not None
            subscriber.transport.close()
        while process.num_fds() > open_before:
            assert time.perf_counter() - begun < 60, "descriptors are left"
            await asyncio.sleep(0.1)
        left = serving.memory(server.pid).rss - before
    return [
        f"{count}",
        f"{joined_s:.1f}",
        f"{each_kb:.1f}",
        f"{statistics.median(spread) * 1e3:.0f}, {max(spread) * 1e3:.0f}",
        f"{cpu:.2f}",
        f"{end_s * 1e3:.0f}",
        f"{process.num_fds() - open_before}, {left:.1f}",
    ]


def allowed(count: int) -> int:
    """As many as there may be descriptors, here and in the service, which inherits the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return min(count, most - 200)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, nargs="+", default=[500, 10_000])
    parser.add_argument("--lines", type=int, default=10)
    given = parser.parse_args()
    print(serving.machine())
    rows = []
    with serving.workshop() as folder:
        for count in given.count:
            with ours(folder, engine="scripted", keep_alive="-1", scripted_speed="1") as server:
                rows.append(asyncio.run(many(server, allowed(count), given.lines)))
    headers = (
        *("subscribers", "all there s", "kB for each", "a line heard: median, worst ms"),
        *("cores", "end ms", "left: descriptors, MB"),
    )
    table("subscribers of one job, a line a second", headers, rows)


if __name__ == "__main__":
    main()
