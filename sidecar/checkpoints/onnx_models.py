"""ONNX Runtime sessions, models embedded in moonshine-voice's library, writer of ONNX models.

Every wheel of the pinned release, for Linux, Windows and macOS, has the same models, in ONNX
Runtime's own format. That is a FlatBuffer (onnxruntime/core/flatbuffers/schema/ort.fbs), and
onnxruntime's package depends on the library that reads it. The number of a field is its index in
its table of the schema.

Plain ONNX is a message of Protocol Buffers (onnx/onnx.proto); this module encodes its fields.
"""

from __future__ import annotations

import hashlib
import importlib.util
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnxruntime

TELEMETRY_OFF_ENV = {"ORT_DISABLE_TELEMETRY": "1"}
"""Variable that disables the telemetry of onnxruntime; it must be set before the import.

Since 1.29 official builds report to Microsoft what is run, and store an id of the machine
(Privacy.md of onnxruntime)."""

_BYTES = 2
"""Wire type of strings, bytes and messages."""
CONTRIB_DOMAIN = "com.microsoft"
"""Domain of onnxruntime's own operators."""
_IR_VERSION, _OPSET = 9, 18
_DATA_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}
Attribute = int | float | str | Sequence[int]
ORT_MAGIC, ORT_MAGIC_OFFSET = b"ORTM", 4
"""Magic number of a model in ONNX Runtime's format, and its offset in bytes."""
_MODEL, _GRAPH = 1, 7
_INITIALIZERS, _NODES = 0, 2
_NAME = 0
_NODE_INPUTS, _NODE_ATTRIBUTES = 8, 10
_ATTRIBUTE_GRAPH = 7
_DIMS, _DATA_TYPE, _RAW = 2, 3, 4
_DTYPES = {1: "<f4", 2: "u1", 3: "i1", 7: "<i8"}
MODELS_SUFFIX = ".models"
"""Suffix of a file with models alone, which an executable has in place of the library."""


def load_onnxruntime() -> Any:
    """Return the package onnxruntime, with telemetry disabled.

    Raises:
        ImportError, OSError: it does not load.
    """
    os.environ.update(TELEMETRY_OFF_ENV)
    import onnxruntime

    return onnxruntime


def session_options() -> onnxruntime.SessionOptions:
    """Return options of a session with one thread, which sleeps between calls."""
    options = load_onnxruntime().SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A thread that waits for the next call would burn a core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def create_session(
    model: str | bytes, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    """Return a session for a model (path or content) on the CPU.

    Raises:
        Exception: the runtime rejects the model; its errors have no common base class.
    """
    runtime = load_onnxruntime()
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True, slots=True)
class OrtModelFile:
    """Model in ONNX Runtime's format: input names by node (branches included), weights by name."""

    inputs: dict[str, list[str]]
    weights: dict[str, npt.NDArray[Any]]


def read_ort_model(file: Path) -> OrtModelFile:
    """Return the model in ``file``; the weights are views of the mapped file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not in ONNX Runtime's format.
    """
    with file.open("rb") as opened:
        return parse_ort_model(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ), file.name)


def parse_ort_model(data: bytes | mmap.mmap, name: str) -> OrtModelFile:
    """Return the model in ``data``; the weights are views. ``name``: for the error.

    Raises:
        ValueError: it is not in ONNX Runtime's format.
    """
    from flatbuffers.table import Table

    if data[4:8] != ORT_MAGIC:
        raise ValueError(f"{name} is not in ONNX Runtime's format")
    model = OrtModelFile({}, {})
    root = Table(data, int.from_bytes(data[:4], "little"))
    _collect(_table(_table(root, _MODEL), _GRAPH), model)
    return model


def _collect(graph: Any, model: OrtModelFile) -> None:
    for tensor in _tables(graph, _INITIALIZERS):
        values = _weights(tensor)
        if values is not None:
            model.weights[_text(tensor, _NAME)] = values
    for node in _tables(graph, _NODES):
        model.inputs[_text(node, _NAME)] = _texts(node, _NODE_INPUTS)
        for attribute in _tables(node, _NODE_ATTRIBUTES):
            if (branch := _table(attribute, _ATTRIBUTE_GRAPH)) is not None:
                _collect(branch, model)


def _weights(tensor: Any) -> npt.NDArray[Any] | None:
    import numpy as np

    at = tensor.Offset(4 + 2 * _DATA_TYPE)
    kind = int.from_bytes(tensor.Bytes[tensor.Pos + at : tensor.Pos + at + 4], "little")
    raw = _vector(tensor, _RAW)
    if kind not in _DTYPES or raw is None:
        return None
    begin, count = _vector(tensor, _DIMS) or (0, 0)
    dims = np.frombuffer(tensor.Bytes, "<i8", count, begin).tolist()
    dtype = np.dtype(_DTYPES[kind])
    start, size = raw
    return np.frombuffer(tensor.Bytes, dtype, size // dtype.itemsize, start).reshape(dims)


def _vector(table: Any, field: int) -> tuple[int, int] | None:
    """Return the offset of a field's elements, and their number."""
    at = table.Offset(4 + 2 * field)
    return (table.Vector(at), table.VectorLen(at)) if at else None


def _table(table: Any, field: int) -> Any:
    at = table.Offset(4 + 2 * field)
    return type(table)(table.Bytes, table.Indirect(table.Pos + at)) if at else None


def _tables(table: Any, field: int) -> Iterator[Any]:
    start, length = _vector(table, field) or (0, 0)
    for number in range(length):
        yield type(table)(table.Bytes, table.Indirect(start + 4 * number))


def _text(table: Any, field: int) -> str:
    at = table.Offset(4 + 2 * field)
    return table.String(table.Pos + at).decode() if at else ""


def _texts(table: Any, field: int) -> list[str]:
    start, length = _vector(table, field) or (0, 0)
    return [table.String(start + 4 * number).decode() for number in range(length)]


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """Model embedded in the library's file: purpose, size in bytes, SHA-256."""

    what: str
    size: int
    digest: str


def find_embedded_models(models: Sequence[EmbeddedModel]) -> Mapping[EmbeddedModel, bytes]:
    """Return those of ``models`` that the library contains; none if it is not installed.

    Raises:
        OSError: its file cannot be read.
    """
    spec = importlib.util.find_spec("moonshine_voice")
    found: dict[EmbeddedModel, bytes] = {}
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("*moonshine*")):
            if path.suffix in (".so", ".dll", ".dylib", MODELS_SUFFIX):
                found |= _models_in_library(path, models)
    return found


