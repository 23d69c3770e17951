"""Writer of ONNX models, node by node.

A model is a message of Protocol Buffers (onnx/onnx.proto). This module does not need the package
`onnx`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from sidecar.checkpoints.onnx_runtime import encode_field, encode_varint

CONTRIB_DOMAIN = "com.microsoft"
"""Domain of onnxruntime's own operators."""
_IR_VERSION, _OPSET = 9, 18
_DATA_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}

Attribute = int | float | str | Sequence[int]


class OnnxGraphBuilder:
    """Builder of an ONNX graph; its methods return the names of values."""

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
            1,
            _encode_integer(1, size) if isinstance(size, int) else encode_field(2, size.encode()),
        )
        for size in shape
    )
    tensor = _encode_integer(1, _DATA_TYPES[dtype]) + encode_field(2, sizes)
    return encode_field(1, name.encode()) + encode_field(2, encode_field(1, tensor))


def _encode_tag(field: int, wire: int) -> bytes:
    return encode_varint(field << 3 | wire)


def _encode_integer(field: int, value: int) -> bytes:
    return _encode_tag(field, 0) + encode_varint(value)
