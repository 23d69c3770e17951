"""Word times of Moonshine, by attention and loudness. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.transcripts.transcript import Word

_DROP_DB = 30.0
"""Level below the loud parts (the 90th percentile of frames) from which a frame is silent ..."""
_NOISE_DB = 6.0
"""... or level above the quietest if there is noise, but at least 10 dB below the loud parts."""
_MIN_DROP_DB = 10.0
_SOFT_DB = 8.0
"""Level from the border of silence to certainty, in both directions."""
_SILENCE_WEIGHT = 5.0
"""Weight of loudness relative to attention, in standard deviations of the latter; results are the
same from 4 to 8."""
Span = tuple[int, int]
"""First frame, and the frame after the last."""


def frame_silence(samples: Block, frame: int, frames: int) -> npt.NDArray[np.float32]:
    """Return the certainty that each frame is silent, shape (frames,): from -1 (speech) to 1.

    ``samples``: shape (samples,). ``frame``: samples per frame.
    """
    size = frames * frame
    sound = np.pad(samples[:size], (0, max(0, size - len(samples)))).reshape(frames, frame)
    level = 10 * np.log10(np.square(sound).mean(axis=1) + 1e-9)
    loud, least = np.percentile(level, 90), np.percentile(level, 3)
    border = max(loud - _DROP_DB, min(least + _NOISE_DB, loud - _MIN_DROP_DB))
    sure: npt.NDArray[np.float32] = np.clip((border - level) / _SOFT_DB, -1, 1).astype(np.float32)
    return sure


def token_spans(
    attention: npt.NDArray[np.float32], silent: npt.NDArray[np.float32], begins: Sequence[bool]
) -> list[Span]:
    """Return the frames of each token, in order; tokens overlap only if they share a frame.

    ``attention``: shape (heads, tokens, frames). ``silent``: shape (frames,), from `frame_silence`.
    ``begins``: whether each token begins a word; there may be silence before such tokens, and after
    the last.
    """
    if not attention.shape[1]:
        return []
    spread = attention.std(axis=1, keepdims=True) + 1e-9
    likely = ((attention - attention.mean(axis=1, keepdims=True)) / spread).mean(axis=0)
    rows: list[npt.NDArray[np.float32]] = []
    of_token: list[int] = []
    for token, row in enumerate(likely):
        if begins[token] or not token:
            rows.append(_SILENCE_WEIGHT * silent)
            of_token.append(-1)
        rows.append(row - _SILENCE_WEIGHT * silent)
        of_token.append(token)
    rows.append(_SILENCE_WEIGHT * silent)
    of_token.append(-1)
    path = _viterbi_path(np.stack(rows), of_token)
    if path is None:
        return _even_spans(len(likely), likely.shape[1])
    return [span for token, span in zip(of_token, path, strict=True) if token >= 0]


_NEXT, _SHARED, _STAY, _NO_SILENCE = range(4)
"""Predecessors of a row: the row before, at the previous frame or the same; the row itself; the row
before the silence."""


def _viterbi_path(rows: npt.NDArray[np.float32], of_token: Sequence[int]) -> list[Span] | None:
    """Return each row's frames on the path through (rows, frames) with the greatest sum.

    Rows of silence (-1) may be left out. `None` if there are fewer frames than words.
    """
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
        # Sums accumulate: the best at a frame is the best entry before it plus all rows since.
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


def _even_spans(tokens: int, frames: int) -> list[Span]:
    return [(token * frames // tokens, (token + 1) * frames // tokens) for token in range(tokens)]


def align_words(
    text: str, pieces: Sequence[str], at: Sequence[tuple[float, float]]
) -> Iterator[Word]:
    """Yield the words of ``text``, each from its first character to its last.

    ``pieces``: text of each token; ``at``: its span in seconds. They contain the same characters as
    ``text`` except for commas and spaces; a mark that stands alone belongs to the word before it.
    """
    times = [when for piece, when in zip(pieces, at, strict=True) for _ in _kept_characters(piece)]
    done = 0
    word: Word | None = None
    for part in text.split():
        count = sum(1 for _ in _kept_characters(part))
        if not count:
            word = word and replace(word, text=f"{word.text} {part}")
            continue
        if word is not None:
            yield word
        spans = times[done : done + count]
        done += count
        begin = spans[0][0] if word is None else max(spans[0][0], word.start)
        word = Word(begin, max(begin, spans[-1][1]), part)
    if word is not None:
        yield word


def _kept_characters(text: str) -> Iterator[str]:
    """Return the characters that normalization does not change."""
    return (one for one in text if one != "," and not one.isspace())
