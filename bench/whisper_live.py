"""Whisper live with random weights of the real sizes: how many people who all talk it can hear.

What is written is noise, so each window is bounded to ``TOKENS_S`` tokens for each second of its
sound, and loops and silence are not looked for: it is about cost and nothing else. Each row is so
many sessions in real time in this process, each with the clips of `bench.metrics` one behind the
other from another place on. Finals: how long they lay and took once their piece had ended. Partials
for each second of sound, and whether they were given up (`live.runtime.partial_results`).

    python -m bench.whisper_live [--sizes tiny base] [--sessions 1 4 8 16] [--seconds 20]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np

from bench.metrics import clips
from bench.whisper import build
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.engines.whisper import WhisperEngine, whisper_decoder
from sidecar.interfaces.engine_interface import LoadOptions, Precision
from sidecar.interfaces.live_events import (
    Final,
    LiveEvent,
    LiveSessionStart,
    NoticeRaised,
    Partial,
    Summary,
)
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions

TOKENS_S = 4
CHUNK_S = 0.1


class Bounded(whisper_decoder.WhisperRecognizer):
    """Writes as much as people say."""

    def hear(
        self, samples: Block, wish: whisper_decoder.WhisperRequest, before: str | None = None
    ) -> whisper_decoder.WhisperResult:
        """As long a text as the sound."""
        limit = max(4, round(TOKENS_S * len(samples) / LIVE_RATE))
        return super().hear(samples, dataclasses.replace(wish, max_tokens=limit), before)


class Talker:
    """One session in real time."""

    def __init__(self, engine: WhisperEngine, sound: Block, options: LiveOptions) -> None:
        self.told: list[LiveEvent] = []
        self.over = threading.Event()
        self._sound = sound
        self._session = engine.open(options, LiveSessionStart(), self._tell)

    def _tell(self, event: LiveEvent) -> None:
        self.told.append(event)
        if isinstance(event, Summary):
            self.over.set()

    def push(self, number: int) -> None:
        """The next tenth of a second."""
        step = round(CHUNK_S * LIVE_RATE)
        at = number * step % (len(self._sound) - step)
        self._session.push(self._sound[at : at + step])

    def finish(self) -> None:
        """No more of it."""
        self._session.finish()


def row(engine: WhisperEngine, sound: Block, count: int, seconds: float, partials: bool) -> str:
    """So many sessions."""
    options = LiveOptions(partials=partials, diarize=False, language="en", patience_s=60.0)
    shift = len(sound) // count
    talkers = [Talker(engine, np.roll(sound, -shift * n), options) for n in range(count)]
    cpu, begun = time.process_time(), time.monotonic()
    for number in range(round(seconds / CHUNK_S)):
        time.sleep(max(0.0, begun + number * CHUNK_S - time.monotonic()))
        for talker in talkers:
            talker.push(number)
    for talker in talkers:
        talker.finish()
    for talker in talkers:
        talker.over.wait(120)
    cpu = (time.process_time() - cpu) / (seconds * count)
    told = [event for talker in talkers for event in talker.told]
    waits = [one.wait_s + one.work_s for one in told if isinstance(one, Final)]
    p50, p95 = np.quantile(waits, [0.5, 0.95]) if waits else (0.0, 0.0)
    rate = sum(isinstance(one, Partial) for one in told) / (seconds * count)
    off = {one.notice.code for one in told if isinstance(one, NoticeRaised)}
    return (
        f"{count} | {p50:.2f} / {p95:.2f} | {len(waits)} | {rate:.2f} | {cpu:.3f} | "
        f"{', '.join(sorted(off)) or '-'}"
    )


def main() -> None:
    """Build, load, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="+", default=["tiny", "base"])
    parser.add_argument("--sessions", nargs="+", type=int, default=[1, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--finals", action="store_true")
    given = parser.parse_args()
    sound = np.concatenate([decode_audio_file(clip.path, LIVE_RATE) for clip in clips()[:4]])
    print(
        f"load {os.getloadavg()[0]:.1f}; sessions | final p50 / p95 | finals | partials/s | CPU-s/s"
    )
    for size in given.sizes:
        with (
            tempfile.TemporaryDirectory() as scratch,
            mock.patch.object(whisper_decoder, "WhisperRecognizer", Bounded),
            mock.patch.object(whisper_decoder, "is_silence", return_value=False),
            mock.patch.object(whisper_decoder, "tokens_before_loop", return_value=None),
        ):
            folder = Path(scratch) / size
            build(size, folder)
            engine = WhisperEngine()
            list(engine.load(LoadOptions(Precision.INT8, str(folder), "cpu", live=True)))
            for count in given.sessions:
                line = row(engine, sound, count, given.seconds, not given.finals)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
                print(f"{size} | {line} | {peak} MB | load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
