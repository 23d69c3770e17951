"""gRPC status codes of the errors in the `stt` protocol."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grpc import StatusCode

from sidecar import errors
from sidecar.errors import ErrorKind
from sidecar.plugins.grpc_stt.errors import (
    GrpcSessionIdMissing,
    GrpcSessionTokenInvalid,
    GrpcThresholdInvalid,
)

log = logging.getLogger(__name__)


_MEANS_NOTHING = (
    *(ErrorKind.MALFORMED, ErrorKind.UNPROCESSABLE, ErrorKind.UNSUPPORTED, ErrorKind.NOT_FOUND),
    *(ErrorKind.METHOD, ErrorKind.UPGRADE, ErrorKind.RANGE, ErrorKind.HEADERS_TOO_LARGE),
)


@dataclass(frozen=True, slots=True)
class GrpcErrorStatus:
    """Error number, gRPC status and message; "" means the message of the error itself."""

    number: str
    status: StatusCode
    message: str = ""


STATUS_BY_CLASS: Mapping[type[Exception], GrpcErrorStatus] = {
    GrpcSessionIdMissing: GrpcErrorStatus("ERR1001", StatusCode.INVALID_ARGUMENT),
    GrpcThresholdInvalid: GrpcErrorStatus("ERR1003", StatusCode.INVALID_ARGUMENT),
    GrpcSessionTokenInvalid: GrpcErrorStatus("ERR1005", StatusCode.PERMISSION_DENIED),
}
"""Statuses of errors that only this protocol has, beside those of their codes and kinds."""
UNKNOWN_SESSION = GrpcErrorStatus(
    "ERR1004", StatusCode.UNAUTHENTICATED, "Unknown or missing session_id"
)
CHUNK_TOO_LONG = GrpcErrorStatus("ERR1007", StatusCode.INVALID_ARGUMENT)
SESSIONS_FULL = GrpcErrorStatus("ERR1008", StatusCode.RESOURCE_EXHAUSTED)
OPTION_INVALID = GrpcErrorStatus("ERR1010", StatusCode.INVALID_ARGUMENT)
_UNAUTHENTICATED = GrpcErrorStatus("ERR1014", StatusCode.UNAUTHENTICATED)
_FORBIDDEN = GrpcErrorStatus("ERR4008", StatusCode.PERMISSION_DENIED)
_PRECONDITION_FAILED = GrpcErrorStatus("ERR2002", StatusCode.FAILED_PRECONDITION)

STATUS_BY_CODE: Mapping[str, GrpcErrorStatus] = {
    errors.SessionTaken.code: GrpcErrorStatus(
        "ERR1002", StatusCode.ALREADY_EXISTS, "session_id already active"
    ),
    errors.SessionNotFound.code: UNKNOWN_SESSION,
    errors.SessionOver.code: UNKNOWN_SESSION,
    errors.SessionIdle.code: GrpcErrorStatus(
        "ERR1006", StatusCode.DEADLINE_EXCEEDED, "Session timeout due to inactivity"
    ),
    errors.SessionTooLong.code: GrpcErrorStatus("ERR1006", StatusCode.DEADLINE_EXCEEDED),
    errors.ChunkTooLong.code: CHUNK_TOO_LONG,
    errors.LiveFull.code: SESSIONS_FULL,
    errors.LiveLimited.code: SESSIONS_FULL,
    errors.RateLimited.code: GrpcErrorStatus("ERR1012", StatusCode.RESOURCE_EXHAUSTED),
    errors.ShuttingDown.code: GrpcErrorStatus("ERR1013", StatusCode.UNAVAILABLE),
    errors.TokenMissing.code: GrpcErrorStatus(
        "ERR1009", StatusCode.UNAUTHENTICATED, "API key is required"
    ),
    errors.TokenInvalid.code: _UNAUTHENTICATED,
    errors.SoundInvalid.code: GrpcErrorStatus("ERR3002", StatusCode.INVALID_ARGUMENT),
    errors.LiveUnavailable.code: _PRECONDITION_FAILED,
    errors.NotHere.code: _PRECONDITION_FAILED,
}
"""Statuses by error code, if the error's kind is not specific enough."""
_FAILED = GrpcErrorStatus("ERR2002", StatusCode.INTERNAL)
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


def error_status(
    error: errors.SidecarError, fault_status: GrpcErrorStatus = STREAM_FAULT
) -> GrpcErrorStatus:
    """Return the status of an error in this protocol, with its message. An internal error becomes
    ``fault_status``."""
    status = STATUS_BY_CLASS.get(type(error)) or STATUS_BY_CODE.get(error.code)
    if error.code == errors.SidecarError.code:
        status = fault_status
    status = status or STATUS_BY_KIND[error.kind]
    return GrpcErrorStatus(status.number, status.status, status.message or error.detail)


async def abort_call(
    context: Any,
    exception: Exception,
    trailing: tuple[tuple[str, str], ...] = (),
    fault_status: GrpcErrorStatus = STREAM_FAULT,
) -> None:
    """Abort the call with status, number and message.

    The trailing metadata has the stable code and the hint of the error. ``fault_status``: that of
    an internal error.

    Raises:
        grpc.aio.AbortError: always; that is how a call ends.
    """
    error = exception if isinstance(exception, errors.SidecarError) else errors.SidecarError()
    if error is not exception:
        log.error("internal error in a gRPC call", exc_info=exception)
    status = error_status(error, fault_status)
    hint = error.hint.encode("ascii", "replace").decode()
    trailing = (*trailing, ("error-code", error.code), ("error-hint", hint))
    if error.retry_after is not None:
        trailing = (*trailing, ("retry-after", str(error.retry_after)))
    context.set_trailing_metadata(trailing)
    await context.abort(status.status, f"{status.number} {status.message}")
