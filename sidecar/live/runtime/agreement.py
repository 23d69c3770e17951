"""Which of the words that somebody seems to be saying may be shown: local agreement. Pure.

A hypothesis of speech that goes on changes most at its end. What two in a row begin with stays
(Liu et al., "Low-Latency Sequence-to-Sequence Speech Recognition and Translation by Partial
Hypothesis Selection and Stable Output Prediction", 2020: LA-2); the first is shown at once but for
its last word, because the first words of somebody are waited for most
(docs/performance.md, "Live": words taken back).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_MARKS = ".,;:!?…\"'-—()[]"


@dataclass(frozen=True, slots=True)
class Shown:
    """A hypothesis in two or three parts: ``text`` is worth showing and begins with ``stable``,
    which is not taken back; ``tail`` follows ``text``."""

    text: str
    stable: str
    tail: str


class Agreement:
    """Follows the hypotheses of one piece."""

    def __init__(self) -> None:
        self._before: list[str] | None = None
        self._agreed: list[str] = []

    def update(self, text: str) -> Shown:
        """A new hypothesis, of more sound than the one before."""
        words = text.split()
        first = self._before is None
        if not first:
            same = _common(self._before or [], words)
            if same > len(self._agreed):
                self._agreed += words[len(self._agreed) : same]
        self._before = words
        stable = " ".join(self._agreed)
        if first:
            return Shown(" ".join(words[:-1]), stable, " ".join(words[-1:]))
        return Shown(stable, stable, " ".join(words[len(self._agreed) :]))


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words both begin with; case and marks do not count."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if _bare(left) != _bare(right):
            break
        count += 1
    return count


def _bare(word: str) -> str:
    return word.strip(_MARKS).casefold()
