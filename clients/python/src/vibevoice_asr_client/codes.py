"""An exception for every code of docs/errors.md, named as the code is.

Written by docs/generate.py. Change the code, then run it.
"""

from __future__ import annotations

from typing import Mapping, Type

from vibevoice_asr_client import errors


class AdminOff(errors.Forbidden):
    """The administrators' API is not on."""

    known_code = "admin_off"


class AudioDecodeTimeout(errors.Refused):
    """Decoding the audio took too long."""

    known_code = "audio_decode_timeout"


class AudioEmpty(errors.Refused):
    """The audio is empty (0 bytes)."""

    known_code = "audio_empty"


class AudioFormatUnsupported(errors.Refused):
    """The content is not audio in a format this service knows."""

    known_code = "audio_format_unsupported"


class AudioLimited(errors.Busy):
    """You have as much audio waiting as one may have."""

    known_code = "audio_limited"


class AudioLost(errors.Conflict):
    """The recording of this job is not there any more."""

    known_code = "audio_lost"


class AudioPathForbidden(errors.Forbidden):
    """The audio file may not be read."""

    known_code = "audio_path_forbidden"


class AudioPathInvalid(errors.Refused):
    """'audio_path' is not an absolute path of a local file."""

    known_code = "audio_path_invalid"


class AudioPathNotAFile(errors.Refused):
    """'audio_path' is not a regular file."""

    known_code = "audio_path_not_a_file"


class AudioPathNotFound(errors.NotFound):
    """Audio file not found."""

    known_code = "audio_path_not_found"


class AudioTooLong(errors.TooLarge):
    """The audio is longer than the limit."""

    known_code = "audio_too_long"


class AudioUndecodable(errors.Refused):
    """The audio is damaged or holds no sound track: no samples could be decoded."""

    known_code = "audio_undecodable"


class CallUnknown(errors.NotFound):
    """No call of that id waits for an output."""

    known_code = "call_unknown"


class CaptureUnreadable(errors.Refused):
    """That is no captured session."""

    known_code = "capture_unreadable"


class CheckpointDamaged(errors.Busy):
    """A file of the checkpoint is damaged."""

    known_code = "checkpoint_damaged"


class CheckpointIncomplete(errors.Busy):
    """Files of the checkpoint are missing."""

    known_code = "checkpoint_incomplete"


class CheckpointNotConverted(errors.Busy):
    """The checkpoint has the original layout, not the one of transformers."""

    known_code = "checkpoint_not_converted"


class CheckpointNotFound(errors.Busy):
    """There is no checkpoint of VibeVoice-ASR on this machine."""

    known_code = "checkpoint_not_found"


class CheckpointUnsafe(errors.Busy):
    """The checkpoint has pickled weights or code of its own, which is never run."""

    known_code = "checkpoint_unsafe"


class CheckpointUnsupported(errors.Busy):
    """The checkpoint is not of VibeVoice-ASR."""

    known_code = "checkpoint_unsupported"


class CheckpointUnwritable(errors.OutOfSpace):
    """The folder for the checkpoint cannot be written."""

    known_code = "checkpoint_unwritable"


class ChunkTooLong(errors.TooLarge):
    """The piece of sound is too long."""

    known_code = "chunk_too_long"


class ClipTooLong(errors.TooLarge):
    """The clip is longer than a clip of a voice may be."""

    known_code = "clip_too_long"


class ConnectionsLimited(errors.Busy):
    """As many of your requests and connections are open as one may have."""

    known_code = "connections_limited"


class ContentTypeUnsupported(errors.Refused):
    """The Content-Type of the request is not supported here."""

    known_code = "content_type_unsupported"


class ConversationAlreadyHasActiveResponse(errors.Conflict):
    """The conversation already has a response in progress."""

    known_code = "conversation_already_has_active_response"


class DeviceLost(errors.Busy):
    """The GPU stopped working for the engine's process."""

    known_code = "device_lost"


class DiskFull(errors.OutOfSpace):
    """There is no room on the disk for the upload."""

    known_code = "disk_full"


class EditImpossible(errors.Refused):
    """That cannot be done to this transcript."""

    known_code = "edit_impossible"


class EditsFull(errors.Conflict):
    """No more edits of this transcript are kept."""

    known_code = "edits_full"


