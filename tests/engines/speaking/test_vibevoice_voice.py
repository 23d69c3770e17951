"""VibeVoice that speaks: our loop against plain `generate`, on a tiny real checkpoint."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

if find_spec("torch") is None or find_spec("transformers") is None:
    pytest.skip("the extra 'vibevoice' is not installed", allow_module_level=True)

import speaking_models
import torch
from transformers import AutoProcessor, VibeVoiceForConditionalGeneration

from sidecar.engines.speaking.vibevoice import solver
from sidecar.engines.speaking.vibevoice.utterance import Manner, Prompt, Speaker

LONG, SHORT = speaking_models.TEXTS
"""By how long they sound."""
FRAMES = 14
"""So many words of the long one: among them the end of sound, and its beginning anew."""
Model = tuple[Any, Any]


@pytest.fixture(scope="module")
def model() -> Model:
    folder = speaking_models.model()
    model = VibeVoiceForConditionalGeneration.from_pretrained(folder)
    return AutoProcessor.from_pretrained(folder), model.eval()


class OwnScheduler:
    """Our table, as `generate` wants to be given it: it needs diffusers for one of its own."""

    def set_timesteps(self, num_inference_steps: int) -> None:
        self._steps = {step.timestep: step for step in solver.steps(num_inference_steps)}
        self.timesteps = torch.tensor(list(self._steps))
        self._before = torch.zeros(())

    def step(self, velocity: torch.Tensor, timestep: torch.Tensor, latent: torch.Tensor) -> Any:
        step = self._steps[int(timestep)]
        clean = step.signal * latent - step.noise * velocity
        latent = step.keep * latent + step.clean * clean + step.earlier * self._before
        self._before = clean
        return SimpleNamespace(prev_sample=latent)


def scheduler() -> Any:
    """The one of diffusers, which VibeVoice was made with, where it is installed."""
    if find_spec("diffusers") is None:
        return OwnScheduler()
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
    )


def asked(model: Model, text: str) -> Any:
    processor, _ = model
    turn = {"role": "0", "content": [{"type": "text", "text": text}]}
    return processor.apply_chat_template(
        [turn], tokenize=True, return_dict=True, return_tensors="pt"
    )


def plainly(model: Model, text: str, manner: Manner, steps: int) -> torch.Tensor:
    """What `generate` says."""
    torch.manual_seed(manner.seed)
    with torch.inference_mode():
        (audio,) = model[1].generate(
            **asked(model, text),
            max_new_tokens=manner.frames,
            guidance_scale=manner.guidance,
            num_diffusion_steps=steps,
            noise_scheduler=scheduler(),
        )
    return audio.view(-1)


def frames(
    model: Model, text: str, manner: Manner, steps: int, check: Callable[[], None] = lambda: None
) -> Iterator[torch.Tensor]:
    """What we say, one by one."""
    prompt = Prompt(asked(model, text)["input_ids"][0].tolist())
    with torch.inference_mode():
        yield from Speaker(model[1], steps).frames(prompt, manner, check)


@pytest.mark.parametrize(
    ("text", "seed", "guidance", "steps"),
    [(LONG, 0, 1.3, 10), (LONG, 1, 2.0, 3), (LONG, 2, 1.0, 5), (SHORT, 3, 1.3, 20)],
)
def test_our_loop_says_what_generate_says_sample_by_sample(
    model: Model, text: str, seed: int, guidance: float, steps: int
) -> None:
    manner = Manner(FRAMES, guidance, seed)
    plain = plainly(model, text, manner, steps)
    ours = torch.cat(list(frames(model, text, manner, steps)))
    assert ours.shape == plain.shape
    assert plain.abs().max() > 0.1, "silence would be like anything"
    assert float((ours - plain).norm() / plain.norm()) <= 1e-5


def solved(scheduler: Any, count: int) -> float:
    """Where a made-up head leads in so many steps: away from what is there, the more the later."""
    latent = torch.ones(1, 1)
    scheduler.set_timesteps(num_inference_steps=count)
    for time_ in scheduler.timesteps:
        velocity = 0.5 * latent - float(time_) / 1000
        latent = scheduler.step(velocity, time_, latent).prev_sample
    return float(latent)


SOLVED = {1: 0.4990493, 2: 0.7232746, 3: 0.7932065, 5: 0.8810267, 10: 0.9204569, 20: 0.9246284}
"""By diffusers 0.42.1."""


@pytest.mark.parametrize("count", SOLVED)
def test_the_table_of_the_solver_is_that_of_diffusers(count: int) -> None:
    assert solved(OwnScheduler(), count) == pytest.approx(SOLVED[count], rel=1e-5)
    assert solved(scheduler(), count) == pytest.approx(SOLVED[count], rel=1e-5)


def test_nothing_is_said_once_nobody_wants_to_hear_it(model: Model) -> None:
    """Each frame is looked at, and each step of its diffusion: whoever stops does so at once."""

    class Enough(Exception):
        pass

    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks > most:
            raise Enough

    most = 1_000
    before = [looks for _ in frames(model, LONG, Manner(3), 10, look)]
    assert len(before) == 3
    assert min(later - sooner for sooner, later in itertools.pairwise([0, *before])) >= 10
    for most in (0, 5, before[0], before[1] - 1, before[1]):
        looks, heard = 0, list[torch.Tensor]()
        with pytest.raises(Enough):
            heard.extend(frames(model, LONG, Manner(FRAMES), 10, look))
        assert looks == most + 1
        assert len(heard) == sum(mark <= most for mark in before)


def test_the_first_sound_is_there_at_once_and_each_takes_less_than_with_generate(
    model: Model,
) -> None:
    """Processor time, the best of some turns each: of it others on the machine take nothing."""
    manner, steps = Manner(24, seed=2), 10
    plain, ours, firsts = [], [], []
    for _ in range(3):
        begun = time.process_time()
        whole = plainly(model, LONG, manner, steps)
        plain.append(time.process_time() - begun)
        begun, times = time.process_time(), []
        for _ in frames(model, LONG, manner, steps):
            times.append(time.process_time() - begun)
        firsts.append(times[0])
        ours.append(times[-1])
        assert len(whole) == 3_200 * len(times)
    assert min(ours) <= 0.65 * min(plain)
    assert min(firsts) <= 0.05 * min(plain)
