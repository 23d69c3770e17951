"""Many sessions in a few numbers. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from sidecar.cli.visit import Visit

Figures: TypeAlias = Mapping[str, float | None]
"""By name, in the order of `NAMES`; None where nothing could be told."""
CENTILES = (50, 95, 99)
SPREAD = ("first", "final", "rtf")
"""Seconds to the first words; seconds to the final ones from the end of an utterance, or from the
beginning of a recording; seconds that it took for each second of sound."""
NAMES = (
    "sessions",
    "held",
    "errors",
    "turns",
    "lost",
    *(f"{name}_p{centile}" for name in SPREAD for centile in CENTILES),
    "audio_per_s",
    "service_cpu",
    "engine_cpu",
    "late_p95",
)
WHAT = {
    "sessions": "sessions, or clients, at once",
    "held": "those that ended well",
    "errors": "those that did not",
    "turns": "utterances, or recordings",
    "lost": "those of which nothing final came",
    "first": "seconds from the beginning of an utterance to its first words",
    "final": "seconds from its end to its final words; of a recording, from its sending",
    "rtf": "seconds that it took for each second of sound",
    "audio_per_s": "seconds of sound that were heard in one",
    "service_cpu": "share of a core that the service's own process took",
    "engine_cpu": "share of a core that its engines took",
    "late": "seconds that this machine sent too late: what the service is not to blame for",
}


def centile(values: Sequence[float], which: int) -> float | None:
    """The value below which so many percent of ``values`` lie; None of none."""
    if not values:
        return None
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[which - 1]


def figures_of(
    visits: Sequence[Visit], lasted_s: float, cpu: tuple[float, float] | None
) -> Figures:
    """What ``visits`` come to, which took ``lasted_s`` together.

    ``cpu``: shares of a core that the service and its engines took, None where they are not of this
    machine.
    """
    kinds = {
        "first": [value for one in visits for value in one.first_s],
        "final": [value for one in visits for value in one.final_s],
        "rtf": [value for one in visits for value in one.pace],
    }
    spread = {
        f"{name}_p{which}": centile(values, which)
        for name, values in kinds.items()
        for which in CENTILES
    }
    sound_s = sum(one.sound_s for one in visits)
    failed = sum(bool(one.error_code) for one in visits)
    return {
        "sessions": len(visits),
        "held": len(visits) - failed,
        "errors": failed,
        "turns": sum(len(one.turns) for one in visits),
        "lost": sum(one.lost for one in visits),
        **spread,
        "audio_per_s": sound_s / lasted_s if lasted_s else None,
        "service_cpu": cpu[0] if cpu else None,
        "engine_cpu": cpu[1] if cpu else None,
        "late_p95": centile([one.late_s for one in visits], 95),
    }


def ratios(these: Figures, those: Figures) -> Figures:
    """Each of ``these`` by what it is among ``those``; None where that says nothing."""
    found: dict[str, float | None] = {}
    for name, value in these.items():
        other = those.get(name)
        found[name] = value / other if value is not None and other else None
    return found
