"""P9 of `bench.vibevoice`: how long a cancelled request goes on, phase by phase.

A process of its own: ``python -m bench.vibevoice_cancel CHECKPOINT WAV KNOWN_WAV``. Encode and
prefill are those of the first recording, a long one; decode is that of the second, which the
checkpoint knows, for its answer to unknown audio may end at once. After whole runs of both, which
say how long each phase takes, every round cancels at a random moment of one phase. The moment is on
the clock that the engine's own question is answered by, so no thread is in between; what is
measured is from that moment to the end of the engine's generator.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.vibevoice_sides import planning

PHASES = ("encode", "prefill", "decode")


class Watch:
    """The clock of a run: when phases begin and when it is to be cancelled."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.tokens = self.tokens_after = 0
        self.moment = float("inf")
        self._phase, self._after_s, self._after_tokens = "", 0.0, 0

    def cancel_in(self, phase: str, after_s: float, after_tokens: int = 0) -> None:
        """Cancel the run ``after_s`` into a phase, or behind some token of it."""
        self._phase, self._after_s, self._after_tokens = phase, after_s, after_tokens

    def begin(self, phase: str) -> None:
        """A phase begins."""
        self.begun[phase] = time.perf_counter()
        if phase == self._phase and not self._after_tokens:
            self.moment = self.begun[phase] + self._after_s

    def took_token(self) -> None:
        """A token was chosen."""
        self.tokens += 1
        self.tokens_after += self.cancelled()
        if self.tokens == self._after_tokens:
            self.moment = time.perf_counter() + self._after_s

    def cancelled(self) -> bool:
        """What the engine asks."""
        return time.perf_counter() >= self.moment


def watching(current: list[Watch]) -> None:
    """Have the engine's parts tell the last of ``current`` what they begin."""
    from sidecar.engines.vibevoice.vibevoice_generation import TokenGeneration
    from sidecar.engines.vibevoice.vibevoice_model import VibeVoiceAudioEncoder

    encode, begin, token = (
        VibeVoiceAudioEncoder.encode,
        TokenGeneration.__init__,
        TokenGeneration.token,
    )

    def encoding(*arguments: Any) -> None:
        current[-1].begin("encode")
        encode(*arguments)
        current[-1].begin("prefill")

    def beginning(*arguments: Any, **named: Any) -> None:
        begin(*arguments, **named)
        current[-1].begin("decode")

    def choosing(*arguments: Any) -> int:
        chosen = token(*arguments)
        current[-1].took_token()
        return chosen

    VibeVoiceAudioEncoder.encode = encoding  # type: ignore[method-assign]
    TokenGeneration.__init__ = beginning  # type: ignore[method-assign, assignment]
    TokenGeneration.token = choosing  # type: ignore[method-assign, assignment]


def held_bytes(device: str) -> tuple[int, int]:
    """Bytes of living tensors, and of an idle process (on a GPU: of the device)."""
    import torch

    from sidecar.workers.worker_main import trim_heap

    gc.collect()
    trim_heap()
    if device == "cuda":
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    storages = {
        thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()
        for thing in gc.get_objects()
        if issubclass(type(thing), torch.Tensor)  # isinstance would ask lazy modules for a class
    }
    return sum(storages.values()), psutil.Process().memory_info().rss


class _Recording:
    """Decoded audio, as an `AudioStream`."""

    def __init__(self, samples: Any) -> None:
        self._samples = samples
        self.total_s = len(samples) / 24_000

    def __iter__(self) -> Iterator[Any]:
        yield from np.split(self._samples, range(48_000, len(self._samples), 48_000))


def measure(
    checkpoint: str, wav: str, known: str, precision: str, device: str, times: int
) -> dict[str, Any]:
    """Latencies (s) and tokens after the cancel for each phase, and the memory around it all."""
    from sidecar.audio.audio_decoder import decode_audio_file
    from sidecar.engines.vibevoice import VibeVoiceEngine
    from sidecar.interfaces.engine_interface import (
        LoadOptions,
        Precision,
        TranscribeOptions,
        TranscriptionRequest,
    )
    from sidecar.transcripts.transcript import Finished

    engine = VibeVoiceEngine()
    list(engine.load(LoadOptions(Precision(precision), checkpoint, device)))
    planned = planning(Path(checkpoint), Precision(precision), device)
    watches: list[Watch] = [Watch()]
    watching(watches)
    long = _Recording(decode_audio_file(wav, 24_000))
    recordings = dict.fromkeys(PHASES, long) | {
        "decode": _Recording(decode_audio_file(known, 24_000))
    }
    clock: Callable[[], float] = time.perf_counter

    def run(watch: Watch, phase: str, **options: Any) -> tuple[float, bool]:
        watches.append(watch)
        recording = recordings[phase]
        asked = planned(recording.total_s, TranscribeOptions(**options))
        events = engine.transcribe(TranscriptionRequest(recording, asked, watch.cancelled))
        finished = any(isinstance(event, Finished) for event in events)
        return clock(), finished

    loaded, lasts = held_bytes(device), {}
    for phase in ("encode", "decode"):
        whole = Watch()
        ended, finished = run(whole, phase, max_tokens=400)
        assert finished
        marks = {**whole.begun, "end": ended}
        for one, after in pairwise((*PHASES, "end")):
            if phase == "encode" or one == "decode":
                lasts[one] = marks[after] - marks[one]
    assert whole.tokens > 20, "the checkpoint does not know this recording"
    warm = held_bytes(device)
    chance = random.Random(20)
    found: dict[str, Any] = {phase: {"ms": [], "tokens": []} for phase in PHASES}
    for _ in range(times):
        for phase in PHASES:
            finished = True
            while finished:  # a phase that was shorter this time: another moment
                watch = Watch()
                if phase == "decode":
                    at = chance.randrange(1, whole.tokens - 3)
                    watch.cancel_in(phase, chance.random() * lasts[phase] / whole.tokens, at)
                else:
                    watch.cancel_in(phase, chance.random() * 0.95 * lasts[phase])
                ended, finished = run(watch, phase)
            found[phase]["ms"].append((ended - watch.moment) * 1e3)
            found[phase]["tokens"].append(watch.tokens_after)
    after = held_bytes(device)
    return {"phases": found, "lasts": lasts, "loaded": loaded, "warm": warm, "after": after}


def main() -> None:
    """Print the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("wav")
    parser.add_argument("known")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--times", type=int, default=20)
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
