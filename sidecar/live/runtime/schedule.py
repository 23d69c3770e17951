"""Whose speech is recognised next, where many speak at once. Pure.

What has ended goes before what may have, and that before what goes on: a final is waited for, a
partial is replaced by the next. Whose voice it is comes last, for a label may follow its words;
where many voices of a session wait, they take turns with its partials, and a summary that waits for
them makes them as urgent as a pause does (`live.runtime.voicing`). Of finals the oldest is first;
else the client that was served longest ago, so that one with many sessions does not keep the others
waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum


class Urgency(IntEnum):
    """What somebody waits for, the most urgent first."""

    FINAL = 0
    SPECULATIVE = 1
    """The piece may have ended: what is recognised in the pause need not be after it."""
    PARTIAL = 2
    VOICE = 3


@dataclass(frozen=True, slots=True)
class Wish:
    """A stretch of a session's sound that wants to be recognised, since ``since`` (seconds)."""

    session: int
    client: str
    urgency: Urgency
    since: float


def next_of(wishes: Iterable[Wish], served: Mapping[str, float]) -> Wish | None:
    """The one that is due; None where nobody wishes anything.

    ``served``: when each client had its last turn for something that was no final.
    """

    def rank(wish: Wish) -> tuple[Urgency, float, float]:
        if wish.urgency is Urgency.FINAL:
            return wish.urgency, wish.since, 0.0
        return wish.urgency, served.get(wish.client, float("-inf")), wish.since

    return min(wishes, key=rank, default=None)
