"""Where sound is least: there a stretch of speech may be cut if it has to be."""

from __future__ import annotations

from sidecar.audio import Block

_FRAME_S = 0.02


def quietest(samples: Block, rate: int, over_s: float) -> int:
    """The sample in the middle of the ``over_s`` seconds with the least energy.

    ``samples``: shape (samples,). The middle of all where there are fewer.
    """
    import numpy as np

    frame = max(1, round(_FRAME_S * rate))
    frames, over = len(samples) // frame, round(over_s / _FRAME_S)
    if frames < over:
        return len(samples) // 2
    energy = np.square(samples[: frames * frame].reshape(frames, frame)).mean(axis=1)
    smooth = np.convolve(energy, np.ones(over), mode="valid")
    return (int(smooth.argmin()) * 2 + over) * frame // 2
