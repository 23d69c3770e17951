"""Voice activity detection: Silero VAD 6.2 in numpy, batched over sessions.

Its weights (MIT, see THIRD_PARTY_LICENSES.md) are inside moonshine-voice's library, which has one
detector for the whole process: two streams would share one state. Here each stream has its own
state of 320 numbers. All streams that wait are processed in one pass, which costs a stream an
eighth of a pass alone. The network: spectra of 16 ms, four convolutions over time, an LSTM and a
linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from sidecar import errors
from sidecar.audio import Block
from sidecar.checkpoints.onnx_models import EmbeddedModel, find_embedded_models, parse_ort_model
from sidecar.interfaces.live_options import LIVE_RATE
from sidecar.live.runtime.endpointing import FRAME_SAMPLES

Floats = npt.NDArray[np.float32]

SILERO_MODEL = EmbeddedModel(
    "voice activity detector",
    2_421_280,
    "78ba66d7e26150313fd2dc82b9cfe2b6b5f82cba050d67dea52d9c60b5262c18",
)
_BRANCH = "If_0_then_branch__Inline_0__"  # the branch for 16 kHz; the other is for 8 kHz
_CONTEXT_SAMPLES = 64  # samples of the previous frame
_WINDOW, _HOP = 256, 128
_BINS = _WINDOW // 2 + 1
_LSTM_CELLS = 128
_HIDDEN, _CELL, _BEFORE = 0, _LSTM_CELLS, 2 * _LSTM_CELLS  # offsets within a state
_LEVEL = _BEFORE + _CONTEXT_SAMPLES

_QUIET_LEVEL, _MOST_GAIN = 0.008, 30.0
"""Level below which audio is amplified for the network, and by how much at most: without that,
speech with peaks at -41 dB is found as any is, at -51 dB a quarter of it."""
_LEVEL_SAMPLES = FRAME_SAMPLES * 4 // 5
"""Samples of a frame that are not above its level: a crack of some milliseconds is not loud."""
_LEVEL_DECAY = 0.5 ** (FRAME_SAMPLES / LIVE_RATE / 10)
"""Of the level in a frame: half in ten seconds. Between two sentences the rest of an echo is not
amplified."""


class VadState:
    """State of a stream between two frames; a new one is the beginning of a stream."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: Floats = np.zeros(_LEVEL + 1, np.float32)


@dataclass(frozen=True)
class VadWeights:
    """Weights of the network: matrices that rows are multiplied with, and biases.

    ``spectrum`` (256, 258). ``convolutions``: (taps times channels in, channels out) and (channels
    out,) each, without the taps that only meet padding. ``gates`` (256, 512) and (512,): input and
    hidden to input gate, forget gate, candidate and output gate; those of the gates are halved,
    since a sigmoid is a hyperbolic tangent of the half. ``last`` (128,) and one.
    """

    spectrum: Floats
    convolutions: Sequence[tuple[Floats, Floats]]
    gates: tuple[Floats, Floats]
    last: tuple[Floats, float]


def load_vad(silero_model: EmbeddedModel = SILERO_MODEL) -> SileroVad:
    """Return the detector, with the weights from the library that contains them.

    Raises:
        errors.LiveUnavailable: the library or onnxruntime is missing, or the library has other
            weights.
    """
    try:
        model = parse_ort_model(
            find_embedded_models((silero_model,))[silero_model], silero_model.what
        )
    except KeyError:
        missing = f"this version of moonshine-voice lacks the {silero_model.what}"
        raise errors.LiveUnavailable(missing) from None
    except (ImportError, OSError) as error:
        raise errors.LiveUnavailable(f"The {silero_model.what} cannot be read: {error}") from None
    found = {name.removeprefix(_BRANCH): values for name, values in model.weights.items()}
    return SileroVad(_arrange_tensors(found))


def _arrange_tensors(found: dict[str, Floats]) -> VadWeights:
    """Return the tensors of the network in the form that `SileroVad` multiplies with."""

    def convolution(number: int, taps: slice) -> tuple[Floats, Floats]:
        name = f"encoder.{number}.reparam_conv"
        kernel = found[f"{name}.weight"][:, :, taps].transpose(2, 1, 0)
        rows = np.ascontiguousarray(kernel.reshape(-1, kernel.shape[2]))
        return rows, found[f"{name}.bias"].copy()

    gates = np.concatenate([found["decoder.rnn.weight_ih"], found["decoder.rnn.weight_hh"]], 1)
    bias = found["decoder.rnn.bias_ih"] + found["decoder.rnn.bias_hh"]
    half = np.full(4 * _LSTM_CELLS, 0.5, np.float32)
    half[2 * _LSTM_CELLS : 3 * _LSTM_CELLS] = 1
    return VadWeights(
        np.ascontiguousarray(found["stft.forward_basis_buffer"][:, 0].T),
        # The third sees two time steps, the fourth one; the steps around them are padding.
        [convolution(n, slice(*taps)) for n, taps in enumerate([(0, 3), (0, 3), (1, 3), (1, 2)])],
        (np.ascontiguousarray((gates * half[:, None]).T), bias * half),
        (
            found["decoder.decoder.2.weight"].reshape(-1).copy(),
            float(found["decoder.decoder.2.bias"][0]),
        ),
    )


