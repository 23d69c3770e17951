"""The processor time of each test, its processes included, for `VIBEVOICE_TEST_CPU_TIMES=FILE`.

`python tests/support/cpu_time.py FILE` sums the lines by test file, dearest first."""

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path

import pytest
from late_files import WholeFile


class CpuTimes:
    """A pytest plugin that appends a line of JSON for each test: its id, seconds of processor
    time, seconds. Processes count when they have ended: those of a fixture with its last test."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measure one test with its fixtures."""
        cpu, started = _cpu_s(), time.monotonic()  # real time: measured, and judged by nobody
        result = yield
        if isinstance(item, WholeFile):
            return result
        # real time: the same
        line = [item.nodeid, round(_cpu_s() - cpu, 3), round(time.monotonic() - started, 3)]
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return result


def register(config: pytest.Config) -> None:
    """Register the plugin if the environment asks for it."""
    if path := os.environ.get("VIBEVOICE_TEST_CPU_TIMES"):
        config.pluginmanager.register(CpuTimes(Path(path).absolute()), "cpu-times")


def _cpu_s() -> float:
    return sum(os.times()[:4])  # of Windows without processes that have ended


def main(path: Path) -> None:
    """Print the sums."""
    files: defaultdict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for line in path.read_text("utf-8").splitlines():
        test, cpu, wall = json.loads(line)
        for name in (test.partition("::")[0], "all"):
            files[name] = [sum(pair) for pair in zip(files[name], (1, cpu, wall), strict=True)]
    for name, (tests, cpu, wall) in sorted(files.items(), key=lambda item: -item[1][1]):
        print(f"{cpu:9.1f} s cpu {wall:9.1f} s {tests:5.0f} tests  {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
