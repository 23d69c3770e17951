"""An exception for every code of docs/errors.md, named as the code is.

Written by docs/generate.py. Change the code, then run it.
"""

from __future__ import annotations

from typing import Mapping, Type

from vibevoice_asr_client import errors


class AdminOff(errors.Forbidden):
    """The administrators' API is off."""

    known_code = "admin_off"


class AudioDecodeTimeout(errors.Refused):
    """Decoding the audio took too long."""

    known_code = "audio_decode_timeout"


class AudioEmpty(errors.Refused):
    """The audio is empty (0 bytes)."""

    known_code = "audio_empty"


class AudioFormatUnsupported(errors.Refused):
    """The content is not audio in a supported format."""

    known_code = "audio_format_unsupported"


class AudioLimited(errors.Busy):
    """You have reached the limit of waiting audio for one owner."""

    known_code = "audio_limited"


class AudioLost(errors.Conflict):
    """The recording of this job was deleted or changed."""

    known_code = "audio_lost"


class AudioPathForbidden(errors.Forbidden):
    """The service may not read the audio file."""

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
    """The audio is damaged or has no audio track: no samples could be decoded."""

    known_code = "audio_undecodable"


class CallUnknown(errors.NotFound):
    """No pending tool call has this id."""

    known_code = "call_unknown"


class CheckpointDamaged(errors.Busy):
    """A file of the checkpoint is damaged."""

    known_code = "checkpoint_damaged"


class CheckpointIncomplete(errors.Busy):
    """Files of the checkpoint are missing."""

    known_code = "checkpoint_incomplete"


class CheckpointNotConverted(errors.Busy):
    """The checkpoint has to be converted to the layout of transformers."""

    known_code = "checkpoint_not_converted"


class CheckpointNotFound(errors.Busy):
    """There is no checkpoint of VibeVoice-ASR on this machine."""

    known_code = "checkpoint_not_found"


class CheckpointUnsafe(errors.Busy):
    """The checkpoint has pickled weights or its own code, which this service never runs."""

    known_code = "checkpoint_unsafe"


class CheckpointUnsupported(errors.Busy):
    """The checkpoint is not one of VibeVoice-ASR."""

    known_code = "checkpoint_unsupported"


class CheckpointUnwritable(errors.OutOfSpace):
    """The folder for the checkpoint cannot be written to."""

    known_code = "checkpoint_unwritable"


class ChunkTooLong(errors.TooLarge):
    """The chunk of audio is too long."""

    known_code = "chunk_too_long"


class ClipTooLong(errors.TooLarge):
    """The clip is longer than the limit for enrolment."""

    known_code = "clip_too_long"


class ConnectionsLimited(errors.Busy):
    """You have reached the limit of open requests and connections for one owner."""

    known_code = "connections_limited"


class ContentTypeUnsupported(errors.Refused):
    """The Content-Type of the request is not supported."""

    known_code = "content_type_unsupported"


class ConversationAlreadyHasActiveResponse(errors.Conflict):
    """The conversation already has a response in progress."""

    known_code = "conversation_already_has_active_response"


class DecoderStopped(errors.Busy):
    """Something stopped ffmpeg while it decoded the file."""

    known_code = "decoder_stopped"


class DeviceLost(errors.Busy):
    """The GPU stopped working for the worker process."""

    known_code = "device_lost"


class DiarizationNotKept(errors.Conflict):
    """Nothing was kept of this job's diarization."""

    known_code = "diarization_not_kept"


class DiskFull(errors.OutOfSpace):
    """There is not enough disk space for the upload."""

    known_code = "disk_full"


class EditImpossible(errors.Refused):
    """This edit is not possible for this transcript."""

    known_code = "edit_impossible"


class EditsFull(errors.Conflict):
    """This transcript has reached its limit of edits."""

    known_code = "edits_full"


class EncodingUnavailable(errors.Refused):
    """This installation does not decode Opus."""

    known_code = "encoding_unavailable"


class EngineCrashed(errors.Busy):
    """The worker process died while it transcribed this audio."""

    known_code = "engine_crashed"


class EngineFailed(errors.Failed):
    """The engine could not transcribe this audio."""

    known_code = "engine_failed"


class EngineStuck(errors.Busy):
    """The worker process hangs and cannot be killed; no new one is started before it ends."""

    known_code = "engine_stuck"


class EngineUnavailable(errors.Busy):
    """The engine cannot be used on this machine."""

    known_code = "engine_unavailable"


class EventUnsupported(errors.Refused):
    """The type of the event is not supported here."""

    known_code = "event_unsupported"


class FieldInvalid(errors.Refused):
    """A field has an invalid value."""

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
    """The Host header is not an allowed name of this service."""

    known_code = "host_not_allowed"


