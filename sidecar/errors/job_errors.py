"""Jobs: errors of recordings, jobs, the queue, edits and enrolled speakers."""

from __future__ import annotations

from sidecar.errors.error_base import BadRequest, ErrorKind, NotFound, SidecarError


class QueueFull(SidecarError, code="queue_full", kind=ErrorKind.BUSY):
    """As many jobs as the queue takes are waiting."""

    default_detail = "The queue is full."
    default_hint = "Try again after the time in Retry-After."
    default_retry_after = 5


class JobNotFound(NotFound, code="job_not_found"):
    """No such job, or no longer."""

    default_detail = "There is no job with this id."
    default_hint = "Finished jobs are kept for a while only; submit it again."


class JobNotDone(SidecarError, code="job_not_done", kind=ErrorKind.CONFLICT):
    """The transcript of a job that still waits or runs."""

    default_detail = "The job has not ended yet: there is no transcript."
    default_hint = "Follow its events, or ask again; what was said so far is in its events."
    default_retry_after = 2


class JobCancelled(SidecarError, code="job_cancelled", kind=ErrorKind.CANCELLED):
    """The job was cancelled before it ended."""

    default_detail = "The job was cancelled."
    default_hint = "Submit it again if this was not meant."


class IdempotencyKeyReused(
    SidecarError, code="idempotency_key_reused", kind=ErrorKind.UNPROCESSABLE
):
    """The same Idempotency-Key with another request."""

    default_detail = "This Idempotency-Key was sent with another request."
    default_hint = "Make a new key for each recording; repeat one only with the same request."


class AudioLost(SidecarError, code="audio_lost", kind=ErrorKind.CONFLICT):
    """The audio of a job is not there any more as it was when it was submitted."""

    default_detail = "The recording of this job is not there any more."
    default_hint = "Submit it again."


class RecordingNotKept(NotFound, code="recording_not_kept"):
    """Of a job there is no recording that could be listened to."""

    default_detail = "The recording of this job is not kept."
    default_hint = (
        "Recordings are kept with the settings 'keep_jobs' and, after the end of their jobs, "
        "'keep_recordings_mb'; files that a client named never are. Play your own file."
    )


class EditImpossible(BadRequest, code="edit_impossible", kind=ErrorKind.UNPROCESSABLE):
    """An edit of a transcript names what is not there, or cannot be done to it."""

    default_detail = "That cannot be done to this transcript."
    default_hint = "None of the operations was done; fetch the transcript and send them anew."


class VoicesNotKept(SidecarError, code="voices_not_kept", kind=ErrorKind.CONFLICT):
    """A speaker is to be split by voice, and of what the segments sound like nothing was kept."""

    default_detail = "Nothing was kept of what the segments of this job sound like."
    default_hint = (
        "Voices are kept with jobs that were heard with the setting 'people' on, without "
        "recognise=false, by an engine that tells voices apart. Split by a list of 'segments'."
    )


class TranscriptChanged(SidecarError, code="transcript_changed", kind=ErrorKind.PRECONDITION):
    """Somebody edited the transcript since the revision that was sent."""

    default_detail = "The transcript is of another revision than 'If-Match' says."
    default_hint = "Fetch it again, and send the edit with the new ETag if it still makes sense."


class EditsFull(SidecarError, code="edits_full", kind=ErrorKind.CONFLICT):
    """A transcript has been edited as often as it may be."""

    default_detail = "No more edits of this transcript are kept."
    default_hint = "Fetch it in the format that you need, and go on with that."


class JournalUnreachable(SidecarError, code="journal_unreachable", kind=ErrorKind.BUSY):
    """The database in which several services keep their jobs does not answer."""

    default_detail = "The database in which jobs are kept does not answer now."
    default_hint = "Send it again in a moment, with the same Idempotency-Key; no job is lost."
    default_retry_after = 3


class StorageUnreachable(SidecarError, code="storage_unreachable", kind=ErrorKind.BUSY):
    """The folder or the bucket in which recordings are kept does not answer."""

    default_detail = "The storage in which recordings are kept does not answer now."
    default_hint = "Send it again in a moment, with the same Idempotency-Key; no job is lost."
    default_retry_after = 5


class Unschedulable(SidecarError, code="unschedulable", kind=ErrorKind.UNPROCESSABLE):
    """Of services that share their jobs, none that is there can do this one."""

    default_detail = "No node that is there can do this."
    default_hint = "Change the request as the nodes say, or start a node that can do it."


class BadAudio(SidecarError, kind=ErrorKind.UNPROCESSABLE):
    """The audio itself cannot be used."""


class AudioEmpty(BadAudio, code="audio_empty", kind=ErrorKind.MALFORMED):
    """The file has no bytes."""

    default_detail = "The audio is empty (0 bytes)."
    default_hint = "Check that the recording was written before it was sent."


