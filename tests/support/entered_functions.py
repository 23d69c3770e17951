"""Functions of the service that are entered: by the event loop of a test, and by a worker process.

As a program it is such a worker: ``python entered_functions.py FILE``. It appends what was entered
to the file, a line of JSON for each transcription, and one for each final of a live session: of all
threads, since the final before. The page of the architecture names the files.
"""

import json
import re
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "sidecar"
PAGE = ROOT / "docs" / "architecture.md"
TIMERS = {
    "DurationFile.run": "jobs/duration_prediction.py",
    "GpuMonitor.go_on": "gpu_memory/gpu_devices.py",
    "GpuMonitor._query": "gpu_memory/gpu_devices.py",
    "Heartbeat._ask": "workers/worker_process.py",
    "Heartbeat.stop": "workers/worker_process.py",  # before a new timer, once it came in a pause
    "ReadWatch.longest_s": "workers/worker_operations.py",  # the worker's part of a ping
    "SessionRegistry._watch_time_limits": "live/sessions/session_registry.py",
    "_LiveConnection.acknowledge": "api/live_routes.py",
}
"""Functions that timers enter, and their files. They and what they call come now and then, and are
on no path."""


class Entered(NamedTuple):
    """Function of the service: its file below `sidecar/`, and its name in it."""

    file: str
    name: str


class EnteredFunctions:
    """Functions that this thread enters within the context: each once, but for comprehensions and
    the like, which have no name."""

    def __init__(self) -> None:
        self.found: set[Entered] = set()
        self._codes: set[Any] = set()

    def __enter__(self) -> Self:
        sys.setprofile(self.see)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.setprofile(None)
        self.found = self.take()

    def see(self, frame: FrameType, event: str, argument: object) -> None:
        """Note a function that is entered, or a loop that goes on, as a profiler of a thread."""
        if event in ("call", "c_call") and frame.f_code not in self._codes and not by_timer(frame):
            self._codes.add(frame.f_code)

    def take(self) -> set[Entered]:
        """Return the functions since the last call of this."""
        codes, self._codes = self._codes, set()
        found = set[Entered]()
        for code in codes:
            path = Path(code.co_filename)
            if path.is_relative_to(PACKAGE) and "<" not in code.co_name:
                found.add(Entered(path.relative_to(PACKAGE).as_posix(), code.co_qualname))
        return found


def by_timer(frame: FrameType | None) -> bool:
    """Return whether a timer called this."""
    while frame is not None and frame.f_code.co_qualname not in TIMERS:
        frame = frame.f_back
    return frame is not None


def files_named(heading: str) -> set[str]:
    """Return the files of the service that a section of the page names."""
    section = PAGE.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    named = re.findall(r"`([a-z_/]+\.py)`", section)
    return {one for one in named if not one.startswith("tests/")}


def worker_command(file: Path) -> list[str]:
    """Return the command of a worker that appends to ``file``."""
    return [sys.executable, __file__, str(file)]


def of_worker(file: Path) -> list[set[Entered]]:
    """Return what the worker has appended, in its order; not a line that it is still writing."""
    *lines, _ = file.read_text(encoding="utf-8").split("\n") if file.exists() else [""]
    return [{Entered(*one) for one in json.loads(line)} for line in lines]


def main() -> None:
    """Be a worker."""
    sys.path[0] = str(PACKAGE.parent)
    from sidecar.interfaces import live_events
    from sidecar.workers import worker_main

    serve, to_wire, of_threads = worker_main.serve_call, live_events.to_wire, EnteredFunctions()

    def append(found: set[Entered]) -> None:
        with Path(sys.argv[1]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(sorted(found)) + "\n")

    def traced(operations: Any, request: Any) -> None:
        if request.message["operation"] != "transcribe":
            sys.setprofile(of_threads.see)
            serve(operations, request)
            return
        with EnteredFunctions() as entered:
            serve(operations, request)
        append(entered.found)

    def told(event: live_events.LiveEvent) -> dict[str, Any]:
        if isinstance(event, live_events.Final):
            append(of_threads.take())
        return to_wire(event)

    worker_main.serve_call, live_events.to_wire = traced, told
    threading.setprofile(of_threads.see)
    worker_main.main()


if __name__ == "__main__":
    main()
