"""The tree of what can go wrong.

Every error a client can meet is one class here: a stable ``code``, a ``Kind`` that each
transport translates into its own language, a default ``detail`` and a ``hint`` that says what to
do next. `docs/errors.md` is written from this tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, ClassVar


class Kind(StrEnum):
    """What sort of trouble it is; transports map it to a status, a close code or an exit code."""

    MALFORMED = "malformed"
    UNPROCESSABLE = "unprocessable"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    NOT_FOUND = "not_found"
    METHOD = "method"
    FORBIDDEN = "forbidden"
    UNAUTHORIZED = "unauthorized"
    CONFLICT = "conflict"
    PRECONDITION = "precondition"
    RANGE = "range"
    CANCELLED = "cancelled"
    LIMITED = "limited"
    BUSY = "busy"
    STORAGE_FULL = "storage_full"
    WONT_FIT = "wont_fit"
    FAILED = "failed"


class SidecarError(Exception):
    """Anything this service says no with.

    ``detail`` says what was wrong, ``hint`` what to do, ``retry_after`` (seconds) when to retry.
    """

    code: ClassVar[str] = "internal"
    kind: ClassVar[Kind] = Kind.FAILED
    default_detail: ClassVar[str] = "Something went wrong inside the service."
    default_hint: ClassVar[str] = "Try again; if it stays, look into the service's log."
    default_retry_after: ClassVar[int | None] = None

    def __init__(
        self,
        detail: str | None = None,
        *,
        hint: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.detail = detail or self.default_detail
        self.hint = hint or self.default_hint
        self.retry_after = retry_after if retry_after is not None else self.default_retry_after
        super().__init__(self.detail)

    def to_wire(self) -> dict[str, Any]:
        """The error as plain values, for another process or a journal."""
        return {
            "code": self.code,
            "detail": self.detail,
            "hint": self.hint,
            "retry_after": self.retry_after,
        }


class BadAudio(SidecarError):
    """The audio itself cannot be used."""

    kind = Kind.UNPROCESSABLE


class AudioEmpty(BadAudio):
    """The file has no bytes."""

    code = "audio_empty"
    kind = Kind.MALFORMED
    default_detail = "The audio is empty (0 bytes)."
    default_hint = "Check that the recording was written before it was sent."


class AudioFormatUnsupported(BadAudio):
    """The bytes are not a recording in a format that is understood."""

    code = "audio_format_unsupported"
    kind = Kind.UNSUPPORTED
    default_detail = "The content is not audio in a format this service knows."
    default_hint = (
        "Send wav, flac, mp3, ogg/opus, m4a/aac, webm, wma, mp4, mkv, aiff or amr. "
        "The content counts, not the file's name."
    )


class AudioUndecodable(BadAudio):
    """The format is known, but no samples come out."""

    code = "audio_undecodable"
    default_detail = "The audio is damaged or holds no sound track: no samples could be decoded."
    default_hint = "Play the file in another program; if it plays, convert it to 16-bit wav."


class AudioTooLong(BadAudio):
    """Longer than the limit."""

    code = "audio_too_long"
    kind = Kind.TOO_LARGE
    default_detail = "The audio is longer than the limit."
    default_hint = "Cut it into parts or raise VIBEVOICE_MAX_AUDIO_HOURS."


class AudioDecodeTimeout(BadAudio):
    """Decoding makes no headway."""

    code = "audio_decode_timeout"
    default_detail = "Decoding the audio took too long."
    default_hint = "Convert the file to wav or flac and send that."


class BadRequest(SidecarError):
    """The request itself is wrong."""

    kind = Kind.MALFORMED


class RequestInvalid(BadRequest):
    """Not a request that any address here could take."""

    code = "request_invalid"
    default_detail = "The request could not be understood."
    default_hint = "See /docs for what this service answers."


class ContentTypeUnsupported(BadRequest):
    """The body is neither multipart nor JSON."""

    code = "content_type_unsupported"
    kind = Kind.UNSUPPORTED
    default_detail = "The Content-Type of the request is not supported here."
    default_hint = "Send multipart/form-data with a file part 'audio', or application/json."


class MultipartInvalid(BadRequest):
    """The multipart body is broken."""

    code = "multipart_invalid"
    default_detail = "The multipart body could not be read."
    default_hint = "Let your HTTP library build the form, boundary included."


class MultipartTooManyParts(BadRequest):
    """More parts than any honest form has."""

    code = "multipart_too_many_parts"
    default_detail = "The form has too many parts."
    default_hint = "Send one file part 'audio' and the options you need."


class FileMissing(BadRequest):
    """No file part in the form."""

    code = "file_missing"
    default_detail = "The form has no file part named 'audio'."
    default_hint = "curl -F audio=@recording.wav http://127.0.0.1:8765/transcribe"


class MultipleFiles(BadRequest):
    """Two files in one form."""

    code = "multiple_files"
    default_detail = "The form has more than one file."
    default_hint = "Send one recording per request."


class FieldTooLong(BadRequest):
    """A text field or header of the form is too long."""

    code = "field_too_long"
    default_detail = "A field of the form is too long."
    default_hint = "Options are short words such as 'fp16'; a prompt has at most 4096 characters."


class FieldInvalid(BadRequest):
    """A field holds a value that it cannot have."""

    code = "field_invalid"
    kind = Kind.UNPROCESSABLE
    default_detail = "A field has a value that is not possible."
    default_hint = "See /docs for the fields and their values."


class FieldMissing(BadRequest):
    """A field that must be there is not."""

    code = "field_missing"
    kind = Kind.UNPROCESSABLE
    default_detail = "A required field is missing."
    default_hint = "See /docs for the fields of this request."


class JsonInvalid(BadRequest):
    """The body is not JSON."""

    code = "json_invalid"
    default_detail = "The body is not valid JSON in UTF-8."
    default_hint = 'Send an object such as {"audio_path": "/full/path/to/recording.wav"}.'


class JsonTooLarge(BadRequest):
    """The JSON body is beyond its limit."""

    code = "json_too_large"
    kind = Kind.TOO_LARGE
    default_detail = "The JSON body is larger than 64 KiB."
    default_hint = "Audio goes as multipart/form-data or by 'audio_path', not inside JSON."


class UploadTooLarge(BadRequest):
    """The upload is beyond its limit."""

    code = "upload_too_large"
    kind = Kind.TOO_LARGE
    default_detail = "The upload is larger than the limit."
    default_hint = "Send a compressed file (opus, flac, mp3) or raise VIBEVOICE_MAX_UPLOAD_MB."


class UploadStalled(BadRequest):
    """The client stopped sending, or is too slow to wait for."""

    code = "upload_stalled"
    kind = Kind.TIMEOUT
    default_detail = "The upload stopped before it was complete."
    default_hint = "Send it again; on one machine 'audio_path' needs no upload at all."


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


class AudioPathInvalid(BadRequest):
    """Not a path that could be read."""

    code = "audio_path_invalid"
    kind = Kind.UNPROCESSABLE
    default_detail = "'audio_path' is not an absolute path of a local file."
    default_hint = "Give the full path of a file on this machine; URLs are not fetched."


class AudioPathNotAFile(BadRequest):
    """A folder, a device, a pipe, a socket, or a file of the kernel's."""

    code = "audio_path_not_a_file"
    kind = Kind.UNPROCESSABLE
    default_detail = "'audio_path' is not a regular file."
    default_hint = "Give the path of a recording, not of a folder, device, pipe or socket."


