"""Audio and context of a prompt of VibeVoice-ASR: tokens of a recording, loudness, marks. Pure.

This module does not import torch: docs/plugins.md lists it.
"""

from collections.abc import Iterable

import numpy as np

from sidecar.audio import Block

HOP_SAMPLES = 3_200
"""Samples per token (model card: 7.5 tokens per second)."""
_LOUDNESS_BLOCK_SAMPLES = 1 << 20
DURATION_MARK = "<|AUDIO_DURATION|>"
"""Mark in the template of the released processor, no token."""


def token_count(samples: int) -> int:
    """Return the number of tokens of so many samples; the last one is padded."""
    return -(-samples // HOP_SAMPLES)


def loudness_factor(samples: Block, target_db: float, epsilon: float) -> float:
    """Return the factor for a level of ``target_db`` dBFS without clipping.

    The result is that of the checkpoint's feature extractor, without its copies of the recording.
    """
    energy, peak = 0.0, 0.0
    for at in range(0, len(samples), _LOUDNESS_BLOCK_SAMPLES):
        part = samples[at : at + _LOUDNESS_BLOCK_SAMPLES]
        energy += float(np.dot(part.astype(np.float64), part))
        peak = max(peak, float(np.abs(part).max()))
    rms = (energy / max(1, len(samples))) ** 0.5
    factor = float(10 ** (target_db / 20) / (rms + epsilon))
    loudest = peak * factor
    return factor / (loudest + epsilon) if loudest > 1.0 else factor


def without_marks(context: str, marks: Iterable[str]) -> str:
    """Return the lines of ``context``, without empty ones and without anything that the tokenizer
    (``marks``) or the template treats as a mark."""
    known, before = sorted({*marks, DURATION_MARK}), None
    while before != context:  # removing a mark may form another
        before = context
        for mark in known:
            context = context.replace(mark, " ")
    lines = (" ".join(line.split()) for line in context.splitlines())
    return "\n".join(filter(None, lines))
