"""Options: what a request asks of an engine that cannot do it."""

from __future__ import annotations

from sidecar.errors.error_base import BadRequest, Kind, NotFound


class PrecisionUnknown(BadRequest):
    """A precision nobody has heard of."""

    code = "precision_unknown"
    kind = Kind.UNPROCESSABLE
    default_detail = "The precision is not known."


class PrecisionUnavailable(BadRequest):
    """A precision that exists, but not in the engine that serves."""

    code = "precision_unavailable"
    kind = Kind.UNPROCESSABLE
    default_detail = "The engine does not have this precision."


class LanguageInvalid(BadRequest):
    """Not a language tag."""

    code = "language_invalid"
    kind = Kind.UNPROCESSABLE
    default_detail = "The language is not a language tag."
    default_hint = "Use 'auto' or a tag such as 'en' or 'de-CH'."


class LanguageUnsupported(BadRequest):
    """A language that the engine does not speak."""

    code = "language_unsupported"
    kind = Kind.UNPROCESSABLE
    default_detail = "The engine does not know this language."


class TranslationUnavailable(BadRequest):
    """A translation by an engine that writes down what is said, and no other language."""

    code = "translation_unavailable"
    kind = Kind.UNPROCESSABLE
    default_detail = "The engine does not translate."


class LogprobsUnavailable(BadRequest):
    """Probabilities of tokens, which leave no engine."""

    code = "logprobs_unavailable"
    kind = Kind.UNPROCESSABLE
    default_detail = "No engine here tells the probabilities of its tokens."
    default_hint = "Leave 'include' out."


class WordsUnavailable(BadRequest):
    """Times of words from an engine that has none."""

    code = "words_unavailable"
    kind = Kind.UNPROCESSABLE
    default_detail = "The engine tells no times of words."
    default_hint = "Ask for 'segment' alone, or start with --engine whisper, which tells them."


class VoiceUnknown(BadRequest):
    """The engine that speaks has not got the voice that was asked for."""

    code = "voice_unknown"
    default_detail = "There is no such voice to speak with."


class ModelNotFound(NotFound):
    """A model by a name that is none of what is loaded."""

    code = "model_not_found"
    default_detail = "There is no model of this name here."
    default_hint = "GET /v1/models lists the names that count."