class EncodingUnavailable(errors.Refused):
    """This installation does not decode Opus."""

    known_code = "encoding_unavailable"


class EngineCrashed(errors.Busy):
    """The engine's process died while it worked on this audio."""

    known_code = "engine_crashed"


class EngineFailed(errors.Failed):
    """The engine could not transcribe this audio."""

    known_code = "engine_failed"


class EngineStuck(errors.Busy):
    """The engine's process hangs where nothing can end it, and none takes its place."""

    known_code = "engine_stuck"


class EngineUnavailable(errors.Busy):
    """The engine cannot be used on this machine."""

    known_code = "engine_unavailable"


class EventUnsupported(errors.Refused):
    """The event has no type that is known here."""

    known_code = "event_unsupported"


class FieldInvalid(errors.Refused):
    """A field has a value that is not possible."""

    known_code = "field_invalid"


class FieldMissing(errors.Refused):
    """A required field is missing."""

    known_code = "field_missing"


class FieldTooLong(errors.Refused):
    """A field of the form is too long."""

    known_code = "field_too_long"


class FileMissing(errors.Refused):
    """The form has no file part named 'audio'."""

    known_code = "file_missing"


class GpuOutOfMemory(errors.OutOfSpace):
    """CUDA out of memory."""

    known_code = "gpu_out_of_memory"


class HeaderTooLarge(errors.TooLarge):
    """The headers of the request are too large."""

    known_code = "header_too_large"


class HostNotAllowed(errors.Forbidden):
    """The Host header names no address of this service."""

    known_code = "host_not_allowed"


class HubUnreachable(errors.Busy):
    """The model hub cannot be reached."""

    known_code = "hub_unreachable"


class IdempotencyKeyReused(errors.Refused):
    """This Idempotency-Key was sent with another request."""

    known_code = "idempotency_key_reused"


class InboundFull(errors.Busy):
    """More messages wait on this connection than may."""

    known_code = "inbound_full"


class InputAudioBufferCommitEmpty(errors.Refused):
    """There is less than 0.1 s of sound since the last commit."""

    known_code = "input_audio_buffer_commit_empty"


class Internal(errors.Failed):
    """Something went wrong inside the service."""

    known_code = "internal"


class ItemUnknown(errors.NotFound):
    """The conversation has no such item."""

    known_code = "item_unknown"


class JobCancelled(errors.Cancelled):
    """The job was cancelled."""

    known_code = "job_cancelled"


class JobNotDone(errors.Conflict):
    """The job has not ended yet: there is no transcript."""

    known_code = "job_not_done"


class JobNotFound(errors.NotFound):
    """There is no job with this id."""

    known_code = "job_not_found"


class JobsLimited(errors.Busy):
    """You have as many jobs waiting and running as one may have at once."""

    known_code = "jobs_limited"


class JournalUnreachable(errors.Busy):
    """The database in which jobs are kept does not answer now."""

    known_code = "journal_unreachable"


class JsonInvalid(errors.Refused):
    """The body is not valid JSON in UTF-8."""

    known_code = "json_invalid"


class JsonTooLarge(errors.TooLarge):
    """The JSON body is larger than 64 KiB."""

    known_code = "json_too_large"


class LanguageInvalid(errors.Refused):
    """The language is not a language tag."""

    known_code = "language_invalid"


class LanguageUnsupported(errors.Refused):
    """The engine does not know this language."""

    known_code = "language_unsupported"


class LinkInvalid(errors.Unauthorized):
    """This link does not count any more: it opens the page once, within two minutes."""

    known_code = "link_invalid"


class LiveFull(errors.Busy):
    """As many live sessions as this service takes are going on."""

    known_code = "live_full"


class LiveLimited(errors.Busy):
    """You have as many live sessions as you may."""

    known_code = "live_limited"


class LiveUnavailable(errors.Refused):
    """No engine of this service hears while somebody speaks."""

    known_code = "live_unavailable"


class LlmFailed(errors.Busy):
    """The language model failed."""

    known_code = "llm_failed"


class LlmGarbled(errors.Failed):
    """The language model's answer cannot be read."""

    known_code = "llm_garbled"


class LlmRefused(errors.Failed):
    """The language model refused the request."""

    known_code = "llm_refused"


class LlmTimeout(errors.Busy):
    """The language model took too long."""

    known_code = "llm_timeout"


