"""Two fronts and a node over one PostgreSQL, to a test like one service: behind a proxy that gives
each request to the next of the fronts."""

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
from postgres import KEY, Cluster
from proxies import RoundRobin
from service_process import Server

ONE_SERVICE, TWO_FRONTS = "one service", "two fronts"
WAYS = (ONE_SERVICE, pytest.param(TWO_FRONTS, marks=pytest.mark.slow))
"""The ways in which a wire is to be the same; `make test` tries the second by
`tests/plugins/shared_jobs/test_shared_services.py`."""


class Fronts(Server):
    """As `Server`: what is asked is asked through the proxy, and what can be seen is that of all
    three."""

    def __init__(
        self,
        home: Path,
        journal: str,
        of_node: Mapping[str, object] | None = None,
        **settings: object,
    ) -> None:
        """``of_node``: settings that the node alone has."""
        self.journal = journal
        self._shared = {
            "journal": journal,
            "journal_key": KEY,
            "uploads": home / "shared" / "uploads",
        }
        self._shared |= settings
        if isinstance(folder := self._shared["uploads"], Path):  # else a bucket
            folder.parent.mkdir(parents=True, exist_ok=True)
        self.fronts = [
            Server(home / f"front-{number}", role="front", **self._shared) for number in range(2)
        ]
        own = {**self._shared, **(of_node or {})}
        self.node = Server(home / "node", role="node", **own)
        self.proxy = RoundRobin(*(front.port for front in self.fronts), each_request=True)
        self._stack = contextlib.ExitStack()
        super().__init__(home, port=self.proxy.port)

    def __enter__(self) -> Self:
        self._stack.callback(self.proxy.close)
        try:
            with ThreadPoolExecutor() as at_once:
                list(at_once.map(self._stack.enter_context, self.all))
        except BaseException:
            self._stack.close()
            raise
        self.process = self.fronts[0].process
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._stack.close()

    @property
    def all(self) -> list[Server]:
        """Each of them."""
        return [*self.fronts, self.node]

    def another_node(self, **more: object) -> Server:
        """One more, until the end."""
        number = len(list(self.home.glob("node*")))
        node = Server(self.home / f"node-{number}", role="node", **{**self._shared, **more})
        return self._stack.enter_context(node)

    def health(self) -> dict[str, Any]:
        """That of a front, whose engine is the node's."""
        node = self.node.health()
        engine = {name: node[name] for name in ("engine_state", "precision", "worker_pid")}
        return {**super().health(), **engine}

    def log(self) -> str:
        """What all wrote."""
        return "\n".join(server.log() for server in self.all)

    def family(self) -> list[psutil.Process]:
        """All of them with their children."""
        return [process for server in self.all for process in server.family()]

    def leftovers(self) -> list[str]:
        """Names in all spools and temporary folders."""
        return [name for server in self.all for name in server.leftovers()]


@contextlib.contextmanager
def started(
    way: str, home: Path, request: pytest.FixtureRequest, **settings: object
) -> Iterator[Server]:
    """A service with these settings, or fronts that share their jobs, by one of the `WAYS`."""
    if way == ONE_SERVICE:
        with Server(home, **settings) as server:  # type: ignore[arg-type]
            yield server
        return
    cluster: Cluster = request.getfixturevalue("postgres_cluster")
    journal = cluster.new_database()
    with Fronts(home, journal, **settings) as fronts:
        yield fronts
    cluster.drop(journal)
