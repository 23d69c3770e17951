"""So much of protocol buffers as it takes to cut an ONNX graph in two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_WIDTHS = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its number, its value, and the bytes it was written in."""

    number: int
    value: bytes | int
    raw: bytes

    @property
    def content(self) -> bytes:
        """The value of a string, of bytes or of a message. Raises ValueError for a number."""
        if isinstance(self.value, int):
            raise ValueError(f"field {self.number} is a number")
        return self.value


def fields(message: bytes) -> Iterator[Field]:
    """The fields of a message, in order. Raises ValueError for what is none."""
    at = 0
    while at < len(message):
        begin = at
        key, at = _varint(message, at)
        kind = key & 7
        value: bytes | int
        if kind == _VARINT:
            value, at = _varint(message, at)
        else:
            if kind == _BYTES:
                size, at = _varint(message, at)
            elif kind in _WIDTHS:
                size = _WIDTHS[kind]
            else:
                raise ValueError(f"there is no wire type {kind}")
            value, at = message[at : at + size], at + size
        if at > len(message):
            raise ValueError("the message ends in the middle of a field")
        yield Field(key >> 3, value, message[begin:at])


def contents(message: bytes, number: int) -> list[bytes]:
    """The values of all fields of that number, which are strings, bytes or messages."""
    return [field.content for field in fields(message) if field.number == number]


def written(number: int, content: bytes) -> bytes:
    """A field of bytes, as it stands in a message."""
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(content)) + content


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return value, at
    raise ValueError("the message ends in the middle of a number")


def _as_varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