class AudioPathNotFound(BadRequest):
    """No file there."""

    code = "audio_path_not_found"
    kind = Kind.NOT_FOUND
    default_detail = "Audio file not found."
    default_hint = "Check the path; it is read by the service, on the service's machine."


class AudioPathForbidden(BadRequest):
    """A file that may not be read."""

    code = "audio_path_forbidden"
    kind = Kind.FORBIDDEN
    default_detail = "The audio file may not be read."
    default_hint = "Give the service's user the right to read it, or upload it instead."


class AudioLost(SidecarError):
    """The audio of a job is not there any more as it was when it was submitted."""

    code = "audio_lost"
    kind = Kind.CONFLICT
    default_detail = "The recording of this job is not there any more."
    default_hint = "Submit it again."


class JournalUnreachable(SidecarError):
    """The database in which several services keep their jobs does not answer."""

    code = "journal_unreachable"
    kind = Kind.BUSY
    default_detail = "The database in which jobs are kept does not answer now."
    default_hint = "Send it again in a moment, with the same Idempotency-Key; no job is lost."
    default_retry_after = 3


class NotFound(SidecarError):
    """No such thing here."""

    code = "not_found"
    kind = Kind.NOT_FOUND
    default_detail = "There is nothing at this address."
    default_hint = "See /docs for what this service answers."


