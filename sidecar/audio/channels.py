"""Channels of a recording: all of them mixed, or one; and whether it matters which.

`ChannelMix` and `SelectedChannel` make the mixer of each part of a recording, and measure the
channels as these are decoded.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sidecar.audio import Block
from sidecar.audio.signal_conditioning import ChannelMixer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Frames = npt.NDArray[np.float32]

_PIECE_S = 0.25
_DEAD_ENERGY = 1e-6
"""Energy of a channel without a signal, as a share of the loudest (`ChannelMixer` has the same)."""
_ALIKE_ENERGY = 1e-3
"""Energy of the difference of two channels that are the same, as a share of their own: lossy codecs
add noise to each. Speech that is so much quieter than other speech cannot be recognized."""
_ACTIVE_ENERGY = 1e-4
"""Share of the loudest piece from which one has speech: -40 dB."""
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
        least = _ACTIVE_ENERGY * max(self._energies, default=0.0)
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
        for piece in _pieces(frames, self._piece):
            self._energies.extend(_energies(piece))
        return self._mixer.mix(frames)


@dataclass(frozen=True, slots=True)
class ChannelComparison:
    """Channels that need no transcription beside the selected one. ``same``: they have the same
    sound; ``silent``: they have no signal."""

    same: tuple[int, ...] = ()
    silent: tuple[int, ...] = ()


class SelectedChannel:
    """Channel number ``number``, from 0, of ``count``. It is compared with those behind it.

    A part of the recording may have other channels: it is silent in those that it lacks, and those
    that it has besides are mixed into the last.
    """

    def __init__(self, number: int, count: int) -> None:
        self.number, self._count = number, count
        self._loudest = [0.0] * count
        self._differences = dict.fromkeys(range(number + 1, count), 0.0)
        """Energy of the loudest piece in which another channel differs from this one."""

    def __call__(self, rate: int, channels: int) -> Mixer:
        """Return the mixer of a part."""
        return _ChannelSelector(self, rate, channels, self._count)

    def compare(self, piece: Frames) -> None:
        """Compare the channels of some frames, which have as many as the recording."""
        import numpy as np

        energies = _energies(piece)
        self._loudest = [max(pair) for pair in zip(self._loudest, energies, strict=True)]
        for other, before in self._differences.items():
            difference = piece[:, self.number] - piece[:, other]
            energy = float(np.dot(difference, difference)) / len(piece)
            if energy > _ALIKE_ENERGY * min(energies[self.number], energies[other]):
                self._differences[other] = max(before, energy)

    @property
    def comparison(self) -> ChannelComparison:
        """Return the result for the whole recording, once it is decoded."""
        least = _DEAD_ENERGY * max(self._loudest)
        if not least:
            return ChannelComparison()
        silent = [one for one in self._differences if self._loudest[one] <= least]
        same = [one for one, energy in self._differences.items() if energy <= least]
        return ChannelComparison(tuple(one for one in same if one not in silent), tuple(silent))


class _ChannelSelector:
    """Mixer that returns one channel of a part, and has the channels compared."""

    def __init__(self, selected: SelectedChannel, rate: int, channels: int, count: int) -> None:
        self._selected, self._count = selected, count
        self._piece = max(1, round(_PIECE_S * rate))
        surplus = channels - count + 1
        self._rest = ChannelMixer(rate, surplus) if surplus > 1 else None

    def mix(self, frames: Frames) -> Block:
        """Return the samples of the channel."""
        import numpy as np

        last = self._count - 1
        if self._rest is not None:
            rest = self._rest.mix(frames[:, last:])
            frames = np.concatenate([frames[:, :last], rest[:, np.newaxis]], axis=1)
        elif frames.shape[1] < self._count:
            lacking = self._count - frames.shape[1]
            frames = np.pad(frames, ((0, 0), (0, lacking)))
        for piece in _pieces(frames, self._piece):
            self._selected.compare(piece)
        return frames[:, self._selected.number].copy()


def _pieces(frames: Frames, length: int) -> Iterator[Frames]:
    """Yield finite samples in [-1, 1] of pieces of about ``length`` frames."""
    import numpy as np

    if len(frames):
        bounded = np.clip(np.nan_to_num(frames), -1.0, 1.0)
        yield from np.array_split(bounded, max(1, len(frames) // length))


def _energies(piece: Frames) -> list[float]:
    """Return the variance of each channel."""
    found: list[float] = piece.var(axis=0).tolist()
    return found
