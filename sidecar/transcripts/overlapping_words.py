"""Words of two recognitions of overlapping audio, joined at the cut between them. Pure.

Long speech without a pause is cut for a recognizer of limited length, and a word at an end of its
audio is often wrong. So both sides of a cut are recognized with some audio of the other one, and
each word is taken from the side that has most of it.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from sidecar.transcripts.transcript import Word

OVERLAP_S = 0.5
"""Seconds of the other side that are recognized on each side of a cut: a long word."""
QUIET_S = 0.3
"""Seconds that are quietest around a cut: a short pause between two words."""
_SAME_TEXT_S, _OTHER_TEXT_S = 1.0, 0.4
"""Maximum that two recognitions of a word are apart. The first word of audio that begins within
speech has the time of what is not understood before it, too."""
_SHORT_WORD_S = 0.3
"""Seconds apart that halve the likeness of two words: a short word, which may be repeated."""
_OTHER_TEXT = 0.4
"""Weight of two words that are at one time and differ, beside two that are the same."""
_NEAR_S = OVERLAP_S + _SAME_TEXT_S


@dataclass(frozen=True, slots=True)
class CutWords:
    """Words near a cut at ``at_s`` as they were recognized before it, the first ``taken`` of which
    are in the transcript."""

    at_s: float
    taken: int
    words: tuple[Word, ...]

    @classmethod
    def of(cls, words: Sequence[Word], at_s: float) -> Self:
        """Return them of all words before the cut."""
        taken = words_before(words, at_s)
        first = next((at for at, one in enumerate(words) if one.end > at_s - _NEAR_S), len(words))
        first = min(first, max(0, taken - 1))
        return cls(at_s, taken - first, tuple(words[first:]))

    def state(self) -> list[Any]:
        """Return it as plain values, from which `from_state` builds it again."""
        return [self.at_s, self.taken, [[one.start, one.end, one.text] for one in self.words]]

    @classmethod
    def from_state(cls, values: Sequence[Any]) -> Self:
        """Return what `state` returned."""
        at_s, taken, words = values
        return cls(at_s, taken, tuple(Word(*one) for one in words))

    def first_after(self, words: Sequence[Word]) -> int:
        """Return the first of the words behind the cut that follows them."""
        return first_word_after(self.words, self.taken, words, self.at_s)


def words_before(words: Sequence[Word], cut_s: float) -> int:
    """Return how many words of the audio before a cut are taken: all up to the last one whose
    middle is before it."""
    return next((at for at, one in enumerate(words) if _middle(one) >= cut_s), len(words))


def first_word_after(
    before: Sequence[Word], taken: int, after: Sequence[Word], cut_s: float
) -> int:
    """Return the first word ``after`` a cut that follows the ``taken`` ones of those ``before``;
    both lists have the words in the overlap, on one clock."""
    least, most = 0, len(after)
    for one, other in _pairs(before, after, cut_s):
        if one < taken:
            least = other + 1
        else:
            most = min(most, other)
        if one == taken - 1:
            most = least
    return next((at for at in range(least, most) if _middle(after[at]) >= cut_s), most)


def _pairs(
    before: Sequence[Word], after: Sequence[Word], cut_s: float
) -> Sequence[tuple[int, int]]:
    """Return which words near the cut are the same, in order: those that agree best in text and
    time together."""
    rows, columns = (
        [at for at, one in enumerate(words) if abs(_middle(one) - cut_s) <= _NEAR_S]
        for words in (before, after)
    )
    best: list[list[tuple[float, tuple[tuple[int, int], ...]]]] = [
        [(0.0, ())] * (len(columns) + 1) for _ in range(len(rows) + 1)
    ]
    for row, one in enumerate(rows, 1):
        for column, other in enumerate(columns, 1):
            score, pairs = best[row - 1][column - 1]
            found = score + _likeness(before[one], after[other]), (*pairs, (one, other))
            best[row][column] = max(
                best[row - 1][column], best[row][column - 1], found, key=lambda item: item[0]
            )
    return best[-1][-1][1]


def _likeness(one: Word, other: Word) -> float:
    """Return how likely two words are the same one; 0 if they are too far apart."""
    apart_s = abs(_middle(one) - _middle(other))
    same = _letters(one.text) == _letters(other.text)
    if apart_s > (_SAME_TEXT_S if same else _OTHER_TEXT_S):
        return 0.0
    return (1.0 if same else _OTHER_TEXT) / (1 + apart_s / _SHORT_WORD_S)


def _letters(text: str) -> str:
    return "".join(one for one in text.casefold() if unicodedata.category(one)[0] in "LNM")


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2