class JobNotFound(NotFound):
    """No such job, or no longer."""

    code = "job_not_found"
    default_detail = "There is no job with this id."
    default_hint = "Finished jobs are kept for a while only; submit it again."


class ModelNotFound(NotFound):
    """A model by a name that is none of what is loaded."""

    code = "model_not_found"
    default_detail = "There is no model of this name here."
    default_hint = "GET /v1/models lists the names that count."


class PersonNotFound(NotFound):
    """No such person."""

    code = "person_not_found"
    default_detail = "There is no such person, or it was deleted."
    default_hint = "GET /v1/people lists yours."


class SpeakerNotFound(NotFound):
    """A job has no such speaker, or nothing is known of its voice."""

    code = "speaker_not_found"
    default_detail = "The job has no such speaker, or its voice was not heard well enough."
    default_hint = (
        "Name one that is in 'speakers' of the transcript's metadata, of a job that was submitted "
        "with the setting 'people' on and without recognise=false."
    )


class RecordingNotKept(NotFound):
    """Of a job there is no recording that could be listened to."""

    code = "recording_not_kept"
    default_detail = "The recording of this job is not kept."
    default_hint = (
        "Recordings are kept with the settings 'keep_jobs' and, after the end of their jobs, "
        "'keep_recordings_mb'; files that a client named never are. Play your own file."
    )


class RangeUnsatisfiable(SidecarError):
    """Bytes were asked for that lie behind the end."""

    code = "range_unsatisfiable"
    kind = Kind.RANGE
    default_detail = "The recording has no such bytes."
    default_hint = "Ask for bytes before its end: 'Content-Range' says how long it is."


class PeopleOff(SidecarError):
    """Nobody's voice is kept here."""

    code = "people_off"
    kind = Kind.FORBIDDEN
    default_detail = "This service keeps no voices: the setting 'people' is off."
    default_hint = "Start it with --people (docs/people.md says what is then stored, and where)."


class PeopleFull(SidecarError):
    """As many people as one owner may have."""

    code = "people_full"
    kind = Kind.CONFLICT
    default_detail = "There are as many people as one owner may have."
    default_hint = "Delete one that is not needed any more."


class VoiceAbsent(BadAudio):
    """Nobody speaks in a clip."""

    code = "voice_absent"
    default_detail = "Nobody speaks in the clip."
    default_hint = "Send some seconds of one person speaking."


class VoiceTooShort(BadAudio):
    """Somebody speaks for too short a time."""

    code = "voice_too_short"
    default_detail = "There is too little voice in the clip."
    default_hint = "Send 5 to 10 s of one person speaking, without music."


class SeveralVoices(BadAudio):
    """More than one person speaks in a clip."""

    code = "several_voices"
    default_detail = "More than one person speaks in the clip."
    default_hint = "Cut out a stretch in which one person speaks, or name a job's speaker instead."


class ClipTooLong(BadAudio):
    """A clip of a voice is longer than one."""

    code = "clip_too_long"
    kind = Kind.TOO_LARGE
    default_detail = "The clip is longer than a clip of a voice may be."
    default_hint = "Send 5 to 10 s of one person speaking, or name a job's speaker instead."


class VoicesUnavailable(SidecarError):
    """The models that tell voices apart cannot be run here."""

    code = "voices_unavailable"
    default_detail = "Voices cannot be compared on this machine."
    default_hint = "'vibevoice-asr doctor' says why."


class VoiceUnknown(BadRequest):
    """The engine that speaks has not got the voice that was asked for."""

    code = "voice_unknown"
    default_detail = "There is no such voice to speak with."


class JobNotDone(SidecarError):
    """The transcript of a job that still waits or runs."""

    code = "job_not_done"
    kind = Kind.CONFLICT
    default_detail = "The job has not ended yet: there is no transcript."
    default_hint = "Follow its events, or ask again; what was said so far is in its events."
    default_retry_after = 2


class EditImpossible(BadRequest):
    """An edit of a transcript names what is not there, or cannot be done to it."""

    code = "edit_impossible"
    kind = Kind.UNPROCESSABLE
    default_detail = "That cannot be done to this transcript."
    default_hint = "None of the operations was done; fetch the transcript and send them anew."


class VoicesNotKept(SidecarError):
    """A speaker is to be split by voice, and of what the segments sound like nothing was kept."""

    code = "voices_not_kept"
    kind = Kind.CONFLICT
    default_detail = "Nothing was kept of what the segments of this job sound like."
    default_hint = (
        "Voices are kept with jobs that were heard with the setting 'people' on, without "
        "recognise=false, by an engine that tells voices apart. Split by a list of 'segments'."
    )


