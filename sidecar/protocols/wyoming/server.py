"""Wyoming server, and the allowlist of its clients, which send no token."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from wyoming.event import async_write_event

from sidecar import errors
from sidecar.auth.authentication import AccessControl
from sidecar.auth.identity import AuthMethod, Identity
from sidecar.auth.request_origin import RequestOrigin, is_loopback_address
from sidecar.config.settings import Settings
from sidecar.protocols.wyoming.messages import LONGEST_LINE, error_event
from sidecar.protocols.wyoming.session import WyomingConnection
from sidecar.service.facade import Service

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 64
BACKLOG = 128


class WyomingServer:
    """Listener of the protocol. ``reserved`` is the socket of the port, on which it listens."""

    def __init__(
        self, service: Service, allowlist: WyomingAllowlist, reserved: socket.socket
    ) -> None:
        self._service, self._allowlist, self._reserved = service, allowlist, reserved
        self._server: asyncio.Server | None = None
        self._here: dict[asyncio.Task[None], WyomingConnection] = {}
        self._stopping = False

    async def start(self) -> dict[str, Any]:
        """Start to serve; return the port.

        Raises:
            errors.PortInUse: another program listened on the port first.
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
        """Refuse new connections; clients that wait for a transcript continue."""
        self._stopping = True
        for task, connection in self._here.items():
            if not connection.busy:
                task.cancel()

    async def drain(self, grace_s: float) -> None:
        """Wait at most ``grace_s`` seconds for clients that wait for a transcript."""
        if self._here:
            await asyncio.wait(self._here, timeout=grace_s)

    async def close(self) -> None:
        """End all connections."""
        if self._server is not None:
            self._server.close()
        here = list(self._here)
        for task in here:
            task.cancel()
        await asyncio.gather(*here, return_exceptions=True)
        self._reserved.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("peername")
        peer = str(address[0]).partition("%")[0] if isinstance(address, tuple) else None
        if self._stopping:
            await _turn_away(writer, errors.ShuttingDown())
        elif len(self._here) >= MOST_CONNECTIONS:
            full = f"{MOST_CONNECTIONS} connections are open, and no more are taken."
            await _turn_away(writer, errors.QueueFull(full))
        else:
            entered = WyomingConnection(self._service, self._allowlist.enter, reader, writer, peer)
            task = asyncio.get_running_loop().create_task(entered.run())
            self._here[task] = entered
            task.add_done_callback(lambda ended: self._here.pop(ended, None))


async def _turn_away(writer: asyncio.StreamWriter, error: errors.SidecarError) -> None:
    with suppress(ConnectionError):
        await async_write_event(error_event(error).event(), writer)
    writer.close()


Network = ipaddress.IPv4Network | ipaddress.IPv6Network
GUEST = "wyoming"
"""Owner of the jobs of clients on the allowlist."""


@dataclass(frozen=True, slots=True)
class WyomingAllowlist:
    """Allowlist of clients. ``guests``: networks of clients that need no token; empty: this machine
    only."""

    entrance: AccessControl
    guests: Sequence[Network] = ()

    @classmethod
    def of(cls, settings: Settings, entrance: AccessControl) -> WyomingAllowlist:
        """Create the allowlist of the settings.

        Raises:
            errors.SettingsInvalid: no client could connect, or an entry is not an address.
        """
        guests = [_network(text) for text in settings.wyoming_clients]
        if not guests and not entrance.access.authenticator.local_only:
            raise errors.SettingsInvalid(
                "The service requires a token, and Wyoming clients (--wyoming-port) cannot "
                "send one.",
                hint=(
                    "Name the clients that need none: --wyoming-clients 127.0.0.1, or the "
                    "address of Home Assistant."
                ),
            )
        away = [str(one) for one in guests if not is_loopback_address(str(one.network_address))]
        if away and is_loopback_address(settings.host):
            raise errors.SettingsInvalid(
                f"Clients at {', '.join(away)} (--wyoming-clients) cannot reach "
                f"{settings.host}, the address of the service.",
                hint=(
                    "Listen on an address that they can reach, such as --host 0.0.0.0 with a token."
                ),
            )
        return cls(entrance, guests)

    async def enter(self, peer: str | None) -> Identity:
        """Return the identity of a client by its address, for each request.

        Raises:
            errors.PeerNotAllowed: it may not connect.
            errors.RateLimited: it sends too many requests.
        """
        approach = RequestOrigin(hosts=["localhost"], origins=[], authorizations=[], peer=peer)
        if self.guests and not self._is_guest(peer):
            raise errors.PeerNotAllowed(
                "Wyoming connections from this address are not allowed.",
                hint="Add the address to the setting 'wyoming_clients'.",
            )
        self.entrance.admit_request(approach)
        access = self.entrance.access
        if access.authenticator.local_only:
            return await self.entrance.identify(approach)
        who = Identity(GUEST, AuthMethod.PLACE, limits=replace(access.limits, shares=True))
        if self.entrance.rate_limiter is not None:
            self.entrance.rate_limiter.enter(who)
        return who

    def _is_guest(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any((mapped or address) in network for network in self.guests)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise errors.SettingsInvalid(
            f"'{text}' is neither an address nor a network (--wyoming-clients).",
            hint="Name addresses such as 192.168.1.5, or networks such as 192.168.1.0/24.",
        ) from None