class SileroVad:
    """VAD network. It has no state of a stream, and several threads may use it at once.

    The first instance limits numpy's matrix products in this process to one thread. By default
    numpy divides even such small matrices among all cores, where the threads wait for each other.
    """

    def __init__(self, weights: VadWeights) -> None:
        threadpool_limits(1, user_api="blas")
        self._weights = weights

    def state(self) -> VadState:
        """Return the state of a new stream."""
        return VadState()

    def probabilities(self, frames: Block, states: Sequence[VadState]) -> Floats:
        """Return the probability of speech in each of ``frames`` (n, 512), at 16 kHz: (n,) of 0 to
        1.

        Each row is the next frame of the stream with the state at the same index, which is updated;
        no state may occur twice. Audio that is not finite counts as silence, and resets the state
        of its stream.
        """
        if frames.shape != (len(states), FRAME_SAMPLES):
            raise ValueError(
                f"{frames.shape} is not a frame of {FRAME_SAMPLES} samples for each state"
            )
        if not states:
            return np.zeros(0, np.float32)
        past = np.stack([state.values for state in states])
        with np.errstate(all="ignore"):  # values that are not finite are handled below
            level = np.partition(abs(frames), _LEVEL_SAMPLES, axis=1)[:, _LEVEL_SAMPLES, None]
            level = np.maximum(level, past[:, _LEVEL:] * _LEVEL_DECAY)
            gain = np.clip(_QUIET_LEVEL / level, 1, _MOST_GAIN)
            seen = self._seen(np.concatenate([past[:, _BEFORE:_LEVEL], frames], axis=1) * gain)
            hidden, cell = self._remembered(seen, past)
            line, bias = self._weights.last
            spoken: Floats = 0.5 + 0.5 * np.tanh(0.5 * (np.maximum(hidden, 0) @ line + bias))
        present = np.concatenate([hidden, cell, frames[:, -_CONTEXT_SAMPLES:], level], axis=1)
        whole = np.isfinite(spoken)
        if not whole.all():
            spoken[~whole], present[~whole] = 0, 0
        for state, values in zip(states, present, strict=True):
            state.values[:] = values
        return spoken

    def _seen(self, frames: Floats) -> Floats:
        """Return the output of the convolutions for (n, 576) samples: (n, 128)."""
        n = len(frames)
        first, second, third, fourth = self._weights.convolutions
        mirrored = np.concatenate([frames, frames[:, -2 : -2 - _CONTEXT_SAMPLES : -1]], axis=1)
        hops = mirrored.reshape(n, -1, _HOP)
        waves = np.concatenate([hops[:, :-1], hops[:, 1:]], axis=2).reshape(-1, _WINDOW)
        parts = waves @ self._weights.spectrum
        parts *= parts
        # Four time steps between two of padding; then two, then one.
        moments = np.zeros((n, 6, _BINS), np.float32)
        power = parts[:, :_BINS] + parts[:, _BINS:]
        np.sqrt(power.reshape(n, 4, _BINS), out=moments[:, 1:5])
        around = np.concatenate([moments[:, :4], moments[:, 1:5], moments[:, 2:]], axis=2)
        moments = np.zeros((n, 5, 128), np.float32)
        moments[:, 1:] = _convolve(around.reshape(4 * n, -1), first).reshape(n, 4, 128)
        around = np.concatenate([moments[:, :3], moments[:, 2:]], axis=1)
        seen = _convolve(around.reshape(2 * n, -1), second).reshape(n, -1)
        return _convolve(_convolve(seen, third), fourth)

    def _remembered(self, seen: Floats, past: Floats) -> tuple[Floats, Floats]:
        """Run one step of the LSTM; return hidden and cell state, (n, 128) each."""
        matrix, bias = self._weights.gates
        gates = np.concatenate([seen, past[:, _HIDDEN:_CELL]], axis=1) @ matrix
        gates += bias
        np.tanh(gates, out=gates)
        candidate = gates[:, 2 * _LSTM_CELLS : 3 * _LSTM_CELLS].copy()
        gates *= 0.5
        gates += 0.5
        taken, kept, _, shown = np.split(gates, 4, axis=1)
        cell = kept * past[:, _CELL:_BEFORE] + taken * candidate
        return shown * np.tanh(cell), cell


def _convolve(rows: Floats, weights: tuple[Floats, Floats]) -> Floats:
    matrix, bias = weights
    rows = rows @ matrix
    rows += bias
    return np.maximum(rows, 0, out=rows)
