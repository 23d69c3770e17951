"""Owner of the port: another service of ours, or a foreign program."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

PROBE_TIMEOUT_S = 2.0
_PAUSE_S = 0.02
SECONDARY_PORT_FIELDS = ("grpc_port", "talk_port", "wyoming_port")
"""Fields of other ports in `/health` and the ready line."""
STOP_TIMEOUT_S = 20.0
"""A service stops within its grace period and a little more."""


@dataclass(frozen=True, slots=True)
class RunningService:
    """A service of ours that answers at a port."""

    port: int
    pid: int
    version: str
    stopping: bool = False
    """True if it is shutting down."""
    also: Mapping[str, Any] = field(default_factory=dict)
    """Its other ports, as the ready line has them."""

    def ends(self) -> bool:
        """Wait for its end; return whether it ends in time."""
        import psutil

        try:
            return _ended(psutil.Process(self.pid), STOP_TIMEOUT_S)
        except psutil.NoSuchProcess:
            return True

    def stop(self) -> bool:
        """Ask it to stop, then make it; False where that is not in our power.

        What it says of itself is only believed if that process does listen there.
        """
        import psutil

        try:
            process = psutil.Process(self.pid)
            if self.pid == os.getpid() or not listens_on(process, self.port):
                return False
            process.terminate()
            if _ended(process, STOP_TIMEOUT_S):
                return True
            process.kill()
            return _ended(process, PROBE_TIMEOUT_S)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def service_url(host: str, port: int, *, encrypted: bool = False) -> str:
    """The URL at which a service that listens on ``host`` answers this machine."""
    name, scheme = reachable_host(host), "https" if encrypted else "http"
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"


def reachable_host(host: str) -> str:
    """The name or number under which this machine reaches what listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


def find_service(host: str, port: int) -> RunningService | None:
    """The service of ours that listens there, with TLS or without; None if it is something else."""
    import http.client  # 10 ms that a start on a free port does not pay
    import ssl

    deadline = time.monotonic() + PROBE_TIMEOUT_S
    # Whoever has the port shows what certificate it likes: what it says of itself is checked else.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for connection in (
        http.client.HTTPConnection(reachable_host(host), port, timeout=PROBE_TIMEOUT_S),
        http.client.HTTPSConnection(
            reachable_host(host), port, timeout=PROBE_TIMEOUT_S, context=context
        ),
    ):
        try:
            connection.request("GET", "/health", headers={"Host": f"localhost:{port}"})
            body = json.loads(connection.getresponse().read(1 << 16))
            if time.monotonic() < deadline and isinstance(body["instance"], str):
                stopping = body.get("status") == "stopping"
                also = {name: body[name] for name in SECONDARY_PORT_FIELDS if name in body}
                return RunningService(port, int(body["pid"]), str(body["version"]), stopping, also)
        except TimeoutError:
            return None
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            pass
        finally:
            connection.close()
    return None


def _ended(process: psutil.Process, timeout_s: float) -> bool:
    """Return whether it ends in time; one that only waits for its parent to take note has ended."""
    import psutil

    deadline = time.monotonic() + timeout_s
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


def listens_on(process: psutil.Process, port: int) -> bool:
    """Return whether that process listens at ``port``; psutil's errors if it may not be asked."""
    import psutil

    return any(
        one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port
        for one in process.net_connections(kind="tcp")
    )
