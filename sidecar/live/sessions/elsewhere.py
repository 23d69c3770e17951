"""Where live sessions lie so that another service finds them: whoever takes one has it alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

ASKED_S = 6.0
"""So long a service that has a session is waited for; one that died is known to have by then."""

Name = tuple[str, str]
"""Of a session: its owner, and how the client calls it."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What of a session is to lie there. ``session``: all but what was said, instead of what lay
    there; ``story``: what was said since, as piece number ``place`` of it, None where nothing was.
    ``fresh``: nothing of it lies there yet."""

    name: Name
    session: bytes
    story: bytes | None
    place: int
    fresh: bool


class Fate(Enum):
    """What became of a session that was to be saved."""

    SAVED = "saved"
    TAKEN = "taken"
    """Another service has it, or another session has its name."""
    GONE = "gone"
    """Nothing of it is there any more, as after a failure of the database."""


@dataclass(frozen=True, slots=True)
class Found:
    """A session that is this service's now. ``orphaned``: its service did not leave it, and may
    have told more of it than is there."""

    session: bytes
    story: Sequence[bytes]
    orphaned: bool


class Elsewhere(Protocol):
    """Sessions of several services, by owner and id."""

    async def save(
        self, sessions: Sequence[Saved], over: Sequence[Name], grace_s: float
    ) -> Mapping[Name, Fate]:
        """Have sessions of this service lie there as they are now, those of ``over`` not at all;
        all or nothing. If this service dies they stay for ``grace_s``.

        Raises:
            errors.JournalUnreachable: they may lie there or not.
        """
        ...

    async def leave(self, name: Name, for_s: float) -> bool:
        """Let another service have one that lies there, for so many seconds; whether it was this
        service's.

        Raises:
            errors.JournalUnreachable: it may be so or not.
        """
        ...

    async def take(self, name: Name) -> Found | bool:
        """Have one that is nobody's, or that of a service which died; else whether there is one,
        whose service is asked to leave it then. One that was taken and of which nothing was saved
        since is nobody's.

        Raises:
            errors.JournalUnreachable: nobody can be asked.
        """
        ...

    async def news(self, most_s: float) -> None:
        """Wait until a service left a session, or so long."""
        ...

    def on_asked(self, tell: Callable[[Name, float], None]) -> None:
        """Have somebody told of each session of this service that another one asks for, and since
        how many seconds; the same may be told again and again until it is left."""
        ...
