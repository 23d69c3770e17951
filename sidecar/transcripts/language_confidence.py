"""Doubt whether a recording is in the embedded engine's language, by its own confidence. Pure.

A recognizer that knows only English writes English words whatever it hears, but it is unsure of
most of them where the language is another (docs/decisions/recognition-parameters.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.installation import install_command
from sidecar.transcripts.transcript import Notice

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
