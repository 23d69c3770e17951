"""Audio constants and sample types: mono float32 blocks at an engine's rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # numpy costs the service's start a tenth of a second; only workers need it
    import numpy as np
    import numpy.typing as npt

Block: TypeAlias = "npt.NDArray[np.float32]"
"""Mono samples in [-1, 1], shape (samples,)."""
