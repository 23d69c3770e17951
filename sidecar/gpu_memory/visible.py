"""Which GPU torch will call ``cuda:0``: what `CUDA_VISIBLE_DEVICES` leaves of those there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Numbers or names of the GPUs that a process may use, the first one first; empty: none."""
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""What makes CUDA count the GPUs as their driver does; by itself it has the fastest first."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or a slice of one (MIG): the names it goes by, and the driver's handles.

    ``handle`` is its own, None where the driver refuses it; ``card`` that of the whole GPU.
    ``slices``: what a GPU is cut into; then it can only be used by them.
    """

    names: tuple[str, ...]
    handle: Any = None
    card: Any = None
    slices: tuple[Device, ...] = ()


def first_visible(cards: Sequence[Device], wanted: str | None) -> Device | None:
    """The device that becomes ``cuda:0``, None where none does.

    ``cards`` stand in the order of the PCI bus, ``wanted`` is what `VISIBLE` says (None: it is not
    set): a number, or a name or its beginning if that is one device's only. CUDA reads up to the
    first word that it does not understand; so only the first word counts here.
    """
    if wanted is None:
        return _usable(cards[0]) if cards else None
    word = wanted.split(",")[0].strip()
    if word.isdecimal():
        return _usable(cards[int(word)]) if int(word) < len(cards) else None
    if not word.startswith(("GPU-", "MIG-")):
        return None
    devices = [device for card in cards for device in (card, *card.slices)]
    named = [each for each in devices if any(name.startswith(word) for name in each.names)]
    return _usable(named[0]) if len(named) == 1 else None


def _usable(device: Device) -> Device:
    """Of a GPU that is cut into slices, CUDA uses the first."""
    return device.slices[0] if device.slices else device