class LlmUnreachable(errors.Busy):
    """The language model does not answer."""

    known_code = "llm_unreachable"


class LogprobsUnavailable(errors.Refused):
    """No engine here tells the probabilities of its tokens."""

    known_code = "logprobs_unavailable"


class LoudspeakerUnavailable(errors.Refused):
    """There is no loudspeaker that can be used."""

    known_code = "loudspeaker_unavailable"


class MachineBusy(errors.Busy):
    """This machine is too busy to look at the file."""

    known_code = "machine_busy"


class MessageInvalid(errors.Refused):
    """The message is none that this connection knows."""

    known_code = "message_invalid"


class MessageTooBig(errors.TooLarge):
    """The message is too big."""

    known_code = "message_too_big"


class MethodNotAllowed(errors.Refused):
    """This address does not take this method."""

    known_code = "method_not_allowed"


class MicrophoneUnavailable(errors.Refused):
    """There is no microphone that can be used."""

    known_code = "microphone_unavailable"


class ModelLoadFailed(errors.Busy):
    """The engine could not be loaded."""

    known_code = "model_load_failed"


class ModelLoaded(errors.Conflict):
    """There is a model of this name already."""

    known_code = "model_loaded"


class ModelNotFound(errors.NotFound):
    """There is no model of this name here."""

    known_code = "model_not_found"


class ModelPathForbidden(errors.Forbidden):
    """Models are not loaded from this folder."""

    known_code = "model_path_forbidden"


class ModelUnsuited(errors.Refused):
    """No engine that runs here can work with this model."""

    known_code = "model_unsuited"


class MultipartInvalid(errors.Refused):
    """The multipart body could not be read."""

    known_code = "multipart_invalid"


class MultipartTooManyParts(errors.Refused):
    """The form has too many parts."""

    known_code = "multipart_too_many_parts"


class MultipleFiles(errors.Refused):
    """The form has more than one file."""

    known_code = "multiple_files"


class NotFound(errors.NotFound):
    """There is nothing at this address."""

    known_code = "not_found"


class OriginNotAllowed(errors.Forbidden):
    """Web pages of this origin may not use this service."""

    known_code = "origin_not_allowed"


class PeerNotAllowed(errors.Forbidden):
    """Without a token this service answers its own machine only, and no proxy."""

    known_code = "peer_not_allowed"


class PeopleFull(errors.Conflict):
    """There are as many people as one owner may have."""

    known_code = "people_full"


class PeopleOff(errors.Forbidden):
    """This service keeps no voices: the setting 'people' is off."""

    known_code = "people_off"


class PersonNotFound(errors.NotFound):
    """There is no such person, or it was deleted."""

    known_code = "person_not_found"


class PortInUse(errors.Conflict):
    """The port is in use."""

    known_code = "port_in_use"


class PrecisionUnavailable(errors.Refused):
    """The engine does not have this precision."""

    known_code = "precision_unavailable"


class PrecisionUnknown(errors.Refused):
    """The precision is not known."""

    known_code = "precision_unknown"


class PullRunning(errors.Conflict):
    """Another 'vibevoice-asr pull' of this checkpoint is at work."""

    known_code = "pull_running"


class QueueFull(errors.Busy):
    """The queue is full."""

    known_code = "queue_full"


class RangeUnsatisfiable(errors.Refused):
    """The recording has no such bytes."""

    known_code = "range_unsatisfiable"


class RateLimited(errors.Busy):
    """Too many requests in a short time."""

    known_code = "rate_limited"


class RecordingNotKept(errors.NotFound):
    """The recording of this job is not kept."""

    known_code = "recording_not_kept"


class ReloadSuperseded(errors.Conflict):
    """Another reload overtook this one."""

    known_code = "reload_superseded"


class ReplyEmpty(errors.Failed):
    """The language model answered with nothing that can be said or shown."""

    known_code = "reply_empty"


class RepositoryForbidden(errors.Forbidden):
    """The model hub does not let this user have this model."""

    known_code = "repository_forbidden"


class RepositoryNotFound(errors.NotFound):
    """The model hub has no such model."""

    known_code = "repository_not_found"


class RequestInvalid(errors.Refused):
    """The request could not be understood."""

    known_code = "request_invalid"


class ResponseCancelNotActive(errors.Conflict):
    """Cancellation failed: no such response is in progress."""

    known_code = "response_cancel_not_active"


