"""Contract with the parent process: ready line, parent watch.

The watch does not use PR_SET_PDEATHSIG, which fires when the thread that spawned this process ends:
hosts spawn from the threads of a pool.

Hosts pipe standard output and mostly never read it, so output of a library must not fill the pipe.
After the ready line the descriptor leads to the null device.
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
"""Environment variables of hosts that expect their sidecar to end with them."""
PARENT_POLL_S = 0.5
PARENT_GONE_GRACE_S = 1.5
"""Time for an orderly shutdown after the host's end, in seconds; then the process exits at once."""


def parent_pid(asked: int | None, environment: Mapping[str, str]) -> int | None:
    """Return the process to watch: ``asked``, or the parent if a known host started this process.

    `None` if there is neither.
    """
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
        except OSError:  # an old kernel, or a sandbox
            await _poll_for_exit(pid)
            return
        try:
            await _readable(fd)
        finally:
            os.close(fd)
    else:
        await _poll_for_exit(pid)


async def wait_for_pipe_close(fd: int) -> None:
    """Return when the last writer has closed the pipe behind ``fd``."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        try:
            while os.read(fd, 1 << 12):
                pass
        except OSError:
            pass  # the descriptor is not open, so there is no writer
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
    """Poll a process by its identity (PID and start time), because PIDs are reused."""
    import psutil

    try:
        process = psutil.Process(pid)
        # The system has no notification here, so it is polled.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await asyncio.sleep(PARENT_POLL_S)
    except psutil.NoSuchProcess:
        return


def ready_line(
    *, port: int, url: str, version: str, pid: int, token: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return the line that reports that the service is ready; ``token`` only if the host asked the
    service to generate one."""
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
    """Return the line that reports that the service cannot start; the exit code follows."""
    return {
        "event": "fatal",
        "contract": CONTRACT,
        "code": error.code,
        "message": error.detail,
        "hint": error.hint,
    }


def write_parent_line(line: dict[str, Any]) -> None:
    """Write the line in ASCII, then redirect standard output to the null device."""
    if sys.stdout is None:  # standard output is not open; its number may belong to a socket
        return
    try:
        fd = sys.stdout.fileno()
        sys.stdout.flush()
        os.write(fd, (json.dumps(line, ensure_ascii=True) + "\n").encode())
        redirect_to_null(fd)
    except (OSError, ValueError):  # a host that closed the pipe does not read the line
        return


def redirect_to_null(fd: int) -> None:
    """Redirect a descriptor to the null device."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, fd)
    os.close(nowhere)
