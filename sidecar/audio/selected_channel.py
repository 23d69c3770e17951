"""One channel of a recording, without the bleed of the others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.audio.channel_layout import ChannelLayout
from sidecar.audio.channel_survey import ChannelSurvey, FittedChannels, frame_samples
from sidecar.audio.signal_conditioning import ACTIVE_ENERGY, Frames, Mixer

Mask = npt.NDArray[np.bool_]
Energies = npt.NDArray[np.float32]

_MIN_BLEED_FRAMES, _MIN_PREDICTABLE = 20, 0.15
"""Frames in which bleed is looked for, and the share of a channel's energy there that another one
predicts: speech of its own has a twentieth or less, by chance."""
_BLEED_MARGIN, _MAX_BLEED = 6.0, 0.3
"""Energy above that of the usual bleed from which a channel has speech of its own, and the most
energy, as a share of the other channel's, that is taken for bleed."""
_HOLD_FRAMES, _MEDIAN_FRAMES, _REACH_FRAMES = 2, 5, 1
"""Frames for which a room holds the sound of another channel; in the majority of which a channel is
open; and by which it opens early and closes late. With one more of the last, the beginnings of the
other's words are recognized here: twice the word errors in a recording with bleed at -20 dB."""


class SelectedChannel:
    """Channel number ``number``, from 0, of those that were surveyed; silent where it has only
    bleed of others, or the sound of an earlier one."""

    def __init__(self, number: int, survey: ChannelSurvey) -> None:
        self.number, self._survey = number, survey
        self._open = _open_frames(survey, number)
        self._parts = 0

    def __call__(self, rate: int, layout: ChannelLayout) -> Mixer:
        """Return the mixer of the next part."""
        at, self._parts = self._parts, self._parts + 1
        known = at < len(self._open)  # the file may have grown
        opened = self._open[at] if known else np.ones(0, np.bool_)
        frame = frame_samples(rate)
        fit = FittedChannels(rate, layout.channels, self._survey.count)
        return _ChannelSelector(fit, self.number, opened, frame)


def _open_frames(survey: ChannelSurvey, number: int) -> list[Mask]:
    """Return, for the frames of each part, whether a channel has more than the bleed of the
    others, and other sound than an earlier one."""
    found = [np.ones(len(part.energies), np.bool_) for part in survey.parts]
    for other in range(survey.count):
        if other != number and (most := _bleed(survey, number, other)):
            for mask, part in zip(found, survey.parts, strict=True):
                mask &= _is_open(part.energies[:, number], part.energies[:, other], most)
    for other in range(number):
        for mask, part in zip(found, survey.parts, strict=True):
            mask &= ~part.same_frames(other, number)
    return found


def _bleed(survey: ChannelSurvey, number: int, other: int) -> float:
    """Return the most energy that another channel's bleed has in a channel, as a share of its
    energy there; 0 if there is none."""
    shared, own, count = (
        sum(part.predicted[number, other][at] for part in survey.parts) for at in range(3)
    )
    if count < _MIN_BLEED_FRAMES or shared < _MIN_PREDICTABLE * own:
        return 0.0
    ratios = np.concatenate([part.quieter_ratios(number, other) for part in survey.parts])
    return min(_MAX_BLEED, _BLEED_MARGIN * float(np.median(ratios))) if len(ratios) else 0.0


def _is_open(own: Energies, other: Energies, most: float) -> Mask:
    """Return for each frame whether a channel has more than bleed of another one, which is at
    most the share ``most`` of the energy there. ``own``, ``other``: energies of their frames."""
    others = other.copy()
    active = others > ACTIVE_ENERGY * others.max(initial=0.0)
    for late in range(1, _HOLD_FRAMES + 1):
        others[late:] = np.maximum(others[late:], other[:-late])
        active[late:] |= active[:-late]
    opened = ~active | (own > most * others)
    voted = _count_around(opened, _MEDIAN_FRAMES // 2) > _MEDIAN_FRAMES / 2
    found: Mask = _count_around(voted, _REACH_FRAMES) > 0
    return found


def _count_around(mask: Mask, reach: int) -> npt.NDArray[np.float64]:
    """Return how many are set in a mask from ``reach`` before each place to ``reach`` after it."""
    counted = np.convolve(mask, np.ones(2 * reach + 1)) if len(mask) else np.zeros(2 * reach)
    return counted[reach : reach + len(mask)]


class _ChannelSelector:
    """Mixer that returns one channel, faded out in the frames that are not ``opened``."""

    def __init__(self, fit: FittedChannels, number: int, opened: Mask, frame: int) -> None:
        self._fit, self._number, self._frame = fit, number, frame
        self._opened = opened
        self._position = 0

    def mix(self, frames: Frames) -> Block:
        """Return the samples of the channel."""
        samples: Block = self._fit.fit(frames)[:, self._number].copy()
        if not self._opened.all() and len(samples):
            times = (self._position + np.arange(len(samples))) / self._frame - 0.5
            frames_at = np.arange(len(self._opened))
            samples *= np.interp(times, frames_at, self._opened).astype(np.float32)
        self._position += len(samples)
        return samples
