"""Who speaks when, without words: errors and cost of `sidecar.diarization` on the clips with turns.

CPU-seconds (user + system) per second of audio, models loaded before.

    python -m bench.diarization_errors
    python -m bench.diarization_errors --steps 2.5 5 --only ami

With ``--readers`` it is how well similar voices are told apart: conversations are made up of every
two readers of the same sex in a folder as LibriSpeech has them ("1688/1688-142285-0000.flac", and
SPEAKERS.TXT), who speak by turns, a third of a second apart; with ``--overlap`` each falls into the
other's last words by so many seconds.

    python -m bench.diarization_errors --readers LibriSpeech/test-other --steps 2.5
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from itertools import combinations, zip_longest
from pathlib import Path

import numpy as np

from bench.metrics import Clip, Piece, Scores, clips, score
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.diarization.diarizer import Diarizer
from sidecar.diarization.speaker_models import SAMPLE_RATE, SpeakerModels, load_models

Talk = tuple[Clip, Block]
GAP_S = 0.33
QUIET = 0.02
"""Of a recording's peak: less than that at its ends is no speech."""
TURNS = 8
"""Of each reader in a conversation, at the most."""


def conversations(only: str) -> Iterator[Talk]:
    """The clips with turns, and their sound."""
    for clip in clips():
        if clip.turns and only in clip.name:
            yield clip, decode_audio_file(clip.path, SAMPLE_RATE)


def readings(folder: Path, overlap_s: float) -> Iterator[Talk]:
    """Two readers of the same sex by turns, for every pair that has some recordings each."""
    lines = (folder / "SPEAKERS.TXT").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if line[0] != ";"]
    sexes = {row[0]: row[1] for row in rows}
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.flac")):
        found.setdefault(path.name.split("-")[0], []).append(path)
    readers = [reader for reader, paths in found.items() if len(paths) > 2]
    for one, other in combinations(readers, 2):
        if sexes[one] == sexes[other]:
            paths = zip_longest(found[one][:TURNS], found[other][:TURNS])
            spoken = [path for both in paths for path in both if path is not None]
            yield conversation(f"{sexes[one]} {one} {other}", spoken, overlap_s)


def conversation(name: str, spoken: list[Path], overlap_s: float) -> Talk:
    """The recordings one after another, each a turn of who its name begins with."""
    turns, parts, at = [], [], 0
    for path in spoken:
        sound = decode_audio_file(path, SAMPLE_RATE)
        loud = np.flatnonzero(np.abs(sound) > QUIET * np.abs(sound).max())
        sound = sound[loud[0] : loud[-1]]
        parts.append((at, sound))
        turns.append((at / SAMPLE_RATE, (at + len(sound)) / SAMPLE_RATE, path.name.split("-")[0]))
        at += len(sound) + round((-overlap_s if overlap_s else GAP_S) * SAMPLE_RATE)
    samples = np.zeros(max(begin + len(sound) for begin, sound in parts), np.float32)
    for begin, sound in parts:
        samples[begin : begin + len(sound)] += sound
    return Clip(name, Path(), len(samples) / SAMPLE_RATE, "en", None, turns, None), samples


def measure(models: SpeakerModels, talks: list[Talk], step_s: float, known: bool) -> None:
    """One row of the table."""
    pooled, cpu_s, audio_s, cells, right = Scores(), 0.0, 0.0, [], 0
    for clip, samples in talks:
        assert clip.turns is not None
        people = len({turn[2] for turn in clip.turns})
        begun = time.process_time()
        diarizer = Diarizer(models, step_s, people if known else None)
        for at in range(0, len(samples), SAMPLE_RATE):
            diarizer.feed(samples[at : at + SAMPLE_RATE])
        diarizer.finish()
        turns = diarizer.turns
        cpu_s += time.process_time() - begun
        audio_s += clip.duration_s
        found = score(clip, [Piece(turn.start, turn.end, str(turn.label), "") for turn in turns])
        pooled += found
        labels = len({turn.label for turn in turns})
        right += labels == people
        cells.append(f"{found.der:.1f} ({labels}/{people})")
    figures = f"{cpu_s / audio_s:.4f} | {pooled.der:.2f} | {confusion(pooled):.2f}"
    print(f"| {step_s} | {figures} | {right}/{len(talks)} | {' | '.join(cells)} |", flush=True)


def confusion(scores: Scores) -> float:
    """Time given to the wrong one, in percent."""
    return 100 * scores.confusion_s / scores.speech_s if scores.speech_s else 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", nargs="+", type=float, default=[2.5, 5.0], metavar="SECONDS")
    parser.add_argument("--only", default="", metavar="NAME")
    parser.add_argument("--known", action="store_true", help="tell it how many people there are")
    parser.add_argument("--readers", type=Path, metavar="FOLDER", help="made-up conversations")
    parser.add_argument("--overlap", type=float, default=0.0, metavar="SECONDS")
    args = parser.parse_args()
    if args.readers:
        talks = list(readings(args.readers, args.overlap))
    else:
        talks = list(conversations(args.only))
    names = " | ".join(clip.name for clip, _ in talks)
    print(f"| step, s | CPU-s/s | DER | confusion | people right | {names} |")
    print("|---" * (len(talks) + 5) + "|")
    models = load_models()
    for step_s in args.steps:
        measure(models, talks, step_s, args.known)
    print(f"\npeak RSS: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
