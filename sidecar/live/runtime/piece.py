"""A stretch of speech, what is asked of an engine about it, and how one hears what goes on."""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar.interfaces.live_events import Final
from sidecar.live.runtime.agreement import Agreement
from sidecar.live.runtime.hypothesis import Hypothesis
from sidecar.live.runtime.schedule import Urgency

FIRST_S, STEP_S = 0.6, 1.0
"""Seconds of a piece until its first partial, and from one to the next (docs/performance.md,
"Live": half the step costs twice as much and takes twice as many words back)."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How an engine hears what goes on: first after ``first_s``, then each ``step_s``.

    ``grows``: it goes on from where its draft ends, and takes nothing back. So what it says is
    stable, it hears by and by whether anybody wants partials or not, and a final is what it said
    and the rest. It has nothing to gain by hearing a pause before it is one.
    """

    first_s: float = FIRST_S
    step_s: float = STEP_S
    grows: bool = False


USUAL = Manner()


@dataclass(eq=False, slots=True)
class Piece:
    """A stretch of speech, on the session's clock in samples; ``end`` is None while it goes on."""

    number: int
    turn: int
    start: int
    opened: int
    """When it was known to have begun, which may be a little later."""
    end: int | None = None
    since: float = 0.0
    """When it was known to have ended."""
    paused: int | None = None
    """Where the pause began that it is in, and that may be its end."""
    early: Hypothesis | None = None
    """What it says if that pause is its end."""
    draft: Hypothesis | None = None
    asked: int = 0
    """Up to where it was last wished to be heard."""
    agreement: Agreement = field(default_factory=Agreement)
    final: Final | None = None
    cancelled: bool = False
    diarize: bool = False
    """Whether somebody asks whose it is, and may be answered."""
    shed: bool = False
    """It gets no words: too many speak."""
    counted: int = 0
    """Up to where it was recognised, for what that costs."""


@dataclass(eq=False, slots=True)
class Listen:
    """Something to be recognised: a piece from its start up to ``to``."""

    piece: Piece
    to: int
    urgency: Urgency
    since: float
    pause: int | None = None

    @property
    def unwanted(self) -> bool:
        """Whether what comes of it is of no use any more."""
        piece = self.piece
        if piece.cancelled or piece.final is not None:
            return True
        over = piece.end is not None or piece.paused is not None
        return self.urgency is Urgency.PARTIAL and over
