"""Two fronts and a node over one PostgreSQL, to a test like one service: behind a proxy that gives
each request to the next of the fronts."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pytest
from postgres import KEY, Cluster
from serving import Server

ONE_SERVICE, TWO_FRONTS = "one service", "two fronts"
WAYS = (ONE_SERVICE, TWO_FRONTS)
"""The ways in which a wire is to be the same."""
_CONNECTION = re.compile(rb"\r\nconnection:[^\r\n]*", re.IGNORECASE)


class RoundRobin:
    """A TCP proxy: each connection goes to the next of the ports behind it, and none has a second
    request (``each_request``), so that each of these does, too."""

    def __init__(self, *ports: int, each_request: bool = True) -> None:
        self._ports = cycle(ports)
        self._each_request = each_request
        self.given: list[int] = []
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b""
        if self._each_request:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                head = error.partial
            if not head:  # somebody only looked whether anybody is here
                writer.close()
                return
            if b"\r\nupgrade:" not in head.lower():
                head = _CONNECTION.sub(b"", head)[:-2] + b"Connection: close\r\n\r\n"
        port = next(self._ports)
        self.given.append(port)
        there, back = await asyncio.open_connection("127.0.0.1", port)
        back.write(head)
        await asyncio.gather(_pass(reader, back), _pass(there, writer))

    def close(self) -> None:
        """Pass nothing on any more."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        if left := asyncio.all_tasks(self._loop):  # else they are said to be lost in a later test
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(left))
        self._server.close()
        self._loop.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


class Fronts(Server):
    """As `Server`: what is asked is asked through the proxy, and what can be seen is that of all
    three."""

    def __init__(self, home: Path, journal: str, **settings: object) -> None:
        self._shared = {"journal": journal, "journal_key": KEY, "jobs_dir": home / "shared"}
        self._shared |= settings
        self.fronts = [
            Server(home / f"front-{number}", role="front", **self._shared) for number in range(2)
        ]
        self.node = Server(home / "node", role="node", **self._shared)
        self.proxy = RoundRobin(*(front.port for front in self.fronts))
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
