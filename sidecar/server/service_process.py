"""Service process: ready line, watch of the parent process, limit of file descriptors.

The watch does not use PR_SET_PDEATHSIG, which fires when the thread that spawned this process ends:
hosts spawn from the threads of a pool.

Hosts pipe standard output and mostly never read it, so output of a library must not fill the pipe.
After the ready line the descriptor leads to the null device.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from sidecar import errors, files
from sidecar.config.settings import Settings
from sidecar.server.listeners import service_url
from sidecar.version import CONTRACT, __version__

MACOS_OPEN_MAX = 10_240
"""OPEN_MAX of macOS: its limit "infinite" cannot be set."""
KNOWN_PARENT_VARIABLES = ("TRISPR_DEV_BUILD",)
"""Environment variables of hosts that expect their sidecar to end with them."""
_handlers: list[object] = []
"""What Windows calls as long as this process runs."""
PARENT_POLL_S = 0.5
PARENT_GONE_GRACE_S = 1.5
"""Time for an orderly shutdown after the host's end, in seconds; then the process exits at once."""


def raise_fd_limit() -> None:
    """Raise the limit of file descriptors to the highest that the system allows.

    The usual limit of 1,024 is for programs that use `select`; here every client that follows a job
    needs a descriptor. Child processes inherit the limit. Windows has none.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (most, MACOS_OPEN_MAX):
        if soft in (limit, resource.RLIM_INFINITY) or soft > limit > 0:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
        except (ValueError, OSError):
            continue
        return


def fd_limit() -> int | None:
    """Return the limit of file descriptors; `None` if there is no limit."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def parent_pid(asked: int | None, environment: Mapping[str, str]) -> int | None:
    """Return the process to watch: ``asked``, or the parent if a known host started this process.

    `None` if there is neither.
    """
    if asked is not None:
        return asked
    return os.getppid() if any(name in environment for name in KNOWN_PARENT_VARIABLES) else None


async def wait_for_exit(pid: int) -> None:
    """Return once the process ``pid`` has ended."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):  # it has ended, or an old kernel, or a sandbox
            fd, loop, ended = os.pidfd_open(pid), asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(fd, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(fd)
                os.close(fd)
            return
    await _poll_for_exit(pid)


async def wait_for_pipe_close(fd: int) -> None:
    """Return when the last writer has closed the pipe behind ``fd``."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        files.wait_for_writers(fd)
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    await ended.wait()


async def _poll_for_exit(pid: int) -> None:
    """Poll a process by its identity (PID and start time), because PIDs are reused."""
    import psutil

    process: psutil.Process | None = None
    while True:  # the system has no notification here
        try:
            process = process or psutil.Process(pid)
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        except (psutil.AccessDenied, OSError):
            pass  # it runs, with more rights; or no descriptor is left to look with
        await asyncio.sleep(PARENT_POLL_S)


def handle_console_events(stop: Callable[[], None], end: Callable[[], None]) -> None:
    """On Windows, call ``stop`` at Ctrl-Break, and ``end`` when the console is closed or the user
    logs off, each in a thread of the system's. Python itself handles Ctrl-C."""
    if sys.platform == "win32":
        import ctypes

        def handle(event: int) -> int:
            if event == signal.CTRL_C_EVENT:
                return 0
            if event == signal.CTRL_BREAK_EVENT:
                stop()
                return 1
            end()
            threading.Event().wait()  # the system ends the process when this returns
            return 1

        _handlers.append(ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_ulong)(handle))
        ctypes.WinDLL("kernel32").SetConsoleCtrlHandler(_handlers[-1], True)


def ready_line(settings: Settings, port: int, pid: int, **more: Any) -> dict[str, Any]:
    """Return the line that reports that the service is ready."""
    return {
        "event": "ready",
        "contract": CONTRACT,
        "port": port,
        "url": service_url(settings.host, port, encrypted=settings.encrypted),
        "version": __version__,
        "pid": pid,
        **more,
    }


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
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, fd)
        os.close(nowhere)
    except (OSError, ValueError):  # a host that closed the pipe does not read the line
        return
