"""How long a host waits for the executable. Run ``python -m bench.cold_start DIST [--rounds 10]``.

DIST is the folder of `make exe`. From the spawn to the ready line on standard output, with the
embedded engine chosen and nothing loaded:

one-dir   DIST/vibevoice-asr: what is shipped. Goal: at most 1.3 times the source tree's.
source    ``python -m sidecar.main`` with this interpreter and cached bytecode.

They take turns in one run, after a round that is thrown away: files are in the page cache.
"""

import argparse
import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench import serving
from bench.serving import interleaved, median, table, verdict

GOAL = 1.3
LIMIT_S = 120.0


def ready_s(command: Sequence[str], folder: Path) -> float:
    """Seconds of one start.

    Raises:
        RuntimeError: it did not start.
    """
    settings = {
        "port": serving.free_port(),
        "engine": "moonshine",
        "log_level": "warning",
        "config": folder / "config.toml",
        "data_dir": folder / "data",
    }
    begun = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=serving.ROOT,
        env=serving.service_env(settings),
        stdin=subprocess.PIPE,  # held open: a child may take its end for its host's
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        limit = threading.Timer(LIMIT_S, process.kill)
        limit.start()
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - begun
        limit.cancel()
        if not line or json.loads(line).get("event") != "ready":
            process.kill()
            raise RuntimeError(f"it did not start: {line!r}")
        process.terminate()
    return seconds


def measure(dist: Path, rounds: int) -> None:
    """The table."""
    suffix = ".exe" if os.name == "nt" else ""
    program = dist / "vibevoice-asr" / f"vibevoice-asr{suffix}"
    with serving.workshop() as folder:
        sides = {
            "one-dir": partial(ready_s, [str(program)], folder),
            "source": partial(ready_s, serving.COMMAND, folder),
        }
        taken = interleaved(rounds, sides)
    rows = []
    for name, seconds in taken.items():
        ratio = median(seconds) / median(taken["source"])
        cells = (f"{one:.3f}" for one in (median(seconds), min(seconds), max(seconds)))
        goal = verdict(ratio, GOAL) if name == "one-dir" else ""
        rows.append((name, *cells, f"{ratio:.2f}", goal))
    headers = ("build", "median s", "best", "worst", "of source", "goal")
    table(f"cold start: spawn to ready, {rounds} each in turn", headers, rows)
    size = sum(path.lstat().st_size for path in program.parent.rglob("*") if path.is_file())
    print(f"\non disk: {size / 1e6:.0f} MB")


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
