"""Model names and aliases, language names, speaker labels and errors shared by OpenAI protocols.

The statuses are those of problem responses. The exception is a full service: it answers 429, after
which OpenAI's SDKs retry. They also retry 408, 409 and everything from 500 on. So an error that
would recur tells them not to retry.
"""

import re
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from sidecar import errors
from sidecar.api.http.error_responses import STATUS, error_headers, log_error
from sidecar.api.http.openapi import content, error_responses
from sidecar.api.http.responses import to_json
from sidecar.interfaces.engine_interface import AUTO, EngineSpec, Precision
from sidecar.interfaces.language_tags import LANGUAGE_NAMES, language_code, parse_language
from sidecar.plugins.openai.errors import LogprobsUnavailable, SpeechFull, WordsUnavailable

VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx"),
    *("sage", "shimmer", "verse"),
)
"""OpenAI's voices: if an engine has voices of its own, these stand for its default."""
DEFAULT_VOICE = "default"

REQUEST_ID = "x-request-id"
_FULL = (errors.QueueFull, errors.UploadsFull, SpeechFull)
_TRIED_TWICE = (errors.EngineCrashed,)
"""Errors after which the service itself has already tried again."""
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_PARAMS: dict[type[errors.SidecarError], str] = {
    errors.SoundInvalid: "audio",
    errors.BadAudio: "file",
    errors.FileMissing: "file",
    errors.MultipleFiles: "file",
    errors.UploadTooLarge: "file",
    errors.ModelNotFound: "model",
    errors.LanguageInvalid: "language",
    errors.LanguageUnsupported: "language",
    errors.PrecisionUnknown: "precision",
    LogprobsUnavailable: "include",
    WordsUnavailable: "timestamp_granularities",
    errors.VoiceUnknown: "voice",
    errors.VoicesUnavailable: "known_speaker_references",
}
_NAMED = re.compile(r"'([a-z_.]+)(?:\[[a-z_]*\])?'")

UNKNOWN = "unknown"

ALIASES = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
)
"""OpenAI's transcription models (`AudioModel` of its SDK)."""
LIVE_ALIASES = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""OpenAI's models that only transcribe live (`AudioTranscription` of its SDK)."""
DIARIZING_MODEL = "gpt-4o-transcribe-diarize"
REALTIME_MODEL = "gpt-realtime"
"""Model that clients of the Realtime API expect in `GET /v1/models`."""
SERVICE_NAME = "vibevoice-asr"
_SIZE = r"(?:tiny|base|small|medium|large(?:-v[123])?|(?:large-v3-)?turbo)(?:[.-]en)?"
_CLIENT_DEFAULTS = re.compile(
    rf"{SERVICE_NAME}|(?:distil-)?{_SIZE}|(?:[\w.-]{{1,64}}/)?(?:faster-)?(?:distil-)?whisper-{_SIZE}[\w.-]{{0,64}}"
    r"|gpt-4o(?:-mini)?-transcribe[\w.-]{0,64}",
    re.ASCII,
)
"""Model names that clients send by default: Whisper's models, in this service and in other servers
(`Systran/faster-whisper-large-v3`), and later versions of OpenAI's."""


def warning_headers(warnings: Iterable[str]) -> dict[str, str]:
    """Return the header with the options that were not applied (RFC 7234, 5.5: 299)."""
    plain = (re.sub(r"[^ !#-\[\]-~]", "?", one.replace('"', "'")) for one in warnings)
    value = ", ".join(f'299 {SERVICE_NAME} "{one}"' for one in plain)
    return {"Warning": value} if value else {}


def wrong_base_url_response(error: errors.SidecarError) -> Response:
    """Return the response of an error at a path that a client builds from a wrong base URL."""
    if isinstance(error, errors.NotFound):
        detail = "There is nothing at this path: the base URL of OpenAI's API ends with /v1."
        error = errors.NotFound(detail, hint="Set the client's base URL to http://HOST:PORT/v1.")
    return error_response(error)


def error_response(error: errors.SidecarError) -> Response:
    """Return the response of an error, and log the error with the request's id."""
    request_id = uuid.uuid4().hex
    log_error(error, request_id)
    return Response(
        to_json(error_body(error)),
        status_code=status_of(error),
        media_type="application/json",
        headers={
            **error_headers(error),
            REQUEST_ID: request_id,
            "x-should-retry": "true" if is_retryable(error) else "false",
        },
    )


def error_body(error: errors.SidecarError) -> dict[str, Any]:
    """Return an error in OpenAI's format, for a response or a stream."""
    status = status_of(error)
    default_type = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": f"{error.detail} {error.hint}",
            "type": _TYPES.get(status, default_type),
            "param": param_of(error),
            "code": error.code,
        }
    }


