"""Survey of a recording's channels: silent ones, equal ones, and how far one predicts another."""

from __future__ import annotations

from array import array
from itertools import combinations, permutations

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.audio.channel_layout import ChannelLayout
from sidecar.audio.signal_conditioning import ACTIVE_ENERGY, ChannelMixer, Frames, bounded

_DEAD_ENERGY = 1e-6
"""Energy of a channel without a signal, as a share of the loudest (`ChannelMixer` has the same)."""
_ALIKE_ENERGY = 1e-3
"""Energy of the difference of two channels that are the same, as a share of their own: lossy codecs
add noise to each. Speech that is so much quieter than other speech cannot be recognized."""
_MIN_FITTED = 1e-6
"""Energy, as a share of a channel's, below which no filter between two channels is fitted to it."""

_FRAME_S = 0.1
_QUIETER = 4.0
"""Ratio of the energies of two channels, the quieter of which may have only bleed: 6 dB."""


class ChannelSurvey:
    """Measure of ``count`` channels over the whole recording, before one of them is selected.

    A part of the recording may have other channels: it is silent in those that it lacks, and those
    that it has besides are mixed into the last.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.parts: list[SurveyedPart] = []

    def __call__(self, rate: int, layout: ChannelLayout) -> SurveyedPart:
        """Return the mixer of a part."""
        self.parts.append(SurveyedPart(rate, layout.channels, self.count))
        return self.parts[-1]

    @property
    def silent(self) -> list[int]:
        """Return the channels without a signal; none if no channel has one."""
        loudest = self._loudest()
        least = _DEAD_ENERGY * max(loudest)
        return [one for one in range(self.count) if least and loudest[one] <= least]

    @property
    def same(self) -> dict[int, int]:
        """Return the channels that have the sound of an earlier one, with that one."""
        least, silent, found = _DEAD_ENERGY * max(self._loudest()), self.silent, dict[int, int]()
        for one in range(self.count) if least else ():
            for other in range(one):
                if not {one, other} & {*silent, *found} and self._apart(other, one) <= least:
                    found[one] = other
        return found

    def _apart(self, one: int, other: int) -> float:
        """Return the energy of the loudest frame in which two channels differ in more than level,
        sign and a delay of about a sample, as loud as the louder one of them."""
        products = np.concatenate([part.products(one, other) for part in self.parts])
        total = products.sum(axis=0)
        least = _MIN_FITTED * np.trace(total[:-1, :-1]) * np.eye(len(total) - 1)
        weights = np.linalg.solve(total[:-1, :-1] + least, total[:-1, -1])
        rest = np.append(-weights, 1.0)
        energies = np.einsum("ijk,j,k->i", products, rest, rest)
        louder = max(1.0, total[1, 1] / total[-1, -1])
        unlike = energies > _ALIKE_ENERGY * products[:, -1, -1]
        return float(louder * energies[unlike].max(initial=0.0))

    def _loudest(self) -> list[float]:
        energies = [part.energies.max(axis=0) for part in self.parts if len(part.energies)]
        return (
            [max(float(one[at]) for one in energies) for at in range(self.count)]
            if energies
            else [0.0] * self.count
        )


class SurveyedPart:
    """Part of a recording whose channels are measured frame by frame."""

    def __init__(self, rate: int, channels: int, count: int) -> None:
        self.frame = frame_samples(rate)
        """Samples of a frame."""
        self._fit = FittedChannels(rate, channels, count)
        self._count, self._energies = count, array("f")
        self._rest: Frames = np.zeros((0, count), np.float32)
        self._window = np.hanning(self.frame).astype(np.float32)[:, np.newaxis]
        self._quieter = {pair: _Predictability() for pair in permutations(range(count), 2)}
        self._products = {pair: array("f") for pair in combinations(range(count), 2)}

    @property
    def energies(self) -> Frames:
        """Return the energies, shape (frames, channels)."""
        return np.frombuffer(self._energies, np.float32).reshape(-1, self._count)

    @property
    def predicted(self) -> dict[tuple[int, int], tuple[float, float, int]]:
        """Return, for each two channels, how much energy of the first one the second one predicts,
        of how much, in how many frames in which the first is much quieter."""
        return {pair: one.result for pair, one in self._quieter.items()}

    def mix(self, frames: Frames) -> Block:
        """Measure the channels; return the first one."""
        frames = self._fit.fit(frames)
        waiting = np.concatenate([self._rest, bounded(frames)])
        whole = len(waiting) // self.frame
        self._rest = waiting[whole * self.frame :].copy()
        measured = waiting[: whole * self.frame].reshape(whole, self.frame, self._count)
        for frame in measured:
            self._measure(frame)
        level = (measured - measured.mean(axis=1, keepdims=True)).astype(np.float64)
        for (one, other), products in self._products.items():
            first, second = level[:, :, one], level[:, 1:-1, other]
            four = np.stack([first[:, :-2], first[:, 1:-1], first[:, 2:], second], axis=1)
            products.frombytes(
                (four @ four.swapaxes(1, 2) / self.frame).astype(np.float32).tobytes()
            )
        return frames[:, 0].copy()

    def products(self, one: int, other: int) -> npt.NDArray[np.float64]:
        """Return, for each frame, the mean products of a channel one sample before, at the same
        time and one after, and of a later channel, shape (frames, 4, 4)."""
        found = np.frombuffer(self._products[one, other], np.float32).reshape(-1, 4, 4)
        return found.astype(np.float64)

    def same_frames(self, one: int, other: int) -> npt.NDArray[np.bool_]:
        """Return for each frame whether a channel and a later one have the same sound at the same
        level, as a mono part of a stereo recording has."""
        products = self.products(one, other)
        first, both, second = products[:, 1, 1], products[:, 1, -1], products[:, -1, -1]
        found: npt.NDArray[np.bool_] = first - 2 * both + second < _ALIKE_ENERGY * second
        return found

    def _measure(self, frame: Frames) -> None:
        energies = frame.var(axis=0).tolist()
        self._energies.extend(energies)
        spectra = None
        for (one, other), quieter in self._quieter.items():
            if energies[other] > max(_QUIETER * energies[one], _DEAD_ENERGY):
                if spectra is None:
                    spectra = np.fft.rfft(frame * self._window, axis=0)
                quieter.add(spectra[:, one], spectra[:, other])

    def quieter_ratios(self, number: int, other: int) -> Frames:
        """Return the energies of a channel, as shares of another one's, in the frames in which that
        one has speech and this one is much quieter."""
        own, others = self.energies[:, number], self.energies[:, other]
        taken = (others > ACTIVE_ENERGY * others.max(initial=0.0)) & (others > _QUIETER * own)
        found: Frames = own[taken] / others[taken]
        return found


class _Predictability:
    """Share of a channel that another one predicts by a fixed filter: their coherence."""

    def __init__(self) -> None:
        self._cross: npt.NDArray[np.complex128] | None = None
        self._count = 0

    def add(self, own: npt.NDArray[np.complex128], other: npt.NDArray[np.complex128]) -> None:
        """Add the spectra of a frame."""
        if self._cross is None:
            self._cross = np.zeros(len(own), np.complex128)
            self._own, self._other = np.zeros((2, len(own)))
        # Each frame counts alike: speech of both at once is far louder than bleed.
        own, other = (one / max(float(np.linalg.norm(one)), 1e-30) for one in (own, other))
        self._cross += own * other.conj()
        self._own += np.abs(own) ** 2
        self._other += np.abs(other) ** 2
        self._count += 1

    @property
    def result(self) -> tuple[float, float, int]:
        """Return the energy that is predicted, that of the channel, and the number of frames."""
        if self._cross is None:
            return 0.0, 0.0, 0
        shared = np.abs(self._cross) ** 2 / np.maximum(self._other, 1e-30)
        return float(shared.sum()), float(self._own.sum()), self._count


class FittedChannels:
    """Frames of a part with as many channels as the recording has."""

    def __init__(self, rate: int, channels: int, count: int) -> None:
        self._count = count
        surplus = channels - count + 1
        self._rest = ChannelMixer(rate, ChannelLayout(surplus)) if surplus > 1 else None

    def fit(self, frames: Frames) -> Frames:
        """Return the frames, shape (samples, count)."""
        last = self._count - 1
        if self._rest is not None:
            rest = self._rest.mix(frames[:, last:])
            return np.concatenate([frames[:, :last], rest[:, np.newaxis]], axis=1)
        lacking = self._count - frames.shape[1]
        return np.pad(frames, ((0, 0), (0, lacking))) if lacking else frames


def frame_samples(rate: int) -> int:
    """Return the samples of a frame at a sample rate in Hz."""
    return max(2, round(_FRAME_S * rate))
