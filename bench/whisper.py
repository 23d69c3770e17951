"""Our Whisper engine beside plain faster-whisper: the same recording, the same weights, one run.

The released weights of ``base``, from packages of the extra 'test'. Each side is a process of its
own, one after the other: CPU-seconds and seconds for each second of audio (the best of ``--runs``),
windows that were encoded, memory after the load and at its peak.

    python -m bench.whisper [--threads 1] [--seconds 90]

``plain`` is faster-whisper as it is, ``batched`` its `BatchedInferencePipeline`, which looks for
speech first, one window at a time, ``batched 4`` the same with four; ``ours`` is without speakers,
``speakers`` with them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.metrics import clips
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    Precision,
    TranscribeOptions,
    TranscriptionRequest,
)

RATE, LANGUAGE = 16_000, "en"
SIDES = ("plain", "batched", "batched 4", "ours", "speakers")


class Sound:
    """A recording as the engine gets it."""

    def __init__(self, samples: Block) -> None:
        self._samples, self.total_s = samples, len(samples) / RATE

    def __iter__(self) -> Iterator[Block]:
        for at in range(0, len(self._samples), 50_000):
            yield self._samples[at : at + 50_000]


def side(name: str, precision: str, runs: int, least_s: float) -> None:
    """Run one side and print what it took."""
    sys.path.append("tests/support")  # of its own imports
    from faster_whisper import WhisperModel

    from tests.support import whisper_base

    folder = str(whisper_base.model())
    windows = 0
    encode = WhisperModel.encode

    def counted(model: WhisperModel, features: np.ndarray) -> Any:
        nonlocal windows
        windows += features.shape[0] if features.ndim == 3 else 1
        return encode(model, features)

    WhisperModel.encode = counted
    sound = np.zeros(0, np.float32)
    for clip in clips():
        if clip.language == LANGUAGE and len(sound) < least_s * RATE and clip.duration_s < 120:
            sound = np.concatenate([sound, decode_audio_file(clip.path, RATE)])
    sound = sound[: round(least_s * RATE)]
    work = (ours if name in SIDES[3:] else plain)(name, folder, precision)
    loaded_mb = peak_mb()
    best = None
    for _ in range(runs):
        windows, cpu, wall = 0, time.process_time(), time.perf_counter()
        work(sound)
        seconds = len(sound) / RATE
        took = (time.process_time() - cpu) / seconds, (time.perf_counter() - wall) / seconds
        best = took if best is None else min(best, took)
    print(json.dumps([*(best or ()), windows, loaded_mb, peak_mb()]))


def peak_mb() -> float:
    """Of this process; `getrusage` would count the one that started it (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def plain(name: str, folder: str, precision: str) -> Callable[[Block], None]:
    """faster-whisper as it is."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    threads = int(os.environ["OMP_NUM_THREADS"])
    model = WhisperModel(folder, device="cpu", compute_type=precision, cpu_threads=threads)
    pipeline = BatchedInferencePipeline(model)

    def run(sound: Block) -> None:
        how: dict[str, Any] = {"language": LANGUAGE, "word_timestamps": True}
        if name == "plain":
            texts, _ = model.transcribe(sound, **how)
        else:
            texts, _ = pipeline.transcribe(sound, batch_size=4 if name.endswith("4") else 1, **how)
        for _ in texts:
            pass

    return run


def ours(name: str, folder: str, precision: str) -> Callable[[Block], None]:
    """The engine."""
    from sidecar.engines.whisper import WhisperEngine

    engine = WhisperEngine()
    ours = {"float32": Precision.FP32}.get(precision, Precision.INT8)
    for _ in engine.load(LoadOptions(ours, folder, "cpu")):
        pass
    options = TranscribeOptions(language=LANGUAGE, diarize=name == "speakers")

    def run(sound: Block) -> None:
        for _ in engine.transcribe(TranscriptionRequest(Sound(sound), options, lambda: False)):
            pass

    return run


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="int8", choices=["int8", "float32"])
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--sides", nargs="+", default=SIDES)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        side(given.side, given.precision, given.runs, given.seconds)
        return
    print("per second of audio")
    print(f"{'':16}{'CPU-s':>8}{'s':>8}{'÷ plain':>9}{'windows':>9}{'MB':>7}{'peak':>7}")
    first = 0.0
    for name in given.sides:
        cpu, wall, windows, loaded, peak = measured(name, given)
        first = first or cpu
        took = f"{cpu:8.4f}{wall:8.4f}{cpu / first:9.2f}"
        print(f"{name:16}{took}{windows:9}{loaded:7.0f}{peak:7.0f}", flush=True)


def measured(name: str, given: argparse.Namespace) -> list[float]:
    """One side in a process of its own."""
    words = ["--side", name, "--runs", str(given.runs), "--precision", given.precision]
    words += ["--seconds", str(given.seconds)]
    run = subprocess.run(
        [sys.executable, "-m", "bench.whisper", *words],
        env=os.environ | {"OMP_NUM_THREADS": str(given.threads)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return list(json.loads(run.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
