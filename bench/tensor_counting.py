"""Living tensors, counted: every storage on a device from its birth to its end."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass
class Peaks:
    """The most bytes that lived at once, in all and in each phase; more than ``limit`` are none."""

    limit: int | None = None
    live: int = 0
    highest: int = 0
    phases: dict[str, int] = field(default_factory=dict)
    phase: str = "load"

    def begin(self, phase: str) -> None:
        """From here on it is ``phase``."""
        self.phase = phase
        self.phases[phase] = self.live

    def grew(self, size: int) -> None:
        """``size`` bytes more, or less.

        Raises:
            torch.OutOfMemoryError: they are more than the limit.
        """
        self.live += size
        if self.limit is not None and size > 0 and self.live > self.limit:
            raise torch.OutOfMemoryError(f"{self.live:,} bytes, of {self.limit:,}")
        self.highest = max(self.highest, self.live)
        self.phases[self.phase] = max(self.phases.get(self.phase, 0), self.live)


class Counter(TorchDispatchMode):
    """Counts the storages that operations make on a device, until they are gone."""

    def __init__(self, peaks: Peaks, device: str = "meta") -> None:
        super().__init__()
        self.peaks = peaks
        self.device = device
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self.count(tensor)
        return result

    def count(self, tensor: Tensor) -> None:
        """Count the storage below ``tensor`` once."""
        if tensor.device.type != self.device:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return

        def gone(_: Any) -> None:
            del self.known[key]
            self.peaks.grew(-size)

        self.known[key] = weakref.ref(storage, gone)
        self.peaks.grew(size)


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        for part in result:
            yield from _tensors(part)
