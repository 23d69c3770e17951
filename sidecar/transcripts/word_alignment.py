"""Word times from the recording, if an engine gives none: for any language, without a model. Pure.

Borders of words are chosen by dynamic programming over the segment's spectrum in steps of 10 ms. A
word should take the share of the speech that its letters have; a border should be where it is quiet
or the spectrum changes; pauses belong behind punctuation, and never into a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.transcripts.transcript import WORDS_BY_ALIGNMENT, Segment, Word
from sidecar.transcripts.word_timing import split_atoms

_MAX_SEGMENT_S = 45.0
"""Longer segments, which are rare, would take more than a second."""
_STEPS_PER_S = 100
_WINDOW_S, _BANDS = 0.025, 24
"""Length of the windows of the spectrum, and its bands."""
_CONTEXT = 3
"""Steps on either side of a border whose mean spectra are compared."""
_QUIET = 0.3
"""Level of a pause, between the quiet tenth (0) and the loud tenth (1) of a segment."""
_MIN_RANGE = 1.4
"""Least range of these levels, as a logarithm (6 dB): in even noise nothing is a pause."""
_MIN_PAUSE, _MAX_PAUSE = 6, 40
"""Steps of a pause, and steps from which a longer one counts no more."""
_CANDIDATE_STEPS = 3
"""Steps of speech of which the best may be a border."""
_SEARCH_S, _SEARCH_SHARE = 1.5, 0.1
"""How far a border may be from where the letters alone put it: seconds, and in addition a share of
the segment."""
_DURATION, _LEVEL, _CHANGE = 4.0, 0.5, 0.25
"""Weights of the squared logarithm of a word's relative duration, of the level at a border, and of
the change of the spectrum there."""
_PAUSE_IN_WORD, _PAUSE_AT_MARK, _PAUSE_ELSEWHERE = 0.05, -0.1, 0.02
"""Weights of a step of a pause: inside a word, behind punctuation, and between other words.

Of 1,143 words of 13 clips every weight may be halved or doubled, and the median distance from the
attention's times stays between 82 and 92 ms."""
_MARKS = frozenset(".,;:?!…。，、；：？！।۔؟،")

_Steps = npt.NDArray[np.int64]
_Levels = npt.NDArray[np.float64]


def align_words(segment: Segment, samples: Block, rate: int, start_s: float = 0.0) -> Segment:
    """Return the segment with aligned words, or as it is if it has some, is no speech, is too short
    for its words or longer than 45 s.

    ``samples``: shape (samples,), of the recording from ``start_s`` on, at ``rate``.
    """
    if segment.words or not segment.is_speech or segment.end - segment.start > _MAX_SEGMENT_S:
        return segment
    pieces = split_atoms(" ".join(segment.text.split()))
    first, last = (max(0, round((at - start_s) * rate)) for at in (segment.start, segment.end))
    spectrum = _spectrum(samples[first:last], rate)
    if not pieces or len(spectrum) < 2 * len(pieces) + 2:
        return segment
    sound = _Sound.of(spectrum)
    borders = _borders(pieces, sound)
    if borders is None:
        return segment
    words = []
    for piece, begin, end in zip(pieces, borders, borders[1:], strict=False):
        spoken = begin + np.flatnonzero(np.diff(sound.said[begin : end + 1]))
        times = (spoken[0], spoken[-1] + 1) if len(spoken) else (begin, end)
        start, stop = (round(segment.start + float(at) / _STEPS_PER_S, 3) for at in times)
        words.append(Word(start, min(stop, segment.end), piece.strip()))
    return replace(segment, words=tuple(words), words_by=WORDS_BY_ALIGNMENT)


@dataclass(frozen=True, slots=True)
class _Sound:
    """A segment of n steps. ``said``: steps of speech before each border, shape (n + 1,).
    ``pause``: steps of the pause that begins at a border. ``cost`` of each border.
    ``candidates``: the borders that are considered, in order."""

    said: _Steps
    pause: _Steps
    cost: _Levels
    candidates: _Steps

    @classmethod
    def of(cls, spectrum: _Levels) -> _Sound:
        """Return what a spectrum in logarithms, shape (n, bands), says of borders."""
        count = len(spectrum)
        level = np.log(np.exp(spectrum).mean(axis=1))
        quiet, loud = np.percentile(level, (10, 90))
        level = np.clip(1.0 - (loud - level) / max(loud - quiet, _MIN_RANGE), 0.0, 1.0)
        edges = np.flatnonzero(np.diff(level < _QUIET, prepend=False, append=False))
        speech, pause = np.ones(count, np.int64), np.zeros(count + 1, np.int64)
        for begin, end in edges.reshape(-1, 2):
            if end - begin >= _MIN_PAUSE:
                speech[begin:end], pause[begin] = 0, end - begin
        cost = np.zeros(count + 1)
        quieter = np.minimum(level[:-1], level[1:])
        cost[1:-1] = _LEVEL * quieter - _CHANGE * np.minimum(_changes(spectrum), 1.5)
        kept = {0, count, *np.flatnonzero(pause).tolist()}
        spoken = np.where(speech > 0, cost[:-1], np.inf)
        for begin in range(1, count, _CANDIDATE_STEPS):
            best = begin + int(spoken[begin : begin + _CANDIDATE_STEPS].argmin())
            if speech[best]:
                kept.add(best)
        said = np.concatenate([[0], np.cumsum(speech)])
        return cls(said, pause, cost, np.array(sorted(kept)))


