"""DPM-Solver++ of the second order (Lu et al. 2022, arXiv:2211.01095), as a table of numbers.

What diffusers' `DPMSolverMultistepScheduler` does with VibeVoice's settings: a cosine schedule of a
thousand steps (Nichol and Dhariwal 2021), velocities predicted, timesteps evenly spaced, the last
step without noise. All of it follows from the number of steps, so that a step is three products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

TRAINED_STEPS = 1_000
_OFFSET = 0.008
"""Of the cosine: there is a little noise from the start."""
_MOST_NOISE = 0.999
"""That one step of the schedule adds."""


@dataclass(frozen=True, slots=True)
class Step:
    """One of the steps from noise to a latent.

    With ``x`` as it is and ``v`` as the head predicts it at ``timestep``, the clean latent is
    ``signal * x - noise * v``, and the next ``x`` is ``keep * x + clean * this + earlier * that``,
    of this clean latent and that of the step before.
    """

    timestep: int
    signal: float
    noise: float
    keep: float
    clean: float
    earlier: float


@cache
def steps(count: int) -> tuple[Step, ...]:
    """The table for so many steps (1 to `TRAINED_STEPS`)."""
    times = [round((TRAINED_STEPS - 1) * at / count) for at in range(count, 0, -1)]
    levels = [_schedule()[time] for time in times]
    made = []
    for at, (time, (signal, noise)) in enumerate(zip(times, levels, strict=True)):
        if at == count - 1:  # to no noise at all, where the clean latent is all there is
            made.append(Step(time, signal, noise, 0.0, 1.0, 0.0))
            continue
        next_signal, next_noise = levels[at + 1]
        width = _log_ratio(next_signal, next_noise) - _log_ratio(signal, noise)
        whole = -next_signal * math.expm1(-width)
        slope = 0.0
        if at:
            slope = whole * width / (_log_ratio(signal, noise) - _log_ratio(*levels[at - 1])) / 2
        made.append(Step(time, signal, noise, next_noise / noise, whole + slope, -slope))
    return tuple(made)


@cache
def _schedule() -> tuple[tuple[float, float], ...]:
    """Of each trained step how much is signal and how much noise, squares summing up to one."""
    made, left = [], 1.0
    for at in range(TRAINED_STEPS):
        ratio = _signal_at((at + 1) / TRAINED_STEPS) / _signal_at(at / TRAINED_STEPS)
        left *= 1 - min(1 - ratio, _MOST_NOISE)
        made.append((math.sqrt(left), math.sqrt(1 - left)))
    return tuple(made)


def _signal_at(part: float) -> float:
    return math.cos((part + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2


def _log_ratio(signal: float, noise: float) -> float:
    return math.log(signal) - math.log(noise)
