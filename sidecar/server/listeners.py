"""Listening sockets of all protocols, socket activation.

Who connects before the service is up, or while it starts again, waits and is not refused.
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
    """A way in. `close` comes last, and alone where it did not start."""

    async def start(self) -> dict[str, Any]:
        """Serve from now on; what the ready line and `/health` say of it.

        Raises:
            errors.SidecarError: it cannot, such as `errors.PortInUse`.
        """
        ...

    def stop_accepting(self) -> None:
        """The service ends: who comes now is told so, who is being served goes on."""
        ...

    async def drain(self, grace_s: float) -> None:
        """Let who is being served hear its last words, for ``grace_s`` seconds at most."""
        ...

    async def close(self) -> None:
        """Serve nobody any more, and leave nothing behind."""
        ...


class ProtocolListeners:
    """All of them, begun in their order and ended in reverse. A fault of one at the end is in the
    log and keeps no other from ending."""

    def __init__(self, listeners: Sequence[ProtocolListener] = ()) -> None:
        self._waiting = list(listeners)
        self._started: list[ProtocolListener] = []

    async def start(self) -> dict[str, Any]:
        """Have all of them serve, or none; what is to be told of them.

        Raises:
            errors.SidecarError: one of them cannot serve.
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
        """The service ends."""
        for listener in self._started:
            try:
                listener.stop_accepting()
            except Exception:  # the others are to hear of it too
                log.exception("internal error while a listener stopped accepting")

    async def close(self, grace_s: float) -> None:
        """End all of them; who is being served has ``grace_s`` seconds for its last words."""
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
        """Those that the settings name.

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


_FIRST = 3
"""The descriptor; the protocol says so."""
_HINT = "One TCP socket (ListenStream=127.0.0.1:8765) is what it takes: deploy/systemd."


def take_activated_socket(environment: MutableMapping[str, str]) -> socket.socket | None:
    """The socket that was handed to this process, if one was. It is asked for once: what tells of
    it leaves the environment, and no child of ours gets either.

    Raises:
        errors.SettingsInvalid: there are several, or it is not TCP that is listened on.
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
    """Return the address of the socket as settings: access rules go by that."""
    host, port, *_ = sock.getsockname()
    return {"host": str(host), "port": int(port)}
