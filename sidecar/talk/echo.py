"""Whether what the microphone hears is the machine itself. Pure.

The machine knows what it says: in letters, and in sound. A page asks for the browser's own echo
cancellation; this is for what is left of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import sqrt
from operator import mul

from sidecar.talk.interruption import ORDERS
from sidecar.talk.words import bare

ALIKE = 0.7
"""From this likeness on it is taken for an echo. Two strangers get there now and then, and an echo
in a room does not always: so this alone ends no turn and loses no words (`machine`)."""
ENVELOPE_RATE = 500
"""Values a second of an envelope. With 100, which has syllables only, one stranger in four is like
another; with this many the voice's pitch shows."""
LONGEST_LAG_S = 0.6
"""What is played is heard again within this: buffers, the air, buffers."""
LEAST_S = 0.5
"""Of an envelope below this nothing is said: any two are alike."""
_NOTHING = 1e-9
"""A power below this is of something that never changes."""


def is_echo(text: str, saying: str) -> bool:
    """Whether ``text`` is made of words of ``saying``, in their order: what is said just now. A
    recogniser misses some, so these need not be neighbours, but they are not farther apart than
    there are of them. An order on its own ("stop") is never one."""
    words, said = bare(text), bare(saying)
    if not words or (len(words) == 1 and words[0] in ORDERS):
        return False
    return any(_follows(words, said[at:]) for at, word in enumerate(said) if word == words[0])


def _follows(words: Sequence[str], said: Sequence[str]) -> bool:
    """Whether ``words`` are in ``said`` in order, from its first on, without long gaps."""
    at = 0
    for word in words:
        reach = said[at : at + 1 + len(words)]
        if word not in reach:
            return False
        at += reach.index(word) + 1
    return True


def envelope(samples: Sequence[float], rate: int = 8000) -> list[float]:
    """How loud ``samples`` are, `ENVELOPE_RATE` values a second (root mean square); what is left of
    the last stretch is left out."""
    step = rate // ENVELOPE_RATE
    return [
        sqrt(sum(one * one for one in samples[at : at + step]) / step)
        for at in range(0, len(samples) - step + 1, step)
    ]


def likeness(heard: Sequence[float], played: Sequence[float]) -> float:
    """How like the envelope ``heard`` is the best stretch of ``played``, from -1 to 1.

    Both end now, ``played`` begins `LONGEST_LAG_S` earlier, or less where there is less. It is the
    greatest normalised correlation over all lags; 0 where either is too short or never changes.
    """
    count = len(heard)
    if count < LEAST_S * ENVELOPE_RATE or len(played) < count:
        return 0.0
    mean = sum(heard) / count
    centred = [value - mean for value in heard]
    power = sum(map(mul, centred, centred))
    sums = list(accumulate(played, initial=0.0))
    squares = list(accumulate(map(mul, played, played), initial=0.0))
    first = max(0, len(played) - count - round(LONGEST_LAG_S * ENVELOPE_RATE))
    best = -1.0
    for at in range(first, len(played) - count + 1):
        total = sums[at + count] - sums[at]
        other = squares[at + count] - squares[at] - total * total / count
        if power < _NOTHING or other < _NOTHING:
            best = max(best, 0.0)
            continue
        best = max(best, sum(map(mul, centred, played[at : at + count])) / sqrt(power * other))
    return best
