"""Listening sockets of all protocols, socket activation, and the owner of a port in use.

The owner is another service of this program, or a foreign program.

With socket activation, a client that connects before the service is up, or during a restart, waits
and is not refused.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.limit_overrides import limit
from sidecar.plugin import ProtocolListener
from sidecar.plugins import enabled

if TYPE_CHECKING:
    import psutil


log = logging.getLogger(__name__)


BACKLOG = 2048
_FIRST_ACTIVATED_FD = 3
"""First descriptor that the protocol of socket activation passes."""
_ACTIVATION_HINT = "Pass one TCP socket (ListenStream=127.0.0.1:8765); see deploy/systemd."
PROBE_TIMEOUT_S = limit("port_probe", 2.0)
_EXIT_POLL_S = 0.02
STOP_TIMEOUT_S = limit("port_stop", 20.0)
"""Time to wait for the other service to stop, in seconds: its grace period with a margin."""


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
        fields: dict[str, Any] = {}
        try:
            for listener in self._waiting:
                self._started.append(listener)
                fields |= await listener.start()
        except BaseException:
            await self.close(0)
            raise
        return fields

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


def reserve_ports(settings: Settings) -> dict[str, socket.socket]:
    """Return the sockets of the ports beside HTTP's that the settings name, by their fields in the
    ready line, each bound and not listening.

    Raises:
        errors.PortInUse: as `bind_port`.
        errors.SettingsInvalid: as `bind_port`, or the service's role accepts no requests.
    """
    ports = [port for plugin in enabled(settings) for port in plugin.ports]
    addresses = [(port, at) for port in ports if (at := port.address(settings)) is not None]
    if settings.is_node and addresses:  # it has no live engine and no TTS engine
        named = " and ".join(port.setting for port, _ in addresses)
        raise errors.SettingsInvalid(
            f"A service with the role 'node' accepts no requests, and {named} "
            "would make it listen.",
            hint="Set that on the fronts instead, or omit the role.",
        )
    sockets = {}
    for port, (host, number) in addresses:
        try:
            sockets[port.field] = bind_port(host, number, f"--{port.setting.replace('_', '-')}")
        except errors.PortInUse as error:
            raise errors.PortInUse(error.detail, hint=port.hint or error.hint) from None
    return sockets


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
        if sys.platform == "win32":  # REUSEADDR there lets another program share the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        # Windows denies access to a port of another user's program, and to those that it reserves.
        denied = sys.platform == "win32" and error.errno == errno.EACCES
        if denied or error.errno == errno.EADDRINUSE:
            raise errors.PortInUse(
                f"Port {port} on {host} is in use{' or reserved by Windows' if denied else ''}.",
                hint=f"Stop the program that uses it, or start with {flag} {port + 1}.",
            ) from None
        raise errors.SettingsInvalid(f"Cannot listen on {host}:{port}: {error.strerror}.") from None
    return sock


def listen(sock: socket.socket, hint: str | None = None) -> None:
    """Listen on a bound socket. On Linux two can be bound to one port while neither listens.

    Raises:
        errors.PortInUse: another program listened first; ``hint``: the remedy.
        errors.SettingsInvalid: the system refuses.
    """
    host, port, *_ = sock.getsockname()
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise errors.SettingsInvalid(f"Cannot listen: {error.strerror}.") from None
        raise errors.PortInUse(f"Port {port} on {host} is in use.", hint=hint) from None


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
            f"Socket activation passed {count} sockets; one is supported.", hint=_ACTIVATION_HINT
        )
    with suppress(OSError):
        sock = socket.socket(fileno=_FIRST_ACTIVATED_FD)
        sock.set_inheritable(False)
        tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
        if tcp and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return sock
        sock.close()
    raise errors.SettingsInvalid(
        "What socket activation passed is not a listening TCP socket.", hint=_ACTIVATION_HINT
    )


@dataclass(frozen=True, slots=True)
class RunningService:
    """Another vibevoice-asr service that answers at a port."""

    port: int
    pid: int
    version: str
    stopping: bool = False
    """True if it is shutting down."""
    also: Mapping[str, Any] = field(default_factory=dict)
    """Its secondary ports, in the form of the ready line."""
    certificate: bytes | None = None
    """Its certificate (DER), of whose key its process has proved possession; `None` without TLS."""

    def ends(self) -> bool:
        """Wait for the end of the process; return whether it ends in time."""
        import psutil

        try:
            return _process_ended(psutil.Process(self.pid), STOP_TIMEOUT_S)
        except psutil.NoSuchProcess:
            return True

    def stop(self) -> bool:
        """Terminate the process, then kill it; return False if that is not permitted.

        The process ID comes from its own answer, so it is trusted only if that process listens on
        the port.
        """
        import psutil

        try:
            process = psutil.Process(self.pid)
            if self.pid == os.getpid() or not listens_on(process, self.port):
                return False
            process.terminate()
            if _process_ended(process, STOP_TIMEOUT_S):
                return True
            process.kill()
            return _process_ended(process, PROBE_TIMEOUT_S)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def service_url(host: str, port: int, *, encrypted: bool = False) -> str:
    """Return the URL at which this machine reaches a service that listens on ``host``."""
    name, scheme = reachable_host(host), "https" if encrypted else "http"
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"


def reachable_host(host: str) -> str:
    """Return the host name or address at which this machine reaches a listener on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


def find_service(host: str, port: int, within_s: float | None = None) -> RunningService | None:
    """Return the vibevoice-asr service at a port, with TLS or without; `None` if none answers
    ``within_s`` (default: `PROBE_TIMEOUT_S`)."""
    import http.client  # imported late: 10 ms that a start on a free port saves
    import ssl

    within_s = PROBE_TIMEOUT_S if within_s is None else within_s
    deadline = time.monotonic() + within_s
    # Any program can hold the port with any certificate, so its answer is checked elsewhere.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    here = reachable_host(host)
    for connection in (
        http.client.HTTPConnection(here, port, timeout=within_s),
        http.client.HTTPSConnection(here, port, timeout=within_s, context=context),
    ):
        try:
            connection.request("GET", "/health", headers={"Host": f"localhost:{port}"})
            sock = connection.sock
            peer = sock.getpeercert(True) if isinstance(sock, ssl.SSLSocket) else None
            body = json.loads(connection.getresponse().read(1 << 16))
            if time.monotonic() < deadline and isinstance(body["instance"], str):
                stopping = body.get("status") == "stopping"
                ports = [name for name in body if name.endswith("_port")]
                also = {name: body[name] for name in ("device", *ports) if name in body}
                pid, version = int(body["pid"]), str(body["version"])
                return RunningService(port, pid, version, stopping, also, peer)
        except TimeoutError:
            return None
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            pass
        finally:
            connection.close()
    return None


def _process_ended(process: psutil.Process, timeout_s: float) -> bool:
    """Return whether the process ends in time; a zombie has ended."""
    import psutil

    deadline = time.monotonic() + timeout_s
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(_EXIT_POLL_S)
    return True


def listens_on(process: psutil.Process, port: int) -> bool:
    """Return whether the process listens on ``port``; psutil raises if access is denied."""
    import psutil

    return any(
        one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port
        for one in process.net_connections(kind="tcp")
    )
