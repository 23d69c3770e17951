"""What all nodes are to have, as an operator said once, and how far each of them is. Pure.

The last wish counts: it has a number, which only grows, and a node that has dealt with it, whatever
came of that, has nothing to do until there is another.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sidecar.speech.engine import Precision
from sidecar.workers.models import Wish


class Reached(StrEnum):
    """How far a node is with the last wish that it knows of."""

    STARTED = "as_started"
    WAITING = "waiting"
    LOADING = "loading"
    REACHED = "reached"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Desired:
    """The ``generation``-th wish; ``at_once``: so many nodes may be busy with it side by side."""

    generation: int
    wish: Wish
    at_once: int = 1


@dataclass(frozen=True, slots=True)
class NodeStanding:
    """One node: its id, the name of its machine, what it works with. ``generation``: of the last
    wish that it dealt with; ``code``: of the error where it could not. ``silent_s``: since it was
    last heard of."""

    id: str
    name: str
    generation: int
    state: Reached
    code: str
    model: str
    precision: str
    silent_s: float = 0.0


def wish_values(wish: Wish) -> dict[str, Any]:
    """A wish as plain values."""
    values = dataclasses.asdict(wish)
    return {**values, "path": None if wish.path is None else str(wish.path)}


def wish_of_values(values: dict[str, Any]) -> Wish:
    """The wish that `wish_values` wrote."""
    path = values["path"]
    precision = Precision(values["precision"])
    return Wish(values["model_id"], path and Path(path), values["size"], precision)
