"""Writes a model in the ONNX format, node by node, for onnxruntime to load from memory.

The format is Protocol Buffers (onnx/onnx.proto); what is written here is the part of it that the
recognition model's decoder needs, so that the onnx package, five times its size, need not be here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

CONTRIB = "com.microsoft"
"""The domain of onnxruntime's own operators."""
_IR_VERSION, _OPSET = 9, 18
_KINDS = {"float32": 1, "uint8": 2, "int64": 7}

Attribute = int | float | Sequence[int]


class Graph:
    """A graph in the making; a value is known by its name."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._weights: dict[str, bytes] = {}
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._values = 0

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """A value that comes from outside; a name in ``shape`` is a length that varies."""
        self._inputs.append(_value(name, dtype, shape))
        return name

    def output(self, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Hand out the value called ``name``."""
        self._outputs.append(_value(name, dtype, shape))

    def weight(self, name: str, values: npt.NDArray[Any]) -> str:
        """A constant."""
        self._weights[name] = b"".join(
            (
                *(_number(1, size) for size in values.shape),
                _number(2, _KINDS[values.dtype.name]),
                _bytes(8, name.encode()),
                _bytes(9, values.tobytes()),
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
        """One step; the name of its first output, made up where ``outputs`` names none."""
        if not outputs:
            self._values += 1
            outputs = (f"{operator}_{self._values}",)
        self._nodes.append(
            b"".join(
                (
                    *(_bytes(1, name.encode()) for name in inputs),
                    *(_bytes(2, name.encode()) for name in outputs),
                    _bytes(4, operator.encode()),
                    _attributes(attributes),
                    _bytes(7, domain.encode()),
                )
            )
        )
        return outputs[0]

    def model(self) -> bytes:
        """The file."""
        graph = b"".join(
            (
                *(_bytes(1, node) for node in self._nodes),
                _bytes(2, b"graph"),
                *(_bytes(5, weight) for weight in self._weights.values()),
                *(_bytes(11, value) for value in self._inputs),
                *(_bytes(12, value) for value in self._outputs),
            )
        )
        operators = b"".join(
            _bytes(8, _bytes(1, domain.encode()) + _number(2, version))
            for domain, version in (("", _OPSET), (CONTRIB, 1))
        )
        return _number(1, _IR_VERSION) + _bytes(7, graph) + operators


def _attributes(attributes: Mapping[str, Attribute]) -> bytes:
    import struct

    written = []
    for name, value in attributes.items():
        match value:
            case float():
                body = _tag(2, 5) + struct.pack("<f", value) + _number(20, 1)
            case int():
                body = _number(3, value) + _number(20, 2)
            case _:
                body = b"".join(_number(8, item) for item in value) + _number(20, 7)
        written.append(_bytes(5, _bytes(1, name.encode()) + body))
    return b"".join(written)


def _value(name: str, dtype: str, shape: Sequence[int | str]) -> bytes:
    sizes = b"".join(
        _bytes(1, _number(1, size) if isinstance(size, int) else _bytes(2, size.encode()))
        for size in shape
    )
    tensor = _number(1, _KINDS[dtype]) + _bytes(2, sizes)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))


def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _number(field: int, value: int) -> bytes:
    return _tag(field, 0) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # a negative number is written as its complement
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
