"""GGUF files: a reader that checks every number of the header.

The header is little-endian: magic, version, counts, metadata, tensors. The data follow, each tensor
at a multiple of the alignment. Nothing of ggml reads a file, so none can end the process.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sidecar.errors import CheckpointDamaged

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
ARCHITECTURE, ARCHITECTURES = "general.architecture", ("vibevoice-asr", "vibevoice")
_MAX_TENSORS, _MAX_FIELDS, _MAX_NAME, _MAX_TEXT = 1 << 14, 1 << 12, 1 << 10, 1 << 26
_MAX_LIST = 1 << 20
"""More than published files have: 7B has 700 tensors, 40 fields, 152,064 tokens."""
_NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST, _COUNT = 8, 9, 4
KINDS = {
    "f32": (0, 1, 4),
    "f16": (1, 1, 2),
    "q8_0": (8, 32, 34),
    "q4_k": (12, 256, 144),
    "q5_k": (13, 256, 176),
    "q6_k": (14, 256, 210),
}
"""Types of tensors by their names: number, weights in a block, bytes of it (ggml-common.h)."""
_BLOCKS = {number: (weights, size) for number, weights, size in KINDS.values()}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Tensor of a file: its type, its sizes (the quickest first), and where its bytes are."""

    kind: int
    sizes: tuple[int, ...]
    offset: int

    @property
    def bytes(self) -> int:
        """Return the number of its bytes."""
        weights, size = _BLOCKS[self.kind]
        return math.prod(self.sizes) // weights * size

    @property
    def rows(self) -> tuple[int, ...]:
        """Return the shape of an array of its values."""
        return self.sizes[::-1]


@dataclass(frozen=True, slots=True)
class GgufFile:
    """Header of a file. Lists of more texts than `_MAX_NAME` are left out: vocabularies."""

    path: Path
    fields: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]

    def read(self, name: str) -> npt.NDArray[np.uint8]:
        """Return the bytes of a tensor.

        Raises:
            errors.CheckpointDamaged: the file was shortened since its header was read.
        """
        tensor = self.tensors[name]
        data = np.fromfile(self.path, np.uint8, tensor.bytes, offset=tensor.offset)
        if len(data) != tensor.bytes:
            raise damaged(self.path, "is truncated")
        return data

    def floats(self, name: str) -> npt.NDArray[np.float32]:
        """Return the values of a tensor that is not quantized."""
        tensor = self.tensors[name]
        kind = {0: np.float32, 1: np.float16}.get(tensor.kind)
        if kind is None:
            raise damaged(self.path, f"has {name} quantized")
        return self.read(name).view(kind).reshape(tensor.rows).astype(np.float32)


def damaged(path: Path, how: str) -> CheckpointDamaged:
    """Return the error for a file; ``how``: such as 'is truncated'."""
    return CheckpointDamaged(
        f"{path.name} {how}.", hint="Copy the file anew, or convert the checkpoint again."
    )


def read_header(path: Path) -> GgufFile:
    """Read the header of a file, and check that its tensors are inside it and do not overlap.

    Raises:
        errors.CheckpointDamaged: it is not a GGUF file, or it is damaged.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, file).header()
    except OSError as error:
        raise damaged(path, f"cannot be read: {error.strerror}") from None
    except (struct.error, UnicodeDecodeError, OverflowError):
        raise damaged(path, "is truncated, or has a damaged header") from None


class _Reader:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file, self._size = path, file, path.stat().st_size

    def header(self) -> GgufFile:
        if self._file.read(4) != MAGIC:
            raise damaged(self._path, "is not a GGUF file")
        if (version := self._number(_COUNT)) not in VERSIONS:
            raise damaged(self._path, f"is GGUF of version {version}, which is not known here")
        tensors, fields = self._count(_MAX_TENSORS, 10), self._count(_MAX_FIELDS, 10)
        found = {}
        for _ in range(fields):
            name = self._text(_MAX_NAME)
            found[name] = self._value(self._number(_COUNT))
        listed = [self._tensor() for _ in range(tensors)]
        alignment = found.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment not in (8, 16, 32, 64, 128, 256, 4096):
            raise damaged(self._path, "has no usable alignment")
        start = -(-self._file.tell() // alignment) * alignment
        placed: dict[str, StoredTensor] = {}
        end = start
        for name, kind, sizes, offset in sorted(listed, key=lambda one: one[3]):
            tensor = StoredTensor(kind, sizes, start + offset)
            if name in placed or offset % alignment or tensor.offset < end:
                raise damaged(self._path, f"has {name!r} twice, or where another tensor is")
            end = tensor.offset + tensor.bytes
            placed[name] = tensor
        if end > self._size:
            raise damaged(self._path, f"is truncated: {self._size:,} bytes of {end:,}")
        return GgufFile(self._path, found, placed)

    def _number(self, kind: int) -> Any:
        if kind not in _NUMBERS:
            raise damaged(self._path, "has metadata of an unknown type")
        form = "<" + _NUMBERS[kind]
        return struct.unpack(form, self._file.read(struct.calcsize(form)))[0]

    def _count(self, most: int, kind: int) -> int:
        if (count := int(self._number(kind))) > most:
            raise damaged(self._path, "has a damaged header")
        return count

    def _text(self, most: int) -> str:
        size = self._count(most, 10)
        text = self._file.read(size)
        if len(text) < size:
            raise damaged(self._path, "is truncated")
        return text.decode()

    def _value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self._text(_MAX_TEXT)
        if kind != _LIST:
            return self._number(kind)
        inner, count = self._number(_COUNT), self._count(_MAX_LIST, 10)
        if inner == _TEXT:
            texts = [self._text(_MAX_TEXT) for _ in range(count)]
            return texts if count <= _MAX_NAME else None
        return [self._number(inner) for _ in range(count)]

    def _tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self._text(_MAX_NAME)
        dimensions = self._number(_COUNT)
        if not 1 <= dimensions <= 4:
            raise damaged(self._path, f"has {name!r} in {dimensions} dimensions")
        sizes = tuple(self._number(10) for _ in range(dimensions))
        kind, offset = self._number(_COUNT), self._number(10)
        if kind not in _BLOCKS:
            raise damaged(self._path, f"has {name!r} in type {kind}, which is not known here")
        if 0 in sizes or math.prod(sizes) > 1 << 36 or sizes[0] % _BLOCKS[kind][0]:
            raise damaged(self._path, f"has {name!r} in sizes that its type cannot have")
        return name, kind, sizes, offset
