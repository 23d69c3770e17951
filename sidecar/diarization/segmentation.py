"""Who of up to three voices speaks when, in ten seconds of sound."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.diarization.models import Models

WINDOW = 160_000
"""Ten seconds, in samples."""
FRAMES = 589
"""Of a window's answer."""
VOICES = 3
"""As many at the most in one window; which is which means nothing beyond it."""
STEP_S = 0.016875
"""From one frame to the next."""
FIELD_S = 0.0619375
"""What one frame looks at."""
LEAD_S = (FIELD_S - STEP_S) / 2
"""A frame stands for the middle step of its field: from here on, in the window."""

Activity = npt.NDArray[np.bool_]
"""Shape (589, 3): does that voice speak in that frame?"""


def segmentation(models: Models, window: Block) -> Activity:
    """The voices of a window: shape (160000,), at 16 kHz."""
    (found,) = models.segmentation.run(None, {"waveforms": window[None, None]})
    active: Activity = found[0] > 0.5
    return active
