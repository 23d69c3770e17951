"""Barge-in: interruption, backchannel, echo of the answer. Pure.

Holding the reply costs nothing, so the state machine does that first and at once. The words that
were said then decide whether the reply ends. A backchannel ("mm-hm") does not end it: it enters the
history without an answer, unless it is an answer to the reply's end (`turn_taking` does that).
"""

from collections.abc import Sequence

from sidecar.interfaces.tts_text import normalized_words, word_set
from sidecar.plugins.conversation.end_of_turn import FILLERS

PAUSE_AFTER_S = 0.25
"""Seconds of speech over a reply that hold it. A cough is shorter."""
GUARDED_PAUSE_AFTER_S = 0.4
"""The same in seconds if the microphone picks up the loudspeaker."""
GUARDED_THRESHOLD = 0.15
"""Probability that is added to the speech threshold in that case while a reply is played."""
RESUME_AFTER_S = 2.0
"""Seconds after which a held reply resumes if there are no words and the speech has ended."""
MAX_HOLD_S = 6.0
"""Seconds that a reply is held at most, even if the detector still reports speech."""
BACKCHANNELS = word_set(
    "mm-hm mhm mm mmm uh-huh aha ah oh yes yeah yep yup ya okay ok okey right sure good great "
    "nice cool true exactly really wow indeed fine correct absolutely uh_huh mm_hm mm_hmm m_hm "
    "i_see got_it of_course all_right ja jaja genau stimmt klar gut achso richtig oui ouais voilà "
    "d'accord exact sí vale claro ajá bueno certo esatto bene sim isso да ага угу "
    "はい うん ええ そう へえ なるほど 네 응 예 对 嗯 好 好的 是 是的"
)
"""Words of a listener that do not take the turn."""
STOP_WORDS = word_set("stop wait no halt nein stopp warte non arrête para espera basta стоп")
"""Words that end a reply even if the reply contains them: alone they are not treated as an echo."""
ANSWERS_WITHIN_S = 0.5
"""Seconds of a reply that may be left when a backchannel ends for it to count as an answer."""

ECHO_SIMILARITY = 0.85
"""Similarity from which audio is an echo, whatever its words: a recognizer makes other words of
quiet audio. A user who speaks as loud as the echo stays below it."""
OWN_WORDS_ECHO_SIMILARITY = 0.7
"""Similarity of an echo if its words are the assistant's, too; other people stay below it."""
WORDS_PER_MISMATCH = 3
"""Number of words of which one may differ from the assistant's."""
MAX_ECHO_LAG_S = 0.8
"""Seconds within which played audio comes back: output buffers, air, input buffers."""


def is_backchannel(text: str) -> bool:
    """Return whether ``text``, said over a reply, does not take the turn: one backchannel or filler
    ("mm-hm"), said once or several times. Two other words do."""
    words = normalized_words(text)
    polite = BACKCHANNELS | FILLERS
    again = len(set(words)) == 1 and words[0] in polite  # "yeah, yeah"
    return again or "".join(words) in polite


def interrupts_reply(text: str, *, audible: bool) -> bool:
    """Return whether words that are said over a reply interrupt it. If none of the reply was heard
    (``audible``), any word but a filler does, because there is nothing yet to acknowledge."""
    words = normalized_words(text)
    if audible:
        return bool(words) and not is_backchannel(text)
    return any(word not in FILLERS for word in words)


def is_echo(text: str, likeness: float, assistant_text: str) -> bool:
    """Return whether ``text`` is an echo of ``assistant_text``; ``likeness`` is the similarity of
    the two recordings."""
    if not text:
        return False
    return likeness >= ECHO_SIMILARITY or (
        likeness >= OWN_WORDS_ECHO_SIMILARITY and is_own_words(text, assistant_text)
    )


def is_own_words(text: str, assistant_text: str) -> bool:
    """Return whether ``text`` consists of words of ``assistant_text`` in their order.

    One word in three may differ. A recognizer mistakes and misses words of quiet audio, so the
    words need not be adjacent. A stop word never counts if it is alone or is not in
    ``assistant_text``.
    """
    words, assistant_words = normalized_words(text), normalized_words(assistant_text)
    if not words or (len(words) == 1 and words[0] in STOP_WORDS):
        return False
    return any(
        _is_subsequence(words, assistant_words[at:])
        for at, word in enumerate(assistant_words)
        if word in words
    )


def _is_subsequence(words: Sequence[str], assistant_words: Sequence[str]) -> bool:
    """Return whether ``words`` are in ``assistant_words`` in order, from its beginning, without
    long gaps."""
    at = others = 0
    for word in words:
        reach = assistant_words[at : at + 1 + len(words)]
        if word in reach:
            at += reach.index(word) + 1
        elif word in STOP_WORDS:
            return False
        else:
            others += 1
    return others * WORDS_PER_MISMATCH <= len(words)
