"""Live sessions: errors of live sessions and conversations."""

from __future__ import annotations

from sidecar.errors.error_base import BadRequest, ErrorKind, NotFound, SidecarError


class LiveUnavailable(SidecarError):
    """No engine here hears live."""

    code = "live_unavailable"
    kind = ErrorKind.UNSUPPORTED
    default_detail = "No engine of this service hears while somebody speaks."
    default_hint = (
        "Send the recording when it is done; 'vibevoice-asr doctor' says what is missing."
    )


class LiveFull(SidecarError):
    """As many live sessions as the service takes are going on."""

    code = "live_full"
    kind = ErrorKind.BUSY
    default_detail = "As many live sessions as this service takes are going on."
    default_hint = "Try again later, or raise live_sessions if the machine has room."
    default_retry_after = 5


class UtteranceDropped(SidecarError):
    """An utterance was not recognised: too many speak."""

    code = "utterance_dropped"
    kind = ErrorKind.BUSY
    default_detail = "Too many speak: this utterance was not recognised."
    default_hint = "Say it again later; sessions that were there first are served first."
    default_retry_after = 5


class SessionNotFound(NotFound):
    """There is no such live session, or it is another's, or its time is over."""

    code = "session_not_found"
    default_detail = "There is no such live session."
    default_hint = "Begin a new one; what it lasts when nobody is connected is live_grace."


class SessionTaken(SidecarError):
    """A live session with that name goes on."""

    code = "session_taken"
    kind = ErrorKind.CONFLICT
    default_detail = "A live session with this id goes on."
    default_hint = "End it first, or take another id."


class SessionMoved(SidecarError):
    """Another connection holds the live session now."""

    code = "session_moved"
    kind = ErrorKind.CONFLICT
    default_detail = "Another connection has taken this live session over."
    default_hint = "One connection holds a session; the last one to come."


class SessionHandedOver(SidecarError):
    """The service ends, and another one goes on with the live session."""

    code = "session_handed_over"
    kind = ErrorKind.BUSY
    default_detail = "This service ends; another one goes on with the live session."
    default_hint = "Connect again at once, with its id and 'after'."


class SessionOver(SidecarError):
    """The live session has ended, or takes no more sound."""

    code = "session_over"
    kind = ErrorKind.CONFLICT
    default_detail = "The live session takes no more sound."
    default_hint = "Begin a new one."


class SessionIdle(SidecarError):
    """Nothing came for a live session for too long."""

    code = "session_idle"
    kind = ErrorKind.TIMEOUT
    default_detail = "Nothing came for this live session for too long."
    default_hint = (
        "Begin a new one when somebody speaks; live_idle says how long it waits. A conversation "
        "waits for ten minutes."
    )


class SessionTooLong(SidecarError):
    """A live session has lasted as long as one may."""

    code = "session_too_long"
    kind = ErrorKind.TIMEOUT
    default_detail = "The live session has lasted as long as one may."
    default_hint = "Begin a new one; live_longest says how long one lasts."


class MessageInvalid(BadRequest):
    """A message of a live connection that means nothing there."""

    code = "message_invalid"
    default_detail = "The message is none that this connection knows."
    default_hint = "docs/live-wire.md says which there are, and what is in them."


class MessageTooBig(SidecarError):
    """More at once than a live connection takes."""

    code = "message_too_big"
    kind = ErrorKind.TOO_LARGE
    default_detail = "The message is too big."
    default_hint = "Send pieces of about 0.1 s of sound."


class InboundFull(SidecarError):
    """A live client sends more than is taken from it, and does not wait."""

    code = "inbound_full"
    kind = ErrorKind.BUSY
    default_detail = "More messages wait on this connection than may."
    default_hint = "Send sound no faster than somebody speaks, or connect again and go on."
    default_retry_after = 1


class ChunkTooLong(SidecarError):
    """A piece of live sound is longer than one may be."""

    code = "chunk_too_long"
    kind = ErrorKind.TOO_LARGE
    default_detail = "The piece of sound is too long."
    default_hint = "Send pieces of about 0.1 s; a whole recording is better sent as a file."


class SoundInvalid(BadRequest):
    """Live audio that is none."""

    code = "sound_invalid"
    default_detail = "What was sent is no sound in the agreed form."
    default_hint = "Send mono samples, pcm16 (2 bytes each) or float32 (4), little-endian."


class EncodingUnavailable(SidecarError):
    """Live sound was to come in a form that needs a package that is not installed."""

    code = "encoding_unavailable"
    kind = ErrorKind.UNSUPPORTED
    default_detail = "This installation does not decode Opus."
    default_hint = "Send pcm16, or have the service install 'vibevoice-asr[opus]'."


class EventUnsupported(BadRequest):
    """A live client sent an event that its address does not know."""

    code = "event_unsupported"
    kind = ErrorKind.UNSUPPORTED
    default_detail = "The event has no type that is known here."
    default_hint = "See docs/openai.md for the events that transcribe."


class CommitEmpty(BadRequest):
    """A live client ended its turn where no sound came (the code is OpenAI's)."""

    code = "input_audio_buffer_commit_empty"
    default_detail = "There is less than 0.1 s of sound since the last commit."
    default_hint = "Send sound first; where the service hears pauses, it ends turns by itself."


