"""Live sessions and conversations: errors of sessions, their messages, LLM, TTS, sound devices."""

from sidecar.errors.error_base import BadRequest, ErrorKind, NotFound, SidecarError


class LiveUnavailable(SidecarError, code="live_unavailable", kind=ErrorKind.UNSUPPORTED):
    """Service without an engine for live audio."""

    default_detail = "No engine of this service transcribes live audio."
    default_hint = "Send the finished recording; 'vibevoice-asr doctor' shows what is missing."


class NotHere(SidecarError, code="not_here", kind=ErrorKind.UNSUPPORTED):
    """Front without an engine for live audio."""

    default_detail = "This front has no live engine: nodes transcribe live audio."
    default_hint = "Send live requests to a node with a live engine (docs/scale.md, Live audio)."


class LiveFull(SidecarError, code="live_full", kind=ErrorKind.BUSY):
    """Limit of live sessions of the service."""

    default_detail = "The service has reached its limit of live sessions."
    default_hint = "Try again later, or raise live_sessions if the machine has capacity."
    default_retry_after = 5


class UtteranceDropped(SidecarError, code="utterance_dropped", kind=ErrorKind.BUSY):
    """Utterance that an overloaded engine did not recognize."""

    default_detail = "The service is overloaded: this utterance was not recognized."
    default_hint = "Repeat it later; earlier sessions are served first."
    default_retry_after = 5


class SessionNotFound(NotFound, code="session_not_found"):
    """Live session that is unknown, expired or of another owner."""

    default_detail = "There is no live session with this id."
    default_hint = "Start a new one; a session without a connection lasts for live_grace."


class SessionTaken(SidecarError, code="session_taken", kind=ErrorKind.CONFLICT):
    """Id of a live session that is in progress."""

    default_detail = "A live session with this id is in progress."
    default_hint = "End it first, or use another id."


class SessionMoved(SidecarError, code="session_moved", kind=ErrorKind.CONFLICT):
    """Connection that lost its live session to another connection."""

    default_detail = "Another connection has taken this live session over."
    default_hint = "A session has one connection: the latest one."


class SessionOver(SidecarError, code="session_over", kind=ErrorKind.CONFLICT):
    """Audio for a live session that has ended."""

    default_detail = "The live session has ended and accepts no more audio."
    default_hint = "Start a new one."


class SessionIdle(SidecarError, code="session_idle", kind=ErrorKind.TIMEOUT):
    """Live session without input for too long."""

    default_detail = "This live session received nothing for too long."
    default_hint = (
        "Start a new one when there is speech. The limit is live_idle; for a conversation "
        "it is ten minutes."
    )


class SessionTooLong(SidecarError, code="session_too_long", kind=ErrorKind.TIMEOUT):
    """Limit of the duration of a live session."""

    default_detail = "The live session has reached its maximum duration."
    default_hint = "Start a new one; the limit is live_longest."


class MessageInvalid(BadRequest, code="message_invalid"):
    """Message that a live connection does not define."""

    default_detail = "The message is not one that this connection supports."
    default_hint = "docs/live-wire.md lists the messages and their fields."


class MessageTooBig(SidecarError, code="message_too_big", kind=ErrorKind.TOO_LARGE):
    """Message of a live connection beyond the limit."""

    default_detail = "The message is too large."
    default_hint = "Send chunks of about 0.1 s of audio."


class InboundFull(SidecarError, code="inbound_full", kind=ErrorKind.BUSY):
    """Live client that sends faster than real time without waiting."""

    default_detail = "Too many unprocessed messages wait on this connection."
    default_hint = "Send audio no faster than real time, or reconnect and continue."
    default_retry_after = 1


class ChunkTooLong(SidecarError, code="chunk_too_long", kind=ErrorKind.TOO_LARGE):
    """Chunk of live audio beyond the limit."""

    default_detail = "The chunk of audio is too long."
    default_hint = "Send chunks of about 0.1 s; send a whole recording as a file."


