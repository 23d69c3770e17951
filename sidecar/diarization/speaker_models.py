"""Segmentation and embedding models, log-mel features, speaker encoder.

Every wheel of the pinned moonshine-voice holds them inside its shared library, in ONNX Runtime's
own format: pyannote "community-1"'s segmentation and its speaker encoder, a WeSpeaker ResNet34
(CC-BY-4.0, see THIRD_PARTY_LICENSES.md). They are found by their digests.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.checkpoints import onnx_runtime

if TYPE_CHECKING:
    import onnxruntime


log = logging.getLogger(__name__)

_FEATURES = "fbank"
_TRUNK = "/resnet/layer4/layer4.2/Relu_1_output_0"
_WEIGHT, _BIAS = "resnet.seg_1.weight", "resnet.seg_1.bias"
# Numbers of fields: onnx.ModelProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, TypeProto.
_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT = 1, 2
_TENSOR_NAME, _TENSOR_DATA = 8, 9
_VALUE_NAME, _VALUE_TYPE = 1, 2
_FLOATS = b"\x0a\x02\x08\x01"  # a tensor of floats, of any shape


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

    ``segmentation``: waveforms (1, 1, 160000) → (1, 589, 3). ``trunk``: features (1, frames, 80) →
    (1, 256, 10, frames / 8). ``weight``, ``bias``: (256, 5120) and (256,). They may be used by
    several threads at once.
    """

    segmentation: onnxruntime.InferenceSession
    trunk: onnxruntime.InferenceSession
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def load_models() -> SpeakerModels:
    """Both models, ready to run with a thread each.

    Raises:
        VoicesUnavailable: without onnxruntime, or beside a library that carries other models.
    """
    try:
        found = find_speaker_models()
        segmentation = _session(found[SEGMENTATION], onnx_runtime.session_options())
        encoder = _as_onnx(found[ENCODER])
        trunk = _session(_encoder_trunk(encoder), onnx_runtime.session_options())
        weight, bias = _encoder_head(encoder)
    except (ImportError, OSError, ValueError, KeyError) as error:
        raise SpeakerModelsUnavailable(f"no voices are told apart: {error}") from None
    return SpeakerModels(segmentation, trunk, weight, bias)


@cache
def shared_speaker_models() -> SpeakerModels | None:
    """Return the models, loaded once for the process; None where they cannot be had here."""
    try:
        return load_models()
    except SpeakerModelsUnavailable as error:
        log.warning("recordings have no speaker labels: %s", error)
        return None


def find_speaker_models() -> Mapping[onnx_runtime.EmbeddedModel, bytes]:
    """The models as the library carries them.

    Raises:
        VoicesUnavailable: when one is not there.
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
    except Exception as error:  # its errors have no base of their own
        raise SpeakerModelsUnavailable(f"the model does not load: {error}") from None


def _as_onnx(model: bytes) -> bytes:
    """The same model as plain ONNX, by ONNX Runtime's own hand, which only writes to a path."""
    options = onnx_runtime.session_options()
    level = onnx_runtime.load_onnxruntime().GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_DISABLE_ALL
    options.add_session_config_entry("session.save_model_format", "ONNX")
    with _scratch_path() as path:
        options.optimized_model_filepath = str(path)
        _session(model, options)
        return path.read_bytes()


@contextmanager
def _scratch_path() -> Iterator[Path]:
    """A path for a moment: in memory where the system has such files, else a temporary one."""
    if hasattr(os, "memfd_create"):
        held = os.memfd_create("encoder")
        try:
            yield Path(f"/proc/self/fd/{held}")
        finally:
            os.close(held)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / "encoder.onnx"


def _encoder_trunk(model: bytes) -> bytes:
    """The part of the encoder's graph that comes before the pooling."""
    (graph,) = onnx_runtime.field_contents(model, _GRAPH)
    parts = list(onnx_runtime.parse_fields(graph))
    wanted, kept = {_TRUNK.encode()}, set()
    for at, part in reversed(list(enumerate(parts))):  # nodes stand in the order they run in
        if part.number == _GRAPH_NODE and wanted & set(
            onnx_runtime.field_contents(part.content, _NODE_OUTPUT)
        ):
            wanted |= set(onnx_runtime.field_contents(part.content, _NODE_INPUT))
            kept.add(at)
    for at, part in enumerate(parts):
        if (
            part.number == _GRAPH_INITIALIZER
            and onnx_runtime.field_contents(part.content, _TENSOR_NAME)[0] in wanted
        ):
            kept.add(at)
        if part.number == _INPUT and onnx_runtime.field_contents(part.content, _VALUE_NAME) == [
            _FEATURES.encode()
        ]:
            kept.add(at)
        if part.number not in (_GRAPH_NODE, _GRAPH_INITIALIZER, _INPUT, _OUTPUT):
            kept.add(at)
    output = onnx_runtime.encode_field(_VALUE_NAME, _TRUNK.encode()) + onnx_runtime.encode_field(
        _VALUE_TYPE, _FLOATS
    )
    cut = b"".join(parts[at].raw for at in sorted(kept)) + onnx_runtime.encode_field(
        _OUTPUT, output
    )
    return b"".join(
        onnx_runtime.encode_field(_GRAPH, cut) if part.number == _GRAPH else part.raw
        for part in onnx_runtime.parse_fields(model)
    )


