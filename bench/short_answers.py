"""Live: whose short answers are, in made-up conversations of two readers.

Readers in a folder as LibriSpeech has them ("1688/1688-142285-0000.flac") talk in pairs: long
turns, and answers of 0.35 to 0.8 s cut out of their readings where it is quiet. Counted are the
answers that have the wrong speaker in their final, ten seconds later and in the summary. ``--half``
takes every second reader, so that what is chosen on one half can be confirmed on the other.

    python -m bench.short_answers LibriSpeech/test-other --half 1
    python -m bench.short_answers LibriSpeech/test-other --half 1 --least 0.4    # as it was
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from itertools import combinations, permutations
from pathlib import Path

import numpy as np

from bench.live_speakers import Room
from bench.metrics import Clip
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.interfaces.live_options import LIVE_RATE
from sidecar.live.runtime import segment_embeddings
from sidecar.live.runtime.partial_results import RecognitionHypothesis, RecognitionTask
from sidecar.transcripts.transcript import Segment

LONG_S, SHORT_S, PAUSE_S = (2.5, 4.5), (0.35, 0.8), (0.7, 1.0)
SHORT_BELOW_S = 1.2
HOP = 320
ROUNDS = 3
NOISE = 3e-4


class DeafRoom(Room):
    """A room in which nobody asks for words."""

    def _text(
        self, clip: Clip, listen: RecognitionTask, audio: Block
    ) -> RecognitionHypothesis | None:
        return RecognitionHypothesis("words", language="en")


class Readings:
    """Stretches of one reader between two quiet places."""

    def __init__(self, paths: Iterable[Path], chance: np.random.Generator) -> None:
        self._sounds = [decode_audio_file(path, LIVE_RATE) for path in paths]
        self._chance = chance

    def stretch(self, least_s: float, most_s: float) -> Block:
        """A stretch of speech of about so many seconds."""
        while True:
            sound = self._sounds[self._chance.integers(len(self._sounds))]
            frames = sound[: len(sound) // HOP * HOP].reshape(-1, HOP)
            level = np.sqrt(np.square(frames).mean(axis=1))
            loud = np.percentile(level, 90)
            quiet = np.flatnonzero(level < 0.12 * loud)
            begin = self._chance.choice(quiet)
            size_s = (quiet - begin) * HOP / LIVE_RATE
            ends = quiet[(size_s >= least_s) & (size_s <= most_s)]
            if len(ends):
                end = self._chance.choice(ends)
                if (level[begin:end] > 0.3 * loud).mean() > 0.6:
                    return sound[begin * HOP : end * HOP]


def conversation(readers: dict[str, Readings], chance: np.random.Generator) -> tuple[Clip, Block]:
    """Two people: long turns of both, short answers of both."""
    one, other = readers
    parts: list[Block] = []
    turns: list[tuple[float, float, str]] = []
    order = [(one, LONG_S), (other, SHORT_S), (one, LONG_S), (other, LONG_S), (one, SHORT_S)]
    for who, bounds in order * ROUNDS:
        at = sum(map(len, parts))
        parts.append(readers[who].stretch(*bounds))
        turns.append((at / LIVE_RATE, (at + len(parts[-1])) / LIVE_RATE, who))
        parts.append(np.zeros(round(chance.uniform(*PAUSE_S) * LIVE_RATE), np.float32))
    sound = np.concatenate(parts)
    sound = (sound + chance.normal(0, NOISE, len(sound))).astype(np.float32)
    return Clip(f"{one} {other}", Path(), len(sound) / LIVE_RATE, "en", None, turns, None), sound


def wrong(clip: Clip, said: list[Segment]) -> tuple[Counter[str], Counter[str]]:
    """How many segments have the wrong speaker, and how many there are, short and long."""
    assert clip.turns is not None
    spoken = []
    for one in said:
        shared = [
            (min(end, one.end) - max(begin, one.start), who) for begin, end, who in clip.turns
        ]
        spoken.append((*max(shared), one.speaker))
    names = sorted({who for _, who, _ in spoken})
    labels = [*{label for *_, label in spoken if label is not None}, *[-1] * len(names)]
    maps = [dict(zip(names, chosen, strict=True)) for chosen in permutations(labels, len(names))]
    best = max(maps, key=lambda of: sum(s for s, who, label in spoken if of[who] == label))
    bad, all_ = Counter[str](), Counter[str]()
    for seconds, who, label in spoken:
        kind = "short" if seconds < SHORT_BELOW_S else "long"
        all_[kind] += 1
        bad[kind] += best[who] != label
    return bad, all_


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--half", type=int, choices=(0, 1), default=0)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--least", type=float, help="seconds of voice that make a vector")
    args = parser.parse_args()
    if args.least is not None:
        segment_embeddings.MIN_EMBEDDING_S = args.least
    chance = np.random.default_rng(args.half)
    found: dict[str, list[Path]] = {}
    for path in sorted(args.folder.rglob("*.flac")):
        found.setdefault(path.name.split("-")[0], []).append(path)
    names = sorted(found)[args.half :: 2]
    readers = {name: Readings(found[name], chance) for name in names}
    room = DeafRoom()
    rows: dict[str, tuple[Counter[str], Counter[str]]] = {}
    for pair in list(combinations(names, 2))[: args.pairs]:
        clip, sound = conversation({name: readers[name] for name in pair}, chance)
        for way, said in room.session(clip, sound).ways():
            bad, all_ = wrong(clip, said)
            before = rows.setdefault(way, (Counter(), Counter()))
            rows[way] = before[0] + bad, before[1] + all_
    print("| labels | short answers wrong | long turns wrong |\n|---|---|---|")
    for way, (bad, all_) in rows.items():
        cells = " | ".join(f"{bad[kind]} of {all_[kind]}" for kind in ("short", "long"))
        print(f"| {way} | {cells} |")


if __name__ == "__main__":
    main()
