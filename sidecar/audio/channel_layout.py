"""Channel layouts: which channel of a film has the dialogue, and which the bass. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_PLACES = ("FC", "LFE")
_CENTRE_BIT, _BASS_BIT = 2, 3
"""In the channel mask of a WAV file."""
_WITH_CENTRE = re.compile(r"(?!3\.0\(back|6\.[01]\(front)(?:[3-9]|\d\d)\.|hex|octagonal")
_WITH_BASS = re.compile(r"\d+\.[12]")
_USUAL = {6: "5.1", 8: "7.1"}
"""What is meant by so many channels without a layout."""


@dataclass(frozen=True, slots=True)
class ChannelLayout:
    """Channels of a recording. ``centre``: number of the one for the dialogue, from 0; ``bass``:
    of the one for low effects (LFE); None: there is none, or it is not known."""

    channels: int
    centre: int | None = None
    bass: int | None = None


def named_layout(name: str, channels: int) -> ChannelLayout:
    """Return the layout that ffmpeg calls so: ``5.1(side)``, ``6 channels (FL+FR+FC+…)``."""
    if "+" in name:
        order = re.findall(r"\w+", name.partition("(")[2])
        return _layout(channels, (order.index(one) if one in order else None for one in _PLACES))
    if not name or name.endswith("channels"):
        name = _USUAL.get(channels, name)
    centre = 2 if _WITH_CENTRE.match(name) else None
    bass = (3 if centre else 2) if _WITH_BASS.match(name) else None
    return _layout(channels, (centre, bass))


def masked_layout(mask: int, channels: int) -> ChannelLayout:
    """Return the layout of a WAV file; ``mask``: of its header, 0 if it has none."""
    if not mask:
        return named_layout("", channels)
    bits = (_CENTRE_BIT, _BASS_BIT)
    below = ((mask & (1 << bit) - 1).bit_count() if mask >> bit & 1 else None for bit in bits)
    return _layout(channels, below)


def _layout(channels: int, places: Iterable[int | None]) -> ChannelLayout:
    """Return the layout; a file may claim places that it has not."""
    return ChannelLayout(channels, *(one if (one or 0) < channels else None for one in places))