class HubUnreachable(errors.Busy):
    """The model hub cannot be reached."""

    known_code = "hub_unreachable"


class IdempotencyKeyReused(errors.Refused):
    """This Idempotency-Key was used for another request."""

    known_code = "idempotency_key_reused"


class InboundFull(errors.Busy):
    """The client does not read its events."""

    known_code = "inbound_full"


class InputAudioBufferCommitEmpty(errors.Refused):
    """There is less than 0.1 s of audio since the last commit."""

    known_code = "input_audio_buffer_commit_empty"


class Internal(errors.Failed):
    """Internal error of the service."""

    known_code = "internal"


class ItemUnknown(errors.NotFound):
    """The conversation has no item with this id."""

    known_code = "item_unknown"


class JobCancelled(errors.Cancelled):
    """The job was cancelled."""

    known_code = "job_cancelled"


class JobNotDone(errors.Conflict):
    """The job has not finished yet: there is no transcript."""

    known_code = "job_not_done"


class JobNotFound(errors.NotFound):
    """There is no job with this id."""

    known_code = "job_not_found"


class JobsLimited(errors.Busy):
    """You have reached the limit of waiting and running jobs for one owner."""

    known_code = "jobs_limited"


class JournalUnreachable(errors.Busy):
    """The database of jobs does not answer."""

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
    """The engine does not support this language."""

    known_code = "language_unsupported"


class LinkInvalid(errors.Unauthorized):
    """This link is not valid any more: it works once, for two minutes (an invitation: a day)."""

    known_code = "link_invalid"


class LiveFull(errors.Busy):
    """The service has reached its limit of live sessions."""

    known_code = "live_full"


class LiveLimited(errors.Busy):
    """You have reached the limit of live sessions for one owner."""

    known_code = "live_limited"


class LiveUnavailable(errors.Refused):
    """No engine of this service transcribes live audio."""

    known_code = "live_unavailable"


class LlmFailed(errors.Busy):
    """The language model failed."""

    known_code = "llm_failed"


class LlmGarbled(errors.Failed):
    """The response of the language model cannot be parsed."""

    known_code = "llm_garbled"


class LlmRefused(errors.Failed):
    """The server of the language model rejected the request."""

    known_code = "llm_refused"


class LlmTimeout(errors.Busy):
    """The language model took too long."""

    known_code = "llm_timeout"


class LlmUnreachable(errors.Busy):
    """The language model does not answer."""

    known_code = "llm_unreachable"


class LogprobsUnavailable(errors.Refused):
    """This service returns probabilities of words and segments, not of tokens."""

    known_code = "logprobs_unavailable"


class LoudspeakerUnavailable(errors.Refused):
    """No loudspeaker is available."""

    known_code = "loudspeaker_unavailable"


class MachineBusy(errors.Busy):
    """This machine is too busy to read the file."""

    known_code = "machine_busy"


class MessageInvalid(errors.Refused):
    """The message is not one that this connection supports."""

    known_code = "message_invalid"


class MessageTooBig(errors.TooLarge):
    """The message is too large."""

    known_code = "message_too_big"


class MethodNotAllowed(errors.Refused):
    """This path does not support this method."""

    known_code = "method_not_allowed"


class MicrophoneUnavailable(errors.Refused):
    """No microphone is available."""

    known_code = "microphone_unavailable"


class ModelInUse(errors.Conflict):
    """An engine of this service uses this model."""

    known_code = "model_in_use"


class ModelLoadFailed(errors.Busy):
    """The engine could not be loaded."""

    known_code = "model_load_failed"


class ModelLoaded(errors.Conflict):
    """A model with this name is already loaded."""

    known_code = "model_loaded"


class ModelNotFound(errors.NotFound):
    """No loaded model has this name."""

    known_code = "model_not_found"


class ModelPathForbidden(errors.Forbidden):
    """Models may not be loaded from this folder."""

    known_code = "model_path_forbidden"


class ModelUnsuited(errors.Refused):
    """No running engine can load this model."""

    known_code = "model_unsuited"


class MultipartInvalid(errors.Refused):
    """The multipart body could not be parsed."""

    known_code = "multipart_invalid"


class MultipartTooManyParts(errors.Refused):
    """The form has too many parts."""

    known_code = "multipart_too_many_parts"


class MultipleFiles(errors.Refused):
    """The form has more than one file."""

    known_code = "multiple_files"


class NotFound(errors.NotFound):
    """There is nothing at this path."""

    known_code = "not_found"


class NotHere(errors.Refused):
    """This front has no live engine: nodes transcribe live audio."""

    known_code = "not_here"


class OriginNotAllowed(errors.Forbidden):
    """Web pages of this origin may not use this service."""

    known_code = "origin_not_allowed"


