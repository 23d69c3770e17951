"""A service whose clock a test puts ahead, so that nobody waits for what takes an hour."""

import signal
import sys
from pathlib import Path

from service_process import Server, new_file

AHEAD_S = 3601
_NAME = "vibevoice-asr"  # it can be forked as `preloaded_service` does
_SCRIPT = """#!PYTHON
import runpy
import signal
import time

monotonic, ahead_s = time.monotonic, 0


def put_ahead(*_):
    global ahead_s
    ahead_s += AHEAD_S


time.monotonic = lambda: monotonic() + ahead_s
signal.signal(signal.SIGUSR1, put_ahead)
runpy.run_module("sidecar.main", run_name="__main__")
"""


def clocked_command(folder: Path, ahead_s: float = AHEAD_S) -> list[str]:
    """The command of a service whose clock `put_ahead` puts ahead by ``ahead_s``; its script is put
    into the folder."""
    script = _SCRIPT.replace("PYTHON", sys.executable).replace("AHEAD_S", str(ahead_s))
    return [str(new_file(folder / _NAME, script, 0o755))]


def put_ahead(server: Server) -> None:
    """Have the seconds of its `clocked_command` go by on its clock."""
    server.process.send_signal(signal.SIGUSR1)
