"""The processor that figures are taken on: its instruction sets, and how much one core of it does.

CPU-seconds of two machines are compared by what a core does in them: `gigaflops` multiplies two
float32 matrices of 512 by 512, which are in the cache, on one thread, in a process of its own.

    python -m bench.processor
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

SIZE, ROUNDS = 512, 60
X86 = ["avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"]
ARM = ["asimd", "asimddp", "i8mm", "sve"]
ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Those of `X86` and `ARM` that the processor has; none where the system has no such file."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return []
    flags = {
        flag
        for line in lines
        if line.partition(":")[0].strip() in ("flags", "Features")
        for flag in line.partition(":")[2].split()
    }
    return [flag for flag in X86 + ARM if flag in flags]


def gigaflops() -> float:
    """Billions of multiplications and additions that one core does in a second of its time."""
    measured = [sys.executable, "-m", "bench.processor", "--here"]
    done = subprocess.run(
        measured, check=True, capture_output=True, text=True, env={**os.environ, **ONE_THREAD}
    )
    return float(done.stdout)


def _gigaflops_here() -> float:
    """The best of `ROUNDS`: what else runs on the machine makes a round slower, never faster."""
    import numpy as np

    matrix = np.random.default_rng(0).random((SIZE, SIZE), np.float32)
    times_s = []
    for _ in range(ROUNDS):
        begun = time.thread_time()
        matrix @ matrix
        times_s.append(time.thread_time() - begun)
    return 2 * SIZE**3 / min(times_s) / 1e9


def processor_line(core_gigaflops: float) -> str:
    """What stands above a table of CPU-seconds."""
    sets = " ".join(instruction_sets()) or "not known"
    return f"Processor: {sets}; one core does {core_gigaflops:.0f} GFLOP/s (float32)."


if __name__ == "__main__":
    print(_gigaflops_here() if "--here" in sys.argv[1:] else processor_line(gigaflops()))
