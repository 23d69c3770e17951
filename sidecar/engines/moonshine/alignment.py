"""When each token was said, by the decoder's attention and the loudness of the sound. Pure.

By dynamic programming.

The way is that of Whisper's word times (attention of chosen heads, then the best monotone path),
with one thing more: between two words there may be silence. Attention alone does not tell where in
a silence a word ends; how loud it is does (docs/performance.md, "Times of words").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sidecar.audio import Block

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_DROP_DB = 30.0
"""So much below its loud parts (the 90th percentile of frames) a stretch is silent ..."""
_NOISE_DB = 6.0
"""... or so little above its quietest, where there is noise; but 10 dB below its loud parts."""
_LEAST_DROP_DB = 10.0
_SOFT_DB = 8.0
"""From the border of silence to where it is sure, in both directions."""
_WEIGHT = 5.0
"""Of loudness beside attention, in standard deviations of that; from 4 to 8 it is the same."""

Span = tuple[int, int]
"""First frame, and the one behind the last."""


def silence(samples: Block, frame: int, frames: int) -> npt.NDArray[np.float32]:
    """How surely each frame is silent, shape (frames,): from -1 (speech) to 1.

    ``samples``: shape (samples,). ``frame``: samples of one.
    """
    import numpy as np

    size = frames * frame
    sound = np.pad(samples[:size], (0, max(0, size - len(samples)))).reshape(frames, frame)
    level = 10 * np.log10(np.square(sound).mean(axis=1) + 1e-9)
    loud, least = np.percentile(level, 90), np.percentile(level, 3)
    border = max(loud - _DROP_DB, min(least + _NOISE_DB, loud - _LEAST_DROP_DB))
    sure: npt.NDArray[np.float32] = np.clip((border - level) / _SOFT_DB, -1, 1).astype(np.float32)
    return sure


def spans(
    attention: npt.NDArray[np.float32], silent: npt.NDArray[np.float32], begins: Sequence[bool]
) -> list[Span]:
    """The frames of each token, in order, without overlap but for tokens that share a frame.

    ``attention``: shape (heads, tokens, frames). ``silent``: shape (frames,), as `silence` has it.
    ``begins``: which tokens begin a word; there may be silence before these, and behind the last.
    """
    import numpy as np

    if not attention.shape[1]:
        return []
    spread = attention.std(axis=1, keepdims=True) + 1e-9
    likely = ((attention - attention.mean(axis=1, keepdims=True)) / spread).mean(axis=0)
    rows: list[npt.NDArray[np.float32]] = []
    of_token: list[int] = []
    for token, row in enumerate(likely):
        if begins[token] or not token:
            rows.append(_WEIGHT * silent)
            of_token.append(-1)
        rows.append(row - _WEIGHT * silent)
        of_token.append(token)
    rows.append(_WEIGHT * silent)
    of_token.append(-1)
    path = _best_path(np.stack(rows), of_token)
    if path is None:
        return _evenly(len(likely), likely.shape[1])
    return [span for token, span in zip(of_token, path, strict=True) if token >= 0]


_NEXT, _SHARED, _STAY, _NO_SILENCE = range(4)
"""How a row is come to: from the one before, at the frame before or the same; from itself; from
before the silence."""


def _best_path(rows: npt.NDArray[np.float32], of_token: Sequence[int]) -> list[Span] | None:
    """Each row's frames on the path through (rows, frames) with the greatest sum; rows of silence
    (-1) may be left out. None where there are fewer frames than words."""
    import numpy as np

    count, frames = rows.shape
    best = np.full((count + 1, frames + 1), -np.inf)
    best[0, 0] = 0.0
    came = np.full((count + 1, frames + 1), _STAY, np.int8)
    for row in range(1, count + 1):
        before = best[row - 1, :-1]
        entered, how = before, np.full(frames, _NEXT, np.int8)
        if row > 1 and of_token[row - 1] >= 0:
            silent = of_token[row - 2] < 0
            other = best[row - 2, :-1] if silent else best[row - 1, 1:]
            how[other > entered] = _NO_SILENCE if silent else _SHARED
            entered = np.maximum(entered, other)
        # Staying adds up: what is best at a frame is the best entry before it, plus all since.
        summed = np.cumsum(rows[row - 1])
        gained = entered + rows[row - 1] - summed
        most = np.maximum.accumulate(gained)
        best[row, 1:] = most + summed
        came[row, 1:] = np.where(gained >= most, how, _STAY)
    row = count if best[count, frames] >= best[count - 1, frames] else count - 1
    if best[row, frames] == -np.inf:
        return None
    found: list[Span] = [(0, 0)] * count
    at: int = frames
    end = at
    while row > 0:
        how_here = int(came[row, at])
        if how_here == _STAY:
            at -= 1
            continue
        found[row - 1] = at - 1, end
        at -= int(how_here != _SHARED)
        row -= 2 if how_here == _NO_SILENCE else 1
        end = at
    return found


def _evenly(tokens: int, frames: int) -> list[Span]:
    return [(token * frames // tokens, (token + 1) * frames // tokens) for token in range(tokens)]
