"""The diffusion head, run by hand: noise and what the language model means → a latent.

`generate` has the head work out for each step anew what follows from the step and the condition
alone. Here that is done for all steps of a frame at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sidecar.tts.vibevoice_solver import steps

Check = Callable[[], None]
"""Called between steps; raises to stop."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """The weights of one: calls of modules would take as long as what they do."""

    norm: Tensor
    epsilon: float
    gate: Tensor
    up: Tensor
    down: Tensor
    act: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, layer: Any) -> _Layer:
        mlp = layer.ffn
        gate, up, down = (one.weight for one in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        return cls(layer.norm.weight, layer.norm.variance_epsilon, gate, up, down, mlp.act_fn)


class Denoiser:
    """One latent after another, each in the same number of steps."""

    def __init__(self, head: Any, count: int) -> None:
        self._head = head
        self._layers = [_Layer.of(layer) for layer in head.layers]
        self._epsilon: float = head.final_layer.rms_norm_eps
        self._steps = steps(count)
        like = head.noisy_images_proj.weight
        times = torch.tensor([step.timestep for step in self._steps]).to(like.device)
        # As `VibeVoiceDiffusionHead.forward`: the times have the type of what they come with.
        embedded = head.timestep_embedding(times.to(like.dtype)).to(like.dtype)
        self._times: Tensor = head.timestep_proj(embedded).unsqueeze(1)

    def latent(self, conditions: Tensor, noise: Tensor, guidance: float, check: Check) -> Tensor:
        """What the noise ``(1, channels)`` becomes, of the same shape.

        ``conditions`` ``(branches, hidden)``: what is meant, and, where ``guidance`` is not 1, what
        would be meant without a text; the latent is led away from that (classifier-free guidance,
        Ho and Salimans 2022).
        """
        modulations = self._modulations(conditions)
        latent, before = noise.float(), torch.zeros((), device=noise.device)
        for step, modulation in zip(self._steps, modulations, strict=True):
            check()
            velocities = self._velocities(latent.to(conditions.dtype), modulation).float()
            velocity = velocities[:1]
            if len(velocities) > 1:
                velocity = torch.lerp(velocities[1:], velocity, guidance)
            clean = step.signal * latent - step.noise * velocity
            latent = step.keep * latent + step.clean * clean + step.earlier * before
            before = clean
        return latent.to(conditions.dtype)

    def _modulations(self, conditions: Tensor) -> list[list[Tensor]]:
        """Of each step: shift, scale and gate of each layer, shift and scale of the last one; each
        of shape ``(branches, hidden)``."""
        head = self._head
        meant = head.final_layer.act_fn(head.cond_proj(conditions) + self._times)
        found: list[Tensor] = []
        for layer in head.layers:
            shift, scale, gate = layer.linear(meant).chunk(3, dim=-1)
            found += (shift, scale + 1, gate)
        shift, scale = head.final_layer.linear_1(meant).chunk(2, dim=-1)
        found += (shift, scale + 1)
        return [list(step) for step in zip(*(each.unbind() for each in found), strict=True)]

    def _velocities(self, latent: Tensor, modulation: list[Tensor]) -> Tensor:
        """What the head predicts ``(branches, channels)`` of one latent ``(1, channels)``."""
        hidden = functional.linear(latent, self._head.noisy_images_proj.weight)
        for at, layer in enumerate(self._layers):
            shift, scale, gate = modulation[3 * at : 3 * at + 3]
            rows = torch.addcmul(shift, _normed(hidden, layer.norm, layer.epsilon), scale)
            rows = layer.act(functional.linear(rows, layer.gate)).mul_(
                functional.linear(rows, layer.up)
            )
            hidden = torch.addcmul(hidden, gate, functional.linear(rows, layer.down))
        shift, scale = modulation[-2:]
        rows = torch.addcmul(shift, _normed(hidden, None, self._epsilon), scale)
        return functional.linear(rows, self._head.final_layer.linear_2.weight)


def _normed(hidden: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
    return functional.rms_norm(hidden, hidden.shape[-1:], weight, epsilon)
