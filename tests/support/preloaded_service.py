"""A process that has imported the service and forks itself for each one that a test starts.

What a service imports costs more than a second of processor time. A forked one has the same
environment, folder, streams and exit code as one that is started anew; how hosts start it is tried
by tests/server.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import psutil

MODULES = ("sidecar.cli", "sidecar.server.app", "sidecar.server.service_process", "uvicorn")
"""What every service imports before it answers."""
_LARGEST_MESSAGE = 1 << 20
_POLL_S = 0.02


class ForkedService(psutil.Process):
    """A service that another process has forked, as `psutil.Popen`."""

    returncode: int | None = None

    def __init__(self, forker: Forker, pid: int) -> None:
        super().__init__(pid)
        self._forker = forker

    def poll(self) -> int | None:
        """Return its exit code, if it has ended; a signal's is negative."""
        if self.returncode is None:
            self.returncode = self._forker.exit_code(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end, and return its exit code.

        Raises:
            psutil.TimeoutExpired: it runs for longer.
        """
        deadline = time.monotonic() + (1e9 if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() >= deadline:
                raise psutil.TimeoutExpired(timeout or 0.0, self.pid)
            time.sleep(_POLL_S)
        return code


class Forker:
    """The process that forks, started with the first service."""

    def __init__(self, folder: Path) -> None:
        """``folder``: where services start."""
        self.folder = folder
        self.cpu_s = 0.0
        """Processor time of all services that have ended, with their workers."""
        self._lock = threading.Lock()
        self._control: socket.socket | None = None

    def start(self, env: Mapping[str, str], errors: IO[bytes]) -> ForkedService:
        """Start a service with this environment; ``errors`` is its standard error."""
        pid = self._ask({"env": dict(env)}, errors.fileno())
        return ForkedService(self, pid)

    def exit_code(self, pid: int) -> int | None:
        """Return the exit code of one that has ended."""
        ended = self._ask({"ended": pid})
        if ended is None:
            return None
        code, cpu_s = ended
        self.cpu_s += cpu_s
        return int(code)

    def _ask(self, message: dict[str, Any], *files: int) -> Any:
        with self._lock:
            if self._control is None:
                self._control = self._begun()
            socket.send_fds(self._control, [json.dumps(message).encode()], files)
            return json.loads(self._control.recv(_LARGEST_MESSAGE))

    def _begun(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                cwd=self.folder,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        return ours


def _serve(control: socket.socket) -> None:
    """Fork for each request until the other end is closed; return in each child."""
    while True:
        data, files, *_ = socket.recv_fds(control, _LARGEST_MESSAGE, 1)
        if not data:
            os._exit(0)
        message = json.loads(data)
        if "env" in message:
            pid = os.fork()
            _ENDED.pop(pid, None)  # a number that is given again
            if not pid:
                control.close()
                os.dup2(files[0], 2)
                os.close(files[0])
                os.environ.clear()
                os.environ.update(message["env"])
                return
            os.close(files[0])
            answer: object = pid
        else:
            answer = _ended(message["ended"])
        control.send(json.dumps(answer).encode())


_ENDED: dict[int, tuple[int, float]] = {}
"""Exit code and processor time of children that have ended: several threads may ask for one."""


def _ended(pid: int) -> tuple[int, float] | None:
    """Return the exit code of a child that has ended, and its processor time in seconds."""
    if pid not in _ENDED:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            _ENDED[pid] = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
    return _ENDED.get(pid)


def main() -> None:
    """Import what services do, fork, and be the service in each child."""
    import importlib
    import random
    import runpy

    sys.path[0] = os.getcwd()  # as `python -m`
    for name in MODULES:
        importlib.import_module(name)
    try:
        _serve(socket.socket(fileno=int(sys.argv[1])))
    except KeyboardInterrupt:  # the whole terminal's
        os._exit(130)
    random.seed()
    time.tzset()
    sys.argv = ["sidecar.main"]
    runpy.run_module("sidecar.main", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
