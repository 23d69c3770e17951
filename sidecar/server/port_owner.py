"""Owner of the port: another vibevoice-asr service, or a foreign program."""

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
"""Fields of the secondary ports in `/health` and in the ready line."""
STOP_TIMEOUT_S = 20.0
"""Time to wait for the other service to stop, in seconds: its grace period with a margin."""


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

    def ends(self) -> bool:
        """Wait for the end of the process; return whether it ends in time."""
        import psutil

        try:
            return _ended(psutil.Process(self.pid), STOP_TIMEOUT_S)
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
            if _ended(process, STOP_TIMEOUT_S):
                return True
            process.kill()
            return _ended(process, PROBE_TIMEOUT_S)
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


def find_service(host: str, port: int) -> RunningService | None:
    """Return the vibevoice-asr service at a port, with TLS or without; `None` if there is none."""
    import http.client  # imported late: 10 ms that a start on a free port saves
    import ssl

    deadline = time.monotonic() + PROBE_TIMEOUT_S
    # Any program can hold the port with any certificate, so its answer is checked elsewhere.
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
    """Return whether the process ends in time; a zombie has ended."""
    import psutil

    deadline = time.monotonic() + timeout_s
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


def listens_on(process: psutil.Process, port: int) -> bool:
    """Return whether the process listens on ``port``; psutil raises if access is denied."""
    import psutil

    return any(
        one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port
        for one in process.net_connections(kind="tcp")
    )
