"""What a stretch of speech is heard behind: the sound and the words of the pieces before it. Pure.

A recognizer makes out a word by what stands around it, and a pause of half a second, where a piece
ends, is in the middle of what somebody says more often than not. So a piece is heard together with
those before it, whose words stand: as many as all together are no longer than a piece may be, so
that no final takes longer than it could before (docs/performance.md, "Live: sessions"). Of one that
goes on for long, the words within it are context enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.interfaces.live import LIVE_RATE
from sidecar.interfaces.live_events import Understood
from sidecar.live.runtime.hypothesis import Hypothesis
from sidecar.live.runtime.piece import Listen, Piece
from sidecar.live.runtime.schedule import Urgency

APART_S = 1.0
"""What lies further back is another matter, and its sound is not kept."""


@dataclass(frozen=True, slots=True)
class Before:
    """The sound of a stretch begins with ``samples`` that are told already: they say ``said``."""

    said: tuple[Hypothesis, ...]
    samples: int


@dataclass(frozen=True, slots=True)
class _Told:
    """A piece that was understood, in samples of the session."""

    start: int
    end: int
    said: Hypothesis


class Context:
    """One session's: the last pieces, each near the one before it."""

    def __init__(self, known: Sequence[Understood] = ()) -> None:
        """``known``: what another engine had told, for which this one goes on."""
        self._told = deque(
            _Told(
                round(one.start * LIVE_RATE),
                round(one.end * LIVE_RATE),
                Hypothesis("", tokens=one.tokens),
            )
            for one in known
        )

    def known(self, settled: int) -> tuple[Understood, ...]:
        """What is told up to a sample."""
        return tuple(
            Understood(one.start / LIVE_RATE, one.end / LIVE_RATE, one.said.tokens)
            for one in self._told
            if one.end <= settled
        )

    def settled(self, piece: Piece, found: Hypothesis | None) -> None:
        """What a piece says stands; None where nobody understood it."""
        assert piece.end is not None
        understood = found is not None and found.text
        if not understood or (self._told and not _near(self._told[-1], piece)):
            self.forget()
        if found is not None and understood:
            self._told.append(_Told(piece.start, piece.end, found))

    def forget(self) -> None:
        """What was said was not meant, or not understood."""
        self._told.clear()

    def of(self, listen: Listen, longest: int) -> Before | None:
        """What a stretch is heard behind, where all together have ``longest`` samples at most.
        Partials are replaced soon: they are heard alone."""
        if listen.urgency is Urgency.PARTIAL or not self._told:
            return None
        if not _near(self._told[-1], listen.piece):
            return None
        told = [one for one in self._told if listen.to - one.start <= longest]
        if not told:
            return None
        return Before(tuple(one.said for one in told), listen.piece.start - told[0].start)

    def keep_from(self, settled: int, longest: int) -> int:
        """From here on its sound is wanted; what is still to be heard begins behind ``settled``."""
        while self._told and settled - self._told[0].start > longest:
            self._told.popleft()
        return min(settled, self._told[0].start) if self._told else settled


def _near(told: _Told, piece: Piece) -> bool:
    return 0 <= piece.start - told.end <= APART_S * LIVE_RATE
