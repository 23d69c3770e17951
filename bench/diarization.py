"""What telling speakers apart costs, and what it is worth: CPU-seconds against errors.

The clips with references for speakers go through the engine at the settings that the service
offers, at a row of steps (seconds between two looks at who speaks), and through the library's own
stream at its default. One process per row; CPU-seconds (user + system) per second of audio,
recognition included, and the wall time beside.

    python -m bench.diarization
    python -m bench.diarization --rows library balanced 5.0
    python -m bench.diarization --before ../earlier     # another checkout's 'balanced' besides
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.accuracy import Hypothesis, library_side
from bench.metrics import Clip, Piece, Scores, clips, score

ROWS = ("library", "accurate", "balanced", "1.25", "2.5", "5.0", "10.0")


def engine_row(clip: Clip, row: str) -> Hypothesis:
    """The engine at a setting, or at a step."""
    from sidecar.audio.audio_decoder import open_audio, probe_audio
    from sidecar.diarization import diarizer
    from sidecar.engines import moonshine
    from sidecar.interfaces.engine_interface import (
        DiarizationEffort,
        LoadOptions,
        TranscribeOptions,
    )
    from sidecar.transcripts.transcript import Finished

    options = TranscribeOptions()
    if row in list(DiarizationEffort):
        options = TranscribeOptions(diarization=DiarizationEffort(row))
    else:
        diarizer.STEPS_S = {options.diarization: float(row)}
    engine = moonshine.MoonshineEngine()
    list(engine.load(LoadOptions()))
    with clip.path.open("rb", buffering=0) as file:
        facts = probe_audio(file.fileno(), 1e5)
        with open_audio(file.fileno(), facts, rate=moonshine.SAMPLE_RATE, max_s=1e5) as audio:
            last = list(engine.transcribe(audio, options, lambda: False))[-1]
    assert isinstance(last, Finished)
    return [
        Piece(segment.start, segment.end, str(segment.speaker), segment.text)
        for segment in last.transcript.segments
    ]


def measure(row: str) -> None:
    """One row of the table, over all clips."""
    pooled, cpu_s, wall_s, audio_s, found = Scores(), 0.0, 0.0, 0.0, []
    for clip in clips():
        if not clip.turns:
            continue
        begun, wall = time.process_time(), time.perf_counter()
        hypothesis = library_side(clip) if row == "library" else engine_row(clip, row)
        cpu_s += time.process_time() - begun
        wall_s += time.perf_counter() - wall
        audio_s += clip.duration_s
        voices = {piece.speaker for piece in hypothesis}
        found.append(f"{len(voices)}/{len({turn[2] for turn in clip.turns})}")
        pooled += score(clip, hypothesis)
    confusion = 100 * pooled.confusion_s / pooled.speech_s if pooled.speech_s else 0.0
    cost = f"{cpu_s / audio_s:.3f} | {wall_s / audio_s:.3f}"
    cells = f"{cost} | {pooled.row()} | {confusion:.1f} | {' '.join(found)}"
    print(f"| {row} | {cells} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", default=ROWS, metavar="ROW")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="a checkout to compare with")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args.one)
        return
    names = [f"{clip.name} ({clip.duration_s:.0f} s)" for clip in clips() if clip.turns]
    if not names:
        sys.exit("No clips with references: set VIBEVOICE_BENCH_AUDIO to a folder with some.")
    print(f"Clips: {', '.join(names)}\n")
    print("| row | CPU-s/s | wall s/s | WER | DER | cpWER | confusion | speakers found/real |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    measured = [sys.executable, "-m", "bench.diarization", "--one"]
    for row in args.rows:
        subprocess.run([*measured, row], check=True)
    if args.before:
        print("Before, without the column of wall time where it had none:", flush=True)
        there = {**os.environ, "PYTHONPATH": str(args.before.resolve())}
        subprocess.run([*measured, "balanced"], check=True, cwd=args.before, env=there)


if __name__ == "__main__":
    main()