class AudioFormatUnsupported(BadAudio, code="audio_format_unsupported", kind=ErrorKind.UNSUPPORTED):
    """The bytes are not a recording in a format that is understood."""

    default_detail = "The content is not audio in a format this service knows."
    default_hint = (
        "Send wav, flac, mp3, ogg/opus, m4a/aac, webm, wma, mp4, mkv, aiff or amr. "
        "The content counts, not the file's name."
    )


class AudioUndecodable(BadAudio, code="audio_undecodable"):
    """The format is known, but no samples come out."""

    default_detail = "The audio is damaged or holds no sound track: no samples could be decoded."
    default_hint = "Play the file in another program; if it plays, convert it to 16-bit wav."


class AudioTooLong(BadAudio, code="audio_too_long", kind=ErrorKind.TOO_LARGE):
    """Longer than the limit."""

    default_detail = "The audio is longer than the limit."
    default_hint = "Cut it into parts or raise VIBEVOICE_MAX_AUDIO_HOURS."


class AudioDecodeTimeout(BadAudio, code="audio_decode_timeout"):
    """Decoding makes no headway."""

    default_detail = "Decoding the audio took too long."
    default_hint = "Convert the file to wav or flac and send that."


class AudioPathInvalid(BadRequest, code="audio_path_invalid", kind=ErrorKind.UNPROCESSABLE):
    """Not a path that could be read."""

    default_detail = "'audio_path' is not an absolute path of a local file."
    default_hint = "Give the full path of a file on this machine; URLs are not fetched."


class AudioPathNotAFile(BadRequest, code="audio_path_not_a_file", kind=ErrorKind.UNPROCESSABLE):
    """A folder, a device, a pipe, a socket, or a file of the kernel's."""

    default_detail = "'audio_path' is not a regular file."
    default_hint = "Give the path of a recording, not of a folder, device, pipe or socket."


class AudioPathNotFound(BadRequest, code="audio_path_not_found", kind=ErrorKind.NOT_FOUND):
    """No file there."""

    default_detail = "Audio file not found."
    default_hint = "Check the path; it is read by the service, on the service's machine."


class AudioPathForbidden(BadRequest, code="audio_path_forbidden", kind=ErrorKind.FORBIDDEN):
    """A file that may not be read."""

    default_detail = "The audio file may not be read."
    default_hint = "Give the service's user the right to read it, or upload it instead."


class PersonNotFound(NotFound, code="person_not_found"):
    """No such person."""

    default_detail = "There is no such person, or it was deleted."
    default_hint = "GET /v1/people lists yours."


class SpeakerNotFound(NotFound, code="speaker_not_found"):
    """A job has no such speaker, or nothing is known of its voice."""

    default_detail = "The job has no such speaker, or its voice was not heard well enough."
    default_hint = (
        "Name one that is in 'speakers' of the transcript's metadata, of a job that was submitted "
        "with the setting 'people' on and without recognise=false."
    )


class PeopleOff(SidecarError, code="people_off", kind=ErrorKind.FORBIDDEN):
    """Nobody's voice is kept here."""

    default_detail = "This service keeps no voices: the setting 'people' is off."
    default_hint = "Start it with --people (docs/people.md says what is then stored, and where)."


class PeopleFull(SidecarError, code="people_full", kind=ErrorKind.CONFLICT):
    """As many people as one owner may have."""

    default_detail = "There are as many people as one owner may have."
    default_hint = "Delete one that is not needed any more."


class VoiceAbsent(BadAudio, code="voice_absent"):
    """Nobody speaks in a clip."""

    default_detail = "Nobody speaks in the clip."
    default_hint = "Send some seconds of one person speaking."


class VoiceTooShort(BadAudio, code="voice_too_short"):
    """Somebody speaks for too short a time."""

    default_detail = "There is too little voice in the clip."
    default_hint = "Send 5 to 10 s of one person speaking, without music."


class SeveralVoices(BadAudio, code="several_voices"):
    """More than one person speaks in a clip."""

    default_detail = "More than one person speaks in the clip."
    default_hint = "Cut out a stretch in which one person speaks, or name a job's speaker instead."


class ClipTooLong(BadAudio, code="clip_too_long", kind=ErrorKind.TOO_LARGE):
    """A clip of a voice is longer than one."""

    default_detail = "The clip is longer than a clip of a voice may be."
    default_hint = "Send 5 to 10 s of one person speaking, or name a job's speaker instead."


class VoicesUnavailable(SidecarError, code="voices_unavailable"):
    """The models that tell voices apart cannot be run here."""

    default_detail = "Voices cannot be compared on this machine."
    default_hint = "'vibevoice-asr doctor' says why."