class TranscriptChanged(SidecarError):
    """Somebody edited the transcript since the revision that was sent."""

    code = "transcript_changed"
    kind = Kind.PRECONDITION
    default_detail = "The transcript is of another revision than 'If-Match' says."
    default_hint = "Fetch it again, and send the edit with the new ETag if it still makes sense."


class EditsFull(SidecarError):
    """A transcript has been edited as often as it may be."""

    code = "edits_full"
    kind = Kind.CONFLICT
    default_detail = "No more edits of this transcript are kept."
    default_hint = "Fetch it in the format that you need, and go on with that."


class IdempotencyKeyReused(SidecarError):
    """The same Idempotency-Key with another request."""

    code = "idempotency_key_reused"
    kind = Kind.UNPROCESSABLE
    default_detail = "This Idempotency-Key was sent with another request."
    default_hint = "Make a new key for each recording; repeat one only with the same request."


class MethodNotAllowed(SidecarError):
    """The address exists, the method does not."""

    code = "method_not_allowed"
    kind = Kind.METHOD
    default_detail = "This address does not take this method."
    default_hint = "See /docs; the Allow header lists what it takes."


class HostNotAllowed(SidecarError):
    """The request was sent to a name that is none of ours: a web page may have rebound its own."""

    code = "host_not_allowed"
    kind = Kind.FORBIDDEN
    default_detail = "The Host header names no address of this service."
    default_hint = "Use 127.0.0.1 or localhost; other names go into the setting 'allowed_hosts'."


class PeerNotAllowed(SidecarError):
    """Somebody on another machine, or behind a proxy, and there is no token to know them by."""

    code = "peer_not_allowed"
    kind = Kind.FORBIDDEN
    default_detail = "Without a token this service answers its own machine only, and no proxy."
    default_hint = "Start it with VIBEVOICE_TOKEN (or --token-file) and send that as Bearer."


class OriginNotAllowed(SidecarError):
    """A web page that may not ask."""

    code = "origin_not_allowed"
    kind = Kind.FORBIDDEN
    default_detail = "Web pages of this origin may not use this service."
    default_hint = "Add the origin to the setting 'allowed_origins' if the page is yours."


class Unauthorized(SidecarError):
    """Nobody knows who asks."""

    kind = Kind.UNAUTHORIZED


class TokenMissing(Unauthorized):
    """The service was started with a token, the request has none."""

    code = "token_missing"
    default_detail = "This service wants a token."
    default_hint = (
        "Send 'Authorization: Bearer' and the token that it was started with, or a signed one."
    )


class TokenInvalid(Unauthorized):
    """Neither the token that the service was started with, nor a signed one that counts."""

    code = "token_invalid"
    default_detail = "The token does not count here."
    default_hint = (
        "A service that was started anew may have another: read its ready line again. A signed one "
        "may have expired or been revoked."
    )


class LinkInvalid(Unauthorized):
    """The word of a link to the page was used, is too old, or never was one."""

    code = "link_invalid"
    default_detail = (
        "This link does not count any more: it opens the page once, within two minutes."
    )
    default_hint = "Make another one: vibevoice-asr open"


class ScopeMissing(SidecarError):
    """A token that is right, but not for this."""

    code = "scope_missing"
    kind = Kind.FORBIDDEN
    default_detail = "The token that was sent does not allow this."
    default_hint = "Ask whoever gives out tokens for one that does."


class JobCancelled(SidecarError):
    """The job was cancelled before it ended."""

    code = "job_cancelled"
    kind = Kind.CANCELLED
    default_detail = "The job was cancelled."
    default_hint = "Submit it again if this was not meant."


class Limited(SidecarError):
    """More than one owner, or one address, may have."""

    kind = Kind.LIMITED
    default_hint = "Try again after the time in Retry-After."
    default_retry_after = 30


class RateLimited(Limited):
    """Too many requests."""

    code = "rate_limited"
    default_detail = "Too many requests in a short time."


class MessageInvalid(BadRequest):
    """A message of a live connection that means nothing there."""

    code = "message_invalid"
    default_detail = "The message is none that this connection knows."
    default_hint = "docs/live.md says which there are, and what is in them."