class OutOfMemory(errors.Busy):
    """The kernel ended the worker process: there is not enough memory."""

    known_code = "out_of_memory"


class PeerNotAllowed(errors.Forbidden):
    """Without a token this service accepts direct connections from its own machine only."""

    known_code = "peer_not_allowed"


class PeopleFull(errors.Conflict):
    """You have reached the limit of enrolled speakers for one owner."""

    known_code = "people_full"


class PeopleOff(errors.Forbidden):
    """This service stores no enrolled speakers: the setting 'people' is off."""

    known_code = "people_off"


class PersonNotFound(errors.NotFound):
    """There is no enrolled speaker with this id, or it was deleted."""

    known_code = "person_not_found"


class PortInUse(errors.Conflict):
    """The port is in use."""

    known_code = "port_in_use"


class PrecisionUnavailable(errors.Refused):
    """The engine does not support this precision."""

    known_code = "precision_unavailable"


class PrecisionUnknown(errors.Refused):
    """The precision is unknown."""

    known_code = "precision_unknown"


class PullRunning(errors.Conflict):
    """Another 'vibevoice-asr pull' of this checkpoint is running."""

    known_code = "pull_running"


class QueueFull(errors.Busy):
    """The queue is full."""

    known_code = "queue_full"


class RangeUnsatisfiable(errors.Refused):
    """The range lies beyond the end of the recording."""

    known_code = "range_unsatisfiable"


class RateLimited(errors.Busy):
    """Too many requests in a short time."""

    known_code = "rate_limited"


class RecordingNotKept(errors.NotFound):
    """The recording of this job is not kept."""

    known_code = "recording_not_kept"


class RecordingsFolderTaken(errors.Refused):
    """The folder has the recordings of another store of jobs."""

    known_code = "recordings_folder_taken"


class ReloadSuperseded(errors.Conflict):
    """A later reload replaced this one."""

    known_code = "reload_superseded"


class ReplyEmpty(errors.Failed):
    """The answer of the language model has no text that can be spoken or shown."""

    known_code = "reply_empty"


class RepositoryForbidden(errors.Forbidden):
    """The model hub denies this user access to this model."""

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
    """The token lacks the scope for this operation."""

    known_code = "scope_missing"


class ServiceUnreachable(errors.Busy):
    """No service answers at this address."""

    known_code = "service_unreachable"


class SessionIdle(errors.Busy):
    """This live session received nothing for too long."""

    known_code = "session_idle"


class SessionMoved(errors.Conflict):
    """Another connection has taken this live session over."""

    known_code = "session_moved"


class SessionNotFound(errors.NotFound):
    """There is no live session with this id."""

    known_code = "session_not_found"


class SessionOver(errors.Conflict):
    """The live session has ended and accepts no more audio."""

    known_code = "session_over"


class SessionTaken(errors.Conflict):
    """A live session with this id is in progress."""

    known_code = "session_taken"


class SessionTooLong(errors.Busy):
    """The live session has reached its maximum duration."""

    known_code = "session_too_long"


class SettingsInvalid(errors.Refused):
    """A setting has a value that is not possible."""

    known_code = "settings_invalid"


class SeveralVoices(errors.Refused):
    """The clip has more than one speaker."""

    known_code = "several_voices"


class ShuttingDown(errors.Busy):
    """The service is shutting down."""

    known_code = "shutting_down"


class SoundInvalid(errors.Refused):
    """The data is not audio in the agreed encoding."""

    known_code = "sound_invalid"


class SpeakerNotFound(errors.NotFound):
    """The job has no such speaker, or too little of its speech for an embedding."""

    known_code = "speaker_not_found"


class SpeechFailed(errors.Busy):
    """The speech synthesis server failed."""

    known_code = "speech_failed"


class SpeechFull(errors.Busy):
    """Too much text waits for synthesis, for this owner or in all."""

    known_code = "speech_full"


class SpeechUnavailable(errors.Refused):
    """This service has no TTS engine."""

    known_code = "speech_unavailable"


class SpoolUnwritable(errors.OutOfSpace):
    """The folder for uploads cannot be written to."""

    known_code = "spool_unwritable"


class StageSilent(errors.Busy):
    """A stage of the conversation does not answer."""

    known_code = "stage_silent"


class StorageUnreachable(errors.Busy):
    """The storage of recordings does not answer."""

    known_code = "storage_unreachable"


class TalkFull(errors.Busy):
    """The service has reached its limit of conversations."""

    known_code = "talk_full"


class TicketInvalid(errors.Unauthorized):
    """This ticket is not valid any more: it opens one connection, within minutes."""

    known_code = "ticket_invalid"


