"""Ports bound before heavy imports."""

from __future__ import annotations

import errno
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from sidecar import errors
from sidecar.config.settings import ROLE_NODE, Settings
from sidecar.server.listeners import ProtocolListener

if TYPE_CHECKING:
    from sidecar.auth.authentication import AccessControl
    from sidecar.files import FileWatcher
    from sidecar.server.tls import ServerTls
    from sidecar.service.facade import Service

PROTOCOL_PORT_SETTINGS = ("grpc_port", "wyoming_port", "talk_ports")
"""Settings of ports at which something is heard."""
TALK_PORT_HINT = (
    "Stop the program that holds it, the demo itself perhaps: its page looks for no other. For a "
    "page that does, name another port with --talk-ports."
)


@dataclass(frozen=True, slots=True)
class ReservedPorts:
    """The ports beside the one of HTTP, each taken and not listened at."""

    grpc: socket.socket | None = None
    wyoming: socket.socket | None = None
    talk: socket.socket | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the ports that the settings name.

        Raises:
            errors.PortInUse: as `bind_port`.
            errors.SettingsInvalid: as `bind_port`, or the service has nobody to listen to there.
        """
        _check_role(settings)
        grpc = wyoming = talk = None
        if settings.grpc_port is not None:
            grpc = bind_port(settings.host, settings.grpc_port, "--grpc-port")
        if settings.wyoming_port is not None:
            wyoming = bind_port(settings.host, settings.wyoming_port, "--wyoming-port")
        if settings.talk_ports is not None:
            try:  # of the loopback, wherever else we are
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
            from sidecar.protocols.wyoming.server import WyomingServer
            from sidecar.protocols.wyoming.session import WyomingAllowlist

            found.append(
                WyomingServer(service, WyomingAllowlist.of(settings, entrance), self.wyoming)
            )
        if settings.talk_ports is not None and self.talk is not None:
            app = create_talk_app(service, entrance, settings.talk_ports.page)
            config = uvicorn_config(app, settings)
            found.append(SecondaryPort("talk_port", config, self.talk, TALK_PORT_HINT))
        return found


def _check_role(settings: Settings) -> None:
    """A node takes nothing in: what listens there would find no engine and no voice."""
    named = [name for name in PROTOCOL_PORT_SETTINGS if getattr(settings, name) is not None]
    if settings.role == ROLE_NODE and named:
        raise errors.SettingsInvalid(
            f"A service with the role 'node' accepts no requests, and {' and '.join(named)} "
            "would make it listen.",
            hint="Set that on the fronts instead, or omit the role.",
        )


def bind_port(host: str, port: int, flag: str = "--port") -> socket.socket:
    """A socket at the address, not listening yet; ``flag`` is what chooses another.

    Raises:
        errors.PortInUse: somebody else has the port.
        errors.SettingsInvalid: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is: without,
    # every answer on a kept connection waits 40 ms for the client's delayed acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # there it would let two servers share a port
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
