"""Live sessions: errors of sessions, their messages, microphones."""

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


class InboundFull(SidecarError, code="inbound_full", kind=ErrorKind.BUSY):
    """Client of a conversation that does not read its events."""

    default_detail = "The client does not read its events."
    default_hint = "Read what the service sends, or reconnect and continue."
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


class MicrophoneUnavailable(
    SidecarError, code="microphone_unavailable", kind=ErrorKind.UNSUPPORTED
):
    """Missing microphone, or missing library for it."""

    default_detail = "No microphone is available."
    default_hint = "'vibevoice-asr live --devices' lists the microphones."
