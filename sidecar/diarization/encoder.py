"""A voice as a vector: two of one person point the same way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.diarization.features import FRAME, HOP, fbank
from sidecar.diarization.models import Models, load_models

FRAME_S = 0.08
"""From one frame of the trunk to the next."""
SIZE = 256
FRAMES_IN_ONE = 8
"""Of the features, in a frame of the trunk."""

Frames = npt.NDArray[np.float32]
"""What the trunk makes of a stretch: shape (frames, 2560), a frame every 80 ms."""
Vector = npt.NDArray[np.float32]
"""Shape (256,), of length 1."""

_TINY = 1e-8


class SpeakerEncoder:
    """Voices into vectors.

    Raises:
        VoicesUnavailable: when it is made without ``models``, and they are not here.
    """

    def __init__(self, models: Models | None = None) -> None:
        self._models = models or load_models()

    def vector(self, voice: Block) -> Vector:
        """The vector of one voice at 16 kHz, shape (samples,), at least a tenth of a second."""
        frames = self.frames(voice)
        found = self.pooled(frames, np.ones(len(frames), np.float32))
        return found if found is not None else np.zeros(SIZE, np.float32)

    def frames(self, samples: Block) -> Frames:
        """The trunk over a stretch at 16 kHz: a frame for each begun 80 ms of its features."""
        (found,) = self._models.trunk.run(None, {"fbank": fbank(samples)[None]})
        frames: Frames = np.ascontiguousarray(found[0].reshape(-1, found.shape[-1]).T)
        return frames

    def pooled(self, frames: Frames, weights: npt.NDArray[np.float32]) -> Vector | None:
        """The vector of what the weights (0 to 1, shape (frames,)) let through; None if nothing."""
        used = weights > 0
        if not used.any():
            return None
        frames, weights = frames[used], weights[used]
        total = weights.sum() + _TINY
        mean = weights @ frames / total
        spread = (
            weights @ np.square(frames - mean) / (total - np.square(weights).sum() / total + _TINY)
        )
        vector = self._models.weight @ np.concatenate([mean, np.sqrt(spread)]) + self._models.bias
        found: Vector = vector / np.linalg.norm(vector)
        return found


class OneVoice(SpeakerEncoder):
    """Takes everybody for the same person, and costs nothing: where only speech counts."""

    def __init__(self) -> None:
        """It has no model."""

    def frames(self, samples: Block) -> Frames:
        """As many as the trunk makes, with nothing in them."""
        count = -(-((len(samples) - FRAME) // HOP + 1) // FRAMES_IN_ONE)
        return np.zeros((count, 1), np.float32)

    def pooled(self, frames: Frames, weights: npt.NDArray[np.float32]) -> Vector | None:
        """The same direction whoever speaks; None if nobody does."""
        return np.eye(1, SIZE, dtype=np.float32)[0] if weights.any() else None
