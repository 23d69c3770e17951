"""What is said from here to there, as a vector: out of what the windows heard of it. Pure.

A window has a vector for each of its voices, of all that the voice says alone in those ten seconds.
What somebody says in a stretch sounds the more like a window's vector, the more of that was said
within the stretch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sidecar.diarization.listening import Window
from sidecar.diarization.segmentation import FRAMES, LEAD_S, STEP_S
from sidecar.diarization.speaker_identification import Voice

LEAST_S = 0.3
"""A voice that is heard for less in a stretch says nothing of it."""


def voices_in(
    windows: Sequence[Window], stretches: Sequence[tuple[float, float]]
) -> list[Voice | None]:
    """The voice of each stretch of (start, end) seconds; None where hardly anybody is heard.

    ``windows``: in order. Of several voices in a stretch it is the one that has most of it.
    """
    frames = [
        (round((start - LEAD_S) / STEP_S), round((end - LEAD_S) / STEP_S))
        for start, end in stretches
    ]
    sums: list[npt.NDArray[np.float32] | float] = [0.0] * len(frames)
    seconds = [0.0] * len(frames)
    order = sorted(range(len(frames)), key=lambda at: frames[at])
    longest = max((end - begin for begin, end in frames), default=0)
    first = 0
    for window in windows:
        while first < len(order) and frames[order[first]][0] + longest < window.start:
            first += 1
        alone = _counted(window)
        for at in order[first:]:
            begin, end = (min(max(one - window.start, 0), FRAMES) for one in frames[at])
            if frames[at][0] >= window.end:
                break
            inside = alone[begin:end].sum(axis=0)
            voice = int(inside.argmax())
            heard_s = float(inside[voice]) * STEP_S
            if heard_s < LEAST_S or not window.heard[voice]:
                continue
            share = heard_s / (float(alone[:, voice].sum()) * STEP_S)
            sums[at] = sums[at] + heard_s * share * window.vectors[voice].astype(np.float32)
            seconds[at] = max(seconds[at], heard_s)
    return [_voice(one, heard_s) for one, heard_s in zip(sums, seconds, strict=True)]


def _counted(window: Window) -> npt.NDArray[np.bool_]:
    """The frames that each voice's vector was made of: where it is alone, if it ever is."""
    active = window.activity
    alone: npt.NDArray[np.bool_] = active & (active.sum(axis=1) == 1)[:, None]
    lonely: npt.NDArray[np.bool_] = np.where(window.alone_s >= LEAST_S, alone, active)
    return lonely


def _voice(total: npt.NDArray[np.float32] | float, seconds: float) -> Voice | None:
    length = float(np.linalg.norm(total))
    return Voice(np.asarray(total, np.float32) / length, seconds) if length else None
