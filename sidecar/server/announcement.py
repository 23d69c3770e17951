"""What the host learns on standard output: one line, once. Then it is silent for ever.

Hosts pipe standard output and mostly never read it, so whatever a library might print there must
not fill the pipe: after the line the descriptor leads nowhere.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from sidecar import errors
from sidecar.version import CONTRACT


def ready_line(
    *, port: int, url: str, version: str, pid: int, token: str | None = None, **more: Any
) -> dict[str, Any]:
    """It can serve now; ``token`` only where the host asked for one to be made."""
    line = {
        "event": "ready",
        "contract": CONTRACT,
        "port": port,
        "url": url,
        "version": version,
        "pid": pid,
        **more,
    }
    return line if token is None else {**line, "token": token}


def fatal_line(error: errors.SidecarError) -> dict[str, Any]:
    """It cannot start; the exit code follows."""
    return {
        "event": "fatal",
        "contract": CONTRACT,
        "code": error.code,
        "message": error.detail,
        "hint": error.hint,
    }


def announce(line: dict[str, Any]) -> None:
    """Write the line, in ASCII, and close standard output to everybody else."""
    if sys.stdout is None:  # no such descriptor: it may be a socket's by now
        return
    try:
        fd = sys.stdout.fileno()
        sys.stdout.flush()
        os.write(fd, (json.dumps(line, ensure_ascii=True) + "\n").encode())
        silence(fd)
    except (OSError, ValueError):  # a host that closed it does not want to know
        return


def silence(fd: int) -> None:
    """Lead a descriptor to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, fd)
    os.close(nowhere)
