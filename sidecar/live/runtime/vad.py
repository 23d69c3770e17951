"""Voice activity detection: Silero VAD 6.2 in numpy, batched over sessions.

Its weights (MIT, see THIRD_PARTY_LICENSES.md) are inside moonshine-voice's library, which has one
detector for the whole process: two streams would run through one memory. Here each has its own, 320
numbers, and all that wait are heard in one pass, which costs a session an eighth of what it costs
alone. The network: spectra of 16 ms, four convolutions over time, an LSTM and a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar import errors
from sidecar.audio import Block
from sidecar.checkpoints import onnx_runtime
from sidecar.checkpoints.onnx_runtime import EmbeddedModel, find_embedded_models

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
"""Samples a second of all that is heard here."""
FRAME_SAMPLES = 512
"""Samples that a probability is said for: 32 ms."""
SILERO_MODEL = EmbeddedModel(
    "voice activity detector",
    2_421_280,
    "78ba66d7e26150313fd2dc82b9cfe2b6b5f82cba050d67dea52d9c60b5262c18",
)
_BRANCH = "If_0_then_branch__Inline_0__"  # that for 16 kHz; the other is for 8
_CONTEXT_SAMPLES = 64  # samples of the frame before
_WINDOW, _HOP = 256, 128
_BINS = _WINDOW // 2 + 1
_LSTM_CELLS = 128
_HIDDEN, _CELL, _BEFORE = 0, _LSTM_CELLS, 2 * _LSTM_CELLS  # where each begins in a state


class VadState:
    """State of a stream between two frames; a new one is the beginning of a stream."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        import numpy as np

        self.values: Floats = np.zeros(_BEFORE + _CONTEXT_SAMPLES, np.float32)


@dataclass(frozen=True)
class VadWeights:
    """Matrices to multiply rows with, and what is added behind.

    ``spectrum`` (256, 258). ``convolutions``: (taps times channels in, channels out) and
    (channels out,) each, of the taps that do not always meet nothing. ``gates`` (256, 512) and
    (512,): input and hidden to input gate, forget gate, candidate and output gate; those of the
    gates are halved, since a sigmoid is a hyperbolic tangent of the half. ``last`` (128,) and one.
    """

    spectrum: Floats
    convolutions: Sequence[tuple[Floats, Floats]]
    gates: tuple[Floats, Floats]
    last: tuple[Floats, float]


def load_vad_weights() -> VadWeights:
    """The weights, out of the library that carries them; they may be shared by all.

    Raises:
        errors.LiveUnavailable: there is no library or onnxruntime, or the library has another.
    """
    try:
        model = onnx_runtime.parse_ort_model(
            find_embedded_models((SILERO_MODEL,))[SILERO_MODEL], SILERO_MODEL.what
        )
    except KeyError:
        missing = f"this moonshine-voice does not carry the {SILERO_MODEL.what}"
        raise errors.LiveUnavailable(missing) from None
    except (ImportError, OSError) as error:
        raise errors.LiveUnavailable(f"The {SILERO_MODEL.what} cannot be read: {error}") from None
    found = {name.removeprefix(_BRANCH): values for name, values in model.weights.items()}
    return _arrange_tensors(found)


def _arrange_tensors(found: dict[str, Floats]) -> VadWeights:
    """The network's tensors as what `SileroVad` multiplies with."""
    import numpy as np

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
        # The third sees two moments, the fourth one; what lies around them is nothing.
        [convolution(n, slice(*taps)) for n, taps in enumerate([(0, 3), (0, 3), (1, 3), (1, 2)])],
        (np.ascontiguousarray((gates * half[:, None]).T), bias * half),
        (
            found["decoder.decoder.2.weight"].reshape(-1).copy(),
            float(found["decoder.decoder.2.bias"][0]),
        ),
    )


class SileroVad:
    """The network. It keeps nothing of a stream, and may be used by several threads at once.

    From the first one on, all that numpy multiplies in this process it multiplies on one thread: by
    itself it divides matrices as small as these among all cores, where they wait for each other.
    """

    def __init__(self, weights: VadWeights) -> None:
        from threadpoolctl import threadpool_limits

        threadpool_limits(1, user_api="blas")
        self._weights = weights

    def state(self) -> VadState:
        """Of a stream that begins."""
        return VadState()

    def probabilities(self, frames: Block, states: Sequence[VadState]) -> Floats:
        """Return the probability of speech in each of ``frames`` (n, 512), at 16 kHz: (n,) of 0 to
        1.

        Row by row the next frame of the stream that the state in its place is of, which is brought
        up to date; no state may be there twice. Sound that is not finite counts as silence, and its
        stream begins anew.
        """
        import numpy as np

        if frames.shape != (len(states), FRAME_SAMPLES):
            raise ValueError(
                f"{frames.shape} is not a frame of {FRAME_SAMPLES} samples for each state"
            )
        if not states:
            return np.zeros(0, np.float32)
        past = np.stack([state.values for state in states])
        with np.errstate(all="ignore"):  # what is not finite is looked at below
            seen = self._seen(np.concatenate([past[:, _BEFORE:], frames], axis=1))
            hidden, cell = self._remembered(seen, past)
            line, bias = self._weights.last
            spoken: Floats = 0.5 + 0.5 * np.tanh(0.5 * (np.maximum(hidden, 0) @ line + bias))
        present = np.concatenate([hidden, cell, frames[:, -_CONTEXT_SAMPLES:]], axis=1)
        whole = np.isfinite(spoken)
        if not whole.all():
            spoken[~whole], present[~whole] = 0, 0
        for state, values in zip(states, present, strict=True):
            state.values[:] = values
        return spoken

    def _seen(self, sound: Floats) -> Floats:
        """Return the output of the convolutions for (n, 576) samples: (n, 128)."""
        import numpy as np

        n = len(sound)
        first, second, third, fourth = self._weights.convolutions
        mirrored = np.concatenate([sound, sound[:, -2 : -2 - _CONTEXT_SAMPLES : -1]], axis=1)
        hops = mirrored.reshape(n, -1, _HOP)
        waves = np.concatenate([hops[:, :-1], hops[:, 1:]], axis=2).reshape(-1, _WINDOW)
        parts = waves @ self._weights.spectrum
        parts *= parts
        # Four moments between two of nothing; then two, then one.
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
        """One step of the LSTM: hidden and cell, (n, 128) each."""
        import numpy as np

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
    import numpy as np

    matrix, bias = weights
    rows = rows @ matrix
    rows += bias
    return np.maximum(rows, 0, out=rows)


def load_vad() -> SileroVad:
    """The detector, for an engine that is about to hear live.

    Raises:
        errors.LiveUnavailable: its weights are not here.
    """
    return SileroVad(load_vad_weights())
