"""The suite under what makes tests fail by chance: ``make test-stress RUNS=n``.

Each condition runs the fast suite ``n`` times, each time in another random order: on a quiet
machine, beside two busy loops, on one processor, and with a slow disk. With ``--shared``, as in CI,
each runs its share of the files, so that a round takes the time of one run; those of a turn
(turns.py), where one is told. The number of a run is
the seed of its order and chooses the shares; `--first` repeats it. What a machine does not
permit, as a slow disk without control groups, is run quietly. A table says how each run ended; the
output of each is in `LOGS`, and below the table if a test failed. The exit code is then 1.
"""

import argparse
import contextlib
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.turns import VARIABLE, files_of_tests, files_of_turn

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "build" / "stress"
BUSY_LOOPS = 2
DISK_WRITES_S, DISK_BYTES_S = 100, 4 << 20
"""Writes and bytes a second of the slow disk: those of a memory card."""
BLKIO, UNIFIED = Path("/sys/fs/cgroup/blkio"), Path("/sys/fs/cgroup")

Enter = Callable[[], None]
"""What a run's process does before it becomes pytest."""
Condition = Callable[[], AbstractContextManager[Enter]]


@contextlib.contextmanager
def quiet() -> Iterator[Enter]:
    """Nothing but the random order."""
    yield lambda: None


@contextlib.contextmanager
def busy() -> Iterator[Enter]:
    """Beside processes that always want a processor."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY_LOOPS)
    ]
    try:
        yield lambda: None
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@contextlib.contextmanager
def one_processor() -> Iterator[Enter]:
    """On one of the processors."""
    first = min(os.sched_getaffinity(0))
    yield lambda: os.sched_setaffinity(0, {first})


@contextlib.contextmanager
def slow_disk() -> Iterator[Enter]:
    """With few and slow writes to the disk of temporary files, by a control group.

    Raises:
        OSError: there are no control groups for disks, or this user must not make any.
    """
    device = os.stat(tempfile.gettempdir()).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    if BLKIO.is_dir():
        group = BLKIO / f"stress-{os.getpid()}"
        limits = {
            "blkio.throttle.write_iops_device": f"{number} {DISK_WRITES_S}",
            "blkio.throttle.write_bps_device": f"{number} {DISK_BYTES_S}",
        }
    else:
        group = UNIFIED / f"stress-{os.getpid()}"
        limits = {"io.max": f"{number} wiops={DISK_WRITES_S} wbps={DISK_BYTES_S}"}
    group.mkdir()
    try:
        for name, limit in limits.items():
            _write(group / name, limit)
        yield lambda: _write(group / "cgroup.procs", str(os.getpid()))
    finally:
        members = group / "cgroup.procs"
        left = members.read_text("utf-8").split() if members.exists() else []
        for process in left:  # by a test
            _write(group.parent / "cgroup.procs", process)
        group.rmdir()


def _write(file: Path, text: str) -> None:
    with file.open("r+", encoding="utf-8") as opened:  # of the kernel: never one that is made here
        opened.write(text)


CONDITIONS: dict[str, Condition] = {
    "random order": quiet,
    "two busy loops": busy,
    "one processor": one_processor,
    "slow disk": slow_disk,
}


def run(
    condition: str, number: int, processes: int, files: Sequence[str], log: Path
) -> tuple[str, list[str], float]:
    """Run the tests of these files, or all, once, with the output in ``log``; return pytest's last
    line, the tests that failed, and the seconds."""
    seed = f"--random-order-seed={number}"
    command = [sys.executable, "-m", "pytest", "-rfE", "-m", "not slow", "-n", str(processes)]
    command += ["--dist", "loadfile", "--random-order", seed, *files]
    started = time.monotonic()  # real time: a figure of the table
    note = ""
    try:
        code = _exit_code(command, log, CONDITIONS[condition])
    except (OSError, subprocess.SubprocessError) as error:
        note = f" (run quietly, because it is not permitted here: {error})"
        code = _exit_code(command, log, quiet)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    failed = [line for line in lines if re.match(r"(FAILED|ERROR) tests", line)]
    if code and not failed:
        failed = [f"pytest exited with {code}"]
    seconds = time.monotonic() - started  # real time: the same figure
    return (lines[-1].strip("= ") if lines else "nothing") + note, failed, seconds


def _exit_code(command: list[str], log: Path, condition: Condition) -> int:
    with condition() as enter, log.open("w", encoding="utf-8") as output:
        done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, preexec_fn=enter)
    return done.returncode


def main() -> int:
    """Run all conditions and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1)
    first = random.randrange(1000)
    parser.add_argument(
        "--first", type=int, default=first, help="number of the first run: its order"
    )
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=[*CONDITIONS])
    parser.add_argument("--shared", action="store_true", help="each runs its share of the files")
    given = parser.parse_args()
    turn = os.environ.get(VARIABLE)
    shared = sorted(files_of_turn(int(turn))) if turn else files_of_tests()
    LOGS.mkdir(parents=True, exist_ok=True)
    print("| condition | run | minutes | result |\n|---|---|---|---|", flush=True)
    failures, outputs = [], []
    for number in range(given.first, given.first + given.runs):
        for place, condition in enumerate(given.conditions):
            shares = len(given.conditions)
            files = shared[(place + number) % shares :: shares] if given.shared else []
            log = LOGS / f"{condition.replace(' ', '-')}-{number}.log"
            last, failed, seconds = run(condition, number, given.processes, files, log)
            failures += failed
            outputs += [log] if failed else []
            row = f"| {condition} | {number} | {seconds / 60:.1f} | {last} |"
            print("\n".join([row, *failed]), flush=True)
    for log in outputs:
        print(f"\n{log.name}:\n{log.read_text('utf-8', 'replace')}", flush=True)
    print(f"{len(failures)} failures; the output of each run is in {LOGS.relative_to(ROOT)}.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