class MessageTooBig(SidecarError):
    """More at once than a live connection takes."""

    code = "message_too_big"
    kind = Kind.TOO_LARGE
    default_detail = "The message is too big."
    default_hint = "Send pieces of about 0.1 s of sound."


class InboundFull(SidecarError):
    """A live client sends more than is taken from it, and does not wait."""

    code = "inbound_full"
    kind = Kind.BUSY
    default_detail = "More messages wait on this connection than may."
    default_hint = "Send sound no faster than somebody speaks, or connect again and go on."
    default_retry_after = 1


class TicketInvalid(Unauthorized):
    """The ticket of a live connection was used, is too old, or never was one."""

    code = "ticket_invalid"
    default_detail = "This ticket does not count any more: it opens one connection, within minutes."
    default_hint = "Get another one: POST /v1/live/ticket"


class JobsLimited(Limited):
    """As many jobs at once as one owner may have."""

    code = "jobs_limited"
    default_detail = "You have as many jobs waiting and running as one may have at once."
    default_hint = "Wait until one of them has ended, or cancel one."


class AudioLimited(Limited):
    """More audio waits than one owner may have waiting."""

    code = "audio_limited"
    default_detail = "You have as much audio waiting as one may have."
    default_hint = "Wait until some of it is transcribed."


class UploadsLimited(Limited):
    """More was uploaded than one owner may in an hour."""

    code = "uploads_limited"
    default_detail = "You have uploaded as much as one may in an hour."
    default_hint = "Try again after the time in Retry-After; opus or flac is less to upload."


class QueueFull(SidecarError):
    """As many jobs as the queue takes are waiting."""

    code = "queue_full"
    kind = Kind.BUSY
    default_detail = "The queue is full."
    default_hint = "Try again after the time in Retry-After."
    default_retry_after = 5


class UploadsFull(SidecarError):
    """As many uploads as are read at once are on their way, or as many bytes."""

    code = "uploads_full"
    kind = Kind.BUSY
    default_detail = "Too much is being uploaded at once."
    default_hint = "Try again after the time in Retry-After, or raise VIBEVOICE_UPLOAD_ROOM_MB."
    default_retry_after = 5


class LiveUnavailable(SidecarError):
    """No engine here hears live."""

    code = "live_unavailable"
    kind = Kind.UNSUPPORTED
    default_detail = "No engine of this service hears while somebody speaks."
    default_hint = (
        "Send the recording when it is done; 'vibevoice-asr doctor' says what is missing."
    )


class LiveFull(SidecarError):
    """As many live sessions as the service takes are going on."""

    code = "live_full"
    kind = Kind.BUSY
    default_detail = "As many live sessions as this service takes are going on."
    default_hint = "Try again later, or raise live_sessions if the machine has room."
    default_retry_after = 5


class LiveLimited(Limited):
    """One client has as many live sessions as it may."""

    code = "live_limited"
    default_detail = "You have as many live sessions as you may."
    default_hint = "End one of them first."


class SessionNotFound(NotFound):
    """There is no such live session, or it is another's, or its time is over."""

    code = "session_not_found"
    default_detail = "There is no such live session."
    default_hint = "Begin a new one; what it lasts when nobody is connected is live_grace."


class SessionTaken(SidecarError):
    """A live session with that name goes on."""

    code = "session_taken"
    kind = Kind.CONFLICT
    default_detail = "A live session with this id goes on."
    default_hint = "End it first, or take another id."


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


class SessionMoved(SidecarError):
    """Another connection holds the live session now."""

    code = "session_moved"
    kind = Kind.CONFLICT
    default_detail = "Another connection has taken this live session over."
    default_hint = "One connection holds a session; the last one to come."


class SessionOver(SidecarError):
    """The live session has ended, or takes no more sound."""

    code = "session_over"
    kind = Kind.CONFLICT
    default_detail = "The live session takes no more sound."
    default_hint = "Begin a new one."


class SessionIdle(SidecarError):
    """Nothing came for a live session for too long."""

    code = "session_idle"
    kind = Kind.TIMEOUT
    default_detail = "Nothing came for this live session for too long."
    default_hint = (
        "Begin a new one when somebody speaks; live_idle says how long it waits, talk_idle how "
        "long a conversation does."
    )


class SessionTooLong(SidecarError):
    """A live session has lasted as long as one may."""

    code = "session_too_long"
    kind = Kind.TIMEOUT
    default_detail = "The live session has lasted as long as one may."
    default_hint = "Begin a new one; live_longest says how long one lasts."