class SoundInvalid(BadRequest, code="sound_invalid"):
    """Bytes that are not audio in the agreed encoding."""

    default_detail = "The data is not audio in the agreed encoding."
    default_hint = "Send mono samples, pcm16 (2 bytes each) or float32 (4), little-endian."


class EncodingUnavailable(SidecarError, code="encoding_unavailable", kind=ErrorKind.UNSUPPORTED):
    """Encoding of live audio that needs a package which is not installed."""

    default_detail = "This installation does not decode Opus."
    default_hint = "Send pcm16, or install the extra 'opus' where the service runs."


class EventUnsupported(BadRequest, code="event_unsupported", kind=ErrorKind.UNSUPPORTED):
    """Event type that a live connection does not support."""

    default_detail = "The type of the event is not supported here."
    default_hint = "docs/openai-wire.md lists the supported events."


class CommitEmpty(BadRequest, code="input_audio_buffer_commit_empty"):
    """Commit of an empty audio buffer (the code is OpenAI's)."""

    default_detail = "There is less than 0.1 s of audio since the last commit."
    default_hint = "Send audio first; with turn detection on, the service commits by itself."


class TalkFull(SidecarError, code="talk_full", kind=ErrorKind.BUSY):
    """Limit of conversations of the service."""

    default_detail = "The service has reached its limit of conversations."
    default_hint = "Try again when one has ended, or raise VIBEVOICE_CONVERSATIONS."
    default_retry_after = 10


class ItemUnknown(SidecarError, code="item_unknown", kind=ErrorKind.NOT_FOUND):
    """Item that a conversation does not have."""

    default_detail = "The conversation has no item with this id."
    default_hint = "Name an item that was sent and was neither deleted nor dropped for its age."


class CallUnknown(SidecarError, code="call_unknown", kind=ErrorKind.NOT_FOUND):
    """Output of a tool call that is not pending."""

    default_detail = "No pending tool call has this id."
    default_hint = (
        "Send one output for each completed tool call. Calls of an answer that was "
        "interrupted before are cancelled."
    )


class ToolsUnavailable(SidecarError, code="tools_unavailable", kind=ErrorKind.UNPROCESSABLE):
    """Tools for an LLM that cannot call any."""

    default_detail = (
        "The built-in echo model only repeats what the user says and cannot call tools."
    )
    default_hint = "Set VIBEVOICE_LLM to a language model, or omit the tools."


class ResponseActive(
    SidecarError, code="conversation_already_has_active_response", kind=ErrorKind.CONFLICT
):
    """Request for an answer while one is in progress (the code is OpenAI's)."""

    default_detail = "The conversation already has a response in progress."
    default_hint = "Wait for its response.done, or cancel it first."


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


class SpeechUnavailable(SidecarError, code="speech_unavailable", kind=ErrorKind.UNPROCESSABLE):
    """Speech synthesis on a service without a TTS engine."""

    default_detail = "This service has no TTS engine."
    default_hint = "Run 'vibevoice-asr pull voice', or set voice_engine."


class SpeechFull(SidecarError, code="speech_full", kind=ErrorKind.BUSY):
    """Limit of text that waits for synthesis."""

    default_detail = "Too much text waits for synthesis, for this owner or in all."
    default_hint = "Try again after the time in Retry-After."
    default_retry_after = 5


class MicrophoneUnavailable(
    SidecarError, code="microphone_unavailable", kind=ErrorKind.UNSUPPORTED
):
    """Missing microphone, or missing library for it."""

    default_detail = "No microphone is available."
    default_hint = "'vibevoice-asr live --devices' lists the microphones."


class LoudspeakerUnavailable(
    SidecarError, code="loudspeaker_unavailable", kind=ErrorKind.UNSUPPORTED
):
    """Missing loudspeaker, or missing library for it."""

    default_detail = "No loudspeaker is available."
    default_hint = "'vibevoice-asr talk --devices' lists the loudspeakers; --text needs none."
