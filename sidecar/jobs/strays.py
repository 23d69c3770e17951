"""Jobs that fit no node: what the nodes say, and what follows from it. Pure.

Nodes that are there say which of those that wait they cannot do, and why. No node is no answer:
where nodes come when there is work (none otherwise), the right one may be on its way.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

from sidecar import errors
from sidecar.jobs.events import Failure

LOOK_S = 3.0
"""So often a node looks at those that wait."""
ALIVE_S = 10.0
"""A node that did not say for so long that it is there is none any more, whatever is asked."""


class Verdict(StrEnum):
    """What becomes of a job that waits."""

    OPEN = "open"
    """Somebody may take it."""
    REFUSED = "refused"
    """Nobody who is there can, and it waits for who can."""
    ENDS = "ends"
    """It has waited long enough."""


def verdict(
    alive: Collection[str],
    refused_by: Collection[str],
    for_s: float = 0.0,
    patience_s: float = math.inf,
) -> Verdict:
    """What becomes of a job that nodes refuse; ``for_s``: for how long all that were there did."""
    if not alive or not set(alive) <= set(refused_by):
        return Verdict.OPEN
    return Verdict.ENDS if for_s >= patience_s else Verdict.REFUSED


def told(said: Sequence[Failure]) -> errors.Unschedulable:
    """What all of the nodes said, each thing once, and what to do about what most said."""
    by_code = Counter(one.code for one in said)
    one_of: Mapping[str, Failure] = {one.code: one for one in reversed(said)}
    parts = [
        f"{count} × {code} ({one_of[code].detail.rstrip('.')})"
        for code, count in by_code.most_common()
    ]
    nodes = "The only node that is there" if len(said) == 1 else f"None of {len(said)} nodes"
    cannot = "cannot do it" if len(said) == 1 else "that are there can do it"
    hint = one_of[by_code.most_common(1)[0][0]].hint
    return errors.Unschedulable(
        f"{nodes} {cannot}: {', '.join(parts)}.",
        hint=f"{hint} Or start a node that can do it.".lstrip(),
    )
