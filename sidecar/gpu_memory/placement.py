"""How an engine comes into memory: beside the old one or in its place, and what stays outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from sidecar.interfaces.engine import MemoryPlan, Precision


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


class Account(Protocol):
    """Who keeps what an engine takes of its device's memory, and what it will."""

    def comes(self, precision: Precision, plan: LoadPlan) -> None:
        """It is about to be loaded so."""

    def settled(self) -> None:
        """It came, or did not, or is gone."""

    def held(self, sessions: int) -> None:
        """So many live sessions have it now."""


class NoAccount:
    """For engines whose memory nobody plans."""

    def comes(self, precision: Precision, plan: LoadPlan) -> None:
        """Nothing is kept."""

    def settled(self) -> None:
        """Nothing is kept."""

    def held(self, sessions: int) -> None:
        """Nothing is kept."""


Look = Callable[[], Awaitable[None]]
"""Finds out how much memory there is."""


async def nothing() -> None:
    """For engines whose memory nobody plans."""
