"""Language of a text, and doubt whether a recording is in the embedded engine's language.

A recognizer that knows only English writes English words whatever it hears, but it is unsure of
most of them where the language is another (docs/decisions/recognition-parameters.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sidecar.installation import install_command
from sidecar.transcripts.transcript import NON_SPEECH_FLAG, Notice, Segment

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

LEAST_TOKENS = 15
"""Of fewer, which is about five seconds of speech, nothing is said."""
DOUBTFUL_BELOW = -0.6
"""Mean natural logarithm of a token's likelihood. Of 140 recordings in English the lowest had
-0.51, of 96 in other languages the highest -0.68."""


LANGUAGE_DOUBTFUL = "language_doubtful"


def doubtful_language_notice() -> Notice:
    """Return the notice of a transcript whose language is probably another."""
    return Notice(
        LANGUAGE_DOUBTFUL,
        "The recording does not seem to be English, the only language of the engine "
        "'moonshine': the text is probably wrong. For another language: "
        f"{install_command('whisper')}, then vibevoice-asr pull whisper:small, then start "
        "with --engine whisper.",
    )


@dataclass(frozen=True, slots=True)
class Confidence:
    """Of a recognizer in what it wrote: the sum of its tokens' logarithmic likelihoods, and how
    many there are."""

    total: float = 0.0
    tokens: int = 0

    def __add__(self, other: Confidence) -> Confidence:
        return Confidence(self.total + other.total, self.tokens + other.tokens)

    @property
    def doubtful(self) -> bool:
        """Return whether the language is probably another."""
        return self.tokens >= LEAST_TOKENS and self.total < DOUBTFUL_BELOW * self.tokens


MIN_LANGUAGE_PROBABILITY = 0.5
"""The least probability. Of 92 short texts in 27 languages one came out wrong, at 0.38; the least
sure of the right ones has 0.52."""
MIN_LETTER_BYTES = 12
"""Bytes of letters; under it even a wrong guess can be sure (`Fail again.`: Gaelic, 0.60)."""
MAX_CHARACTERS = 20_000
"""Characters that are looked at: half an hour of talk."""


def detect_language(segments: Iterable[Segment]) -> str | None:
    """ISO 639-1 code of the language most of the words are in; None if there is no telling.

    What is no speech ([Music], a stretch left out) does not count. None also where the library is
    not installed.
    """
    words = " ".join(one.text for one in segments if NON_SPEECH_FLAG not in one.flags)
    letters = "".join(filter(str.isalpha, words[:MAX_CHARACTERS]))
    identifier = _language_identifier()
    if identifier is None or len(letters.encode(errors="replace")) < MIN_LETTER_BYTES:
        return None
    language, probability = identifier.classify(words[:MAX_CHARACTERS])
    return language if probability >= MIN_LANGUAGE_PROBABILITY else None


@cache
def _language_identifier() -> LanguageIdentifier | None:
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
