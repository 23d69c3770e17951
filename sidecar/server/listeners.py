"""Listening sockets of all protocols, and socket activation.

With socket activation, a client that connects before the service is up, or during a restart, waits
and is not refused.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Awaitable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from sidecar import errors
from sidecar.config.settings import ROLE_NODE, Settings

if TYPE_CHECKING:
    from sidecar.auth.authentication import AccessControl
    from sidecar.files import FileWatcher
    from sidecar.server.tls import ServerTls
    from sidecar.service.facade import Service

log = logging.getLogger(__name__)


class ProtocolListener(Protocol):
    """Listener of a protocol. `close` is called last, also if `start` was not called or failed."""

    async def start(self) -> dict[str, Any]:
        """Start to serve; return the fields for the ready line and `/health`.

        Raises:
            errors.SidecarError: it cannot start, such as `errors.PortInUse`.
        """
        ...

    def stop_accepting(self) -> None:
        """Refuse new clients with an error, because the service shuts down; current clients
        continue."""
        ...

    async def drain(self, grace_s: float) -> None:
        """Let current clients receive their last messages, for at most ``grace_s`` seconds."""
        ...

    async def close(self) -> None:
        """Stop serving and release all resources."""
        ...


class ProtocolListeners:
    """All listeners, started in order and closed in reverse. If one fails to close, the error is
    logged and the others are still closed."""

    def __init__(self, listeners: Sequence[ProtocolListener] = ()) -> None:
        self._waiting = list(listeners)
        self._started: list[ProtocolListener] = []

    async def start(self) -> dict[str, Any]:
        """Start all listeners or none; return their combined fields.

        Raises:
            errors.SidecarError: a listener cannot start.
        """
        told: dict[str, Any] = {}
        try:
            for listener in self._waiting:
                self._started.append(listener)
                told |= await listener.start()
        except BaseException:
            await self.close(0)
            raise
        return told

    def stop_accepting(self) -> None:
        """Let all listeners refuse new clients."""
        for listener in self._started:
            try:
                listener.stop_accepting()
            except Exception:  # the others still have to be notified
                log.exception("internal error while a listener stopped accepting")

    async def close(self, grace_s: float) -> None:
        """Close all listeners; current clients have ``grace_s`` seconds for their last messages."""
        while self._started:
            listener = self._started.pop()
            if grace_s > 0:
                await _ended(listener.drain(grace_s))
            await _ended(listener.close())


async def _ended(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception:
        log.exception("internal error while a listener was closed")


PROTOCOL_PORT_SETTINGS = ("grpc_port", "wyoming_port", "talk_ports")
"""Settings of ports that accept requests."""
TALK_PORT_HINT = (
    "Stop the program that uses it, perhaps the demo itself: its page connects to no other port. "
    "For another page, choose another port with --talk-ports."
)


@dataclass(frozen=True, slots=True)
class ReservedPorts:
    """Sockets of the ports beside HTTP's, each bound and not listening."""

    grpc: socket.socket | None = None
    wyoming: socket.socket | None = None
    talk: socket.socket | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Bind the ports that the settings name.

        Raises:
            errors.PortInUse: as `bind_port`.
            errors.SettingsInvalid: as `bind_port`, or the service's role accepts no requests.
        """
        _check_role(settings)
        grpc = wyoming = talk = None
        if settings.grpc_port is not None:
            grpc = bind_port(settings.host, settings.grpc_port, "--grpc-port")
        if settings.wyoming_port is not None:
            wyoming = bind_port(settings.host, settings.wyoming_port, "--wyoming-port")
        if settings.talk_ports is not None:
            try:  # always on the loopback
                talk = bind_port("127.0.0.1", settings.talk_ports.wire)
            except errors.PortInUse as error:
                raise errors.PortInUse(error.detail, hint=TALK_PORT_HINT) from None
        return cls(grpc, wyoming, talk)

    def listeners(
        self, service: Service, entrance: AccessControl, watch: FileWatcher, tls: ServerTls | None
    ) -> list[ProtocolListener]:
        """Return the listeners of these ports.

        Raises:
            errors.SettingsInvalid: settings contradict each other.
        """
        from sidecar.server.app import create_listeners, create_talk_app
        from sidecar.server.http_server import SecondaryPort, uvicorn_config

        settings, pair = service.settings, tls.pair if tls else None
        found: list[ProtocolListener] = []
        found += create_listeners(settings, service, entrance, watch, self.grpc, pair)
        if self.wyoming is not None:
            from sidecar.protocols.wyoming.server import WyomingAllowlist, WyomingServer

            found.append(
                WyomingServer(service, WyomingAllowlist.of(settings, entrance), self.wyoming)
            )
        if settings.talk_ports is not None and self.talk is not None:
            app = create_talk_app(service, entrance, settings.talk_ports.page)
            config = uvicorn_config(app, settings)
            found.append(SecondaryPort("talk_port", config, self.talk, TALK_PORT_HINT))
        return found


def _check_role(settings: Settings) -> None:
    """Refuse ports for a node: it accepts no requests, and has no live engine and no TTS engine."""
    named = [name for name in PROTOCOL_PORT_SETTINGS if getattr(settings, name) is not None]
    if settings.role == ROLE_NODE and named:
        raise errors.SettingsInvalid(
            f"A service with the role 'node' accepts no requests, and {' and '.join(named)} "
            "would make it listen.",
            hint="Set that on the fronts instead, or omit the role.",
        )


def bind_port(host: str, port: int, flag: str = "--port") -> socket.socket:
    """Return a socket bound to the address, not listening yet; ``flag``: the option that chooses
    another port.

    Raises:
        errors.PortInUse: another program has the port.
        errors.SettingsInvalid: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only if the protocol is given here. Otherwise every answer
    # on a kept connection waits 40 ms for the client's delayed acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # on Windows it would let two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise errors.PortInUse(
                f"Port {port} on {host} is in use.",
                hint=f"Stop the program that uses it, or start with {flag} {port + 1}.",
            ) from None
        raise errors.SettingsInvalid(f"Cannot listen on {host}:{port}: {error.strerror}.") from None
    return sock


_FIRST = 3
"""First descriptor that the protocol of socket activation passes."""
_HINT = "Pass one TCP socket (ListenStream=127.0.0.1:8765); see deploy/systemd."


def take_activated_socket(environment: MutableMapping[str, str]) -> socket.socket | None:
    """Return the socket passed by socket activation, `None` if there is none.

    It can be taken once: its variables are removed from the environment, and child processes
    inherit neither them nor the socket.

    Raises:
        errors.SettingsInvalid: there are several sockets, or it is not a listening TCP socket.
    """
    whose, count, _ = (environment.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if whose != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise errors.SettingsInvalid(
            f"Socket activation passed {count} sockets; one is supported.", hint=_HINT
        )
    try:
        sock = socket.socket(fileno=_FIRST)
    except OSError as error:
        raise errors.SettingsInvalid(
            f"The descriptor of socket activation is not a socket: {error.strerror}.", hint=_HINT
        ) from None
    sock.set_inheritable(False)
    tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
    if not tcp or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise errors.SettingsInvalid(
            "The socket of socket activation is not a listening TCP socket.", hint=_HINT
        )
    return sock


def socket_address(sock: socket.socket) -> dict[str, str | int]:
    """Return the address of the socket as settings: access rules depend on the settings."""
    host, port, *_ = sock.getsockname()
    return {"host": str(host), "port": int(port)}
