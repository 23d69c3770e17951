"""Live sessions: errors of live sessions and conversations."""

from __future__ import annotations

from sidecar.errors.error_base import BadRequest, ErrorKind, NotFound, SidecarError


class LiveUnavailable(SidecarError, code="live_unavailable", kind=ErrorKind.UNSUPPORTED):
    """No engine here hears live."""

    default_detail = "No engine of this service hears while somebody speaks."
    default_hint = (
        "Send the recording when it is done; 'vibevoice-asr doctor' says what is missing."
    )


class LiveFull(SidecarError, code="live_full", kind=ErrorKind.BUSY):
    """As many live sessions as the service takes are going on."""

    default_detail = "As many live sessions as this service takes are going on."
    default_hint = "Try again later, or raise live_sessions if the machine has room."
    default_retry_after = 5


class UtteranceDropped(SidecarError, code="utterance_dropped", kind=ErrorKind.BUSY):
    """An utterance was not recognised: too many speak."""

    default_detail = "Too many speak: this utterance was not recognised."
    default_hint = "Say it again later; sessions that were there first are served first."
    default_retry_after = 5


class SessionNotFound(NotFound, code="session_not_found"):
    """There is no such live session, or it is another's, or its time is over."""

    default_detail = "There is no such live session."
    default_hint = "Begin a new one; what it lasts when nobody is connected is live_grace."


class SessionTaken(SidecarError, code="session_taken", kind=ErrorKind.CONFLICT):
    """A live session with that name goes on."""

    default_detail = "A live session with this id goes on."
    default_hint = "End it first, or take another id."


class SessionMoved(SidecarError, code="session_moved", kind=ErrorKind.CONFLICT):
    """Another connection holds the live session now."""

    default_detail = "Another connection has taken this live session over."
    default_hint = "One connection holds a session; the last one to come."


class SessionHandedOver(SidecarError, code="session_handed_over", kind=ErrorKind.BUSY):
    """The service ends, and another one goes on with the live session."""

    default_detail = "This service ends; another one goes on with the live session."
    default_hint = "Connect again at once, with its id and 'after'."


class SessionOver(SidecarError, code="session_over", kind=ErrorKind.CONFLICT):
    """The live session has ended, or takes no more sound."""

    default_detail = "The live session takes no more sound."
    default_hint = "Begin a new one."


class SessionIdle(SidecarError, code="session_idle", kind=ErrorKind.TIMEOUT):
    """Nothing came for a live session for too long."""

    default_detail = "Nothing came for this live session for too long."
    default_hint = (
        "Begin a new one when somebody speaks; live_idle says how long it waits. A conversation "
        "waits for ten minutes."
    )


class SessionTooLong(SidecarError, code="session_too_long", kind=ErrorKind.TIMEOUT):
    """A live session has lasted as long as one may."""

    default_detail = "The live session has lasted as long as one may."
    default_hint = "Begin a new one; live_longest says how long one lasts."


class MessageInvalid(BadRequest, code="message_invalid"):
    """A message of a live connection that means nothing there."""

    default_detail = "The message is none that this connection knows."
    default_hint = "docs/live-wire.md says which there are, and what is in them."


class MessageTooBig(SidecarError, code="message_too_big", kind=ErrorKind.TOO_LARGE):
    """More at once than a live connection takes."""

    default_detail = "The message is too big."
    default_hint = "Send pieces of about 0.1 s of sound."


class InboundFull(SidecarError, code="inbound_full", kind=ErrorKind.BUSY):
    """A live client sends more than is taken from it, and does not wait."""

    default_detail = "More messages wait on this connection than may."
    default_hint = "Send sound no faster than somebody speaks, or connect again and go on."
    default_retry_after = 1


class ChunkTooLong(SidecarError, code="chunk_too_long", kind=ErrorKind.TOO_LARGE):
    """A piece of live sound is longer than one may be."""

    default_detail = "The piece of sound is too long."
    default_hint = "Send pieces of about 0.1 s; a whole recording is better sent as a file."


class SoundInvalid(BadRequest, code="sound_invalid"):
    """Live audio that is none."""

    default_detail = "What was sent is no sound in the agreed form."
    default_hint = "Send mono samples, pcm16 (2 bytes each) or float32 (4), little-endian."


class EncodingUnavailable(SidecarError, code="encoding_unavailable", kind=ErrorKind.UNSUPPORTED):
    """Live sound was to come in a form that needs a package that is not installed."""

    default_detail = "This installation does not decode Opus."
    default_hint = "Send pcm16, or have the service install 'vibevoice-asr[opus]'."


class EventUnsupported(BadRequest, code="event_unsupported", kind=ErrorKind.UNSUPPORTED):
    """A live client sent an event that its address does not know."""

    default_detail = "The event has no type that is known here."
    default_hint = "See docs/openai.md for the events that transcribe."


class CommitEmpty(BadRequest, code="input_audio_buffer_commit_empty"):
    """A live client ended its turn where no sound came (the code is OpenAI's)."""

    default_detail = "There is less than 0.1 s of sound since the last commit."
    default_hint = "Send sound first; where the service hears pauses, it ends turns by itself."


class CaptureUnreadable(SidecarError, code="capture_unreadable", kind=ErrorKind.MALFORMED):
    """A file of a captured session cannot be used."""

    default_detail = "That is no captured session."
    default_hint = "Name one of the two files of a capture (docs/capture.md)."


