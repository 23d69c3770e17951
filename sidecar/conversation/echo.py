"""Whether what the microphone hears is the machine itself. Pure.

The machine knows what it says: in letters, and in sound. A page asks for the browser's own echo
cancellation; this is for what is left of it. Words alone are never an echo: people answer a
question by its own words. How like the two sounds are is measured in `evidence`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.conversation.interruption import ORDERS
from sidecar.conversation.words import bare

ALIKE = 0.85
"""From this likeness on a sound is an echo, whatever its words seem to be: a recogniser makes
others of a quiet one. Somebody who speaks as loud as the echo stays below it."""
OWN_WORDS_ALIKE = 0.7
"""From this on it is one where the words are the machine's, too. Strangers stay below it."""
OTHERS = 3
"""One word in so many may be another than was said."""
LONGEST_LAG_S = 0.8
"""What is played is heard again within this: buffers, the air, buffers."""


def is_echo(text: str, likeness: float, saying: str) -> bool:
    """Whether ``text`` is an echo of ``saying``, by the ``likeness`` of the two sounds."""
    if not text:
        return False
    return likeness >= ALIKE or (likeness >= OWN_WORDS_ALIKE and own_words(text, saying))


def own_words(text: str, saying: str) -> bool:
    """Whether ``text`` is made of words of ``saying``, in their order, but for one in three: a
    recogniser makes others of a quiet sound, and misses some, so these need not be neighbours. An
    order ("stop") that is not among them, or is alone, is never one."""
    words, said = bare(text), bare(saying)
    if not words or (len(words) == 1 and words[0] in ORDERS):
        return False
    return any(_follows(words, said[at:]) for at, word in enumerate(said) if word in words)


def _follows(words: Sequence[str], said: Sequence[str]) -> bool:
    """Whether ``words`` are in ``said`` in order, from its first on, without long gaps."""
    at = others = 0
    for word in words:
        reach = said[at : at + 1 + len(words)]
        if word in reach:
            at += reach.index(word) + 1
        elif word in ORDERS:
            return False
        else:
            others += 1
    return others * OTHERS <= len(words)
