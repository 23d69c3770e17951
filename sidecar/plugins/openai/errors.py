"""OpenAI's transcription and speech APIs: what an engine cannot do, and limits."""

from sidecar.errors import BadRequest, ErrorKind, SidecarError


class TranslationUnavailable(
    BadRequest, code="translation_unavailable", kind=ErrorKind.UNPROCESSABLE
):
    """Translation by an engine that only transcribes."""

    default_detail = "The engine does not translate."
    default_hint = "Start with --engine whisper and a multilingual model."


class LogprobsUnavailable(BadRequest, code="logprobs_unavailable", kind=ErrorKind.UNPROCESSABLE):
    """Request for the probabilities of tokens; there are only those of words and segments."""

    default_detail = "This service returns probabilities of words and segments, not of tokens."
    default_hint = "Omit 'include'."


class WordsUnavailable(BadRequest, code="words_unavailable", kind=ErrorKind.UNPROCESSABLE):
    """Request for word timestamps of an engine that has none."""

    default_detail = "The engine returns no word timestamps."
    default_hint = "Use 'segment' alone, or start with --engine whisper, which returns them."


class SpeechUnavailable(SidecarError, code="speech_unavailable", kind=ErrorKind.UNPROCESSABLE):
    """Speech synthesis on a service without a TTS engine."""

    default_detail = "This service has no TTS engine."
    default_hint = "Run 'vibevoice-asr pull voice', or set voice_engine."


class SpeechFull(SidecarError, code="speech_full", kind=ErrorKind.BUSY):
    """Limit of text that waits for synthesis."""

    default_detail = "Too much text waits for synthesis, for this owner or in all."
    default_hint = "Try again after the time in Retry-After."
    default_retry_after = 5
