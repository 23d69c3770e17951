"""Models inside the shared library of moonshine-voice, found by their digests.

Every wheel of the pinned release, for Linux, Windows and macOS, carries the same ones, in ONNX
Runtime's own format.
"""

from __future__ import annotations

import hashlib
import importlib.util
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.checkpoints.ort_file import BEFORE_MARK, MARK


@dataclass(frozen=True, slots=True)
class Embedded:
    """A model inside the library's file: what it is for, its bytes and its SHA-256."""

    what: str
    size: int
    digest: str


def find(models: Sequence[Embedded]) -> Mapping[Embedded, bytes]:
    """Those of ``models`` that the library carries; none where it is not installed.

    Raises:
        OSError: its file cannot be read.
    """
    spec = importlib.util.find_spec("moonshine_voice")
    found: dict[Embedded, bytes] = {}
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("*moonshine*")):
            if path.suffix in (".so", ".dll", ".dylib"):
                found |= _within(path, models)
    return found


def _within(path: Path, models: Sequence[Embedded]) -> dict[Embedded, bytes]:
    """What of the models a file holds."""
    found: dict[Embedded, bytes] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        at = held.find(MARK)
        while at >= 0:
            begin = max(0, at - BEFORE_MARK)
            for model in models:
                content = held[begin : begin + model.size]
                if hashlib.sha256(content).hexdigest() == model.digest:
                    found[model] = content
            at = held.find(MARK, at + 1)
    return found