class ChunkTooLong(SidecarError):
    """A piece of live sound is longer than one may be."""

    code = "chunk_too_long"
    kind = Kind.TOO_LARGE
    default_detail = "The piece of sound is too long."
    default_hint = "Send pieces of about 0.1 s; a whole recording is better sent as a file."


class SoundInvalid(BadRequest):
    """What was sent as live sound is none."""

    code = "sound_invalid"
    default_detail = "What was sent is no sound in the agreed form."
    default_hint = "Send mono samples, pcm16 (2 bytes each) or float32 (4), little-endian."


class EncodingUnavailable(SidecarError):
    """Live sound was to come in a form that needs a package that is not installed."""

    code = "encoding_unavailable"
    kind = Kind.UNSUPPORTED
    default_detail = "This installation does not decode Opus."
    default_hint = "Send pcm16, or have the service install 'vibevoice-asr[opus]'."


class EventUnsupported(BadRequest):
    """A live client sent an event that its address does not know."""

    code = "event_unsupported"
    kind = Kind.UNSUPPORTED
    default_detail = "The event has no type that is known here."
    default_hint = "See docs/openai.md for the events that transcribe."


class CommitEmpty(BadRequest):
    """A live client ended its turn where no sound came (the code is OpenAI's)."""

    code = "input_audio_buffer_commit_empty"
    default_detail = "There is less than 0.1 s of sound since the last commit."
    default_hint = "Send sound first; where the service hears pauses, it ends turns by itself."


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


class ModelLoadFailed(SidecarError):
    """The engine could not be loaded."""

    code = "model_load_failed"
    kind = Kind.BUSY
    default_detail = "The engine could not be loaded."
    default_hint = "Run 'vibevoice-asr doctor'; it says what is missing."


class ReloadSuperseded(SidecarError):
    """A reload that another one, at another precision, overtook before its turn came."""

    code = "reload_superseded"
    kind = Kind.CONFLICT
    default_detail = "Another reload overtook this one."
    default_hint = "The last reload counts; ask again if you still want another precision."


class AdminOff(SidecarError):
    """The administrators' API where it is not on, or nobody could be told from others."""

    code = "admin_off"
    kind = Kind.FORBIDDEN
    default_detail = "The administrators' API is not on."
    default_hint = "Set VIBEVOICE_ADMIN, and a token (docs/operations.md)."


class ModelLoaded(SidecarError):
    """A model is to be loaded that is there, or on its way."""

    code = "model_loaded"
    kind = Kind.CONFLICT
    default_detail = "There is a model of this name already."
    default_hint = "GET /admin/list_models has those that are there; take another name."


class ModelPathForbidden(SidecarError):
    """A model lies where none may be loaded from."""

    code = "model_path_forbidden"
    kind = Kind.FORBIDDEN
    default_detail = "Models are not loaded from this folder."
    default_hint = "The setting 'admin_model_roots' has the folders that they may be loaded from."


class ModelUnsuited(SidecarError):
    """Other weights of an engine than those that the service was started with can be loaded where
    the same is true of both."""

    code = "model_unsuited"
    kind = Kind.UNPROCESSABLE
    default_detail = "No engine that runs here can work with this model."
    default_hint = (
        "The same engine, languages and shape are taken; for another, start the service with it."
    )


class WontFit(SidecarError):
    """There is not enough memory for this recording, or this precision; told before any work."""

    code = "wont_fit"
    kind = Kind.WONT_FIT
    default_detail = "There is not enough memory for this."
    default_hint = "Send a shorter recording, or take a smaller precision: int8, int4."


class GpuOutOfMemory(SidecarError):
    """The GPU ran out of memory in the middle, with the smallest plan as well.

    Hosts look for the words "CUDA out of memory" in the answer.
    """

    code = "gpu_out_of_memory"
    kind = Kind.WONT_FIT
    default_detail = "CUDA out of memory."
    default_hint = "Try INT8 or INT4 precision, or close GPU applications."


class DeviceLost(SidecarError):
    """The GPU's driver gave up on the engine's process, which ends; the job is tried anew."""

    code = "device_lost"
    kind = Kind.BUSY
    default_detail = "The GPU stopped working for the engine's process."
    default_hint = "Try again. If it stays: 'nvidia-smi' tells how the GPU is."
    default_retry_after = 5


class EngineCrashed(SidecarError):
    """The engine's process died in the job, and died again when it was tried anew."""

    code = "engine_crashed"
    kind = Kind.BUSY
    default_detail = "The engine's process died while it worked on this audio."
    default_hint = "The service is up again; if it repeats with this file, please report it."
    default_retry_after = 1


