"""Which language a transcript is in, told from its words, offline."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from sidecar.interfaces.engine import AUTO
from sidecar.transcripts.transcript import NON_SPEECH, Segment

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SURE = 0.5
"""The least probability. Of 92 short texts in 27 languages one came out wrong, at 0.38; the least
sure of the right ones has 0.52."""
FEWEST = 12
"""Bytes of letters; under it even a wrong guess can be sure (`Fail again.`: Gaelic, 0.60)."""
ENOUGH = 20_000
"""Characters that are looked at: half an hour of talk."""


def language_of(segments: Iterable[Segment]) -> str:
    """ISO 639-1 code of the language most of the words are in; 'auto' if there is no telling.

    What is no speech ([Music], a stretch left out) does not count. 'auto' also where the library
    is not installed.
    """
    words = " ".join(one.text for one in segments if NON_SPEECH not in one.flags)
    letters = "".join(filter(str.isalpha, words[:ENOUGH]))
    identifier = _identifier()
    if identifier is None or len(letters.encode(errors="replace")) < FEWEST:
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
    whole = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    whole.set_languages([label for label in whole.labels if len(label) == 2])
    return LanguageIdentifier(  # anew, for the whole one keeps the tables of all languages: 25 MB
        whole.nb_ptc,
        whole.nb_pc,
        whole.nb_classes,
        whole.tk_nextmove,
        whole.tk_output,
        norm_probs=True,
        tk_row=whole.tk_row,
    )
