"""Recordings: what cannot be opened, decoded or found."""

from __future__ import annotations

from sidecar.errors.error_base import BadRequest, Kind, SidecarError


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
