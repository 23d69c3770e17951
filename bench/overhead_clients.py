"""Clients for `bench.overhead`, each in a process of its own: none waits for another's GIL."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """``count`` processes that are up and have imported this."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(time.sleep, 0.5) for _ in range(count)]:
            future.result()
        yield pool


def post_for(
    port: int, path: str, body: bytes, content_type: str, begin: float, seconds: float
) -> int:
    """Post one request after the other on one connection; how many were answered in time.

    ``begin`` is a moment of `time.time`, the same for all clients.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": content_type}
    time.sleep(max(0.0, begin - time.time()))
    deadline, count = begin + seconds, 0
    while True:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {text[:300]!r}")
        if time.time() > deadline:
            connection.close()
            return count
        count += 1


def poll_for(port: int, pollers: int, pause_s: float, seconds: float) -> list[float]:
    """``pollers`` keep-alive connections asking ``/health``; every answer's latency in seconds.

    ``pause_s`` lies between two questions of one poller; 0 asks again at once.
    """
    return asyncio.run(_poll_all(port, pollers, pause_s, seconds))


async def _poll_all(port: int, pollers: int, pause_s: float, seconds: float) -> list[float]:
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds

    async def poll(number: int) -> None:
        await asyncio.sleep(pause_s * number / pollers)  # spread, as strangers' polls are
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        question = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        while (asked := time.perf_counter()) < deadline:
            writer.write(question)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - asked)
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            await asyncio.sleep(pause_s)
        writer.close()

    await asyncio.gather(*(poll(number) for number in range(pollers)))
    return latencies
