"""Functions of the service that are entered: by the event loop of a test, and by the transcriptions
of a worker process.

As a program it is such a worker: ``python entered_functions.py FILE``. Its last transcriptions
append what each entered to the file, a line of JSON for each.
"""

import json
import sys
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

PACKAGE = Path(__file__).resolve().parents[2] / "sidecar"


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
        sys.setprofile(self._see)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.setprofile(None)
        for code in self._codes:
            path = Path(code.co_filename)
            if path.is_relative_to(PACKAGE) and "<" not in code.co_name:
                file = path.relative_to(PACKAGE).as_posix()
                self.found.add(Entered(file, code.co_qualname))

    def _see(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            self._codes.add(frame.f_code)


def worker_command(file: Path) -> list[str]:
    """Return the command of a worker that appends to ``file``."""
    return [sys.executable, __file__, str(file)]


def of_worker(file: Path) -> list[set[Entered]]:
    """Return what each of a worker's transcriptions entered, in their order."""
    return [{Entered(*one) for one in json.loads(line)} for line in file.open()]


def main() -> None:
    """Be a worker."""
    sys.path[0] = str(PACKAGE.parent)
    from sidecar.workers import worker_main

    serve = worker_main._serve_call

    def traced(operations: Any, request: Any, requests: Any) -> None:
        if request.message["operation"] != "transcribe":
            serve(operations, request, requests)
            return
        with EnteredFunctions() as entered:
            serve(operations, request, requests)
        with Path(sys.argv[1]).open("a") as file:
            file.write(json.dumps(sorted(entered.found)) + "\n")

    worker_main._serve_call = traced
    worker_main.main()


if __name__ == "__main__":
    main()