def _models_in_library(path: Path, models: Sequence[EmbeddedModel]) -> dict[EmbeddedModel, bytes]:
    """Return those of ``models`` that a library file contains."""
    found: dict[EmbeddedModel, bytes] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        at = held.find(ORT_MAGIC)
        while at >= 0:
            begin = max(0, at - ORT_MAGIC_OFFSET)
            for model in models:
                content = held[begin : begin + model.size]
                if hashlib.sha256(content).hexdigest() == model.digest:
                    found[model] = content
            at = held.find(ORT_MAGIC, at + 1)
    return found


def encode_field(number: int, content: bytes) -> bytes:
    """Return a field of bytes, encoded for a message."""
    return encode_varint(number << 3 | _BYTES) + encode_varint(len(content)) + content


def encode_varint(value: int) -> bytes:
    """Return an encoded varint; a negative number as its 64-bit two's complement."""
    value &= (1 << 64) - 1
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


class OnnxGraphBuilder:
    """Builder of an ONNX graph, node by node, without the package `onnx`; its methods return the
    names of values."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._weights: dict[str, bytes] = {}
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._values = 0

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Add an input; a string in ``shape`` names a dynamic dimension."""
        self._inputs.append(_encode_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Make the value ``name`` an output."""
        self._outputs.append(_encode_value_info(name, dtype, shape))

    def weight(self, name: str, values: npt.NDArray[Any]) -> str:
        """Add a constant."""
        self._weights[name] = b"".join(
            (
                *(_encode_integer(1, size) for size in values.shape),
                _encode_integer(2, _DATA_TYPES[values.dtype.name]),
                encode_field(8, name.encode()),
                encode_field(9, values.tobytes()),
            )
        )
        return name

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str] = (),
        domain: str = "",
        **attributes: Attribute,
    ) -> str:
        """Add a node; return the name of its first output, generated if ``outputs`` is empty."""
        if not outputs:
            self._values += 1
            outputs = (f"{operator}_{self._values}",)
        self._nodes.append(
            b"".join(
                (
                    *(encode_field(1, name.encode()) for name in inputs),
                    *(encode_field(2, name.encode()) for name in outputs),
                    encode_field(4, operator.encode()),
                    _encode_attributes(attributes),
                    encode_field(7, domain.encode()),
                )
            )
        )
        return outputs[0]

    def model(self) -> bytes:
        """Return the model as the bytes of an ONNX file."""
        graph = b"".join(
            (
                *(encode_field(1, node) for node in self._nodes),
                encode_field(2, b"graph"),
                *(encode_field(5, weight) for weight in self._weights.values()),
                *(encode_field(11, value) for value in self._inputs),
                *(encode_field(12, value) for value in self._outputs),
            )
        )
        operators = b"".join(
            encode_field(8, encode_field(1, domain.encode()) + _encode_integer(2, version))
            for domain, version in (("", _OPSET), (CONTRIB_DOMAIN, 1))
        )
        return _encode_integer(1, _IR_VERSION) + encode_field(7, graph) + operators


def _encode_attributes(attributes: Mapping[str, Attribute]) -> bytes:
    import struct

    written = []
    for name, value in attributes.items():
        match value:
            case float():
                body = _encode_tag(2, 5) + struct.pack("<f", value) + _encode_integer(20, 1)
            case int():
                body = _encode_integer(3, value) + _encode_integer(20, 2)
            case str():
                body = encode_field(4, value.encode()) + _encode_integer(20, 3)
            case _:
                body = b"".join(_encode_integer(8, item) for item in value) + _encode_integer(20, 7)
        written.append(encode_field(5, encode_field(1, name.encode()) + body))
    return b"".join(written)


def _encode_value_info(name: str, dtype: str, shape: Sequence[int | str]) -> bytes:
    sizes = b"".join(
        encode_field(
            1, _encode_integer(1, size) if isinstance(size, int) else encode_field(2, size.encode())
        )
        for size in shape
    )
    tensor = _encode_integer(1, _DATA_TYPES[dtype]) + encode_field(2, sizes)
    return encode_field(1, name.encode()) + encode_field(2, encode_field(1, tensor))


def _encode_tag(field: int, wire: int) -> bytes:
    return encode_varint(field << 3 | wire)


def _encode_integer(field: int, value: int) -> bytes:
    return _encode_tag(field, 0) + encode_varint(value)
