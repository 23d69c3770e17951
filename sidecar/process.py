"""Life as a process: logs, the port, the server loop, exit codes."""

from __future__ import annotations

import errno
import logging
import socket
import sys

from sidecar import errors
from sidecar.settings import Settings

EXIT_CODES: dict[str, int] = {  # sysexits.h
    errors.SettingsInvalid.code: 78,
    errors.PortInUse.code: 75,
    errors.EngineUnavailable.code: 69,
    errors.HubUnreachable.code: 69,
    **{kind.code: 66 for kind in errors.BadCheckpoint.__subclasses__()},
}
LOG_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"


def configure_logging(level: str) -> None:
    """Everything to stderr in UTF-8: a host may read it, and stdout is the host's."""
    if sys.stderr is not None and hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    logging.basicConfig(level=level.upper(), format=LOG_FORMAT)


def bind(host: str, port: int) -> socket.socket:
    """The listening socket.

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
        sock.listen(2048)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise errors.PortInUse(
                f"Port {port} on {host} is in use.",
                hint=f"Stop the program that holds it, or start with --port {port + 1}.",
            ) from None
        raise errors.SettingsInvalid(f"Cannot listen on {host}:{port}: {error.strerror}.") from None
    return sock


def serve(settings: Settings) -> None:
    """Serve until told to stop.

    Raises:
        errors.SidecarError: it cannot start; `EXIT_CODES` has the exit code.
    """
    configure_logging(settings.log_level)
    sock = bind(settings.host, settings.port)
    import uvicorn

    from sidecar.app import create_app

    app = create_app(settings)
    port = sock.getsockname()[1]
    logging.getLogger(__name__).info("serving on http://%s:%d", settings.host, port)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        log_level=settings.log_level,
        timeout_graceful_shutdown=10,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[sock])
