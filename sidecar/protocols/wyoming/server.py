"""Wyoming server."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import Any

from sidecar import errors
from sidecar.protocols.wyoming.messages import LONGEST_LINE, error_event
from sidecar.protocols.wyoming.session import WyomingAllowlist, WyomingConnection
from sidecar.service.facade import Service

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 64
BACKLOG = 128


class WyomingServer:
    """One of the listeners. ``reserved`` has the port, and is listened at."""

    def __init__(
        self, service: Service, allowlist: WyomingAllowlist, reserved: socket.socket
    ) -> None:
        self._service, self._allowlist, self._reserved = service, allowlist, reserved
        self._server: asyncio.Server | None = None
        self._here: dict[asyncio.Task[None], WyomingConnection] = {}
        self._stopping = False

    async def start(self) -> dict[str, Any]:
        """Serve; the port is told.

        Raises:
            errors.PortInUse: somebody else was quicker to listen there.
        """
        host, port, *_ = self._reserved.getsockname()
        try:
            self._server = await asyncio.start_server(
                self._connected, sock=self._reserved, limit=LONGEST_LINE, backlog=BACKLOG
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise errors.SettingsInvalid(f"Cannot listen: {error.strerror}.") from None
            raise errors.PortInUse(
                f"Port {port} on {host} is in use.",
                hint="Stop the program that uses it, or choose another with --wyoming-port.",
            ) from None
        log.info("serving Wyoming on port %d", port)
        return {"wyoming_port": port}

    def stop_accepting(self) -> None:
        """Refuse new connections; clients that wait for a transcript go on."""
        self._stopping = True
        for task, connection in self._here.items():
            if not connection.busy:
                task.cancel()

    async def drain(self, grace_s: float) -> None:
        """Drain: clients that are being sent a transcript have ``grace_s`` seconds."""
        if self._here:
            await asyncio.wait(self._here, timeout=grace_s)

    async def close(self) -> None:
        """End what goes on."""
        if self._server is not None:
            self._server.close()
        here = list(self._here)
        for task in here:
            task.cancel()
        await asyncio.gather(*here, return_exceptions=True)
        self._reserved.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("peername")
        peer = str(address[0]).partition("%")[0] if isinstance(address, tuple) else None
        if self._stopping:
            _turn_away(writer, errors.ShuttingDown())
            return
        if len(self._here) >= MOST_CONNECTIONS:
            full = f"{MOST_CONNECTIONS} connections are open, and no more are taken."
            _turn_away(writer, errors.QueueFull(full))
            return
        connection = WyomingConnection(self._service, self._allowlist, reader, writer, peer)
        task = asyncio.get_running_loop().create_task(connection.run())
        self._here[task] = connection
        task.add_done_callback(lambda ended: self._here.pop(ended, None))


def _turn_away(writer: asyncio.StreamWriter, error: errors.SidecarError) -> None:
    writer.write(error_event(error))
    writer.close()
