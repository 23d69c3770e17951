"""The arrangements in which the same program hears recordings, each started for a benchmark.

All have the scripted engine, at ``SPEED`` seconds of audio a second, and say of each second when it
was heard. Nothing of one is left when the next begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import psutil

from bench import serving
from bench.connection import Connection
from bench.crowd import FORM, Recording
from bench.deployment import Deployment, deployment
from bench.serving import ROOT, Server

SPEED = 10
NODES, REPLICAS = 3, 2
TOKEN = "bench-of-arrangements-" + "0" * 32
RAY = ROOT / "deploy" / "ray"
RAY_PORT = 8000
"""Where `serve run` listens."""
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


@contextmanager
def on_ray(folder: Path) -> Iterator[Arrangement]:
    """The application of `deploy/ray`, as `serve run` starts it on a cluster of this machine."""
    named = {**SETTINGS, "engine": "scripted", "token": TOKEN, "data_dir": str(folder / "data")}
    env = serving.child_env(
        **{f"VIBEVOICE_{name.upper()}": value for name, value in named.items()},
        VIBEVOICE_CONFIG=str(folder / "config.toml"),
        RAY_AUTH_MODE="disabled",
        RAY_USAGE_STATS_ENABLED="0",
        PYTHONPATH=os.pathsep.join([".", str(ROOT)]),
    )
    serve = Path(sys.executable).with_name("serve")
    command = [str(serve), "run", "application:build", f"replicas={REPLICAS}"]
    with Server(command, RAY, env, RAY_PORT, folder / "ray.log") as served:
        _warm(RAY_PORT, REPLICAS, TOKEN)
        parts = {"front, replicas, Ray": served.tree()}
        try:
            yield Arrangement(f"Ray, {REPLICAS} replicas", RAY_PORT, REPLICAS, parts, TOKEN)
        finally:
            ended(served)


def ended(served: Server) -> None:
    """Have Ray end all that it started, of which some have a session of their own."""
    below = served.tree()
    with contextlib.suppress(psutil.NoSuchProcess):
        below[0].send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(below, 20)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def ray_is_here() -> bool:
    """Whether it is installed."""
    return find_spec("ray") is not None


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
