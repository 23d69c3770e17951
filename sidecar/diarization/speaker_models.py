"""Segmentation and embedding models, log-mel features, speaker encoder.

Every wheel of the pinned moonshine-voice has the models inside its shared library, in ONNX
Runtime's own format. They are the segmentation of pyannote "community-1" and its speaker encoder, a
WeSpeaker ResNet34 (CC-BY-4.0, see THIRD_PARTY_LICENSES.md). They are found by their digests.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.checkpoints import onnx_runtime
from sidecar.diarization.segmentation_graph import build_segmentation_graph
from sidecar.diarization.speaker_trunk import (
    FEATURES,
    MEL_BINS,
    ConvolutionOf,
    TrunkConvolution,
    build_trunk_graph,
)

if TYPE_CHECKING:
    import onnxruntime


log = logging.getLogger(__name__)

_HEAD = "/resnet/seg_1/Gemm"
_MEASURED_FRAMES, _MEASUREMENTS = 40, 3


class SpeakerModelsUnavailable(Exception):
    """Diarization models that are not installed or cannot run; the message says why."""


SEGMENTATION = onnx_runtime.EmbeddedModel(
    "segmentation",
    1_594_080,
    "9715e3996ef181252aa1cc0c9398060f42b2c984c2fb65e3604262555e2efb1a",
)
ENCODER = onnx_runtime.EmbeddedModel(
    "speaker encoder",
    6_975_920,
    "6e4af7d49562e6e7042672e444d6394935cb2c23c3a7dd4919da45922b91735b",
)


@dataclass(frozen=True)
class SpeakerModels:
    """Loaded models: two sessions of ONNX Runtime, and the encoder's head.

    ``segmentation``: waveforms (windows, 1, 160000) → (windows, 589, 3). ``trunk``: features (1,
    frames, 80) → (1, 256, 10, frames / 8). ``weight``, ``bias``: (256, 5120) and (256,).
    Thread-safe.
    """

    segmentation: onnxruntime.InferenceSession
    trunk: onnxruntime.InferenceSession
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def load_models() -> SpeakerModels:
    """Load both models, with one thread each.

    Raises:
        SpeakerModelsUnavailable: onnxruntime is missing, or the library has other models.
    """
    try:
        found = find_speaker_models()
        wheels = onnx_runtime.parse_ort_model(found[SEGMENTATION], "the segmentation")
        graph = build_segmentation_graph(wheels)
        segmentation = _session(graph, onnx_runtime.session_options())
        encoder = onnx_runtime.parse_ort_model(found[ENCODER], "the speaker encoder")
        trunk = _faster_trunk(lambda name: _encoder_weights(encoder, f"/resnet/{name}/Conv"))
        head = _encoder_weights(encoder, _HEAD)
    except (ImportError, OSError, ValueError, KeyError) as error:
        raise SpeakerModelsUnavailable(f"no voices are told apart: {error}") from None
    return SpeakerModels(segmentation, trunk, head.kernel, head.bias)


@cache
def shared_speaker_models() -> SpeakerModels | None:
    """Return the models, loaded once per process; `None` if they are not available."""
    try:
        return load_models()
    except SpeakerModelsUnavailable as error:
        log.warning("recordings have no speaker labels: %s", error)
        return None


def find_speaker_models() -> Mapping[onnx_runtime.EmbeddedModel, bytes]:
    """Return the models embedded in the library.

    Raises:
        SpeakerModelsUnavailable: a model is missing.
    """
    found = onnx_runtime.find_embedded_models((SEGMENTATION, ENCODER))
    if lacking := [model.what for model in (SEGMENTATION, ENCODER) if model not in found]:
        raise SpeakerModelsUnavailable(
            f"this moonshine-voice does not carry the {', the '.join(lacking)}"
        )
    return found


def _session(model: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return onnx_runtime.create_session(model, options)
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
        session = _session(graph, onnx_runtime.session_options())
        times_s = []
        for _ in range(_MEASUREMENTS):
            begun = time.thread_time()
            session.run(None, {FEATURES: features})
            times_s.append(time.thread_time() - begun)
        sessions.append(session)
        least.append(min(times_s))
    return sessions[int(least[1] < least[0])]


def _encoder_weights(encoder: onnx_runtime.OrtModelFile, node: str) -> TrunkConvolution:
    """Return the weights of a node, as floats, and its bias.

    Raises:
        KeyError: there is no such node.
    """
    _, weight, bias = encoder.inputs[node]
    if weight in encoder.weights:
        return TrunkConvolution(encoder.weights[weight], encoder.weights[bias], 0.0)
    name = weight.removesuffix("_add_tensor")
    step, zero, levels = (
        encoder.weights[f"{name}_{part}"] for part in ("scale", "zero_point", "quantized")
    )
    return TrunkConvolution(
        levels.astype(np.float32) * step + zero, encoder.weights[bias], float(step.max())
    )


SAMPLE_RATE = 16_000
FRAME_SAMPLES, HOP_SAMPLES = 400, 160
_FFT = 512
_LOWEST_HZ, _HIGHEST_HZ = 20.0, 8000.0
_PREEMPHASIS = 0.97
_FLOOR = 1.1920929e-07
_FULL_SCALE = 32768.0

Features = npt.NDArray[np.float32]
"""Shape (frames, 80)."""


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
