"""Conversations: whose turn it is, who answers, and who speaks."""

from __future__ import annotations

from sidecar.errors.error_base import Kind, SidecarError


class TalkFull(SidecarError):
    """As many conversations go on as may."""

    code = "talk_full"
    kind = Kind.BUSY
    default_detail = "There are as many conversations as may be at once."
    default_hint = "Try again when one has ended, or raise VIBEVOICE_CONVERSATIONS."
    default_retry_after = 10


class ItemUnknown(SidecarError):
    """A conversation has no item of that name."""

    code = "item_unknown"
    kind = Kind.NOT_FOUND
    default_detail = "The conversation has no such item."
    default_hint = "Name one that was told, and was neither deleted nor let go of for its age."


class CallUnknown(SidecarError):
    """The result of a call came that nobody waits for."""

    code = "call_unknown"
    kind = Kind.NOT_FOUND
    default_detail = "No call of that id waits for an output."
    default_hint = (
        "Send one output for each call that was told to its end; those of an answer that was "
        "interrupted before are not carried out."
    )


class ToolsUnavailable(SidecarError):
    """Tools are wanted, and who answers calls none."""

    code = "tools_unavailable"
    kind = Kind.UNPROCESSABLE
    default_detail = "Who answers here only repeats what is said, and calls no tools."
    default_hint = "Set VIBEVOICE_LLM to a language model, or leave the tools out."


class ResponseActive(SidecarError):
    """A client asked for an answer while one is being given (the code is OpenAI's)."""

    code = "conversation_already_has_active_response"
    kind = Kind.CONFLICT
    default_detail = "The conversation already has a response in progress."
    default_hint = "Wait for its response.done, or cancel it first."


class ResponseNotActive(SidecarError):
    """A client cancelled an answer that is not being given (the code is OpenAI's)."""

    code = "response_cancel_not_active"
    kind = Kind.CONFLICT
    default_detail = "No such response is in progress."
    default_hint = "There is nothing to be done."


class ReplyEmpty(SidecarError):
    """The language model of a conversation answered without words."""

    code = "reply_empty"
    default_detail = "The language model answered with nothing that can be said or shown."
    default_hint = "Say it again; if it stays, choose another model."


class StageSilent(SidecarError):
    """A part of a conversation began something and never told how it went."""

    code = "stage_silent"
    kind = Kind.TIMEOUT
    default_detail = "A part of the conversation does not answer."
    default_hint = "Go on speaking; if it stays, look whether the model and the voice still run."


class LlmError(SidecarError):
    """The language model that answers in conversations did not."""

    kind = Kind.BUSY


class LlmUnreachable(LlmError):
    """Nobody is there."""

    code = "llm_unreachable"
    default_detail = "The language model does not answer."
    default_hint = "Start its server, or check VIBEVOICE_LLM."


class LlmTimeout(LlmError):
    """It takes too long."""

    code = "llm_timeout"
    default_detail = "The language model took too long."
    default_hint = "A smaller model answers sooner; VIBEVOICE_LLM_FIRST_TOKEN allows for more time."


class LlmRefused(LlmError):
    """It is there, and will not do this."""

    code = "llm_refused"
    kind = Kind.FAILED
    default_detail = "The language model refused the request."
    default_hint = "Check VIBEVOICE_LLM_MODEL and VIBEVOICE_LLM_KEY."


class LlmFailed(LlmError):
    """It broke, before its answer or in the middle."""

    code = "llm_failed"
    default_detail = "The language model failed."
    default_hint = "Look into the log of its server; it is not this service that failed."


class LlmGarbled(LlmError):
    """Its answer cannot be read."""

    code = "llm_garbled"
    kind = Kind.FAILED
    default_detail = "The language model's answer cannot be read."
    default_hint = "VIBEVOICE_LLM is to name a server with OpenAI's chat completions."


class SpeechFailed(SidecarError):
    """The server that speaks for the voice 'speech' did not."""

    code = "speech_failed"
    kind = Kind.BUSY
    default_detail = "The server that speaks did not."
    default_hint = "Check VIBEVOICE_SPEECH_URL and the log of that server."


class MicrophoneUnavailable(SidecarError):
    """There is no microphone, or what it takes to use one is missing."""

    code = "microphone_unavailable"
    kind = Kind.UNSUPPORTED
    default_detail = "There is no microphone that can be used."
    default_hint = "'vibevoice-asr live --devices' lists those that there are."


class LoudspeakerUnavailable(SidecarError):
    """There is no loudspeaker, or what it takes to use one is missing."""

    code = "loudspeaker_unavailable"
    kind = Kind.UNSUPPORTED
    default_detail = "There is no loudspeaker that can be used."
    default_hint = "'vibevoice-asr talk --devices' lists those that there are; --text needs none."
