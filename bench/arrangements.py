"""The arrangements in which the same program hears recordings, each started for a benchmark.

All have the scripted engine, at ``SPEED`` seconds of audio a second, and say of each second when it
was heard. Nothing of one is left when the next begins.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import serving
from bench.connection import Connection
from bench.deployment import Deployment, deployment
from bench.queue_clients import FORM, Recording
from bench.serving import Server

SPEED = 10
NODES = 3
TOKEN = "bench-of-arrangements-" + "0" * 32
SETTINGS = {"scripted_speed": str(SPEED), "scripted_clock": "1", "keep_alive": "-1"}


@dataclass(frozen=True, slots=True)
class Arrangement:
    """One that runs: where clients come, how many engines hear, and all of its processes."""

    name: str
    port: int
    engines: int
    parts: dict[str, list[psutil.Process]] = field(default_factory=dict)
    token: str | None = None


@contextmanager
def alone(folder: Path) -> Iterator[Arrangement]:
    """A service and its own queue."""
    with serving.ours(folder, engine="scripted", **SETTINGS) as service:
        _warm(service.port, 1)
        yield Arrangement("one service", service.port, 1, {"service": service.tree()})


@contextmanager
def in_front(folder: Path) -> Iterator[Arrangement]:
    """A service in front of others (`--engine upstream`)."""
    with contextlib.ExitStack() as all_:
        nodes = [
            all_.enter_context(serving.ours(folder, engine="scripted", **SETTINGS))
            for _ in range(NODES)
        ]
        urls = ",".join(f"http://127.0.0.1:{node.port}" for node in nodes)
        front = all_.enter_context(serving.ours(folder, engine="upstream", upstream=urls))
        for node in nodes:
            _warm(node.port, 1)
        _warm(front.port, NODES)
        parts = {"front": front.tree(), "nodes": _trees(nodes)}
        yield Arrangement(f"upstream, {NODES} nodes", front.port, NODES, parts)


@contextmanager
def over_postgres(folder: Path) -> Iterator[Arrangement]:
    """A front and nodes that share jobs (`--journal`)."""
    with deployment(folder, 1, NODES, **SETTINGS) as served:
        front, *nodes = [one for one in served.servers if one is not None]
        _warm(front.port, NODES)
        parts = {"front": front.tree(), "nodes": _trees(nodes), "PostgreSQL": database(served)}
        yield Arrangement(f"PostgreSQL, {NODES} nodes", front.port, NODES, parts)


def database(served: Deployment) -> list[psutil.Process]:
    """PostgreSQL's processes."""
    port = f"port={served.cluster.port}"
    for process in psutil.process_iter(["cmdline"]):
        if port in (process.info["cmdline"] or []) and process.ppid() in (0, 1):
            return [process, *process.children(recursive=True)]
    return []


def _warm(port: int, engines: int, token: str | None = None) -> None:
    """Have all engines loaded: by more recordings at once than one of them takes."""
    form = Recording(0, 10).form()

    async def one() -> None:
        async with Connection(port, token) as connection:
            await connection.json("POST", "/transcribe", form, FORM)

    async def all_() -> None:
        await asyncio.gather(*(one() for _ in range(3 * engines)))

    asyncio.run(all_())


def _trees(servers: list[Server]) -> list[psutil.Process]:
    return [process for one in servers for process in one.tree()]
