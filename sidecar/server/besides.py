"""HTTP at a second port, for clients that know no other: a server of its own in our event loop."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import uvicorn

from sidecar import errors

log = logging.getLogger(__name__)


class Besides:
    """One of the `Listener`s; owns the socket and the server.

    ``name``: what the ready line and `/health` call the port; ``hint``: what to do where another
    program has it.
    """

    def __init__(self, name: str, config: uvicorn.Config, sock: socket.socket, hint: str) -> None:
        self._name, self._sock, self._hint = name, sock, hint
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> dict[str, Any]:
        """Serve from now on.

        Raises:
            errors.PortInUse: another was quicker to listen there.
        """
        host, port, *_ = self._sock.getsockname()
        try:
            self._sock.listen(self._server.config.backlog)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise errors.SettingsInvalid(f"Cannot listen: {error.strerror}.") from None
            raise errors.PortInUse(f"Port {port} on {host} is in use.", hint=self._hint) from None
        spawn = asyncio.get_running_loop().create_task
        up = spawn(self._server.up.wait())
        self._serving = spawn(self._server.serve([self._sock]), name=self._name)
        await asyncio.wait({up, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._serving.done():
            self._serving.result()
        log.info("serving on port %d, too", port)
        return {self._name: port}

    def stop_accepting(self) -> None:
        """Whoever comes is told so by the service itself."""

    async def drain(self, grace_s: float) -> None:
        """Connections are told that it ends; who is being answered has as long as elsewhere."""
        self._server.should_exit = True
        await self._ended()

    async def close(self) -> None:
        """End what goes on."""
        self._server.should_exit = self._server.force_exit = True
        await self._ended()
        self._sock.close()

    async def _ended(self) -> None:
        if self._serving is not None:
            await asyncio.wait({self._serving})


class _Server(uvicorn.Server):
    """Lives and ends as it is told; signals are the service's own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
