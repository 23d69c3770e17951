"""GPUs that NVML does not know, by torch: AMD's, with torch for ROCm, which calls them cuda, too.

To import torch takes seconds and hundreds of megabytes, and a query opens the device: a process
without torch asks a child, which stays for the next queries and ends with its parent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Timer
from typing import Any

from sidecar.child_processes import NO_WINDOW

ANSWER_LIMIT_S = 60.0
"""Seconds of a query, of which the first imports torch; a child that takes longer is killed."""
_PASSED = (
    *("PATH", "HOME", "XDG_", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHON"),
    *("SYSTEMROOT", "TEMP", "TMP", "USERPROFILE", "LOCALAPPDATA", "WIN_PD_OVERRIDE"),
    *("CUDA_VISIBLE_DEVICES", "HIP_", "HSA_", "ROCM_", "ROCR_"),
)
"""Beginnings of the variables that the child gets: those of Python, of folders and of ROCm; no
secrets."""


def torch_folders() -> list[Path]:
    """Return the folders of the installed torch, which is not imported."""
    torch = find_spec("torch")
    return [Path(folder) for folder in (torch and torch.submodule_search_locations) or ()]


@cache
def torch_is_for_rocm() -> bool:
    """Return whether the installed torch was built for AMD's GPUs, by its libraries."""
    return any(any(folder.glob("lib/*torch_hip.*")) for folder in torch_folders())


def describe_gpu(torch: Any) -> dict[str, Any] | None:
    """Return what torch says of its first GPU, as the fields of `gpu_devices.GpuMemory`; None if it
    finds none."""
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info(0)
    return {
        "name": torch.cuda.get_device_name(0),
        "used_mb": total - free >> 20,
        "total_mb": total >> 20,
        "bf16": torch.cuda.is_bf16_supported(),
        "by_torch": True,
    }


class TorchChild:
    """Process with torch that answers queries, started with the first one, and anew if it ends."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        """None before the first query."""
        self._lock = Lock()

    def ask(self, limit_s: float = ANSWER_LIMIT_S) -> dict[str, Any] | None:
        """Return what `describe_gpu` returns there; None if there is no answer in time."""
        with self._lock:
            if self.process is not None and self.process.poll() is not None:
                self._end()
            process = self.process = self.process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            limit = Timer(limit_s, process.kill)
            limit.start()
            try:
                process.stdin.write("\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except OSError:
                answer = ""
            finally:
                limit.cancel()
            if not answer:  # it ends, although `poll` may not say so yet
                self._end()
                return None
            try:
                found: dict[str, Any] | None = json.loads(answer)
            except ValueError:
                return None
            return found

    def close(self) -> None:
        """End the process; the next query starts another."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()  # closes its pipes
            self.process = None

    @staticmethod
    def _start() -> subprocess.Popen[str]:
        here = str(Path(__file__).resolve().parents[2])
        passed = {name: one for name, one in os.environ.items() if name.upper().startswith(_PASSED)}
        paths = os.pathsep.join(filter(None, [here, passed.get("PYTHONPATH")]))
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __spec__.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**passed, "PYTHONPATH": paths},
            creationflags=NO_WINDOW,
        )


CHILD = TorchChild()


def read_torch_gpu() -> dict[str, Any] | None:
    """Return what torch for ROCm says of its first GPU (`describe_gpu`); None if that is not
    installed, finds none, or does not answer."""
    if not torch_is_for_rocm():
        return None
    torch = sys.modules.get("torch")
    return CHILD.ask() if torch is None else describe_gpu(torch)


def main() -> None:
    """Answer a line with a line until the input ends."""
    for _ in sys.stdin:
        import torch

        print(json.dumps(describe_gpu(torch)), flush=True)


if __name__ == "__main__":
    main()