class EngineFailed(SidecarError):
    """The engine raised an error of its own."""

    code = "engine_failed"
    default_detail = "The engine could not transcribe this audio."


class EngineUnavailable(SidecarError):
    """The engine that was asked for cannot run here."""

    code = "engine_unavailable"
    kind = Kind.BUSY
    default_detail = "The engine cannot be used on this machine."
    default_hint = "Run 'vibevoice-asr doctor'; it says what is missing."


class UpstreamError(SidecarError):
    """The server that hears for the engine 'upstream' did not."""

    kind = Kind.BUSY


class UpstreamUnreachable(UpstreamError):
    """No connection, to none of them."""

    code = "upstream_unreachable"
    default_detail = "No upstream answers."
    default_hint = "Start the server that VIBEVOICE_UPSTREAM names, or check its address and port."
    default_retry_after = 5


class UpstreamBusy(UpstreamError):
    """It has too much to do, and went on saying so for as long as the recording was worth."""

    code = "upstream_busy"
    default_detail = "The upstream is busy."
    default_hint = "Try again after the time in Retry-After, or name a second upstream."
    default_retry_after = 10


class UpstreamTimeout(UpstreamError):
    """It took longer than a recording of this length may take."""

    code = "upstream_timeout"
    default_detail = "The upstream took too long."
    default_hint = "If it is slow and not stuck, raise VIBEVOICE_UPSTREAM_TIMEOUT."
    default_retry_after = 10


class UpstreamFailed(UpstreamError):
    """It broke in the middle, again and again, or said that something is wrong with itself."""

    code = "upstream_failed"
    default_detail = "The upstream failed in the middle of this recording."
    default_hint = "Look into that server's log; it is not this service that failed."
    default_retry_after = 5


class UpstreamRefused(UpstreamError):
    """It is there, and will not do this."""

    code = "upstream_refused"
    kind = Kind.FAILED
    default_detail = "The upstream refused the request."
    default_hint = "Check VIBEVOICE_UPSTREAM_DIALECT, VIBEVOICE_UPSTREAM_MODEL and the key."


class UpstreamGarbled(UpstreamError):
    """Its answer cannot be read."""

    code = "upstream_garbled"
    kind = Kind.FAILED
    default_detail = "The upstream's answer cannot be read."
    default_hint = "Check that VIBEVOICE_UPSTREAM_DIALECT is the kind of server that answers there."


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


class BadCheckpoint(SidecarError):
    """The weights that an engine needs cannot be used."""

    kind = Kind.BUSY


class CheckpointNotFound(BadCheckpoint):
    """No checkpoint where one was looked for."""

    code = "checkpoint_not_found"
    default_detail = "There is no checkpoint of VibeVoice-ASR on this machine."
    default_hint = (
        "Get it with 'vibevoice-asr pull vibevoice', or set VIBEVOICE_MODEL_PATH to its folder."
    )


class CheckpointIncomplete(BadCheckpoint):
    """Files are missing; a download that was interrupted looks so."""

    code = "checkpoint_incomplete"
    default_detail = "Files of the checkpoint are missing."
    default_hint = "Run 'vibevoice-asr pull vibevoice': it goes on where it stopped."


class CheckpointDamaged(BadCheckpoint):
    """A file is there, and is not what it should be."""

    code = "checkpoint_damaged"
    default_detail = "A file of the checkpoint is damaged."
    default_hint = "Run 'vibevoice-asr pull vibevoice': it checks every file and mends."


class CheckpointNotConverted(BadCheckpoint):
    """VibeVoice-ASR as Microsoft published it first, which transformers does not load."""

    code = "checkpoint_not_converted"
    default_detail = "The checkpoint has the original layout, not the one of transformers."
    default_hint = "Get the converted one: vibevoice-asr pull vibevoice"


class CheckpointUnsafe(BadCheckpoint):
    """To load it would be to run what it says."""

    code = "checkpoint_unsafe"
    default_detail = "The checkpoint has pickled weights or code of its own, which is never run."
    default_hint = "Get one with safetensors: vibevoice-asr pull vibevoice"


class CheckpointUnsupported(BadCheckpoint):
    """A checkpoint of another model."""

    code = "checkpoint_unsupported"
    default_detail = "The checkpoint is not of VibeVoice-ASR."
    default_hint = "Get the right one: vibevoice-asr pull vibevoice"


