"""Channels of a recording: all of them mixed, or one without the bleed of the others.

`ChannelMix`, `ChannelSurvey` (`channel_survey`) and `SelectedChannel` make the mixer of each part
of a recording.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from sidecar.audio import Block
from sidecar.audio.channel_survey import (
    ACTIVE_ENERGY,
    ChannelSurvey,
    FittedChannels,
    bounded,
    frame_samples,
)
from sidecar.audio.signal_conditioning import ChannelMixer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Frames = npt.NDArray[np.float32]
    Mask = npt.NDArray[np.bool_]

_PIECE_S = 0.25
_DOMINANCE = 10.0
"""Ratio of the energies of two microphones, one of which the speaker wears."""
_MIN_DOMINATED_S, _MIN_DOMINATED_SHARE = 1.0, 0.6
"""Seconds in which each of two channels dominates, and the share of all speech in which one does:
in music and in a room with two microphones it is less."""


class Mixer(Protocol):
    """Mixer of the blocks of one part of a recording."""

    def mix(self, frames: Frames) -> Block:
        """Return the next block, shape (samples,), of ``frames``, shape (samples, channels)."""


MakeMixer = Callable[[int, int], Mixer]
"""Maker of the mixer of a part by its sample rate and number of channels."""


class ChannelMix:
    """Mix of all channels, which measures whether two of them have different speakers."""

    def __init__(self) -> None:
        self._energies = array("f")
        """Energies of the first channel and the second, for each `_PIECE_S` seconds."""

    def __call__(self, rate: int, channels: int) -> Mixer:
        """Return the mixer of a part."""
        mixer = ChannelMixer(rate, channels)
        return _MeasuredPair(mixer, rate, self._energies) if channels == 2 else mixer

    @property
    def different_speakers(self) -> bool:
        """Return whether now one channel has the speech, now the other, as if each were the
        microphone of one speaker."""
        least = ACTIVE_ENERGY * max(self._energies, default=0.0)
        pairs = zip(self._energies[::2], self._energies[1::2], strict=True)
        active = [pair for pair in pairs if max(pair) > least]
        dominated = [
            sum(pair[one] > _DOMINANCE * pair[1 - one] for pair in active) for one in (0, 1)
        ]
        enough = min(dominated) * _PIECE_S >= _MIN_DOMINATED_S
        return enough and sum(dominated) >= _MIN_DOMINATED_SHARE * len(active)


class _MeasuredPair:
    """Mixer of two channels whose energies are measured."""

    def __init__(self, mixer: Mixer, rate: int, energies: array[float]) -> None:
        self._mixer, self._energies = mixer, energies
        self._piece = max(1, round(_PIECE_S * rate))

    def mix(self, frames: Frames) -> Block:
        """Mix, and add the energies of the pieces."""
        import numpy as np

        if len(frames):
            for piece in np.array_split(bounded(frames), max(1, len(frames) // self._piece)):
                self._energies.extend(piece.var(axis=0).tolist())
        return self._mixer.mix(frames)


class SelectedChannel:
    """Channel number ``number``, from 0, of those that were surveyed; silent where it has only
    bleed of others."""

    def __init__(self, number: int, survey: ChannelSurvey) -> None:
        self._number, self._survey = number, survey
        self._open = survey.open_frames(number)
        self._parts = 0

    def __call__(self, rate: int, channels: int) -> Mixer:
        """Return the mixer of the next part."""
        import numpy as np

        at, self._parts = self._parts, self._parts + 1
        known = at < len(self._open)  # the file may have grown
        opened = self._open[at] if known else np.ones(0, np.bool_)
        frame = frame_samples(rate)
        fit = FittedChannels(rate, channels, self._survey.count)
        return _ChannelSelector(fit, self._number, opened, frame)


class _ChannelSelector:
    """Mixer that returns one channel, faded out in the frames that are not ``opened``."""

    def __init__(self, fit: FittedChannels, number: int, opened: Mask, frame: int) -> None:
        self._fit, self._number, self._frame = fit, number, frame
        self._opened = opened
        self._position = 0

    def mix(self, frames: Frames) -> Block:
        """Return the samples of the channel."""
        import numpy as np

        samples: Block = self._fit.fit(frames)[:, self._number].copy()
        if not self._opened.all() and len(samples):
            times = (self._position + np.arange(len(samples))) / self._frame - 0.5
            frames_at = np.arange(len(self._opened))
            samples *= np.interp(times, frames_at, self._opened).astype(np.float32)
        self._position += len(samples)
        return samples