def status_of(error: errors.SidecarError) -> int:
    """Return the status of an error in this protocol. A recording that cannot be decoded is 400,
    which the SDKs know as a `BadRequestError`."""
    if isinstance(error, _FULL):
        return 429
    status = STATUS[error.kind]
    return 400 if isinstance(error, errors.BadAudio) and status in (415, 422) else status


def is_retryable(error: errors.SidecarError) -> bool:
    """Return whether the same request may succeed a little later."""
    if isinstance(error, errors.UploadStalled):
        return True
    return error.retry_after is not None and not isinstance(error, _TRIED_TWICE)


def param_of(error: errors.SidecarError) -> str | None:
    """Return the parameter that caused an error: the ``param`` of its class, if a plugin has it.
    The message of a wrong field has its name in quotes."""
    if isinstance(error, errors.FieldInvalid | errors.FieldMissing):
        named = _NAMED.search(error.detail)
        return named[1] if named else None
    known = (name for kind, name in _PARAMS.items() if isinstance(error, kind))
    return getattr(error, "param", None) or next(known, None)


def speaker_letters(speaker: int) -> str:
    """Return the label of a speaker: A to Z, AA, AB, and so on."""
    label = ""
    number = speaker + 1
    while number:
        number, letter = divmod(number - 1, 26)
        label = chr(ord("A") + letter) + label
    return label


def language_name(tag: str) -> str:
    """Return the language name of a tag; its code if it has no name."""
    code = language_code(tag)
    return UNKNOWN if code is None else LANGUAGE_NAMES.get(code, code)


def engine_language(spec: EngineSpec, possible: Sequence[str]) -> str:
    """Return the language tag for an engine, if a client names several possible languages.

    It is the only one that the engine supports, else 'auto', so that the engine detects the
    language.

    Raises:
        errors.LanguageInvalid: one of them is not a language.
        errors.LanguageUnsupported: the engine supports none of them.
    """
    tags = list(dict.fromkeys(parse_language(one) for one in possible))
    known = [tag for tag in tags if spec.speaks(tag)]
    if tags and not known:
        raise errors.LanguageUnsupported(
            f"The engine '{spec.name}' supports none of these languages: {', '.join(tags)}."
        )
    return known[0] if len(known) == 1 else AUTO


class OpenAIError(BaseModel):
    """Error in OpenAI's format."""

    message: str = Field(examples=["The audio is empty (0 bytes). Check that …"])
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(examples=["file"])
    code: str = Field(examples=["audio_empty"], description="A code of docs/errors.md.")


class OpenAIErrorBody(BaseModel):
    """Body of an error response."""

    error: OpenAIError


ERRORS = error_responses(content("application/json", schema=OpenAIErrorBody.model_json_schema()))


def model_names(spec: EngineSpec) -> dict[str, Precision]:
    """Return all valid names, the engine's own first, with the precision that each requests."""
    own = {spec.name: Precision.AUTO}
    if len(spec.precisions) > 1:
        own |= {f"{spec.name}:{precision}": precision for precision in spec.precisions}
    return own | dict.fromkeys(ALIASES, Precision.AUTO)


def listed_models(spec: EngineSpec, *, strict: bool) -> list[str]:
    """Return the names for `GET /v1/models`. ``strict``: the setting `openai_strict`."""
    others = () if strict else (*LIVE_ALIASES, REALTIME_MODEL)
    return [*model_names(spec), *others]


def chosen_precision(spec: EngineSpec, name: str, *, strict: bool) -> Precision:
    """Return the precision that a model name requests; if not ``strict``, the name may be missing
    or a default of common clients.

    Raises:
        errors.FieldMissing: the name is missing.
        errors.ModelNotFound: the name is unknown.
    """
    names = model_names(spec)
    if name in names:
        return names[name]
    is_default = (
        not name or name in (*LIVE_ALIASES, REALTIME_MODEL) or _CLIENT_DEFAULTS.fullmatch(name)
    )
    if is_default and not strict:
        return Precision.AUTO
    if not name:
        raise errors.FieldMissing(
            "The field 'model' is missing.", hint=f"Send '{spec.name}', or one of OpenAI's names."
        )
    raise errors.ModelNotFound(
        hint=f"The loaded model is '{spec.name}'; GET /v1/models lists all its names."
    )


def model_warnings(spec: EngineSpec, name: str) -> tuple[str, ...]:
    """Return a warning if a client names a model other than the one that answers."""
    if name.partition(":")[0] in ("", spec.name, SERVICE_NAME):
        return ()
    return (f"The model '{name}' is not loaded here; '{spec.name}' answered.",)
