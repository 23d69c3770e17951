"""Recognition by onnxruntime beside the library's: processor time, words, memory, drafts.

Each side in a process of its own, one after the other: CPU-milliseconds for stretches of five
lengths (the best of five), CPU-seconds for each second of all English clips, cut where they are
quietest, WER over those (jiwer, whisper's normalization), memory before and after. onnxruntime's
also with drafts (a stretch that grows by half a second up to 10 s, as live audio does) and with
two stretches at once.

    python -m bench.moonshine_recognition
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil

from bench.metrics import Piece, Scores, check_packages, clips, score
from bench.moonshine_library import LibraryRecognizer
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.audio.loudness import quietest_sample
from sidecar.engines.moonshine.moonshine_decoder import SAMPLE_RATE
from sidecar.engines.moonshine.moonshine_recognizer import MoonshineRecognizer, load_recognizer

LENGTHS_S = (1, 2, 4, 8, 12)
_PIECE_S = 8.0
_PAUSE_S = 0.1


def load(side: str) -> MoonshineRecognizer | LibraryRecognizer:
    """One of the two."""
    return LibraryRecognizer() if side == "library" else load_recognizer()


def cpu_s(work: Callable[[], object]) -> float:
    """What this process's threads spend on ``work``."""
    before = time.process_time()
    work()
    return time.process_time() - before


def pieces(audio: Block) -> list[Block]:
    """A recording in stretches of 4 to 8 s."""
    found, half = [], round(_PIECE_S / 2 * SAMPLE_RATE)
    while len(audio) > _PIECE_S * SAMPLE_RATE:
        cut = half + quietest_sample(audio[half : 2 * half], SAMPLE_RATE, _PAUSE_S)
        found.append(audio[:cut])
        audio = audio[cut:]
    return [*found, audio]


def drafts(recognizer: MoonshineRecognizer, audio: Block) -> dict[str, float]:
    """A stretch that grows: what hearing it again and again costs with the draft and without."""
    grown = [audio[: int(end * SAMPLE_RATE / 2)] for end in range(2, 21)]
    plain: list[str] = []
    helped: list[str] = []

    def without() -> None:
        plain.extend(recognizer.text(part) for part in grown)

    def with_drafts() -> None:
        draft = None
        for part in grown:
            draft = recognizer.hear(part, draft)
            helped.append(draft.text if draft else "")

    return {
        "without drafts CPU-s": cpu_s(without),
        "with drafts CPU-s": cpu_s(with_drafts),
        "same of 19": sum(a == b for a, b in zip(plain, helped, strict=True)),
    }


def measure(side: str) -> dict[str, Any]:
    """All figures of one side, in this process."""
    chosen = [(clip, decode_audio_file(clip.path, SAMPLE_RATE)) for clip in clips()]
    process = psutil.Process()
    before = process.memory_info().rss
    recognizer = load(side)
    found: dict[str, Any] = {"loaded MiB": (process.memory_info().rss - before) / 2**20}
    speech = next(audio for clip, audio in chosen if clip.name.startswith("two_cities"))
    speech = speech[SAMPLE_RATE:]
    for length in LENGTHS_S:
        part = speech[: length * SAMPLE_RATE]
        best = min(cpu_s(lambda part=part: recognizer.text(part)) for _ in range(5))  # type: ignore[misc]
        found[f"{length} s CPU-ms"] = best * 1000
    scores = Scores()
    spent = heard = 0.0
    for clip, audio in chosen:
        stretches = pieces(audio)
        started = time.process_time()
        texts = [recognizer.text(stretch) for stretch in stretches]
        spent += time.process_time() - started
        heard += len(audio) / SAMPLE_RATE
        if clip.text:
            scores += score(clip, [Piece(0, 0, "-", text) for text in texts])
    found["CPU-ms/s"] = spent / heard * 1000
    found["WER"] = scores.wer
    found["used MiB"] = (process.memory_info().rss - before) / 2**20
    if side == "onnxruntime":
        found |= drafts(recognizer, speech)
        four = [speech[: 4 * SAMPLE_RATE]] * 12
        started = time.perf_counter()
        for part in four:
            recognizer.text(part)
        alone = time.perf_counter() - started
        started = time.perf_counter()
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(recognizer.text, four))
        found["two threads at once, times as fast"] = alone / (time.perf_counter() - started)
    return found


def main() -> None:
    """Measure both sides and print a table."""
    sides = ("library", "onnxruntime")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("side", nargs="?", choices=sides, help="this one alone, as JSON")
    if side := parser.parse_args().side:
        print(json.dumps(measure(side)))
        return
    check_packages()
    found = []
    for side in sides:
        run = subprocess.run(
            [sys.executable, "-m", "bench.moonshine_recognition", side],
            stdout=subprocess.PIPE,
            check=True,
        )
        found.append(json.loads(run.stdout.splitlines()[-1]))
    print(f"| | {' | '.join(sides)} |\n|---|---|---|")
    for row in found[-1]:
        cells = [f"{values[row]:.2f}" if row in values else "–" for values in found]
        print(f"| {row} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
