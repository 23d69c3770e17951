"""Conversations: limits, tool calls, LLM, TTS, loudspeaker."""

from sidecar.errors import ErrorKind, SidecarError


class TalkFull(SidecarError, code="talk_full", kind=ErrorKind.BUSY):
    """Limit of conversations of the service."""

    default_detail = "The service has reached its limit of conversations."
    default_hint = "Try again when one has ended, or raise VIBEVOICE_CONVERSATIONS."
    default_retry_after = 10


class CallUnknown(SidecarError, code="call_unknown", kind=ErrorKind.NOT_FOUND):
    """Output of a tool call that is not pending."""

    param = "item.call_id"
    default_detail = "No pending tool call has this id."
    default_hint = (
        "Send one output for each completed tool call. Calls of an answer that was "
        "interrupted before are cancelled."
    )


class ToolsUnavailable(SidecarError, code="tools_unavailable", kind=ErrorKind.UNPROCESSABLE):
    """Tools for an LLM that cannot call any."""

    param = "tools"
    default_detail = (
        "The built-in echo model only repeats what the user says and cannot call tools."
    )
    default_hint = "Set VIBEVOICE_LLM to a language model, or omit the tools."


class ResponseNotActive(SidecarError, code="response_cancel_not_active", kind=ErrorKind.CONFLICT):
    """Cancellation without an answer in progress (the code is OpenAI's)."""

    default_detail = "Cancellation failed: no such response is in progress."
    default_hint = "No action is needed."


class ReplyEmpty(SidecarError, code="reply_empty"):
    """Answer of the LLM without words."""

    default_detail = "The answer of the language model has no text that can be spoken or shown."
    default_hint = "Try again; if the error repeats, choose another model."


class StageSilent(SidecarError, code="stage_silent", kind=ErrorKind.TIMEOUT):
    """Stage of a conversation that started and never reported its result."""

    default_detail = "A stage of the conversation does not answer."
    default_hint = (
        "Continue; if the error repeats, check that the language model and the TTS engine run."
    )


class LlmError(SidecarError, kind=ErrorKind.BUSY):
    """Failure of the LLM of a conversation."""


class LlmUnreachable(LlmError, code="llm_unreachable"):
    """LLM server that accepts no connection."""

    default_detail = "The language model does not answer."
    default_hint = "Start its server, or check VIBEVOICE_LLM."


class LlmTimeout(LlmError, code="llm_timeout"):
    """LLM that takes too long."""

    default_detail = "The language model took too long."
    default_hint = "Use a smaller model, or keep the model loaded."


class LlmRefused(LlmError, code="llm_refused", kind=ErrorKind.FAILED):
    """LLM server that rejects the request."""

    default_detail = "The server of the language model rejected the request."
    default_hint = "Check VIBEVOICE_LLM_MODEL and VIBEVOICE_LLM_KEY."


class LlmFailed(LlmError, code="llm_failed"):
    """LLM that failed before or during its answer."""

    default_detail = "The language model failed."
    default_hint = "Check the log of its server; this service itself did not fail."


class LlmGarbled(LlmError, code="llm_garbled", kind=ErrorKind.FAILED):
    """Response of an LLM that cannot be parsed."""

    default_detail = "The response of the language model cannot be parsed."
    default_hint = "Set VIBEVOICE_LLM to a server with OpenAI's chat completions API."


class SpeechFailed(SidecarError, code="speech_failed", kind=ErrorKind.BUSY):
    """Failure of the server of the TTS engine 'speech'."""

    default_detail = "The speech synthesis server failed."
    default_hint = "Check VIBEVOICE_SPEECH_URL and the log of that server."


class LoudspeakerUnavailable(
    SidecarError, code="loudspeaker_unavailable", kind=ErrorKind.UNSUPPORTED
):
    """Missing loudspeaker, or missing library for it."""

    default_detail = "No loudspeaker is available."
    default_hint = "'vibevoice-asr talk --devices' lists the loudspeakers; --text needs none."
