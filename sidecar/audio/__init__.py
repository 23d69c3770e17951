"""Audio constants and sample types: mono float32 blocks at an engine's rate."""

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # numpy delays the service's start by 0.1 s; only workers need it
    import numpy as np
    import numpy.typing as npt

Block: TypeAlias = "npt.NDArray[np.float32]"
"""Mono samples in [-1, 1], shape (samples,)."""
SAMPLE_RATE = 16_000
"""Sample rate in Hz of live audio, of diarization, of VAD and of all engines but VibeVoice's."""
VIBEVOICE_SAMPLE_RATE = 24_000
"""Sample rate in Hz of VibeVoice-ASR."""
