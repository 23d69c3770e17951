"""Audio and speakers: errors of recordings (format, length, decoding, paths) and of enrolment."""

from sidecar.errors.error_base import BadRequest, ErrorKind, Fault, NotFound, SidecarError


class AudioLost(SidecarError, code="audio_lost", kind=ErrorKind.CONFLICT):
    """Recording of a job that was deleted or changed after the job was submitted."""

    fault = Fault.RECORDING
    default_detail = "The recording of this job was deleted or changed."
    default_hint = "Submit it again."


class BadAudio(SidecarError, kind=ErrorKind.UNPROCESSABLE):
    """Audio that cannot be used."""

    fault = Fault.RECORDING


class AudioEmpty(BadAudio, code="audio_empty", kind=ErrorKind.MALFORMED):
    """Empty file."""

    default_detail = "The audio is empty (0 bytes)."
    default_hint = "Check that the recording was saved before it was sent."


class AudioFormatUnsupported(BadAudio, code="audio_format_unsupported", kind=ErrorKind.UNSUPPORTED):
    """Content that is not audio in a supported format."""

    default_detail = "The content is not audio in a supported format."
    default_hint = (
        "Send wav, flac, mp3, ogg/opus, m4a/aac, webm, wma, mp4, mkv, ts, avi, aiff or amr. "
        "The content counts, not the file's name."
    )


class AudioUndecodable(BadAudio, code="audio_undecodable"):
    """Recording of a supported format that yields no samples."""

    default_detail = "The audio is damaged or has no audio track: no samples could be decoded."
    default_hint = "Play the file in another program; if it plays, convert it to 16-bit wav."


class AudioTooLong(BadAudio, code="audio_too_long", kind=ErrorKind.TOO_LARGE):
    """Recording longer than the limit."""

    default_detail = "The audio is longer than the limit."
    default_hint = "Split it into parts, or raise VIBEVOICE_MAX_AUDIO_HOURS."


class AudioDecodeTimeout(BadAudio, code="audio_decode_timeout"):
    """Decoding without progress."""

    default_detail = "Decoding the audio took too long."
    default_hint = "Convert the file to wav or flac and send that."


class AudioPathInvalid(BadRequest, code="audio_path_invalid", kind=ErrorKind.UNPROCESSABLE):
    """Path that is relative, on another machine, or not a path."""

    default_detail = "'audio_path' is not an absolute path of a local file."
    default_hint = "Give the full path of a file on this machine; URLs are not fetched."


class AudioPathNotAFile(BadRequest, code="audio_path_not_a_file", kind=ErrorKind.UNPROCESSABLE):
    """Path of a folder, device, pipe, socket or kernel file."""

    default_detail = "'audio_path' is not a regular file."
    default_hint = "Give the path of a recording, not of a folder, device, pipe or socket."


class AudioPathNotFound(BadRequest, code="audio_path_not_found", kind=ErrorKind.NOT_FOUND):
    """Path without a file."""

    default_detail = "Audio file not found."
    default_hint = "Check the path; it is read by the service, on the service's machine."


class AudioPathForbidden(BadRequest, code="audio_path_forbidden", kind=ErrorKind.FORBIDDEN):
    """File that the service may not read."""

    default_detail = "The service may not read the audio file."
    default_hint = "Grant the service's user read permission, or upload the file instead."


class PersonNotFound(NotFound, code="person_not_found"):
    """Unknown or deleted enrolled speaker."""

    default_detail = "There is no enrolled speaker with this id, or it was deleted."
    default_hint = "GET /v1/people lists your enrolled speakers."


class SpeakerNotFound(NotFound, code="speaker_not_found"):
    """Speaker that a job does not have, or without an embedding."""

    default_detail = "The job has no such speaker, or too little of its speech for an embedding."
    default_hint = (
        "Name a speaker of 'speakers' in the transcript's metadata, of a job that was "
        "submitted with the setting 'people' on and without recognise=false."
    )


class PeopleOff(SidecarError, code="people_off", kind=ErrorKind.FORBIDDEN):
    """Enrolment on a service without enrolled speakers."""

    default_detail = "This service stores no enrolled speakers: the setting 'people' is off."
    default_hint = (
        "Start the service with 'serve --people' or VIBEVOICE_PEOPLE=1. That needs pip install "
        "'.[people]', and a key where there is no keyring: docs/people.md has both, and what it "
        "then stores, and where."
    )


class PeopleFull(SidecarError, code="people_full", kind=ErrorKind.CONFLICT):
    """Limit of enrolled speakers of one owner."""

    default_detail = "You have reached the limit of enrolled speakers for one owner."
    default_hint = "Delete one that you do not need any more."


class VoiceAbsent(BadAudio, code="voice_absent"):
    """Clip without speech."""

    default_detail = "The clip has no speech."
    default_hint = "Send 5 to 10 s of one person speaking."


class VoiceTooShort(BadAudio, code="voice_too_short"):
    """Clip with too little speech."""

    default_detail = "The clip has too little speech."
    default_hint = "Send 5 to 10 s of one person speaking, without music."


class SeveralVoices(BadAudio, code="several_voices"):
    """Clip with several speakers."""

    default_detail = "The clip has more than one speaker."
    default_hint = "Cut out a part with one speaker, or name a job's speaker instead."


class ClipTooLong(BadAudio, code="clip_too_long", kind=ErrorKind.TOO_LARGE):
    """Enrolment clip beyond the limit."""

    default_detail = "The clip is longer than the limit for enrolment."
    default_hint = "Send 5 to 10 s of one person speaking, or name a job's speaker instead."


class VoicesUnavailable(SidecarError, code="voices_unavailable"):
    """Diarization models that cannot run on this machine."""

    default_detail = "Speaker embeddings cannot be computed on this machine."
    default_hint = "'vibevoice-asr doctor' shows the reason."
