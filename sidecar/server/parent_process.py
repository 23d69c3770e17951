"""Contract with the parent process: ready line, parent watch.

Not by PR_SET_PDEATHSIG: it fires when the thread that spawned us ends, and hosts spawn from the
threads of a pool.

Hosts pipe standard output and mostly never read it, so whatever a library might print there must
not fill the pipe: after the line the descriptor leads nowhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from sidecar import errors
from sidecar.version import CONTRACT

KNOWN_PARENT_VARIABLES = ("TRISPR_DEV_BUILD",)
"""Variables of hosts that expect their sidecar to go with them."""
PARENT_POLL_S = 0.5
PARENT_GONE_GRACE_S = 1.5
"""After the host's end an orderly end may take this long; then the process ends as it is."""


def parent_pid(asked: int | None, environment: Mapping[str, str]) -> int | None:
    """Return the process to watch: the named one, or our parent if a known host started us;
    None: none."""
    if asked is not None:
        return asked
    return os.getppid() if any(name in environment for name in KNOWN_PARENT_VARIABLES) else None


async def wait_for_exit(pid: int) -> None:
    """Return once the process ``pid`` has ended."""
    if sys.platform == "linux":
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        except OSError:  # an old kernel, a sandbox
            await _poll_for_exit(pid)
            return
        try:
            await _readable(fd)
        finally:
            os.close(fd)
    else:
        await _poll_for_exit(pid)


async def wait_for_pipe_close(fd: int) -> None:
    """Return once nobody can write to the pipe behind ``fd`` any more."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        try:
            while os.read(fd, 1 << 12):
                pass
        except OSError:
            pass  # it is not open: nobody holds the other end
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    await ended.wait()


async def _readable(fd: int) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)


async def _poll_for_exit(pid: int) -> None:
    """By its identity, not its number alone: numbers are given again."""
    import psutil

    try:
        process = psutil.Process(pid)
        # Nothing tells us here: numbers are looked at.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await asyncio.sleep(PARENT_POLL_S)
    except psutil.NoSuchProcess:
        return


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


def write_parent_line(line: dict[str, Any]) -> None:
    """Write the line, in ASCII, and close standard output to everybody else."""
    if sys.stdout is None:  # no such descriptor: it may be a socket's by now
        return
    try:
        fd = sys.stdout.fileno()
        sys.stdout.flush()
        os.write(fd, (json.dumps(line, ensure_ascii=True) + "\n").encode())
        redirect_to_null(fd)
    except (OSError, ValueError):  # a host that closed it does not want to know
        return


def redirect_to_null(fd: int) -> None:
    """Lead a descriptor to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, fd)
    os.close(nowhere)