class CheckpointUnwritable(SidecarError):
    """The folder that a checkpoint is downloaded to cannot be written."""

    code = "checkpoint_unwritable"
    kind = Kind.STORAGE_FULL
    default_detail = "The folder for the checkpoint cannot be written."
    default_hint = "Set HF_HOME to a folder that can be, or name one: vibevoice-asr pull --to DIR"


class HubUnreachable(SidecarError):
    """The place that checkpoints are downloaded from does not answer, or may not be asked."""

    code = "hub_unreachable"
    kind = Kind.BUSY
    default_detail = "The model hub cannot be reached."
    default_hint = "Check the network; the same command goes on where it stopped."


class RepositoryNotFound(NotFound):
    """The hub has no such model, or no such revision of it."""

    code = "repository_not_found"
    default_detail = "The model hub has no such model."
    default_hint = "Use 'vibevoice-asr pull vibevoice', or a name such as OWNER/NAME."


class RepositoryForbidden(SidecarError):
    """The hub does not give it to this user."""

    code = "repository_forbidden"
    kind = Kind.FORBIDDEN
    default_detail = "The model hub does not let this user have this model."
    default_hint = "Accept its terms on its page, then set HF_TOKEN to a token of yours."


class PullRunning(SidecarError):
    """Somebody else is downloading to the same place."""

    code = "pull_running"
    kind = Kind.CONFLICT
    default_detail = "Another 'vibevoice-asr pull' of this checkpoint is at work."
    default_hint = "Wait for it; what it has downloaded is then here too."


class DiskFull(SidecarError):
    """No room for the upload."""

    code = "disk_full"
    kind = Kind.STORAGE_FULL
    default_detail = "There is no room on the disk for the upload."
    default_hint = "Free some space or set VIBEVOICE_SPOOL_DIR to a folder on another disk."


class SpoolUnwritable(SidecarError):
    """The folder for uploads cannot be written."""

    code = "spool_unwritable"
    kind = Kind.STORAGE_FULL
    default_detail = "The folder for uploads cannot be written."
    default_hint = "Set VIBEVOICE_SPOOL_DIR to a folder that can be, or send 'audio_path'."


class TalkFull(SidecarError):
    """As many conversations go on as may."""

    code = "talk_full"
    kind = Kind.BUSY
    default_detail = "There are as many conversations as may be at once."
    default_hint = "Try again when one has ended, or raise VIBEVOICE_CONVERSATIONS."
    default_retry_after = 10


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


class ShuttingDown(SidecarError):
    """The service is on its way out."""

    code = "shutting_down"
    kind = Kind.BUSY
    default_detail = "The service is shutting down."
    default_hint = "Start it again, then repeat the request."
    default_retry_after = 2


class ServiceUnreachable(SidecarError):
    """No service answers at the address that the command line was given."""

    code = "service_unreachable"
    kind = Kind.BUSY
    default_detail = "No service answers at this address."
    default_hint = "Start it with 'vibevoice-asr', or leave --server out to work without one."


class SettingsInvalid(SidecarError):
    """A setting has an impossible value."""

    code = "settings_invalid"
    kind = Kind.MALFORMED
    default_detail = "A setting has a value that is not possible."
    default_hint = "See 'vibevoice-asr serve --help' or docs/settings.md."


class CaptureUnreadable(SidecarError):
    """A file of a captured session cannot be used."""

    code = "capture_unreadable"
    kind = Kind.MALFORMED
    default_detail = "That is no captured session."
    default_hint = "Name one of the two files of a capture (docs/capture.md)."


class PortInUse(SidecarError):
    """Another program holds the port."""

    code = "port_in_use"
    kind = Kind.CONFLICT
    default_detail = "The port is in use."
    default_hint = "Stop the other program or choose another port with --port."


def all_errors(root: type[SidecarError] = SidecarError) -> Iterator[type[SidecarError]]:
    """Every error class that has a code of its own, in the order of this file."""
    if "code" in vars(root):
        yield root
    for child in root.__subclasses__():
        yield from all_errors(child)


def from_wire(values: dict[str, Any]) -> SidecarError:
    """The error that `SidecarError.to_wire` described; an unknown code becomes the root."""
    known = {error.code: error for error in all_errors()}
    error = known.get(values.get("code", ""), SidecarError)
    return error(
        values.get("detail"), hint=values.get("hint"), retry_after=values.get("retry_after")
    )
