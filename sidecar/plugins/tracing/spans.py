"""Spans of traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

AttributeValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """Span from ``begin`` to ``end``, in seconds since 1970. ``error``: the code of the error that
    ended it; ``stages``: its child spans."""

    name: str
    begin: float
    end: float
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    error: str = ""
    stages: Sequence[TraceSpan] = ()