class TalkFull(SidecarError, code="talk_full", kind=ErrorKind.BUSY):
    """As many conversations go on as may."""

    default_detail = "There are as many conversations as may be at once."
    default_hint = "Try again when one has ended, or raise VIBEVOICE_CONVERSATIONS."
    default_retry_after = 10


class ItemUnknown(SidecarError, code="item_unknown", kind=ErrorKind.NOT_FOUND):
    """A conversation has no item of that name."""

    default_detail = "The conversation has no such item."
    default_hint = "Name one that was told, and was neither deleted nor let go of for its age."


class CallUnknown(SidecarError, code="call_unknown", kind=ErrorKind.NOT_FOUND):
    """The result of a call came that nobody waits for."""

    default_detail = "No call of that id waits for an output."
    default_hint = (
        "Send one output for each call that was told to its end; those of an answer that was "
        "interrupted before are not carried out."
    )


class ToolsUnavailable(SidecarError, code="tools_unavailable", kind=ErrorKind.UNPROCESSABLE):
    """Tools are wanted, and who answers calls none."""

    default_detail = "Who answers here only repeats what is said, and calls no tools."
    default_hint = "Set VIBEVOICE_LLM to a language model, or leave the tools out."


class ResponseActive(
    SidecarError, code="conversation_already_has_active_response", kind=ErrorKind.CONFLICT
):
    """A client asked for an answer while one is being given (the code is OpenAI's)."""

    default_detail = "The conversation already has a response in progress."
    default_hint = "Wait for its response.done, or cancel it first."


class ResponseNotActive(SidecarError, code="response_cancel_not_active", kind=ErrorKind.CONFLICT):
    """A client cancelled an answer that is not being given (the code is OpenAI's)."""

    default_detail = "Cancellation failed: no such response is in progress."
    default_hint = "There is nothing to be done."


class ReplyEmpty(SidecarError, code="reply_empty"):
    """The language model of a conversation answered without words."""

    default_detail = "The language model answered with nothing that can be said or shown."
    default_hint = "Say it again; if it stays, choose another model."


class StageSilent(SidecarError, code="stage_silent", kind=ErrorKind.TIMEOUT):
    """A part of a conversation began something and never told how it went."""

    default_detail = "A part of the conversation does not answer."
    default_hint = "Go on speaking; if it stays, look whether the model and the voice still run."


class LlmError(SidecarError, kind=ErrorKind.BUSY):
    """The language model that answers in conversations did not."""


class LlmUnreachable(LlmError, code="llm_unreachable"):
    """Nobody is there."""

    default_detail = "The language model does not answer."
    default_hint = "Start its server, or check VIBEVOICE_LLM."


class LlmTimeout(LlmError, code="llm_timeout"):
    """It takes too long."""

    default_detail = "The language model took too long."
    default_hint = "A smaller model answers sooner; so does one that stays loaded."


class LlmRefused(LlmError, code="llm_refused", kind=ErrorKind.FAILED):
    """It is there, and will not do this."""

    default_detail = "The language model refused the request."
    default_hint = "Check VIBEVOICE_LLM_MODEL and VIBEVOICE_LLM_KEY."


class LlmFailed(LlmError, code="llm_failed"):
    """It broke, before its answer or in the middle."""

    default_detail = "The language model failed."
    default_hint = "Look into the log of its server; it is not this service that failed."


class LlmGarbled(LlmError, code="llm_garbled", kind=ErrorKind.FAILED):
    """Its answer cannot be read."""

    default_detail = "The language model's answer cannot be read."
    default_hint = "VIBEVOICE_LLM is to name a server with OpenAI's chat completions."


class SpeechFailed(SidecarError, code="speech_failed", kind=ErrorKind.BUSY):
    """The server that speaks for the voice 'speech' did not."""

    default_detail = "The server that speaks did not."
    default_hint = "Check VIBEVOICE_SPEECH_URL and the log of that server."


class SpeechUnavailable(SidecarError, code="speech_unavailable", kind=ErrorKind.UNPROCESSABLE):
    """Text is to be spoken, and no engine here speaks."""

    default_detail = "No engine of this service speaks."
    default_hint = "Run 'vibevoice-asr pull voice', or see the setting voice_engine."


class SpeechFull(SidecarError, code="speech_full", kind=ErrorKind.BUSY):
    """As much text waits to be spoken as may."""

    default_detail = "As much text waits to be spoken as may, of yours or of all."
    default_hint = "Try again after the time in Retry-After."
    default_retry_after = 5


class MicrophoneUnavailable(
    SidecarError, code="microphone_unavailable", kind=ErrorKind.UNSUPPORTED
):
    """There is no microphone, or what it takes to use one is missing."""

    default_detail = "There is no microphone that can be used."
    default_hint = "'vibevoice-asr live --devices' lists those that there are."


class LoudspeakerUnavailable(
    SidecarError, code="loudspeaker_unavailable", kind=ErrorKind.UNSUPPORTED
):
    """There is no loudspeaker, or what it takes to use one is missing."""

    default_detail = "There is no loudspeaker that can be used."
    default_hint = "'vibevoice-asr talk --devices' lists those that there are; --text needs none."
