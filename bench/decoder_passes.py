"""What proposals and company save of decoding. Run ``python -m bench.decoder_passes [--device
cuda]``.

The clips of the tests' checkpoints, each twice, one thread: decoded one after the other a token at
a time, with what the format forces proposed ahead (`engines.vibevoice.vibevoice_generation`), in
step (`engines.vibevoice.vibevoice_generation`), and both. Passes of the decoder, and seconds of
decoding, as shares of the first; all sides in turns in one run, the same text asserted. Hearing and
prefill come in seconds beside it: they are the same for all.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.serving import machine, median, table
from sidecar.audio import Block
from sidecar.engines.vibevoice.vibevoice_generation import (
    DecoderPass,
    WindowGeneration,
    decode_in_step,
    decode_pass,
)
from sidecar.engines.vibevoice.vibevoice_model import (
    VibeVoiceModel,
    load_vibevoice,
    segment_template_of,
)
from sidecar.interfaces.engine_interface import MemoryPlan, Precision

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
import tiny_vibevoice

PLAN = MemoryPlan(encoder_chunk_s=8 / 3, cache_tokens=1024)
LIMIT = 600


@dataclass(frozen=True, slots=True)
class Run:
    """One side, once."""

    hearing_s: float
    decoding_s: float
    passes: int
    texts: tuple[str, ...]


def side(model: VibeVoiceModel, clips: Sequence[Block], *, proposed: bool, at_once: int) -> Run:
    """Answer the clips, ``at_once`` of them in step."""
    tokenizer = model.loaded.processor.tokenizer.backend_tokenizer
    model.frame = segment_template_of(tokenizer) if proposed else None
    hearing = decoding = 0.0
    passes = 0
    texts: list[str] = []
    for at in range(0, len(clips), at_once):
        begun = time.perf_counter()
        shared = model.decoding(PLAN)
        answers = [
            model.answer(clip, PLAN, lambda: None, shared) for clip in clips[at : at + at_once]
        ]
        heard = time.perf_counter()
        passes += decode(answers)
        decoding += time.perf_counter() - heard
        hearing += heard - begun
        texts += [" ".join(one.text for one in answer.segments) for answer in answers]
    return Run(hearing, decoding, passes, tuple(texts))


def decode(answers: Sequence[WindowGeneration]) -> int:
    """Bring answers to their ends; the passes that took."""
    passes = 0
    for step in decode_in_step(answers, None, [LIMIT] * len(answers), lambda: False):
        if isinstance(step, DecoderPass):
            decode_pass(step.generations)
            passes += 1
    return passes


def measure(size: str, precision: Precision, device: torch.device, rounds: int) -> None:
    """Print the table of one checkpoint."""
    model = VibeVoiceModel(load_vibevoice(tiny_vibevoice.checkpoint(size), precision, device))
    clips = [tiny_vibevoice.clip_24k(name) for name in tiny_vibevoice.CLIPS] * 2
    sides = {
        "a token at a time": (False, 1),
        "proposals": (True, 1),
        "six in step": (False, len(clips)),
        "both": (True, len(clips)),
    }
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, (proposed, at_once) in sides.items():
                runs[name].append(side(model, clips, proposed=proposed, at_once=at_once))
    plain, *others = (taken[1:] for taken in runs.values())
    assert all(run.texts == plain[0].texts for taken in others for run in taken)
    base = median([run.decoding_s for run in plain])
    table(
        f"{size}, {precision}, {device}: {len(clips)} clips",
        ("decoding", "passes", "share", "seconds", "share", "hearing s"),
        [
            (
                name,
                f"{taken[1].passes}",
                f"{taken[1].passes / plain[0].passes:.2f}",
                f"{median([run.decoding_s for run in taken[1:]]):.3f}",
                f"{median([run.decoding_s for run in taken[1:]]) / base:.2f}",
                f"{median([run.hearing_s for run in taken[1:]]):.2f}",
            )
            for name, taken in runs.items()
        ],
    )


def main() -> None:
    """Choose, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    for size, precision in (
        ("tiny", Precision.FP32),
        ("tiny", Precision.INT8),
        ("tiny", Precision.INT4),
    ):
        measure(size, precision, torch.device(given.device), given.rounds)


if __name__ == "__main__":
    main()
