"""Barge-in: interruption, backchannel, echo of the answer. Pure.

Holding the reply costs nothing, so that comes first and at once (`machine`); what was said then
decides whether it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from sidecar.conversation.end_of_turn import FILLERS
from sidecar.conversation.tts_text import normalized_words, word_set

PAUSE_AFTER_S = 0.25
"""Of speech over a reply hold it. A cough is shorter."""
GUARDED_PAUSE_AFTER_S = 0.4
"""The same where the loudspeaker is heard by the microphone."""
GUARDED_THRESHOLD = 0.15
"""There it takes so much more probability to be speech while a reply is heard."""
RESUME_AFTER_S = 2.0
"""Without words a reply is not held for longer, once nobody speaks any more."""
MAX_HOLD_S = 6.0
"""Nor for longer than this, if what seems to be speech goes on: it is no talking, then."""
BACKCHANNELS = word_set(
    "mm-hm mhm mm mmm uh-huh aha ah oh yes yeah yep yup ya okay ok okey right sure good great "
    "nice cool true exactly really wow indeed fine correct absolutely uh_huh mm_hm mm_hmm m_hm "
    "i_see got_it of_course all_right ja jaja genau stimmt klar gut achso richtig oui ouais voilà "
    "d'accord exact sí vale claro ajá bueno certo esatto bene sim isso да ага угу "
    "はい うん ええ そう へえ なるほど 네 응 예 对 嗯 好 好的 是 是的"
)
"""Words of a listener that take no turn."""
STOP_WORDS = word_set("stop wait no halt nein stopp warte non arrête para espera basta стоп")
"""Words that end a reply even if the reply has them, too: alone they are no echo."""
ANSWERS_WITHIN_S = 0.5
"""Of a reply's sound that are left when polite words over it end: these answer it, for people
answer a question before its last word is out."""


class SpeechOverReply(Enum):
    """Kind of speech over a reply."""

    NOTHING = "nothing"
    """No words."""
    LISTENING = "listening"
    """"Mm-hm", or "um": as far as that goes, no one wants the floor."""
    FLOOR = "floor"


def classify_speech(text: str) -> SpeechOverReply:
    """Classify ``text`` that is said over a reply: two words, or one that is not merely polite,
    want the floor."""
    words = normalized_words(text)
    if not words:
        return SpeechOverReply.NOTHING
    polite = BACKCHANNELS | FILLERS
    again = len(set(words)) == 1 and words[0] in polite  # "yeah, yeah"
    return SpeechOverReply.LISTENING if again or "".join(words) in polite else SpeechOverReply.FLOOR


class BargeInDecision(Enum):
    """Decision about a reply that is spoken over."""

    OVER = "over"
    GOES_ON = "goes on"
    OPEN = "open"
    """It is held until more is known."""


def decide_barge_in(text: str, *, settled: bool, audible: bool) -> BargeInDecision:
    """Decide about a reply by the words that are said over it. ``settled``: no more come;
    ``audible``: something of the reply was heard."""
    if text and (
        classify_speech(text) is SpeechOverReply.FLOOR if audible else continues_turn(text)
    ):
        return BargeInDecision.OVER
    return BargeInDecision.GOES_ON if settled else BargeInDecision.OPEN


def continues_turn(text: str) -> bool:
    """Return whether ``text``, said before anything of the reply was heard, continues the turn: any
    word does, because there is nothing yet to be polite about."""
    return any(word not in FILLERS for word in normalized_words(text))


ECHO_SIMILARITY = 0.85
"""From this likeness on a sound is an echo, whatever its words seem to be: a recogniser makes
others of a quiet one. Somebody who speaks as loud as the echo stays below it."""
OWN_WORDS_ECHO_SIMILARITY = 0.7
"""From this on it is one where the words are the machine's, too. Strangers stay below it."""
WORDS_PER_MISMATCH = 3
"""One word in so many may be another than was said."""
MAX_ECHO_LAG_S = 0.8
"""Delay within which played audio comes back: buffers, the air, buffers."""


def is_echo(text: str, likeness: float, saying: str) -> bool:
    """Return whether ``text`` is an echo of ``saying``, by the ``likeness`` of the two sounds."""
    if not text:
        return False
    return likeness >= ECHO_SIMILARITY or (
        likeness >= OWN_WORDS_ECHO_SIMILARITY and is_own_words(text, saying)
    )


def is_own_words(text: str, saying: str) -> bool:
    """Return whether ``text`` consists of words of ``saying``, in their order, but for one in
    three: a recognizer makes other words of a quiet sound and misses some, so these need not be
    neighbours. An order ("stop") that is not among them, or is alone, never does."""
    words, said = normalized_words(text), normalized_words(saying)
    if not words or (len(words) == 1 and words[0] in STOP_WORDS):
        return False
    return any(_is_subsequence(words, said[at:]) for at, word in enumerate(said) if word in words)


def _is_subsequence(words: Sequence[str], said: Sequence[str]) -> bool:
    """Return whether ``words`` are in ``said`` in order, from its first on, without long gaps."""
    at = others = 0
    for word in words:
        reach = said[at : at + 1 + len(words)]
        if word in reach:
            at += reach.index(word) + 1
        elif word in STOP_WORDS:
            return False
        else:
            others += 1
    return others * WORDS_PER_MISMATCH <= len(words)
