"""From samples to the embeddings that the language model hears, a few seconds at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sidecar.audio import Block
from sidecar.engines.vibevoice.decoder import Check

SAMPLE_RATE = 24_000
HOP = 3_200
"""Samples a token stands for (model card: 7.5 tokens per second)."""
_STRETCH = 1 << 20
_FEW = 5
"""Tokens that the last chunk is rounded up to. Every length of its own costs a CPU the making of
new kernels and the memory that keeps them (docs/performance.md)."""


def token_count(samples: int) -> int:
    """Tokens that this many samples become; the last one is padded."""
    return -(-samples // HOP)


def loudness_factor(samples: Block, target_db: float, epsilon: float) -> float:
    """What to multiply by for a level of ``target_db`` dBFS without clipping.

    As the checkpoint's feature extractor does it, without its copies of the whole recording.
    """
    energy, peak = 0.0, 0.0
    for at in range(0, len(samples), _STRETCH):
        part = samples[at : at + _STRETCH]
        energy += float(np.dot(part.astype(np.float64), part))
        peak = max(peak, float(np.abs(part).max()))
    rms = (energy / max(1, len(samples))) ** 0.5
    factor = float(10 ** (target_db / 20) / (rms + epsilon))
    loudest = peak * factor
    return factor / (loudest + epsilon) if loudest > 1.0 else factor


class AudioEncoder:
    """Both encoders and the projector of a model, fed in chunks; exact at any chunk size."""

    def __init__(self, model: Any, extractor: Any) -> None:
        self._acoustic = model.model.acoustic_tokenizer_encoder
        self._semantic = model.model.semantic_tokenizer_encoder
        self._projector = model.model.multi_modal_projector
        self._extractor = extractor

    def encode(self, samples: Block, chunk_s: float, out: Tensor, check: Check) -> None:
        """Write the embeddings of a recording to ``out``, shape ``(token_count, hidden)``.

        The samples stay in the host's memory; a chunk of them at a time goes to the device.
        """
        weight = self._projector.acoustic_linear_1.weight
        chunk = max(1, round(chunk_s * SAMPLE_RATE / HOP)) * HOP
        factor = 1.0
        if self._extractor.normalize_audio:
            factor = loudness_factor(samples, self._extractor.target_dB_FS, self._extractor.eps)
        state: tuple[Any, Any] = (None, None)
        for at in range(0, len(samples), chunk):
            check()
            part = torch.from_numpy(samples[at : at + chunk] * np.float32(factor))
            length = min(chunk, -(-len(part) // (_FEW * HOP)) * _FEW * HOP)
            part = torch.nn.functional.pad(part, (0, length - len(part)))
            wave = part.view(1, 1, -1).to(weight.device, weight.dtype)
            acoustic = self._acoustic(wave, padding_cache=state[0], use_cache=True)
            check()
            semantic = self._semantic(wave, padding_cache=state[1], use_cache=True)
            state = acoustic.padding_cache, semantic.padding_cache
            heard = self._projector(acoustic.latents, semantic.latents)[0]
            place = out[at // HOP :][: len(heard)]
            place[:] = heard[: len(place)]
