"""Language of a text, and doubt whether a recording is in the embedded engine's language.

A recognizer that knows only English writes English words for any speech. It is unsure of most of
them if the language is another (docs/decisions/recognition-parameters.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sidecar.installation import (
    ENGLISH_ONLY_BUILD_HINT,
    install_command,
    is_english_only_build,
    is_frozen,
)
from sidecar.transcripts.transcript import (
    NON_SPEECH_FLAG,
    Notice,
    Segment,
    Transcript,
    mean_confidence,
)

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

LEAST_TOKENS = 15
"""Minimum tokens for a doubt: about five seconds of speech."""
DOUBTFUL_BELOW = -0.6
"""Threshold of a token's mean log likelihood (natural logarithm). Of 140 recordings in English the
lowest had -0.51, of 96 in other languages the highest -0.68."""


LEAST_SHORT_TOKENS, SHORT_DOUBTFUL_BELOW = 3, -0.5
"""The same two of a whole recording with fewer tokens, for which another engine is at hand: some
English ones are below it, which that engine transcribes, too."""
LEAST_PART_WORDS, PART_DOUBTFUL_BELOW = 18, -0.8
"""The same two of a part of a recording; a transcript has words, and no tokens. English in a room
has -0.38 at least, and less only if other people are half as loud; German -0.84 to -1.9."""
LANGUAGE_DOUBTFUL = "language_doubtful"
_SAMPLE_RATE = (
    " If it is English, check that the sample rate that the client names is that of its audio."
)

MIN_LANGUAGE_PROBABILITY = 0.5
"""Minimum probability of a detected language. Of 92 short texts in 27 languages one was wrong, at
0.38; the least sure of the right ones has 0.52."""
MIN_LETTER_BYTES = 12
"""Minimum bytes of letters; below it even a wrong language can have a high probability (`Fail
again.`: Gaelic, 0.60)."""
MAX_CHARACTERS = 20_000
"""Maximum characters that are classified: half an hour of speech."""


def _model_command() -> str:
    """Return the command that gets a Whisper model; an executable has its engine inside."""
    return "vibevoice-asr pull whisper:base" if is_frozen() else install_command("languages")


def other_languages_hint(*, live: bool) -> str:
    """Return what to do for languages that the embedded engine does not know. Which engine
    transcribes live audio is set apart."""
    if is_english_only_build():
        return ENGLISH_ONLY_BUILD_HINT
    start = "start the service with --live-engine whisper" if live else "start the service again"
    return f"For other languages: {_model_command()}, then {start}."


def doubtful_language_notice(
    *, live: bool = False, others: bool = False, part: tuple[float, float] | None = None
) -> Notice:
    """Return the notice of a transcript that is probably in another language. ``live``: the client
    named the sample rate of its audio, which may be wrong instead. ``others``: the service has
    another engine for other languages. ``part``: begin and end of what is; None: all of it."""
    what, named = "The recording", "Name its language, such as language=de."
    if part is not None:
        begin, end = (f"{at // 60:.0f}:{at % 60:02.0f}" for at in map(round, part))
        what = f"The part from {begin} to {end}"
        named = "Send it by itself with its language, such as language=de."
    remedy = named if others else other_languages_hint(live=live)
    return Notice(
        LANGUAGE_DOUBTFUL,
        f"{what} does not seem to be English, the only language of the engine 'moonshine': the "
        f"text is probably wrong. {remedy}{_SAMPLE_RATE if live and part is None else ''}",
    )


def with_language_notice(
    found: Transcript, confidence: Confidence, *, live: bool = False, others: bool = False
) -> Transcript:
    """Return a transcript of the embedded engine, with a notice if all of it or a part is probably
    in another language. ``confidence``: in all of it."""
    if not confidence.tokens:  # an engine of several languages
        return found
    part = None if confidence.doubtful else doubtful_part(found.segments)
    if part is None and not confidence.doubtful:
        return found
    return found.with_notice(doubtful_language_notice(live=live, others=others, part=part))


def doubtful_part(segments: Iterable[Segment]) -> tuple[float, float] | None:
    """Return begin and end of the part of which the recognizer was least sure, if that is probably
    in another language."""
    begin = excess = deepest = least = 0.0
    words, found = 0, None
    for one in sorted(segments, key=lambda one: one.start):
        if not one.confidence:
            continue
        count = len(one.text.split())
        begin = begin if words else one.start
        words += count
        excess += count * (math.log(one.confidence) - PART_DOUBTFUL_BELOW)
        if excess >= 0:
            words, excess, deepest = 0, 0.0, 0.0
        elif excess < deepest:  # else it is sure of this one
            deepest = excess
            if excess < least and words >= LEAST_PART_WORDS:
                least, found = excess, (begin, one.end)
    return found


@dataclass(frozen=True, slots=True)
class Confidence:
    """Confidence of a recognizer in its text: the sum of its tokens' log likelihoods, and their
    number."""

    total: float = 0.0
    tokens: int = 0

    def __add__(self, other: Confidence) -> Confidence:
        return Confidence(self.total + other.total, self.tokens + other.tokens)

    @property
    def mean(self) -> float | None:
        """Return the confidence of the text as one number; None if it has no tokens."""
        return mean_confidence([self.total / self.tokens] if self.tokens else [])

    @property
    def doubtful(self) -> bool:
        """Return whether the recording is probably in another language."""
        return self.tokens >= LEAST_TOKENS and self.total < DOUBTFUL_BELOW * self.tokens


class EnglishCheck:
    """Decision whether a recording is English, by the confidence of a recognizer that knows only
    English in the first words."""

    def __init__(self) -> None:
        self.english: bool | None = None
        """None until it is decided."""

    def refuses(self, confidence: Confidence, *, whole: bool = False) -> bool:
        """Return whether the recording is in another language, by the words so far; ``whole``: no
        more follow."""
        if self.english is None and confidence.tokens >= LEAST_TOKENS:
            self.english = not confidence.doubtful
        elif self.english is None and whole:
            threshold = SHORT_DOUBTFUL_BELOW * confidence.tokens
            few = confidence.tokens < LEAST_SHORT_TOKENS
            self.english = few or confidence.total >= threshold
        return self.english is False


def detect_language(segments: Iterable[Segment]) -> str | None:
    """Return the ISO 639-1 code of the language of most words; None if it is uncertain.

    Text that is not speech ([Music], skipped audio) does not count. None also if the library is not
    installed.
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
    """Return the library's model (part of its wheel), limited to languages of ISO 639-1."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    whole = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    whole.set_languages([label for label in whole.labels if len(label) == 2])
    return LanguageIdentifier(  # a new one, as `whole` keeps the tables of all languages: 25 MB
        whole.nb_ptc,
        whole.nb_pc,
        whole.nb_classes,
        whole.tk_nextmove,
        whole.tk_output,
        norm_probs=True,
        tk_row=whole.tk_row,
    )
