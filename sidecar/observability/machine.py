"""The machine and our process on it, as the system tells."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

from sidecar import clock


class Machine:
    """Asks for the share of the processor from one question to the next."""

    def __init__(self) -> None:
        self._before = 0.0, 0.0
        """The time and what the process had taken of a processor by then."""

    def facts(self) -> dict[str, Any]:
        """A snapshot: bytes, percent (of one processor), seconds since 1970."""
        import psutil

        process, memory = psutil.Process(), psutil.virtual_memory()
        with process.oneshot():
            used, held = process.cpu_times(), process.memory_info()
            threads, began = process.num_threads(), process.create_time()
        return {
            "timestamp": clock.wall(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "cpu_count": os.cpu_count() or 1,
            "load_avg": list(psutil.getloadavg()),
            "process": {
                "pid": process.pid,
                "cpu_percent": self._percent(used.user + used.system, began),
                "rss_bytes": held.rss,
                "vms_bytes": held.vms,
                "threads": threads,
            },
            "system": {
                "memory_total_bytes": memory.total,
                "memory_available_bytes": memory.available,
                "memory_percent": memory.percent,
            },
        }

    def _percent(self, used_s: float, began: float) -> float:
        """Since the last question; since the start of the process for the first."""
        now = time.monotonic()
        (before, used_before), self._before = self._before, (now, used_s)
        passed = now - before if before else clock.wall() - began
        return round(100 * (used_s - used_before) / passed, 1) if passed > 0 else 0.0


def resident_bytes(pid: int) -> int:
    """What a process of ours has in memory; 0 where it is gone."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
