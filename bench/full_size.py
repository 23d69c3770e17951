"""The released size on a CPU: does it load without a second copy, hear, write?

``python -m bench.full_size --weights DIR [--precision bf16]``: 8.33 billion random weights (16.7
GB, written to DIR the first time, by `bench.vibevoice_random_weights`), the product's loader and
`VibeVoiceModel`. They say nothing; what counts is memory and time. The weights are mapped from
their file where nothing changes them, so what the process holds of its own is beside them. Linux:
it reads /proc.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from bench import vibevoice_random_weights
from bench.serving import machine, table
from sidecar.engines.vibevoice.vibevoice_model import SAMPLE_RATE, VibeVoiceModel, load_vibevoice
from sidecar.interfaces.engine_interface import MemoryPlan, Precision

TOKENS = 8


def held() -> dict[str, float]:
    """GB that this process holds: of its own, of files, and the most it ever held."""
    names = {"RssAnon": "own", "RssFile": "mapped files", "VmHWM": "peak, both"}
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.split(":") for line in lines)
    return {names[key]: int(rest.split()[0]) * 1024 / 1e9 for key, rest in pairs if key in names}


def main() -> None:
    """Write what is missing, load, hear five seconds, write some tokens."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True, help="folder for 16.7 GB")
    parser.add_argument("--precision", choices=("bf16", "int8", "int4"), default="bf16")
    parser.add_argument("--seconds", type=float, default=5.0, help="of audio")
    given = parser.parse_args()
    if not sys.platform.startswith("linux"):
        parser.error("memory is read from /proc: Linux only")
    torch.set_num_threads(1)
    print(machine())
    if not (given.weights / "model.safetensors.index.json").exists():
        vibevoice_random_weights.write(given.weights, vibevoice_random_weights.SIZES["full"], "cpu")
    before, begun = held(), time.perf_counter()
    model = VibeVoiceModel(
        load_vibevoice(given.weights, Precision(given.precision), torch.device("cpu"))
    )
    loaded, after = time.perf_counter() - begun, held()
    noise = np.random.default_rng(1).standard_normal(round(given.seconds * SAMPLE_RATE))
    plan = MemoryPlan(encoder_chunk_s=8 / 3)
    with torch.inference_mode():
        begun = time.perf_counter()
        answer = model.answer(
            (0.1 * noise).astype(np.float32),
            plan,
            lambda: None,
            model.decoding(plan),
        )
        heard = time.perf_counter() - begun
        begun = time.perf_counter()
        for _ in range(TOKENS):
            answer.generation.token()
        written = time.perf_counter() - begun
    table(
        f"8.33 billion weights in {given.precision}, one core",
        ("what", "figure"),
        [
            ("load, one token through all layers included", f"{loaded:.1f} s"),
            ("own memory before → after the load", f"{before['own']:.2f} → {after['own']:.2f} GB"),
            ("weights, mapped from their file", f"{after['mapped files']:.2f} GB"),
            (f"hearing and prefill of {given.seconds:g} s", f"{heard:.1f} s"),
            ("a token", f"{written / TOKENS:.2f} s"),
            ("most that was held, mapped files and all", f"{held()['peak, both']:.2f} GB"),
        ],
    )


if __name__ == "__main__":
    main()
