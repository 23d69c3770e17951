"""What a stretch of speech is heard behind: the sound and the words of the piece before it. Pure.

A recognizer makes out a word by what stands around it, and a pause of half a second, where a piece
ends, is in the middle of what somebody says more often than not. So a piece is heard together with
the one before it, whose words stand; where both together are no longer than a piece may be, this
costs about a tenth (docs/performance.md, "Live: sessions"). Of one that goes on for long, the
words within it are context enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.live.hypothesis import Hypothesis
from sidecar.live.piece import Listen, Piece
from sidecar.live.schedule import Urgency
from sidecar.speech.live import LIVE_RATE

APART_S = 1.0
"""What lies further back is another matter, and its sound is not kept."""


@dataclass(frozen=True, slots=True)
class Before:
    """The sound of a stretch begins with ``samples`` that are told already: they say ``said``."""

    said: Hypothesis
    samples: int


class Context:
    """One session's: the last piece that was understood."""

    def __init__(self) -> None:
        self._last: tuple[int, int, Hypothesis] | None = None

    def settled(self, piece: Piece, found: Hypothesis | None) -> None:
        """What a piece says stands; None where nobody understood it."""
        assert piece.end is not None
        self._last = (piece.start, piece.end, found) if found and found.text else None

    def forget(self) -> None:
        """What was said was not meant."""
        self._last = None

    def of(self, listen: Listen, longest: int) -> Before | None:
        """What a stretch is heard behind, where both together have ``longest`` samples at most.
        Partials are replaced soon: they are heard alone."""
        if self._last is None or listen.urgency is Urgency.PARTIAL:
            return None
        start, end, said = self._last
        near = 0 <= listen.piece.start - end <= APART_S * LIVE_RATE
        if not near or listen.to - start > longest:
            return None
        return Before(said, listen.piece.start - start)

    def keep_from(self, settled: int, longest: int) -> int:
        """From here on its sound is wanted; what is still to be heard begins behind ``settled``."""
        if self._last is not None and settled - self._last[0] > longest:
            self._last = None
        return settled if self._last is None else min(settled, self._last[0])
