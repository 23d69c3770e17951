"""How an engine comes into memory: beside the old one or in its place, and what stays outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.speech.engine import MemoryPlan, Precision


class Placement(StrEnum):
    """Where a new engine is loaded while an old one stands."""

    BESIDE = "beside"
    """The old one goes once the new one is up."""
    INSTEAD = "instead"
    """There is no room for both: the old one goes first, and comes back if the new one fails."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How a new engine comes in; of ``memory`` counts what it keeps on the host meanwhile."""

    placement: Placement = Placement.BESIDE
    memory: MemoryPlan = field(default_factory=MemoryPlan)


Place = Callable[[Precision], LoadPlan]
"""Decides it; raises `errors.WontFit` where the new one has no room even alone."""


def always_beside(precision: Precision) -> LoadPlan:
    """For engines that are small."""
    return LoadPlan()


Look = Callable[[], Awaitable[None]]
"""Finds out how much memory there is."""


async def nothing() -> None:
    """For engines whose memory nobody plans."""