class ScopeMissing(errors.Forbidden):
    """The token that was sent does not allow this."""

    known_code = "scope_missing"


class ServiceUnreachable(errors.Busy):
    """No service answers at this address."""

    known_code = "service_unreachable"


class SessionHandedOver(errors.Busy):
    """This service ends; another one goes on with the live session."""

    known_code = "session_handed_over"


class SessionIdle(errors.Busy):
    """Nothing came for this live session for too long."""

    known_code = "session_idle"


class SessionMoved(errors.Conflict):
    """Another connection has taken this live session over."""

    known_code = "session_moved"


class SessionNotFound(errors.NotFound):
    """There is no such live session."""

    known_code = "session_not_found"


class SessionOver(errors.Conflict):
    """The live session takes no more sound."""

    known_code = "session_over"


class SessionTaken(errors.Conflict):
    """A live session with this id goes on."""

    known_code = "session_taken"


class SessionTooLong(errors.Busy):
    """The live session has lasted as long as one may."""

    known_code = "session_too_long"


class SettingsInvalid(errors.Refused):
    """A setting has a value that is not possible."""

    known_code = "settings_invalid"


class SeveralVoices(errors.Refused):
    """More than one person speaks in the clip."""

    known_code = "several_voices"


class ShuttingDown(errors.Busy):
    """The service is shutting down."""

    known_code = "shutting_down"


class SoundInvalid(errors.Refused):
    """What was sent is no sound in the agreed form."""

    known_code = "sound_invalid"


class SpeakerNotFound(errors.NotFound):
    """The job has no such speaker, or its voice was not heard well enough."""

    known_code = "speaker_not_found"


class SpeechFailed(errors.Busy):
    """The server that speaks did not."""

    known_code = "speech_failed"


class SpeechFull(errors.Busy):
    """As much text waits to be spoken as may, of yours or of all."""

    known_code = "speech_full"


class SpeechUnavailable(errors.Refused):
    """No engine of this service speaks."""

    known_code = "speech_unavailable"


class SpoolUnwritable(errors.OutOfSpace):
    """The folder for uploads cannot be written."""

    known_code = "spool_unwritable"


class StageSilent(errors.Busy):
    """A part of the conversation does not answer."""

    known_code = "stage_silent"


class StorageUnreachable(errors.Busy):
    """The storage in which recordings are kept does not answer now."""

    known_code = "storage_unreachable"


class TalkFull(errors.Busy):
    """There are as many conversations as may be at once."""

    known_code = "talk_full"


class TicketInvalid(errors.Unauthorized):
    """This ticket does not count any more: it opens one connection, within minutes."""

    known_code = "ticket_invalid"


class TokenInvalid(errors.Unauthorized):
    """The token does not count here."""

    known_code = "token_invalid"


class TokenMissing(errors.Unauthorized):
    """This service wants a token."""

    known_code = "token_missing"


class ToolsUnavailable(errors.Refused):
    """Who answers here only repeats what is said, and calls no tools."""

    known_code = "tools_unavailable"


class TranscriptChanged(errors.Conflict):
    """The transcript is of another revision than 'If-Match' says."""

    known_code = "transcript_changed"


class TranslationUnavailable(errors.Refused):
    """The engine does not translate."""

    known_code = "translation_unavailable"


class Unschedulable(errors.Refused):
    """No node that is there can do this."""

    known_code = "unschedulable"


class UpgradeRequired(errors.Refused):
    """This address takes WebSockets only; the request had no 'Upgrade: websocket'."""

    known_code = "upgrade_required"


class UploadStalled(errors.Busy):
    """The upload stopped before it was complete."""

    known_code = "upload_stalled"


class UploadTooLarge(errors.TooLarge):
    """The upload is larger than the limit."""

    known_code = "upload_too_large"


class UploadsFull(errors.Busy):
    """Too much is being uploaded at once."""

    known_code = "uploads_full"


class UploadsLimited(errors.Busy):
    """You have uploaded as much as one may in an hour."""

    known_code = "uploads_limited"


class UpstreamBusy(errors.Busy):
    """The upstream is busy."""

    known_code = "upstream_busy"


class UpstreamFailed(errors.Busy):
    """The upstream failed in the middle of this recording."""

    known_code = "upstream_failed"


