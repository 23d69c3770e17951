"""Which language a transcript is in, told from its words, offline."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from sidecar.engine import AUTO
from sidecar.transcript import NON_SPEECH, Segment

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SURE = 0.5
"""The least probability; under it were the only wrong answers among short sentences in 27
languages (`Fail again. Fail better.`: Gaelic, 0.37), over it are plain short ones."""
ENOUGH = 20_000
"""Characters that are looked at: half an hour of talk."""


def language_of(segments: Iterable[Segment]) -> str:
    """ISO 639-1 code of the language most of the words are in; 'auto' if there is no telling.

    What is no speech ([Music], a stretch left out) does not count. 'auto' also where the library
    is not installed.
    """
    words = " ".join(one.text for one in segments if NON_SPEECH not in one.flags)
    identifier = _identifier()
    if identifier is None or not any(character.isalpha() for character in words):
        return AUTO
    language, probability = identifier.classify(words[:ENOUGH])
    return language if probability >= SURE else AUTO


@cache
def _identifier() -> LanguageIdentifier | None:
    """The library's model (its wheel has it), for languages that ISO 639-1 has."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([label for label in identifier.labels if len(label) == 2])
    return identifier
