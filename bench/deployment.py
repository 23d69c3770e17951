"""Fronts and nodes that share a PostgreSQL of their own, all child processes: for benchmarks.

PostgreSQL is Debian's (`apt-get install postgresql`); its cluster is gone with the benchmark.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench import serving
from bench.serving import COMMAND, KEY, ROOT, Server

if TYPE_CHECKING:
    from tests.support.postgres import Cluster

FRONT, NODE = "front", "node"


class Deployment:
    """Services over one database and one folder, each at a port that it keeps over its lives."""

    def __init__(self, folder: Path, cluster: Cluster, fronts: int, nodes: int, **more: object):
        self.folder, self.cluster = folder, cluster
        self.roles = [FRONT] * fronts + [NODE] * nodes
        self.ports = [serving.free_port() for _ in self.roles]
        self.servers: list[Server | None] = [None for _ in self.roles]
        (folder / "config.toml").touch()
        self.journal = cluster.new_database()
        self._common = {
            "config": folder / "config.toml",
            "engine": "scripted",
            "journal": self.journal,
            "journal_key": KEY,
            "uploads": folder / "jobs",
            "job_retention": "1h",
            "queue_limit": 10_000,
            "log_level": "warning",
            **more,
        }

    @property
    def fronts(self) -> list[int]:
        """The numbers of those that take in."""
        return [number for number, role in enumerate(self.roles) if role == FRONT]

    @property
    def nodes(self) -> list[int]:
        """The numbers of those that work."""
        return [number for number, role in enumerate(self.roles) if role == NODE]

    def start(self, *numbers: int) -> None:
        """Have these up; all without any."""
        for number in numbers or range(len(self.roles)):
            home = self.folder / f"{self.roles[number]}-{number}"
            env = self.environment(home, role=self.roles[number], port=self.ports[number])
            log = home / f"log-{time.monotonic_ns()}"
            self.servers[number] = Server(COMMAND, ROOT, env, self.ports[number], log)

    def environment(self, home: Path, **more: object) -> dict[str, str]:
        """That of a service with these settings, whose own things are in ``home``."""
        home.mkdir(exist_ok=True)
        values = {**self._common, "spool_dir": home, "data_dir": home / "data", **more}
        return serving.service_env(values)

    def kill(self, *numbers: int) -> None:
        """These are gone in the middle of whatever they do, and what they had started with them."""
        below: list[psutil.Process] = []
        for number in numbers:
            server, self.servers[number] = self.servers[number], None
            if server is not None:
                below += server.tree()
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
                process.wait(5)

    def gone(self) -> list[int]:
        """Those that ended by themselves."""
        there = enumerate(self.servers)
        return [number for number, one in there if one is not None and one.ended]

    def restart_database(self, mode: str) -> None:
        """Another PostgreSQL over the same data; ``immediate``: as if its machine had failed."""
        self.cluster.stop(mode)
        self.cluster.start()

    def stop(self) -> None:
        """End all."""
        for server in self.servers:
            if server is not None:
                server.stop()


@contextmanager
def deployment(
    folder: Path, fronts: int, nodes: int, at: str = "127.0.0.1", **more: object
) -> Iterator[Deployment]:
    """A database and services, up; gone at the end. ``at``: an address of the database's, too."""
    from tests.support.postgres import cluster

    with cluster(at=at) as database:
        made = Deployment(folder, database, fronts, nodes, **more)
        try:
            made.start()
            yield made
        finally:
            made.stop()
