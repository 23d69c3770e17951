"""Connections that a listening socket accepts, on every system and its event loop."""

import asyncio
import errno
import itertools
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

from sidecar import errors
from sidecar.observability.logs import REPEAT_MUTE_S

log = logging.getLogger(__name__)

ACCEPTS_AT_ONCE = 32
"""Connections that are accepted in one turn of the event loop: then the others are served."""
ACCEPT_RETRY_S = 1.0
"""Pause if the system cannot accept a connection, as it has no descriptor or memory left."""
_ERROR_INVALID_HANDLE, _WSAEINVAL = 6, 10022
_LISTENER_ERRORS = {
    *(errno.EBADF, errno.EINVAL, errno.ENOTSOCK),
    *(_ERROR_INVALID_HANDLE, _WSAEINVAL),
}
"""Errors of a socket that listens no more, because something else has closed it."""


async def accept_all(
    listener: socket.socket,
    accepted: Callable[[socket.socket, str], None],
    retry_s: float = ACCEPT_RETRY_S,
) -> None:
    """Call ``accepted`` with each connection and the address of its client. A connection sends at
    once, without Nagle's algorithm. ``retry_s``: as `ACCEPT_RETRY_S`.

    Returns once the socket listens no more.
    """
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    if sys.platform == "win32":
        loop.set_exception_handler(_report_fault)
    for count in itertools.count(1):
        if count % ACCEPTS_AT_ONCE == 0:
            await asyncio.sleep(0)
        try:
            sock, address = await loop.sock_accept(listener)
            if address:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                accepted(sock, address[0])
            else:  # macOS, if the client has disconnected already
                sock.close()
        except OSError as error:
            # Windows' own number: one client's disconnection has the `errno` of a closed listener.
            if (getattr(error, "winerror", None) or error.errno) in _LISTENER_ERRORS:
                log.critical("no connection can be accepted any more: %s", error.strerror)
                return
            # Other errors concern one connection, as those of a firewall (accept(2)).
            if error.errno in errors.BUSY_ERRNOS:
                muted = {"mute_s": REPEAT_MUTE_S}
                log.warning("no connection can be accepted: %s", error.strerror, extra=muted)
                await asyncio.sleep(retry_s)
        except Exception:
            log.exception("a connection was not accepted", extra={"mute_s": REPEAT_MUTE_S})


def _report_fault(loop: asyncio.AbstractEventLoop, fault: dict[str, Any]) -> None:
    """Log what asyncio reports, but for connections that were not accepted: on Windows it has each
    in a task of its own, too, which nobody asks for its result."""
    work = fault["future"].get_coro() if isinstance(fault.get("future"), asyncio.Task) else None
    if getattr(work, "__name__", "") != "accept_coro":
        loop.default_exception_handler(fault)
