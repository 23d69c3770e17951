"""gRPC status codes and errors of the `stt` protocol."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grpc import StatusCode

from sidecar import errors
from sidecar.errors import ErrorKind


@dataclass(frozen=True, slots=True)
class GrpcErrorStatus:
    """Error number, gRPC status and message; "" means the message of the error itself."""

    number: str
    status: StatusCode
    message: str = ""


class GrpcRefused(Exception):
    """Error that only this protocol has."""

    def __init__(self, said: GrpcErrorStatus, detail: str = "") -> None:
        self.said = said
        self.detail = detail or said.message
        super().__init__(self.detail)


NO_SESSION_ID = GrpcErrorStatus("ERR1001", StatusCode.INVALID_ARGUMENT, "session_id is required")
VAD_INVALID = GrpcErrorStatus(
    "ERR1003", StatusCode.INVALID_ARGUMENT, "vad_threshold must be non-negative"
)
UNKNOWN_SESSION = GrpcErrorStatus(
    "ERR1004", StatusCode.UNAUTHENTICATED, "Unknown or missing session_id"
)
TOKEN_INVALID = GrpcErrorStatus("ERR1005", StatusCode.PERMISSION_DENIED, "Invalid session token")
IDLE = GrpcErrorStatus("ERR1006", StatusCode.DEADLINE_EXCEEDED, "Session timeout due to inactivity")
CHUNK_TOO_LONG = GrpcErrorStatus("ERR1007", StatusCode.INVALID_ARGUMENT)
SESSIONS_FULL = GrpcErrorStatus("ERR1008", StatusCode.RESOURCE_EXHAUSTED)
NO_KEY = GrpcErrorStatus("ERR1009", StatusCode.UNAUTHENTICATED, "API key is required")
OPTION_INVALID = GrpcErrorStatus("ERR1010", StatusCode.INVALID_ARGUMENT)
AUDIO_INVALID = GrpcErrorStatus("ERR3002", StatusCode.INVALID_ARGUMENT)
_LIMITS_HINT = "The numbers of docs/grpc-wire.md say which values are possible."
SERVICE_ERRORS: Mapping[str, tuple[type[errors.SidecarError], str | None]] = {
    NO_SESSION_ID.number: (errors.FieldMissing, "Set session_id to a name of your own."),
    VAD_INVALID.number: (errors.FieldInvalid, _LIMITS_HINT),
    UNKNOWN_SESSION.number: (
        errors.SessionNotFound,
        "Call CreateSession first, and name its session_id in the stream.",
    ),
    TOKEN_INVALID.number: (
        errors.TokenInvalid,
        "Send the session_token that CreateSession answered in the first chunk.",
    ),
    IDLE.number: (errors.SessionIdle, None),
    CHUNK_TOO_LONG.number: (errors.ChunkTooLong, None),
    NO_KEY.number: (errors.TokenMissing, None),
    OPTION_INVALID.number: (errors.FieldInvalid, _LIMITS_HINT),
    AUDIO_INVALID.number: (errors.SoundInvalid, None),
}
"""Service error and hint (None: its own) that stand for a `GrpcRefused` of each number."""
_UNAUTHENTICATED = GrpcErrorStatus("ERR1014", StatusCode.UNAUTHENTICATED)
_FORBIDDEN = GrpcErrorStatus("ERR4008", StatusCode.PERMISSION_DENIED)
_PRECONDITION_FAILED = GrpcErrorStatus("ERR2002", StatusCode.FAILED_PRECONDITION)

STATUS_BY_CODE: Mapping[str, GrpcErrorStatus] = {
    errors.SessionTaken.code: GrpcErrorStatus(
        "ERR1002", StatusCode.ALREADY_EXISTS, "session_id already active"
    ),
    errors.SessionNotFound.code: UNKNOWN_SESSION,
    errors.SessionOver.code: UNKNOWN_SESSION,
    errors.SessionIdle.code: IDLE,
    errors.SessionTooLong.code: GrpcErrorStatus("ERR1006", StatusCode.DEADLINE_EXCEEDED),
    errors.ChunkTooLong.code: CHUNK_TOO_LONG,
    errors.LiveFull.code: SESSIONS_FULL,
    errors.LiveLimited.code: SESSIONS_FULL,
    errors.RateLimited.code: GrpcErrorStatus("ERR1012", StatusCode.RESOURCE_EXHAUSTED),
    errors.ShuttingDown.code: GrpcErrorStatus("ERR1013", StatusCode.UNAVAILABLE),
    errors.TokenMissing.code: NO_KEY,
    errors.TokenInvalid.code: _UNAUTHENTICATED,
    errors.SoundInvalid.code: AUDIO_INVALID,
    errors.LiveUnavailable.code: _PRECONDITION_FAILED,
    errors.NotHere.code: _PRECONDITION_FAILED,
}
"""Statuses by error code, if the error's kind is not specific enough."""
_FAILED = GrpcErrorStatus("ERR2002", StatusCode.INTERNAL)
_MEANS_NOTHING = (
    *(ErrorKind.MALFORMED, ErrorKind.UNPROCESSABLE, ErrorKind.UNSUPPORTED, ErrorKind.NOT_FOUND),
    *(ErrorKind.METHOD, ErrorKind.UPGRADE, ErrorKind.RANGE, ErrorKind.HEADERS_TOO_LARGE),
)
STATUS_BY_KIND: Mapping[ErrorKind, GrpcErrorStatus] = {
    **dict.fromkeys(_MEANS_NOTHING, OPTION_INVALID),
    ErrorKind.TOO_LARGE: CHUNK_TOO_LONG,
    ErrorKind.TIMEOUT: GrpcErrorStatus("ERR2001", StatusCode.DEADLINE_EXCEEDED),
    ErrorKind.FORBIDDEN: _FORBIDDEN,
    ErrorKind.UNAUTHORIZED: _UNAUTHENTICATED,
    ErrorKind.CONFLICT: _PRECONDITION_FAILED,
    ErrorKind.PRECONDITION: _PRECONDITION_FAILED,
    ErrorKind.LIMITED: GrpcErrorStatus("ERR1011", StatusCode.RESOURCE_EXHAUSTED),
    ErrorKind.STORAGE_FULL: SESSIONS_FULL,
    ErrorKind.WONT_FIT: SESSIONS_FULL,
    ErrorKind.BUSY: GrpcErrorStatus("ERR2002", StatusCode.UNAVAILABLE),  # clients retry this status
    ErrorKind.CANCELLED: _FAILED,
    ErrorKind.FAILED: _FAILED,
}
"""Statuses by error kind, for codes that are not in `STATUS_BY_CODE`."""
CREATE_FAULT = GrpcErrorStatus("ERR3001", StatusCode.UNKNOWN)
STREAM_FAULT = GrpcErrorStatus("ERR3002", StatusCode.UNKNOWN)


