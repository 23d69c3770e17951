"""VibeVoice's own loop against plain ``generate``. Run ``python -m bench.vibevoice_tts``.

The tests' tiny checkpoint of the real architecture (random weights that are loud), or one with
``--checkpoint FOLDER``; both sides by turns in one run, the same seed, one thread on a CPU. First
that both say the same: the largest relative difference over some seeds. Then processor time per
frame of 133 ms (on a GPU: time), and time to the first sound, best of the rounds; and where a frame
of ours goes.

G1   largest relative difference            <= 1e-5 (fp32)
G2   a frame of ours / one of generate's    <= 0.65
G3   our first sound / generate's           <= 0.05 of a text of 20 frames and more
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, VibeVoiceForConditionalGeneration
from transformers.utils import logging as chatter

from bench.serving import ROOT, machine, table, verdict
from sidecar.tts.vibevoice_tts_model import TtsGenerationOptions, TtsPrompt, VibeVoiceTtsModel
from sidecar.tts.vibevoice_tts_synthesis import GUIDANCE_SCALE, build_prompt_ids

sys.path.insert(0, str(ROOT / "tests" / "support"))
import tiny_vibevoice_tts
from tts_solver_reference import OwnScheduler

TEXT = tiny_vibevoice_tts.TEXTS[0]
SEEDS = 6


class Sides:
    """One checkpoint, said by both."""

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        self._given = given
        dtype = torch.float32 if given.device == "cpu" else torch.bfloat16
        self._model: Any = VibeVoiceForConditionalGeneration.from_pretrained(folder, dtype=dtype)
        self._model.eval().to(given.device)
        self._ids = build_prompt_ids(AutoProcessor.from_pretrained(folder), given.text, 0)
        self._asked = torch.tensor([self._ids], device=given.device)
        self._clock = time.process_time if given.device == "cpu" else time.perf_counter
        self._speaker = VibeVoiceTtsModel(self._model, given.steps)

    def plain(self, seed: int) -> tuple[torch.Tensor, float]:
        """What `generate` says, and seconds to all of it."""
        torch.manual_seed(seed)
        begun = self._clock()
        with torch.inference_mode():
            (audio,) = self._model.generate(
                input_ids=self._asked,
                attention_mask=torch.ones_like(self._asked),
                max_new_tokens=self._given.frames,
                guidance_scale=GUIDANCE_SCALE,
                num_diffusion_steps=self._given.steps,
                noise_scheduler=OwnScheduler(),
            )
            audio = audio.view(-1).float().cpu()
        return audio, self._clock() - begun

    def ours(self, seed: int) -> tuple[torch.Tensor, list[float]]:
        """What we say, and seconds to each frame of it."""
        begun, said, times = self._clock(), [], []
        with torch.inference_mode():
            manner = TtsGenerationOptions(self._given.frames, GUIDANCE_SCALE, seed=seed)
            for frame in self._speaker.frames(TtsPrompt(self._ids), manner, lambda: None):
                said.append(frame.cpu())
                times.append(self._clock() - begun)
        return torch.cat(said), times

    def parts(self) -> dict[str, float]:
        """Seconds of a frame of ours, by part (median)."""
        spent: dict[str, list[float]] = {}
        inner, speaker = self._model.model, self._speaker
        watched = (
            (speaker._language, "run", "language model, three branches"),
            (speaker._denoiser, "latent", f"diffusion head, {self._given.steps} steps"),
            (inner.audio_tower.decoder, "forward", "acoustic decoder; the frame goes out"),
            (inner.semantic_tokenizer_encoder, "forward", "semantic encoder"),
        )
        for owner, name, title in watched:
            setattr(owner, name, self._timed(getattr(owner, name), spent.setdefault(title, [])))
        self.ours(0)
        for owner, name, _ in watched:
            delattr(owner, name)
        return {title: sorted(times)[len(times) // 2] for title, times in spent.items() if times}

    def _timed(self, call: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = self._clock()
            result = call(*args, **kwargs)
            if self._given.device != "cpu":
                torch.cuda.synchronize()
            times.append(self._clock() - begun)
            return result

        return timed


def measure(given: argparse.Namespace) -> None:
    """Both sides by turns, and what became of the goals."""
    sides = Sides(given.checkpoint or tiny_vibevoice_tts.model(), given)
    apart = 0.0
    for seed in range(SEEDS):
        plain, ours = sides.plain(seed)[0], sides.ours(seed)[0]
        same = plain.shape == ours.shape
        apart = max(apart, float((ours - plain).norm() / plain.norm()) if same else float("inf"))
    whole, frame, first = [], [], []
    for _ in range(given.rounds):
        seconds = sides.plain(given.seed)[1]
        times = sides.ours(given.seed)[1]
        whole.append(seconds)
        frame.append(times[-1])
        first.append(times[0])
    count = len(times)
    plain_s, ours_s, first_s = min(whole), min(frame), min(first)
    rows = [
        ["largest relative difference", "", "", f"{apart:.1e}", verdict(apart, 1e-5)],
        ["a frame, ms", *_sides(plain_s / count, ours_s / count, 0.65)],
        ["first sound, ms", *_sides(plain_s, first_s, 0.05)],
    ]
    table(f"A text of {count} frames", ["", "generate", "ours", "ratio", "goal"], rows)
    print()
    for title, seconds in sides.parts().items():
        print(f"{1e3 * seconds:8.2f} ms  {title}")


def _sides(plain_s: float, ours_s: float, goal: float) -> tuple[str, ...]:
    ratio = ours_s / plain_s
    return f"{1e3 * plain_s:.1f}", f"{1e3 * ours_s:.1f}", f"{ratio:.3f}", verdict(ratio, goal)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="another than the tests'")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--frames", type=int, default=30, help="so many at most")
    parser.add_argument("--steps", type=int, default=10, help="of diffusion")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    chatter.disable_progress_bar()
    print(machine())
    measure(given)


if __name__ == "__main__":
    main()
