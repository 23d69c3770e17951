"""A listening socket that another opened for us: socket activation, as sd_listen_fds(3) has it.

Who connects before the service is up, or while it starts again, waits and is not refused.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from sidecar.errors import SettingsInvalid

_FIRST = 3
"""The descriptor; the protocol says so."""
_HINT = "One TCP socket (ListenStream=127.0.0.1:8765) is what it takes: deploy/systemd."


def take(environment: MutableMapping[str, str]) -> socket.socket | None:
    """The socket that was handed to this process, if one was. It is asked for once: what tells of
    it leaves the environment, and no child of ours gets either.

    Raises:
        errors.SettingsInvalid: there are several, or it is not TCP that is listened on.
    """
    whose, count, _ = (environment.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if whose != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise SettingsInvalid(f"{count} sockets were handed over.", hint=_HINT)
    try:
        sock = socket.socket(fileno=_FIRST)
    except OSError as error:
        raise SettingsInvalid(
            f"What was handed over is no socket: {error.strerror}.", hint=_HINT
        ) from None
    sock.set_inheritable(False)
    tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
    if not tcp or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise SettingsInvalid(
            "The socket that was handed over is not TCP that listens.", hint=_HINT
        )
    return sock


def address(sock: socket.socket) -> dict[str, str | int]:
    """Where it listens, as settings: what is asked of a client goes by that."""
    host, port, *_ = sock.getsockname()
    return {"host": str(host), "port": int(port)}
