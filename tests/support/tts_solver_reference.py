"""Our table of the solver, as `generate` wants to be given it: it needs diffusers for its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from sidecar.tts import vibevoice_tts_model


class OwnScheduler:
    """What diffusers calls a scheduler, by `solver.steps`."""

    timesteps = torch.zeros(0)

    def set_timesteps(self, num_inference_steps: int) -> None:
        """Begin a latent."""
        self._steps = {
            step.timestep: step for step in vibevoice_tts_model.diffusion_steps(num_inference_steps)
        }
        self.timesteps = torch.tensor(list(self._steps))
        self._before: Any = 0.0

    def step(self, velocity: Any, timestep: Any, latent: Any) -> Any:
        """The next one."""
        step = self._steps[int(timestep)]
        clean = step.signal * latent - step.noise * velocity
        latent = step.keep * latent + step.clean * clean + step.earlier * self._before
        self._before = clean
        return SimpleNamespace(prev_sample=latent)
