"""Requests: errors of requests and of their options."""

from __future__ import annotations

from sidecar.errors.error_base import BadRequest, ErrorKind, NotFound, SidecarError


class RequestInvalid(BadRequest, code="request_invalid"):
    """Not a request that any address here could take."""

    default_detail = "The request could not be understood."
    default_hint = "See /docs for what this service answers."


class HeaderTooLarge(BadRequest, code="header_too_large", kind=ErrorKind.HEADERS_TOO_LARGE):
    """A header, or all headers together, beyond the limit."""

    default_detail = "The headers of the request are too large."
    default_hint = "Send short headers; texts and options belong into the body."


class ContentTypeUnsupported(
    BadRequest, code="content_type_unsupported", kind=ErrorKind.UNSUPPORTED
):
    """The body is neither multipart nor JSON."""

    default_detail = "The Content-Type of the request is not supported here."
    default_hint = "Send multipart/form-data with a file part 'audio', or application/json."


class MultipartInvalid(BadRequest, code="multipart_invalid"):
    """The multipart body is broken."""

    default_detail = "The multipart body could not be read."
    default_hint = "Let your HTTP library build the form, boundary included."


class MultipartTooManyParts(BadRequest, code="multipart_too_many_parts"):
    """More parts than any honest form has."""

    default_detail = "The form has too many parts."
    default_hint = "Send one file part 'audio' and the options you need."


class FileMissing(BadRequest, code="file_missing"):
    """No file part in the form."""

    default_detail = "The form has no file part named 'audio'."
    default_hint = "curl -F audio=@recording.wav http://127.0.0.1:8765/transcribe"


class MultipleFiles(BadRequest, code="multiple_files"):
    """Two files in one form."""

    default_detail = "The form has more than one file."
    default_hint = "Send one recording per request."


class FieldTooLong(BadRequest, code="field_too_long"):
    """A text field or header of the form is too long."""

    default_detail = "A field of the form is too long."
    default_hint = "Options are short words such as 'fp16'; a prompt has at most 4096 characters."


class FieldInvalid(BadRequest, code="field_invalid", kind=ErrorKind.UNPROCESSABLE):
    """A field holds a value that it cannot have."""

    default_detail = "A field has a value that is not possible."
    default_hint = "See /docs for the fields and their values."


class FieldMissing(BadRequest, code="field_missing", kind=ErrorKind.UNPROCESSABLE):
    """A field that must be there is not."""

    default_detail = "A required field is missing."
    default_hint = "See /docs for the fields of this request."


class JsonInvalid(BadRequest, code="json_invalid"):
    """The body is not JSON."""

    default_detail = "The body is not valid JSON in UTF-8."
    default_hint = 'Send an object such as {"audio_path": "/full/path/to/recording.wav"}.'


class JsonTooLarge(BadRequest, code="json_too_large", kind=ErrorKind.TOO_LARGE):
    """The JSON body is beyond its limit."""

    default_detail = "The JSON body is larger than 64 KiB."
    default_hint = "Audio goes as multipart/form-data or by 'audio_path', not inside JSON."


class UploadTooLarge(BadRequest, code="upload_too_large", kind=ErrorKind.TOO_LARGE):
    """The upload is beyond its limit."""

    default_detail = "The upload is larger than the limit."
    default_hint = "Send a compressed file (opus, flac, mp3) or raise VIBEVOICE_MAX_UPLOAD_MB."


class UploadStalled(BadRequest, code="upload_stalled", kind=ErrorKind.TIMEOUT):
    """The client stopped sending, or is too slow (limits: `api.http.upload`)."""

    default_detail = "The upload stopped before it was complete."
    default_hint = "Send it again; on one machine 'audio_path' needs no upload at all."


class UploadsFull(SidecarError, code="uploads_full", kind=ErrorKind.BUSY):
    """As many uploads as are read at once are on their way, or as many bytes."""

    default_detail = "Too much is being uploaded at once."
    default_hint = "Try again after the time in Retry-After, or raise VIBEVOICE_UPLOAD_ROOM_MB."
    default_retry_after = 5


class MethodNotAllowed(SidecarError, code="method_not_allowed", kind=ErrorKind.METHOD):
    """The address exists, the method does not."""

    default_detail = "This address does not take this method."
    default_hint = "See /docs; the Allow header lists what it takes."


class UpgradeRequired(SidecarError, code="upgrade_required", kind=ErrorKind.UPGRADE):
    """An address of WebSockets was asked for by a request that is none."""

    default_detail = "This address takes WebSockets only; the request had no 'Upgrade: websocket'."
    default_hint = (
        "Connect by ws:// or wss://. If the client did, a proxy between has dropped the header: "
        "nginx needs proxy_set_header for Upgrade and Connection (docs/deploy.md)."
    )


class RangeUnsatisfiable(SidecarError, code="range_unsatisfiable", kind=ErrorKind.RANGE):
    """Bytes were asked for that lie behind the end."""

    default_detail = "The recording has no such bytes."
    default_hint = "Ask for bytes before its end: 'Content-Range' says how long it is."


class PrecisionUnknown(BadRequest, code="precision_unknown", kind=ErrorKind.UNPROCESSABLE):
    """A precision nobody has heard of."""

    default_detail = "The precision is not known."
    default_hint = "Use auto, fp32, bf16, fp16, int8 or int4."


class PrecisionUnavailable(BadRequest, code="precision_unavailable", kind=ErrorKind.UNPROCESSABLE):
    """A precision that exists, but not in the engine that serves."""

    default_detail = "The engine does not have this precision."
    default_hint = "Ask for one that it has, or for 'auto', which every engine takes."


class LanguageInvalid(BadRequest, code="language_invalid", kind=ErrorKind.UNPROCESSABLE):
    """Not a language tag."""

    default_detail = "The language is not a language tag."
    default_hint = "Use 'auto' or a tag such as 'en' or 'de-CH'."


class LanguageUnsupported(BadRequest, code="language_unsupported", kind=ErrorKind.UNPROCESSABLE):
    """A language that the engine does not speak."""

    default_detail = "The engine does not know this language."
    default_hint = (
        "Leave the language out, or start the service with an engine that knows it "
        "(docs/models.md)."
    )


class TranslationUnavailable(
    BadRequest, code="translation_unavailable", kind=ErrorKind.UNPROCESSABLE
):
    """A translation by an engine that writes down what is said, and no other language."""

    default_detail = "The engine does not translate."
    default_hint = "Start with --engine whisper and a model that knows more than English."


class LogprobsUnavailable(BadRequest, code="logprobs_unavailable", kind=ErrorKind.UNPROCESSABLE):
    """Probabilities of tokens, which leave no engine."""

    default_detail = "No engine here tells the probabilities of its tokens."
    default_hint = "Leave 'include' out."


class WordsUnavailable(BadRequest, code="words_unavailable", kind=ErrorKind.UNPROCESSABLE):
    """Times of words from an engine that has none."""

    default_detail = "The engine tells no times of words."
    default_hint = "Ask for 'segment' alone, or start with --engine whisper, which tells them."


class VoiceUnknown(BadRequest, code="voice_unknown"):
    """The engine that speaks has not got the voice that was asked for."""

    default_detail = "There is no such voice to speak with."
    default_hint = "Name one that the service has, or leave it out."


class ModelNotFound(NotFound, code="model_not_found"):
    """A model by a name that is none of what is loaded."""

    default_detail = "There is no model of this name here."
    default_hint = "GET /v1/models lists the names that count."
