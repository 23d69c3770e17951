"""Whether what the microphone hears is the machine itself. Pure.

The machine knows what it says: in letters, and in sound. A page asks for the browser's own echo
cancellation; this is for what is left of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from sidecar.talk.interruption import ORDERS
from sidecar.talk.words import bare

ALIKE = 0.7
"""From this likeness on it is an echo."""
ENVELOPE_RATE = 100
"""Values a second of an envelope."""
LONGEST_LAG_S = 0.6
"""What is played is heard again within this: buffers, the air, buffers."""
LEAST_S = 0.2
"""Of an envelope below this nothing is said: any two are alike."""


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
    most = round(LONGEST_LAG_S * ENVELOPE_RATE)
    if len(heard) < LEAST_S * ENVELOPE_RATE or len(played) < len(heard):
        return 0.0
    lags = range(min(most, len(played) - len(heard)) + 1)
    ends = (len(played) - lag for lag in lags)
    return max(_correlation(heard, played[end - len(heard) : end]) for end in ends)


def _correlation(one: Sequence[float], other: Sequence[float]) -> float:
    count = len(one)
    mean, other_mean = sum(one) / count, sum(other) / count
    left = [value - mean for value in one]
    right = [value - other_mean for value in other]
    power = sqrt(sum(value * value for value in left) * sum(value * value for value in right))
    if power < 1e-9:
        return 0.0
    return sum(map(lambda a, b: a * b, left, right)) / power