class TokenInvalid(errors.Unauthorized):
    """The token is not valid for this service."""

    known_code = "token_invalid"


class TokenMissing(errors.Unauthorized):
    """This service requires a token."""

    known_code = "token_missing"


class ToolsUnavailable(errors.Refused):
    """The built-in echo model only repeats what the user says and cannot call tools."""

    known_code = "tools_unavailable"


class TranscriptChanged(errors.Conflict):
    """The transcript has another revision than 'If-Match' names."""

    known_code = "transcript_changed"


class TranslationUnavailable(errors.Refused):
    """The engine does not translate."""

    known_code = "translation_unavailable"


class Unschedulable(errors.Refused):
    """No available node can run this job."""

    known_code = "unschedulable"


class UpgradeRequired(errors.Refused):
    """This path accepts WebSockets only; the request had no 'Upgrade: websocket'."""

    known_code = "upgrade_required"


class UploadStalled(errors.Busy):
    """The upload stopped before it was complete."""

    known_code = "upload_stalled"


class UploadTooLarge(errors.TooLarge):
    """The upload is larger than the limit."""

    known_code = "upload_too_large"


class UploadsFull(errors.Busy):
    """Too many uploads, or too many bytes, are in progress."""

    known_code = "uploads_full"


class UploadsLimited(errors.Busy):
    """You have reached the hourly upload limit for one owner."""

    known_code = "uploads_limited"


class UpstreamBusy(errors.Busy):
    """The upstream is busy."""

    known_code = "upstream_busy"


class UpstreamFailed(errors.Busy):
    """The upstream failed while it transcribed this recording."""

    known_code = "upstream_failed"


class UpstreamGarbled(errors.Failed):
    """The upstream's response cannot be parsed."""

    known_code = "upstream_garbled"


class UpstreamLost(errors.Busy):
    """An upstream failed while it transcribed this recording; none answers now."""

    known_code = "upstream_lost"


class UpstreamRefused(errors.Failed):
    """The upstream rejected the request."""

    known_code = "upstream_refused"


class UpstreamRefusedRecording(errors.Failed):
    """The upstream rejected the recording or an option of the request."""

    known_code = "upstream_refused_recording"


class UpstreamTimeout(errors.Busy):
    """The upstream took too long."""

    known_code = "upstream_timeout"


class UpstreamUnreachable(errors.Busy):
    """No upstream answers."""

    known_code = "upstream_unreachable"


class UtteranceDropped(errors.Busy):
    """The service is overloaded: this utterance was not recognized."""

    known_code = "utterance_dropped"


class VoiceAbsent(errors.Refused):
    """The clip has no speech."""

    known_code = "voice_absent"


class VoiceTooShort(errors.Refused):
    """The clip has too little speech."""

    known_code = "voice_too_short"


class VoiceUnknown(errors.Refused):
    """The TTS engine has no such voice."""

    known_code = "voice_unknown"


class VoicesNotKept(errors.Conflict):
    """No speaker embeddings were stored with the segments of this job."""

    known_code = "voices_not_kept"


class VoicesUnavailable(errors.Failed):
    """Speaker embeddings cannot be computed on this machine."""

    known_code = "voices_unavailable"


class WontFit(errors.OutOfSpace):
    """There is not enough memory for this."""

    known_code = "wont_fit"


class WordsUnavailable(errors.Refused):
    """The engine returns no word timestamps."""

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
    "decoder_stopped": DecoderStopped,
    "device_lost": DeviceLost,
    "diarization_not_kept": DiarizationNotKept,
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
    "model_in_use": ModelInUse,
    "model_load_failed": ModelLoadFailed,
    "model_loaded": ModelLoaded,
    "model_not_found": ModelNotFound,
    "model_path_forbidden": ModelPathForbidden,
    "model_unsuited": ModelUnsuited,
    "multipart_invalid": MultipartInvalid,
    "multipart_too_many_parts": MultipartTooManyParts,
    "multiple_files": MultipleFiles,
    "not_found": NotFound,
    "not_here": NotHere,
    "origin_not_allowed": OriginNotAllowed,
    "out_of_memory": OutOfMemory,
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
    "recordings_folder_taken": RecordingsFolderTaken,
    "reload_superseded": ReloadSuperseded,
    "reply_empty": ReplyEmpty,
    "repository_forbidden": RepositoryForbidden,
    "repository_not_found": RepositoryNotFound,
    "request_invalid": RequestInvalid,
    "response_cancel_not_active": ResponseCancelNotActive,
    "scope_missing": ScopeMissing,
    "service_unreachable": ServiceUnreachable,
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
    "upstream_lost": UpstreamLost,
    "upstream_refused": UpstreamRefused,
    "upstream_refused_recording": UpstreamRefusedRecording,
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