def _encoder_head(model: bytes) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The matrix and the bias that come behind the pooling: (256, 5120) and (256,)."""
    (graph,) = onnx_runtime.field_contents(model, _GRAPH)
    data = {
        onnx_runtime.field_contents(tensor, _TENSOR_NAME)[0].decode(): (
            onnx_runtime.field_contents(tensor, _TENSOR_DATA) or [b""]
        )[0]
        for tensor in onnx_runtime.field_contents(graph, _GRAPH_INITIALIZER)
    }
    bias = np.frombuffer(data[_BIAS], np.float32)
    scale, zero = (
        np.frombuffer(data[_WEIGHT + end], np.float32) for end in ("_scale", "_zero_point")
    )
    levels = np.frombuffer(data[_WEIGHT + "_quantized"], np.int8).reshape(len(bias), -1)
    return levels.astype(np.float32) * scale + zero, bias


SAMPLE_RATE = 16_000
FRAME_SAMPLES, HOP_SAMPLES = 400, 160
MEL_BINS = 80
_FFT = 512
_LOWEST_HZ, _HIGHEST_HZ = 20.0, 8000.0
_PREEMPHASIS = 0.97
_FLOOR = 1.1920929e-07
_FULL_SCALE = 32768.0

Features = npt.NDArray[np.float32]
"""Shape (frames, 80)."""


def log_mel_features(samples: Block) -> Features:
    """Log mel energies less their mean over the stretch, a frame every 10 ms.

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
    """The window, shape (400,), and the mel filters, shape (257, 80)."""
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
"""From one frame of the trunk to the next."""
EMBEDDING_SIZE = 256
FRAME_SIZE = 2560
FRAMES_IN_ONE = 8
"""Of the features, in a frame of the trunk."""

Frames = npt.NDArray[np.float32]
"""Output of the trunk for a span: shape (frames, 2560), a frame every 80 ms."""
Mask = npt.NDArray[np.bool_]
"""Shape (frames,)."""
Vector = npt.NDArray[np.float32]
"""Shape (256,), of length 1."""

_TINY = 1e-8


def trunk_frames(samples: int) -> int:
    """Return the number of frames that the trunk makes of so many samples."""
    return -(-((samples - FRAME_SAMPLES) // HOP_SAMPLES + 1) // FRAMES_IN_ONE)


class SpeakerEncoder:
    """Voices into vectors.

    Raises:
        VoicesUnavailable: when it is made without ``models``, and they are not here.
    """

    def __init__(self, models: SpeakerModels | None = None) -> None:
        self._models = models or load_models()

    def vector(self, voice: Block) -> Vector:
        """The vector of one voice at 16 kHz, shape (samples,), at least a tenth of a second."""
        frames = self.frames(voice)
        found = self.pooled(frames, np.ones(len(frames), np.float32))
        return found if found is not None else np.zeros(EMBEDDING_SIZE, np.float32)

    def frames(self, samples: Block) -> Frames:
        """The trunk over a stretch at 16 kHz: a frame for each begun 80 ms of its features."""
        return np.ascontiguousarray(self._trunk(log_mel_features(samples)))

    def frames_of_speech(self, samples: Block, speech: Mask) -> tuple[Frames, Mask]:
        """The trunk over the frames of a stretch that ``speech`` lets through, as if nothing were
        between them; the others are zeros. And which frames say something.

        ``speech``: shape (frames,).
        """
        features = log_mel_features(samples)
        frames = np.zeros((len(speech), FRAME_SIZE), np.float32)
        if speech.any():
            spoken = np.repeat(speech, FRAMES_IN_ONE)[: len(features)]
            frames[speech] = self._trunk(features[spoken])
        return frames, speech

    def _trunk(self, features: Features) -> Frames:
        (found,) = self._models.trunk.run(None, {"fbank": features[None]})
        frames: Frames = found[0].reshape(-1, found.shape[-1]).T
        return frames

    def pooled(self, frames: Frames, weights: npt.NDArray[np.float32]) -> Vector | None:
        """The vector of what the weights (0 to 1, shape (frames,)) let through; None if nothing."""
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
    """Encoder that takes all speech for one speaker, without cost: where only speech counts."""

    def __init__(self) -> None:
        """It has no model."""

    def frames(self, samples: Block) -> Frames:
        """As many as the trunk makes, with nothing in them."""
        return np.zeros((trunk_frames(len(samples)), 1), np.float32)

    def frames_of_speech(self, samples: Block, speech: Mask) -> tuple[Frames, Mask]:
        """All of them: none costs more than another."""
        return self.frames(samples), np.ones_like(speech)

    def pooled(self, frames: Frames, weights: npt.NDArray[np.float32]) -> Vector | None:
        """Return the same embedding for every speaker; None without speech."""
        return np.eye(1, EMBEDDING_SIZE, dtype=np.float32)[0] if weights.any() else None