class CaptureUnreadable(SidecarError):
    """A file of a captured session cannot be used."""

    code = "capture_unreadable"
    kind = ErrorKind.MALFORMED
    default_detail = "That is no captured session."
    default_hint = "Name one of the two files of a capture (docs/capture.md)."


class TalkFull(SidecarError):
    """As many conversations go on as may."""

    code = "talk_full"
    kind = ErrorKind.BUSY
    default_detail = "There are as many conversations as may be at once."
    default_hint = "Try again when one has ended, or raise VIBEVOICE_CONVERSATIONS."
    default_retry_after = 10


class ItemUnknown(SidecarError):
    """A conversation has no item of that name."""

    code = "item_unknown"
    kind = ErrorKind.NOT_FOUND
    default_detail = "The conversation has no such item."
    default_hint = "Name one that was told, and was neither deleted nor let go of for its age."


class CallUnknown(SidecarError):
    """The result of a call came that nobody waits for."""

    code = "call_unknown"
    kind = ErrorKind.NOT_FOUND
    default_detail = "No call of that id waits for an output."
    default_hint = (
        "Send one output for each call that was told to its end; those of an answer that was "
        "interrupted before are not carried out."
    )


class ToolsUnavailable(SidecarError):
    """Tools are wanted, and who answers calls none."""

    code = "tools_unavailable"
    kind = ErrorKind.UNPROCESSABLE
    default_detail = "Who answers here only repeats what is said, and calls no tools."
    default_hint = "Set VIBEVOICE_LLM to a language model, or leave the tools out."


class ResponseActive(SidecarError):
    """A client asked for an answer while one is being given (the code is OpenAI's)."""

    code = "conversation_already_has_active_response"
    kind = ErrorKind.CONFLICT
    default_detail = "The conversation already has a response in progress."
    default_hint = "Wait for its response.done, or cancel it first."


class ResponseNotActive(SidecarError):
    """A client cancelled an answer that is not being given (the code is OpenAI's)."""

    code = "response_cancel_not_active"
    kind = ErrorKind.CONFLICT
    default_detail = "Cancellation failed: no such response is in progress."
    default_hint = "There is nothing to be done."


class ReplyEmpty(SidecarError):
    """The language model of a conversation answered without words."""

    code = "reply_empty"
    default_detail = "The language model answered with nothing that can be said or shown."
    default_hint = "Say it again; if it stays, choose another model."


class StageSilent(SidecarError):
    """A part of a conversation began something and never told how it went."""

    code = "stage_silent"
    kind = ErrorKind.TIMEOUT
    default_detail = "A part of the conversation does not answer."
    default_hint = "Go on speaking; if it stays, look whether the model and the voice still run."


class LlmError(SidecarError):
    """The language model that answers in conversations did not."""

    kind = ErrorKind.BUSY


class LlmUnreachable(LlmError):
    """Nobody is there."""

    code = "llm_unreachable"
    default_detail = "The language model does not answer."
    default_hint = "Start its server, or check VIBEVOICE_LLM."


class LlmTimeout(LlmError):
    """It takes too long."""

    code = "llm_timeout"
    default_detail = "The language model took too long."
    default_hint = "A smaller model answers sooner; so does one that stays loaded."


class LlmRefused(LlmError):
    """It is there, and will not do this."""

    code = "llm_refused"
    kind = ErrorKind.FAILED
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
    kind = ErrorKind.FAILED
    default_detail = "The language model's answer cannot be read."
    default_hint = "VIBEVOICE_LLM is to name a server with OpenAI's chat completions."


class SpeechFailed(SidecarError):
    """The server that speaks for the voice 'speech' did not."""

    code = "speech_failed"
    kind = ErrorKind.BUSY
    default_detail = "The server that speaks did not."
    default_hint = "Check VIBEVOICE_SPEECH_URL and the log of that server."


class SpeechUnavailable(SidecarError):
    """Text is to be spoken, and no engine here speaks."""

    code = "speech_unavailable"
    kind = ErrorKind.UNPROCESSABLE
    default_detail = "No engine of this service speaks."
    default_hint = "Run 'vibevoice-asr pull voice', or see the setting voice_engine."


class SpeechFull(SidecarError):
    """As much text waits to be spoken as may."""

    code = "speech_full"
    kind = ErrorKind.BUSY
    default_detail = "As much text waits to be spoken as may, of yours or of all."
    default_hint = "Try again after the time in Retry-After."
    default_retry_after = 5


class MicrophoneUnavailable(SidecarError):
    """There is no microphone, or what it takes to use one is missing."""

    code = "microphone_unavailable"
    kind = ErrorKind.UNSUPPORTED
    default_detail = "There is no microphone that can be used."
    default_hint = "'vibevoice-asr live --devices' lists those that there are."


class LoudspeakerUnavailable(SidecarError):
    """There is no loudspeaker, or what it takes to use one is missing."""

    code = "loudspeaker_unavailable"
    kind = ErrorKind.UNSUPPORTED
    default_detail = "There is no loudspeaker that can be used."
    default_hint = "'vibevoice-asr talk --devices' lists those that there are; --text needs none."