def _borders(pieces: Sequence[str], sound: _Sound) -> list[int] | None:
    """Return the steps between the words, with both ends of the segment; `None` if there is no way
    to place them."""
    at = sound.candidates
    said, pause = sound.said[at], sound.pause[at]
    silent = at - said
    counted = np.minimum(pause, _MAX_PAUSE)
    letters = np.array([1 + sum(map(str.isalnum, piece)) for piece in pieces], float)
    expected = np.maximum(letters * sound.said[-1] / letters.sum(), 1.0)
    ends = np.cumsum(expected)
    reach = _SEARCH_S * _STEPS_PER_S + _SEARCH_SHARE * at[-1]
    before, cost = np.array([0]), np.zeros(1)
    ways: list[tuple[_Steps, _Steps]] = []
    for number, piece in enumerate(pieces):
        if number == len(pieces) - 1:
            here, border = np.array([len(at) - 1]), np.zeros(1)
        else:
            here = np.flatnonzero(np.abs(said - ends[number]) <= reach)
            weight = _PAUSE_AT_MARK if piece.rstrip()[-1:] in _MARKS else _PAUSE_ELSEWHERE
            border = sound.cost[at[here]] + weight * counted[here]
        took = np.maximum(said[here] - said[before][:, None], 1)
        inside = silent[here] - (silent + pause)[before][:, None]
        total = cost[:, None] + _DURATION * np.log(took / expected[number]) ** 2
        total += _PAUSE_IN_WORD * np.maximum(inside, 0)
        total[at[here] < at[before][:, None] + 2] = np.inf
        best = total.argmin(axis=0)
        cost = total[best, np.arange(len(here))] + border
        possible = np.isfinite(cost)
        here, cost = here[possible], cost[possible]
        ways.append((here, before[best[possible]]))
        before = here
        if not len(here):
            return None
    last = len(at) - 1
    found = [last]
    for here, previous in reversed(ways):
        last = int(previous[np.searchsorted(here, last)])
        found.append(last)
    return [int(at[one]) for one in reversed(found)]


def _changes(spectrum: _Levels) -> _Levels:
    """Return the change of the spectrum at each border inside, shape (n - 1,); about 1 where it is
    largest."""
    count = len(spectrum)
    sums = np.concatenate([np.zeros((1, spectrum.shape[1])), np.cumsum(spectrum, axis=0)])
    border = np.arange(1, count)
    first, last = np.maximum(0, border - _CONTEXT), np.minimum(count, border + _CONTEXT)
    before = (sums[border] - sums[first]) / (border - first)[:, None]
    after = (sums[last] - sums[border]) / (last - border)[:, None]
    distance: _Levels = np.linalg.norm(before - after, axis=1)
    return distance / (np.percentile(distance, 95) + 1e-6)


def _spectrum(samples: Block, rate: int) -> _Levels:
    """Return the logarithm of the energy in bands of equal width on the mel scale, shape
    (steps, bands)."""
    step, width = rate // _STEPS_PER_S, round(_WINDOW_S * rate)
    count = len(samples) // step
    if not count:
        return np.zeros((0, _BANDS))
    side = (width - step) // 2
    padded = np.pad(samples, (side, width))
    frames = np.lib.stride_tricks.sliding_window_view(padded, width)[::step][:count]
    energy = np.abs(np.fft.rfft(frames * np.hanning(width))) ** 2
    mel = 2595 * np.log10(1 + np.fft.rfftfreq(width, 1 / rate) / 700)
    edges = np.linspace(mel[1], 2840.0, _BANDS + 2)  # 2840 mel: 8 kHz
    rising = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    bands = np.clip(np.minimum(rising, falling), 0.0, None)
    levels: _Levels = np.log(energy @ bands + 1e-6)
    return levels
