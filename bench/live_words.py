"""Words of the live path beside those of the file path, over slightly other copies of each clip.

A clip has few words, and a word that is in doubt falls one way or the other by a breath: which of
two ways to cut is the better one cannot be told from one hearing. So each clip is heard several
times: moved by up to a quarter of a second, up to half as loud, with a little noise. Sound is
pushed as fast as the engine takes it; finals are the same as in real time. Beside it goes a live
path whose pieces are each heard alone, without those before them (`live.runtime.partial_results`).

    python -m bench.live_words [--copies 6] [--engine moonshine] [--differences]

``--differences`` prints, for the clips as they are, which words each path has wrong alone.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jiwer
import numpy as np

from bench.metrics import Clip, Piece, _normalizer, clips, score
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.interfaces.engine_interface import LoadOptions, TranscribeOptions, TranscriptionRequest
from sidecar.interfaces.live_events import NEW_SESSION, Final, LiveEngine, LiveEvent, Summary
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions
from sidecar.live.runtime.partial_results import RecognitionContext
from sidecar.transcripts.transcript import Finished

MOVED_S, QUIETER, NOISE = 0.25, 0.5, 1e-4
LONG_S = 120.0
"""Clips beyond are told apart: no way to cut was ever chosen by them."""


class Sound:
    """A recording for an engine (`interfaces.engine_interface.AudioStream`)."""

    def __init__(self, samples: Block) -> None:
        self._samples = samples
        self.total_s = len(samples) / LIVE_RATE

    def __iter__(self) -> Iterator[Block]:
        for at in range(0, len(self._samples), LIVE_RATE):
            yield self._samples[at : at + LIVE_RATE]


def copy(clip: Clip, number: int) -> Block:
    """The clip as clients send it; all but the first a little changed, each in its own way."""
    samples = decode_audio_file(clip.path, LIVE_RATE)
    if number:
        chance = np.random.default_rng(number)
        moved = np.zeros(int(chance.integers(1, round(MOVED_S * LIVE_RATE))), np.float32)
        samples = np.concatenate([moved, samples]) * chance.uniform(QUIETER, 1.0)
        samples = samples + chance.normal(0, NOISE, len(samples))
    found: Block = (np.clip(samples, -1, 1) * 32767).astype("<i2").astype(np.float32) / 32768
    return found


def live(engine: LiveEngine, samples: Block) -> str:
    """What a session says in the end."""
    said: list[str] = []
    over = threading.Event()

    def tell(event: LiveEvent) -> None:
        if isinstance(event, Final):
            said.append(event.segment.text)
        if isinstance(event, Summary):
            over.set()

    session = engine.open(LiveOptions(partials=False, diarize=False), NEW_SESSION, tell)
    session.push(samples)
    session.finish()
    over.wait()
    return " ".join(said)


def alone(engine: LiveEngine, samples: Block) -> str:
    """The same where no piece has a context."""
    with mock.patch.object(RecognitionContext, "of", return_value=None):
        return live(engine, samples)


def file(engine: LiveEngine, samples: Block) -> str:
    """What the same engine says of it as a recording."""
    options = TranscribeOptions(diarize=False)
    for event in engine.transcribe(TranscriptionRequest(Sound(samples), options, lambda: False)):
        if isinstance(event, Finished):
            return event.transcript.text
    return ""


def wrong(clip: Clip, text: str) -> list[tuple[int, str, str]]:
    """Where in the reference, what is there, and what was heard."""
    normalize = _normalizer()
    aligned = jiwer.process_words(normalize(clip.text), normalize(text))
    [wanted], [found] = aligned.references, aligned.hypotheses
    return [
        (
            one.ref_start_idx,
            " ".join(wanted[one.ref_start_idx : one.ref_end_idx]),
            " ".join(found[one.hyp_start_idx : one.hyp_end_idx]),
        )
        for one in aligned.alignments[0]
        if one.type != "equal"
    ]


def differ(clip: Clip, said: dict[str, str]) -> None:
    """Print what each way has wrong alone."""
    errors = {name: wrong(clip, text) for name, text in said.items()}
    print(f"\n{clip.name}")
    for name, other in (("live", "file"), ("file", "live")):
        for row in errors[name]:
            if row not in errors[other]:
                print(f"  {name}: word {row[0]}, {row[1]!r} heard as {row[2]!r}")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copies", type=int, default=6)
    parser.add_argument("--engine", default="moonshine")
    parser.add_argument("--differences", action="store_true")
    arguments: Any = parser.parse_args()
    module = importlib.import_module(f"sidecar.engines.{arguments.engine}")
    engine = next(one for name, one in vars(module).items() if name.endswith("Engine"))()
    for _ in engine.load(LoadOptions()):
        pass
    ways = {"live": live, "live, pieces alone": alone, "file": file}
    spent = dict.fromkeys(ways, 0.0)
    heard_s = 0.0
    chosen = [clip for clip in clips() if clip.text]
    rates: dict[tuple[str, bool], list[float]] = {}
    for number in range(arguments.copies):
        errors: dict[tuple[str, bool], list[float]] = {}
        for clip in chosen:
            samples = copy(clip, number)
            said = {}
            for name, way in ways.items():
                before = time.process_time()
                said[name] = way(engine, samples)
                spent[name] += time.process_time() - before
            heard_s += len(samples) / LIVE_RATE
            for name, text in said.items():
                found = score(clip, [Piece(0, 0, "-", text)])
                at = errors.setdefault((name, clip.duration_s > LONG_S), [0.0, 0.0])
                at[0] += found.word_errors
                at[1] += found.words
            if arguments.differences and not number:
                differ(clip, said)
        for key, (count, words) in errors.items():
            rates.setdefault(key, []).append(100 * count / words)
    for name, cpu in spent.items():
        print(f"{name}: {1000 * cpu / heard_s:.1f} CPU-ms for a second of sound")
    print("\n| | WER, mean | each copy |\n|---|---|---|")
    for (name, long), found in sorted(rates.items()):
        kind = "the long clip" if long else "all other clips"
        each = " ".join(f"{one:.2f}" for one in found)
        print(f"| {name}, {kind} | {statistics.mean(found):.2f} | {each} |")


if __name__ == "__main__":
    main()