def error_status(wrong: Exception, fault: GrpcErrorStatus = STREAM_FAULT) -> GrpcErrorStatus:
    """Return the status of an error in this protocol, with its message. An internal error becomes
    ``fault``, without details."""
    if isinstance(wrong, GrpcRefused):
        return GrpcErrorStatus(wrong.said.number, wrong.said.status, wrong.detail)
    if not isinstance(wrong, errors.SidecarError):
        return GrpcErrorStatus(fault.number, fault.status, errors.SidecarError.default_detail)
    ours = wrong.code == errors.SidecarError.code
    found = fault if ours else STATUS_BY_CODE.get(wrong.code) or STATUS_BY_KIND[wrong.kind]
    return GrpcErrorStatus(found.number, found.status, found.message or wrong.detail)


def service_error(wrong: Exception) -> errors.SidecarError:
    """Return the service error with the stable code and the hint of an error in this protocol."""
    if isinstance(wrong, GrpcRefused):
        kind, hint = SERVICE_ERRORS[wrong.said.number]
        return kind(hint=hint)
    return wrong if isinstance(wrong, errors.SidecarError) else errors.SidecarError()


log = logging.getLogger(__name__)


async def abort_call(
    context: Any,
    wrong: Exception,
    trailing: tuple[tuple[str, str], ...] = (),
    fault: GrpcErrorStatus = STREAM_FAULT,
) -> None:
    """Abort the call with status, number and message.

    The trailing metadata has the stable code and the hint of the error. ``fault``: the status
    of an internal error.

    Raises:
        grpc.aio.AbortError: always; that is how a call ends.
    """
    said = error_status(wrong, fault)
    if not isinstance(wrong, GrpcRefused | errors.SidecarError):
        log.error("internal error in a gRPC call", exc_info=wrong)
    error = service_error(wrong)
    hint = error.hint.encode("ascii", "replace").decode()
    trailing = (*trailing, ("error-code", error.code), ("error-hint", hint))
    if error.retry_after is not None:
        trailing = (*trailing, ("retry-after", str(error.retry_after)))
    context.set_trailing_metadata(trailing)
    await context.abort(said.status, f"{said.number} {said.message}")
