"""What is said of a recording before anybody works on it: will it fit, how, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.gpu_memory import plan
from sidecar.gpu_memory.plan import Estimate
from sidecar.interfaces.engine import EngineSpec, Precision


@dataclass(frozen=True, slots=True)
class Forecast:
    """An estimate for people and programs.

    ``audio_s`` is None where nobody knows how long the recording is, the bytes where an engine
    takes next to nothing, ``seconds`` (of work) where the device's speed is not known.
    ``longest_audio_s``: what ``precision`` takes at once. ``alternatives`` would fit instead.
    """

    fits: bool
    precision: Precision
    audio_s: float | None
    needed_bytes: int | None
    available_bytes: int | None
    seconds: float | None
    longest_audio_s: float
    sentence: str
    alternatives: tuple[Estimate, ...] = ()

    @classmethod
    def planned(
        cls, audio_s: float | None, estimate: Estimate, others: Sequence[Estimate]
    ) -> Forecast:
        """For an engine whose memory is planned; ``others`` fit where ``estimate`` does not."""
        return cls(
            fits=estimate.fits,
            precision=estimate.precision,
            audio_s=audio_s,
            needed_bytes=estimate.peak_bytes,
            available_bytes=estimate.available_bytes,
            seconds=estimate.seconds,
            longest_audio_s=estimate.longest_audio_s,
            sentence=plan.sentence(estimate, others),
            alternatives=tuple(others),
        )

    @classmethod
    def small(
        cls, spec: EngineSpec, precision: Precision, audio_s: float | None, longest_s: float
    ) -> Forecast:
        """For an engine whose memory is small and the same at any length."""
        return cls(
            fits=True,
            precision=precision,
            audio_s=audio_s,
            needed_bytes=None,
            available_bytes=None,
            seconds=None,
            longest_audio_s=longest_s,
            sentence=f"fits: {precision}, the engine '{spec.name}' takes any length in the same "
            "memory",
        )
