"""How long a host waits for the executable. Run ``python -m bench.cold_start DIST [--rounds 10]``.

DIST is the folder of `make exe`. From the spawn to the ready line on standard output, with the
embedded engine chosen and nothing loaded:

one-dir   DIST/vibevoice-asr: what is shipped. Goal: at most 1.5 times the source tree's.
source    ``python -m sidecar.main`` with this interpreter and cached bytecode.
one-file  DIST/vibevoice-asr-onefile (``ONEFILE=1 pyinstaller build_exe.spec``), where it was built:
          it unpacks itself first, and what it unpacked stays behind after a SIGKILL.

They take turns in one run, after a round that is thrown away: files are in the page cache. The
processes of each are counted, and what is left after a SIGKILL of the one that was spawned.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from bench import serving
from bench.serving import interleaved, median, table, verdict

GOAL = 1.5
LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Side:
    """One way to start it."""

    name: str
    command: Sequence[str]
    files: Sequence[Path]
    """What is shipped."""

    @property
    def megabytes(self) -> float:
        """Size on disk, in 10^6 bytes."""
        found = [path for one in self.files for path in (one, *one.rglob("*"))]
        return sum(path.lstat().st_size for path in found if path.is_file()) / 1e6


@dataclass(frozen=True, slots=True)
class Remains:
    """What a SIGKILL of the spawned process left: processes, and bytes in the temporary folder."""

    processes: int
    orphans: int
    megabytes: float


def sides(dist: Path) -> list[Side]:
    """What there is to start."""
    suffix = ".exe" if os.name == "nt" else ""
    one_dir, one_file = dist / "vibevoice-asr", dist / f"vibevoice-asr-onefile{suffix}"
    found = [
        Side("one-dir", [str(one_dir / f"vibevoice-asr{suffix}")], [one_dir]),
        Side("source", [sys.executable, "-m", "sidecar.main"], [serving.ROOT / "sidecar"]),
    ]
    if one_file.exists():
        found.append(Side("one-file", [str(one_file)], [one_file]))
    return found


class Start:
    """One start of one side; ended by its owner."""

    def __init__(self, side: Side, folder: Path) -> None:
        self.temp = folder / f"tmp-{time.monotonic_ns()}"
        self.temp.mkdir()
        self.port = serving.free_port()
        settings = {
            "PORT": str(self.port),
            "ENGINE": "moonshine",
            "LOG_LEVEL": "warning",
            "CONFIG": str(folder / "config.toml"),
            "DATA_DIR": str(folder / "data"),
        }
        env = serving.child_env(**{f"VIBEVOICE_{name}": value for name, value in settings.items()})
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            side.command,
            cwd=serving.ROOT,
            env={**env, "TMPDIR": str(self.temp)},
            stdin=subprocess.PIPE,  # held open: a child may take its end for its host's
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.ready_s = self._wait() - begun

    def _wait(self) -> float:
        """When the ready line came."""
        assert self.process.stdout is not None
        limit = threading.Timer(LIMIT_S, self.process.kill)
        limit.start()
        line = self.process.stdout.readline()
        now = time.perf_counter()
        limit.cancel()
        if not line or json.loads(line).get("event") != "ready":
            self.process.kill()
            raise RuntimeError(f"it did not start: {line!r}")
        return now

    def stop(self) -> None:
        """End it in order."""
        self.process.terminate()
        self.process.wait(LIMIT_S)
        self._close()

    def kill(self) -> Remains:
        """SIGKILL, and what is left after it; then that goes too."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        _, alive = psutil.wait_procs(family, 3)
        left = sum(path.stat().st_size for path in self.temp.rglob("*") if path.is_file())
        for process in alive:
            process.kill()
        self._close()
        return Remains(1 + len(family), len(alive), left / 1e6)

    def _close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def ready_s(side: Side, folder: Path) -> float:
    """Seconds of one start."""
    start = Start(side, folder)
    start.stop()
    return start.ready_s


def measure(dist: Path, rounds: int) -> None:
    """The table."""
    with serving.workshop() as folder:
        compared = sides(dist)
        work = {side.name: partial(ready_s, side, folder) for side in compared}
        taken = interleaved(rounds, work)
        remains = {side.name: Start(side, folder).kill() for side in compared}
    source = median(taken["source"])
    rows = []
    for side in compared:
        seconds, left = taken[side.name], remains[side.name]
        ratio = median(seconds) / source
        rows.append(
            (
                side.name,
                f"{median(seconds):.3f}",
                f"{min(seconds):.3f}",
                f"{max(seconds):.3f}",
                f"{ratio:.2f}",
                verdict(ratio, GOAL) if side.name == "one-dir" else "",
                f"{side.megabytes:.0f}",
                str(left.processes),
                f"{left.orphans} / {left.megabytes:.0f}",
            )
        )
    headers = (
        "build", "median s", "best", "worst", "of source", "goal", "MB on disk", "processes",
        "left by SIGKILL: processes / MB",
    )  # fmt: skip
    table(f"cold start: spawn to ready, {rounds} each in turn", headers, rows)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dist", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    words = parser.parse_args()
    print(serving.machine())
    measure(words.dist.resolve(), words.rounds)


if __name__ == "__main__":
    main()
