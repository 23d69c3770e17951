"""A service whose clock a test puts ahead, so that nobody waits for what takes an hour."""

import sys
from pathlib import Path

from service_process import Server, new_file

AHEAD_S = 3601
_NAME = "vibevoice-asr"  # it can be forked as `preloaded_service` does
_FILE = "ahead"
"""In the service's home: for each of its bytes the clock is put ahead. Windows has no signals."""
_SCRIPT = """#!PYTHON
import _thread
import os
import pathlib
import runpy
import signal
import threading
import time

file = pathlib.Path(os.environ["TMPDIR"]).with_name("FILE")
monotonic, sleep, ahead_s = time.monotonic, time.sleep, 0


def put_ahead(*_):
    global ahead_s
    ahead_s = AHEAD_S * file.stat().st_size


def follow():
    size = 0
    while True:
        sleep(0.05)
        if file.exists() and file.stat().st_size > size:
            size = file.stat().st_size
            _thread.interrupt_main(signal.SIGFPE)  # the event loop wakes up, too


time.monotonic = lambda: monotonic() + ahead_s
signal.signal(signal.SIGFPE, put_ahead)
threading.Thread(target=follow, daemon=True).start()
runpy.run_module("sidecar.main", run_name="__main__")
"""


def clocked_command(folder: Path, ahead_s: float = AHEAD_S) -> list[str]:
    """The command of a service whose clock `put_ahead` puts ahead by ``ahead_s``; its script is put
    into the folder."""
    script = _SCRIPT.replace("PYTHON", sys.executable).replace("AHEAD_S", str(ahead_s))
    path = new_file(folder / _NAME, script.replace("FILE", _FILE), 0o755)
    return [sys.executable, str(path)] if sys.platform == "win32" else [str(path)]


def put_ahead(server: Server) -> None:
    """Have the seconds of its `clocked_command` go by on its clock, soon."""
    with (server.home / _FILE).open("ab") as file:
        file.write(b".")
