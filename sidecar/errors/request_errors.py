"""Requests: errors of requests and of their options."""

from __future__ import annotations

from sidecar.errors.error_base import BadRequest, ErrorKind, NotFound, SidecarError


class RequestInvalid(BadRequest):
    """Not a request that any address here could take."""

    code = "request_invalid"
    default_detail = "The request could not be understood."
    default_hint = "See /docs for what this service answers."


class HeaderTooLarge(BadRequest):
    """A header, or all headers together, beyond the limit."""

    code = "header_too_large"
    kind = ErrorKind.HEADERS_TOO_LARGE
    default_detail = "The headers of the request are too large."
    default_hint = "Send short headers; texts and options belong into the body."


class ContentTypeUnsupported(BadRequest):
    """The body is neither multipart nor JSON."""

    code = "content_type_unsupported"
    kind = ErrorKind.UNSUPPORTED
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
    kind = ErrorKind.UNPROCESSABLE
    default_detail = "A field has a value that is not possible."
    default_hint = "See /docs for the fields and their values."


class FieldMissing(BadRequest):
    """A field that must be there is not."""

    code = "field_missing"
    kind = ErrorKind.UNPROCESSABLE
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
    kind = ErrorKind.TOO_LARGE
    default_detail = "The JSON body is larger than 64 KiB."
    default_hint = "Audio goes as multipart/form-data or by 'audio_path', not inside JSON."


class UploadTooLarge(BadRequest):
    """The upload is beyond its limit."""

    code = "upload_too_large"
    kind = ErrorKind.TOO_LARGE
    default_detail = "The upload is larger than the limit."
    default_hint = "Send a compressed file (opus, flac, mp3) or raise VIBEVOICE_MAX_UPLOAD_MB."


class UploadStalled(BadRequest):
    """The client stopped sending, or is too slow (limits: `api.http.upload`)."""

    code = "upload_stalled"
    kind = ErrorKind.TIMEOUT
    default_detail = "The upload stopped before it was complete."
    default_hint = "Send it again; on one machine 'audio_path' needs no upload at all."


class UploadsFull(SidecarError):
    """As many uploads as are read at once are on their way, or as many bytes."""

    code = "uploads_full"
    kind = ErrorKind.BUSY
    default_detail = "Too much is being uploaded at once."
    default_hint = "Try again after the time in Retry-After, or raise VIBEVOICE_UPLOAD_ROOM_MB."
    default_retry_after = 5


class MethodNotAllowed(SidecarError):
    """The address exists, the method does not."""

    code = "method_not_allowed"
    kind = ErrorKind.METHOD
    default_detail = "This address does not take this method."
    default_hint = "See /docs; the Allow header lists what it takes."


class UpgradeRequired(SidecarError):
    """An address of WebSockets was asked for by a request that is none."""

    code = "upgrade_required"
    kind = ErrorKind.UPGRADE
    default_detail = "This address takes WebSockets only; the request had no 'Upgrade: websocket'."
    default_hint = (
        "Connect by ws:// or wss://. If the client did, a proxy between has dropped the header: "
        "nginx needs proxy_set_header for Upgrade and Connection (docs/deploy.md)."
    )


class RangeUnsatisfiable(SidecarError):
    """Bytes were asked for that lie behind the end."""

    code = "range_unsatisfiable"
    kind = ErrorKind.RANGE
    default_detail = "The recording has no such bytes."
    default_hint = "Ask for bytes before its end: 'Content-Range' says how long it is."


class PrecisionUnknown(BadRequest):
    """A precision nobody has heard of."""

    code = "precision_unknown"
    kind = ErrorKind.UNPROCESSABLE
    default_detail = "The precision is not known."
    default_hint = "Use auto, fp32, bf16, fp16, int8 or int4."


class PrecisionUnavailable(BadRequest):
    """A precision that exists, but not in the engine that serves."""

    code = "precision_unavailable"
    kind = ErrorKind.UNPROCESSABLE
    default_detail = "The engine does not have this precision."
    default_hint = "Ask for one that it has, or for 'auto', which every engine takes."


class LanguageInvalid(BadRequest):
    """Not a language tag."""

    code = "language_invalid"
    kind = ErrorKind.UNPROCESSABLE
    default_detail = "The language is not a language tag."
    default_hint = "Use 'auto' or a tag such as 'en' or 'de-CH'."


class LanguageUnsupported(BadRequest):
    """A language that the engine does not speak."""

    code = "language_unsupported"
    kind = ErrorKind.UNPROCESSABLE
    default_detail = "The engine does not know this language."
    default_hint = (
        "Leave the language out, or start the service with an engine that knows it "
        "(docs/models.md)."
    )


class TranslationUnavailable(BadRequest):
    """A translation by an engine that writes down what is said, and no other language."""

    code = "translation_unavailable"
    kind = ErrorKind.UNPROCESSABLE
    default_detail = "The engine does not translate."
    default_hint = "Start with --engine whisper and a model that knows more than English."


class LogprobsUnavailable(BadRequest):
    """Probabilities of tokens, which leave no engine."""

    code = "logprobs_unavailable"
    kind = ErrorKind.UNPROCESSABLE
    default_detail = "No engine here tells the probabilities of its tokens."
    default_hint = "Leave 'include' out."


class WordsUnavailable(BadRequest):
    """Times of words from an engine that has none."""

    code = "words_unavailable"
    kind = ErrorKind.UNPROCESSABLE
    default_detail = "The engine tells no times of words."
    default_hint = "Ask for 'segment' alone, or start with --engine whisper, which tells them."


class VoiceUnknown(BadRequest):
    """The engine that speaks has not got the voice that was asked for."""

    code = "voice_unknown"
    default_detail = "There is no such voice to speak with."
    default_hint = "Name one that the service has, or leave it out."


class ModelNotFound(NotFound):
    """A model by a name that is none of what is loaded."""

    code = "model_not_found"
    default_detail = "There is no model of this name here."
    default_hint = "GET /v1/models lists the names that count."