class UpstreamGarbled(errors.Failed):
    """The upstream's answer cannot be read."""

    known_code = "upstream_garbled"


class UpstreamRefused(errors.Failed):
    """The upstream refused the request."""

    known_code = "upstream_refused"


class UpstreamTimeout(errors.Busy):
    """The upstream took too long."""

    known_code = "upstream_timeout"


class UpstreamUnreachable(errors.Busy):
    """No upstream answers."""

    known_code = "upstream_unreachable"


class UtteranceDropped(errors.Busy):
    """Too many speak: this utterance was not recognised."""

    known_code = "utterance_dropped"


class VoiceAbsent(errors.Refused):
    """Nobody speaks in the clip."""

    known_code = "voice_absent"


class VoiceTooShort(errors.Refused):
    """There is too little voice in the clip."""

    known_code = "voice_too_short"


class VoiceUnknown(errors.Refused):
    """There is no such voice to speak with."""

    known_code = "voice_unknown"


class VoicesNotKept(errors.Conflict):
    """Nothing was kept of what the segments of this job sound like."""

    known_code = "voices_not_kept"


class VoicesUnavailable(errors.Failed):
    """Voices cannot be compared on this machine."""

    known_code = "voices_unavailable"


class WontFit(errors.OutOfSpace):
    """There is not enough memory for this."""

    known_code = "wont_fit"


class WordsUnavailable(errors.Refused):
    """The engine tells no times of words."""

    known_code = "words_unavailable"


