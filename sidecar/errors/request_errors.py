"""Requests: errors of requests and of their options."""

from sidecar.errors.error_base import BadRequest, ErrorKind, Fault, NotFound, SidecarError


class RequestInvalid(BadRequest, code="request_invalid"):
    """Malformed request."""

    default_detail = "The request could not be understood."
    default_hint = "The paths of this service are listed at /docs."


class HeaderTooLarge(BadRequest, code="header_too_large", kind=ErrorKind.HEADERS_TOO_LARGE):
    """Header, or sum of headers, beyond the limit."""

    default_detail = "The headers of the request are too large."
    default_hint = "Send short headers; texts and options belong in the body."


class ContentTypeUnsupported(
    BadRequest, code="content_type_unsupported", kind=ErrorKind.UNSUPPORTED
):
    """Body that is neither multipart nor JSON."""

    default_detail = "The Content-Type of the request is not supported."
    default_hint = "Send multipart/form-data with a file part 'audio', or application/json."


class MultipartInvalid(BadRequest, code="multipart_invalid"):
    """Malformed multipart body."""

    default_detail = "The multipart body could not be parsed."
    default_hint = "Let your HTTP library build the form, including the boundary."


class MultipartTooManyParts(BadRequest, code="multipart_too_many_parts"):
    """Form with too many parts."""

    default_detail = "The form has too many parts."
    default_hint = "Send one file part 'audio' and the options you need."


class FileMissing(BadRequest, code="file_missing"):
    """Form without a file part."""

    default_detail = "The form has no file part named 'audio'."
    default_hint = "curl -F audio=@recording.wav http://127.0.0.1:8765/transcribe"


class MultipleFiles(BadRequest, code="multiple_files"):
    """Form with several files."""

    default_detail = "The form has more than one file."
    default_hint = "Send one recording per request."


class FieldTooLong(BadRequest, code="field_too_long"):
    """Text field or part header of a form beyond the limit."""

    default_detail = "A field of the form is too long."
    default_hint = (
        "Options are short words such as 'fp16'; a prompt has at most 4096 characters, and the "
        "part of a recording a file name."
    )


class FieldInvalid(BadRequest, code="field_invalid", kind=ErrorKind.UNPROCESSABLE):
    """Field with an invalid value."""

    default_detail = "A field has an invalid value."
    default_hint = "The fields and their values are listed at /docs."


class FieldMissing(BadRequest, code="field_missing", kind=ErrorKind.UNPROCESSABLE):
    """Missing required field."""

    default_detail = "A required field is missing."
    default_hint = "The fields of this request are listed at /docs."


class JsonInvalid(BadRequest, code="json_invalid"):
    """Body that is not JSON."""

    default_detail = "The body is not valid JSON in UTF-8."
    default_hint = 'Send an object such as {"audio_path": "/full/path/to/recording.wav"}.'


class JsonTooLarge(BadRequest, code="json_too_large", kind=ErrorKind.TOO_LARGE):
    """JSON body beyond the limit."""

    default_detail = "The JSON body is larger than 64 KiB."
    default_hint = "Send audio as multipart/form-data or by 'audio_path', not inside JSON."


class UploadTooLarge(BadRequest, code="upload_too_large", kind=ErrorKind.TOO_LARGE):
    """Upload beyond the limit."""

    default_detail = "The upload is larger than the limit."
    default_hint = "Send a compressed file (opus, flac, mp3) or raise VIBEVOICE_MAX_UPLOAD_MB."


class UploadStalled(BadRequest, code="upload_stalled", kind=ErrorKind.TIMEOUT):
    """Upload that stopped or is too slow (limits: `api.http.upload`)."""

    default_detail = "The upload stopped before it was complete."
    default_hint = "Send it again; on the same machine 'audio_path' needs no upload."


class UploadsFull(SidecarError, code="uploads_full", kind=ErrorKind.BUSY):
    """Limit of concurrent uploads, or of their bytes."""

    fault = Fault.MEMORY
    default_detail = "Too many uploads, or too many bytes, are in progress."
    default_hint = "Try again after the time in Retry-After, or raise VIBEVOICE_UPLOAD_ROOM_MB."
    default_retry_after = 5


class MethodNotAllowed(SidecarError, code="method_not_allowed", kind=ErrorKind.METHOD):
    """Method that a path does not support."""

    default_detail = "This path does not support this method."
    default_hint = "The Allow header lists the supported methods; see /docs."


class UpgradeRequired(SidecarError, code="upgrade_required", kind=ErrorKind.UPGRADE):
    """Plain request to the path of a WebSocket."""

    default_detail = "This path accepts WebSockets only; the request had no 'Upgrade: websocket'."
    default_hint = (
        "Connect by ws:// or wss://. If the client did, a proxy has dropped the header: "
        "nginx needs proxy_set_header for Upgrade and Connection (docs/deploy.md)."
    )


class RangeUnsatisfiable(SidecarError, code="range_unsatisfiable", kind=ErrorKind.RANGE):
    """Range beyond the end of a recording."""

    default_detail = "The range lies beyond the end of the recording."
    default_hint = "Request bytes before its end; 'Content-Range' has its size."


class PrecisionUnknown(BadRequest, code="precision_unknown", kind=ErrorKind.UNPROCESSABLE):
    """Unknown precision."""

    default_detail = "The precision is unknown."
    default_hint = "Use auto, fp32, bf16, fp16, int8 or int4."


class PrecisionUnavailable(BadRequest, code="precision_unavailable", kind=ErrorKind.UNPROCESSABLE):
    """Precision that the engine does not support."""

    default_detail = "The engine does not support this precision."
    default_hint = "Use a precision that it supports, or 'auto', which every engine accepts."


class LanguageInvalid(BadRequest, code="language_invalid", kind=ErrorKind.UNPROCESSABLE):
    """Value that is not a language tag."""

    default_detail = "The language is not a language tag."
    default_hint = "Use 'auto' or a tag such as 'en' or 'de-CH'."


class LanguageUnsupported(BadRequest, code="language_unsupported", kind=ErrorKind.UNPROCESSABLE):
    """Language that the engine does not support."""

    default_detail = "The engine does not support this language."
    default_hint = (
        "Omit the language, or start the service with an engine that supports it (docs/models.md)."
    )


class VoiceUnknown(BadRequest, code="voice_unknown"):
    """Voice that the TTS engine does not have."""

    default_detail = "The TTS engine has no such voice."
    default_hint = "Use a voice of the service, or omit it."


class ModelNotFound(NotFound, code="model_not_found"):
    """Name of a model that is not loaded."""

    default_detail = "No loaded model has this name."
    default_hint = "GET /v1/models lists the valid names."