BY_CODE: Mapping[str, Type[errors.ServiceError]] = {
    "admin_off": AdminOff,
    "audio_decode_timeout": AudioDecodeTimeout,
    "audio_empty": AudioEmpty,
    "audio_format_unsupported": AudioFormatUnsupported,
    "audio_limited": AudioLimited,
    "audio_lost": AudioLost,
    "audio_path_forbidden": AudioPathForbidden,
    "audio_path_invalid": AudioPathInvalid,
    "audio_path_not_a_file": AudioPathNotAFile,
    "audio_path_not_found": AudioPathNotFound,
    "audio_too_long": AudioTooLong,
    "audio_undecodable": AudioUndecodable,
    "call_unknown": CallUnknown,
    "capture_unreadable": CaptureUnreadable,
    "checkpoint_damaged": CheckpointDamaged,
    "checkpoint_incomplete": CheckpointIncomplete,
    "checkpoint_not_converted": CheckpointNotConverted,
    "checkpoint_not_found": CheckpointNotFound,
    "checkpoint_unsafe": CheckpointUnsafe,
    "checkpoint_unsupported": CheckpointUnsupported,
    "checkpoint_unwritable": CheckpointUnwritable,
    "chunk_too_long": ChunkTooLong,
    "clip_too_long": ClipTooLong,
    "connections_limited": ConnectionsLimited,
    "content_type_unsupported": ContentTypeUnsupported,
    "conversation_already_has_active_response": ConversationAlreadyHasActiveResponse,
    "device_lost": DeviceLost,
    "disk_full": DiskFull,
    "edit_impossible": EditImpossible,
    "edits_full": EditsFull,
    "encoding_unavailable": EncodingUnavailable,
    "engine_crashed": EngineCrashed,
    "engine_failed": EngineFailed,
    "engine_stuck": EngineStuck,
    "engine_unavailable": EngineUnavailable,
    "event_unsupported": EventUnsupported,
    "field_invalid": FieldInvalid,
    "field_missing": FieldMissing,
    "field_too_long": FieldTooLong,
    "file_missing": FileMissing,
    "gpu_out_of_memory": GpuOutOfMemory,
    "header_too_large": HeaderTooLarge,
    "host_not_allowed": HostNotAllowed,
    "hub_unreachable": HubUnreachable,
    "idempotency_key_reused": IdempotencyKeyReused,
    "inbound_full": InboundFull,
    "input_audio_buffer_commit_empty": InputAudioBufferCommitEmpty,
    "internal": Internal,
    "item_unknown": ItemUnknown,
    "job_cancelled": JobCancelled,
    "job_not_done": JobNotDone,
    "job_not_found": JobNotFound,
    "jobs_limited": JobsLimited,
    "journal_unreachable": JournalUnreachable,
    "json_invalid": JsonInvalid,
    "json_too_large": JsonTooLarge,
    "language_invalid": LanguageInvalid,
    "language_unsupported": LanguageUnsupported,
    "link_invalid": LinkInvalid,
    "live_full": LiveFull,
    "live_limited": LiveLimited,
    "live_unavailable": LiveUnavailable,
    "llm_failed": LlmFailed,
    "llm_garbled": LlmGarbled,
    "llm_refused": LlmRefused,
    "llm_timeout": LlmTimeout,
    "llm_unreachable": LlmUnreachable,
    "logprobs_unavailable": LogprobsUnavailable,
    "loudspeaker_unavailable": LoudspeakerUnavailable,
    "machine_busy": MachineBusy,
    "message_invalid": MessageInvalid,
    "message_too_big": MessageTooBig,
    "method_not_allowed": MethodNotAllowed,
    "microphone_unavailable": MicrophoneUnavailable,
    "model_load_failed": ModelLoadFailed,
    "model_loaded": ModelLoaded,
    "model_not_found": ModelNotFound,
    "model_path_forbidden": ModelPathForbidden,
    "model_unsuited": ModelUnsuited,
    "multipart_invalid": MultipartInvalid,
    "multipart_too_many_parts": MultipartTooManyParts,
    "multiple_files": MultipleFiles,
    "not_found": NotFound,
    "origin_not_allowed": OriginNotAllowed,
    "peer_not_allowed": PeerNotAllowed,
    "people_full": PeopleFull,
    "people_off": PeopleOff,
    "person_not_found": PersonNotFound,
    "port_in_use": PortInUse,
    "precision_unavailable": PrecisionUnavailable,
    "precision_unknown": PrecisionUnknown,
    "pull_running": PullRunning,
    "queue_full": QueueFull,
    "range_unsatisfiable": RangeUnsatisfiable,
    "rate_limited": RateLimited,
    "recording_not_kept": RecordingNotKept,
    "reload_superseded": ReloadSuperseded,
    "reply_empty": ReplyEmpty,
    "repository_forbidden": RepositoryForbidden,
    "repository_not_found": RepositoryNotFound,
    "request_invalid": RequestInvalid,
    "response_cancel_not_active": ResponseCancelNotActive,
    "scope_missing": ScopeMissing,
    "service_unreachable": ServiceUnreachable,
    "session_handed_over": SessionHandedOver,
    "session_idle": SessionIdle,
    "session_moved": SessionMoved,
    "session_not_found": SessionNotFound,
    "session_over": SessionOver,
    "session_taken": SessionTaken,
    "session_too_long": SessionTooLong,
    "settings_invalid": SettingsInvalid,
    "several_voices": SeveralVoices,
    "shutting_down": ShuttingDown,
    "sound_invalid": SoundInvalid,
    "speaker_not_found": SpeakerNotFound,
    "speech_failed": SpeechFailed,
    "speech_full": SpeechFull,
    "speech_unavailable": SpeechUnavailable,
    "spool_unwritable": SpoolUnwritable,
    "stage_silent": StageSilent,
    "storage_unreachable": StorageUnreachable,
    "talk_full": TalkFull,
    "ticket_invalid": TicketInvalid,
    "token_invalid": TokenInvalid,
    "token_missing": TokenMissing,
    "tools_unavailable": ToolsUnavailable,
    "transcript_changed": TranscriptChanged,
    "translation_unavailable": TranslationUnavailable,
    "unschedulable": Unschedulable,
    "upgrade_required": UpgradeRequired,
    "upload_stalled": UploadStalled,
    "upload_too_large": UploadTooLarge,
    "uploads_full": UploadsFull,
    "uploads_limited": UploadsLimited,
    "upstream_busy": UpstreamBusy,
    "upstream_failed": UpstreamFailed,
    "upstream_garbled": UpstreamGarbled,
    "upstream_refused": UpstreamRefused,
    "upstream_timeout": UpstreamTimeout,
    "upstream_unreachable": UpstreamUnreachable,
    "utterance_dropped": UtteranceDropped,
    "voice_absent": VoiceAbsent,
    "voice_too_short": VoiceTooShort,
    "voice_unknown": VoiceUnknown,
    "voices_not_kept": VoicesNotKept,
    "voices_unavailable": VoicesUnavailable,
    "wont_fit": WontFit,
    "words_unavailable": WordsUnavailable,
}
