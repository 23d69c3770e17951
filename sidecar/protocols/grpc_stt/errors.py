"""Status codes and errors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grpc import StatusCode

from sidecar import errors
from sidecar.errors import Kind


@dataclass(frozen=True, slots=True)
class Said:
    """A number, the status that goes with it, and what is said: "" leaves it to the error."""

    number: str
    status: StatusCode
    message: str = ""


class Refused(Exception):
    """What this wire alone says no to."""

    def __init__(self, said: Said, detail: str = "") -> None:
        self.said = said
        self.detail = detail or said.message
        super().__init__(self.detail)


NO_SESSION_ID = Said("ERR1001", StatusCode.INVALID_ARGUMENT, "session_id is required")
VAD_WRONG = Said("ERR1003", StatusCode.INVALID_ARGUMENT, "vad_threshold must be non-negative")
UNKNOWN_SESSION = Said("ERR1004", StatusCode.UNAUTHENTICATED, "Unknown or missing session_id")
WRONG_TOKEN = Said("ERR1005", StatusCode.PERMISSION_DENIED, "Invalid session token")
IDLE = Said("ERR1006", StatusCode.DEADLINE_EXCEEDED, "Session timeout due to inactivity")
CHUNK_TOO_LONG = Said("ERR1007", StatusCode.INVALID_ARGUMENT)
NO_ROOM = Said("ERR1008", StatusCode.RESOURCE_EXHAUSTED)
NO_KEY = Said("ERR1009", StatusCode.UNAUTHENTICATED, "API key is required")
OPTION_WRONG = Said("ERR1010", StatusCode.INVALID_ARGUMENT)
SOUND_WRONG = Said("ERR3002", StatusCode.INVALID_ARGUMENT)

CODES: Mapping[str, Said] = {
    errors.SessionTaken.code: Said(
        "ERR1002", StatusCode.ALREADY_EXISTS, "session_id already active"
    ),
    errors.SessionNotFound.code: UNKNOWN_SESSION,
    errors.SessionOver.code: UNKNOWN_SESSION,
    errors.SessionIdle.code: IDLE,
    errors.SessionTooLong.code: Said("ERR1006", StatusCode.DEADLINE_EXCEEDED),
    errors.ChunkTooLong.code: CHUNK_TOO_LONG,
    errors.LiveFull.code: NO_ROOM,
    errors.LiveLimited.code: NO_ROOM,
    errors.RateLimited.code: Said("ERR1012", StatusCode.RESOURCE_EXHAUSTED),
    errors.ShuttingDown.code: Said("ERR1013", StatusCode.UNAVAILABLE),
    errors.TokenMissing.code: NO_KEY,
    errors.TokenInvalid.code: Said("ERR1014", StatusCode.UNAUTHENTICATED),
    errors.SoundInvalid.code: SOUND_WRONG,
    errors.HeaderTooLarge.code: Said("ERR1010", StatusCode.INVALID_ARGUMENT),
    errors.LiveUnavailable.code: Said("ERR2002", StatusCode.FAILED_PRECONDITION),
    errors.PeerNotAllowed.code: Said("ERR4008", StatusCode.PERMISSION_DENIED),
    errors.OriginNotAllowed.code: Said("ERR4008", StatusCode.PERMISSION_DENIED),
}
"""By the code of an error."""
_NOT_SO = Said("ERR2002", StatusCode.FAILED_PRECONDITION)
_FAILED = Said("ERR2002", StatusCode.INTERNAL)
KINDS: Mapping[Kind, Said] = {
    Kind.MALFORMED: OPTION_WRONG,
    Kind.UNPROCESSABLE: OPTION_WRONG,
    Kind.UNSUPPORTED: OPTION_WRONG,
    Kind.NOT_FOUND: OPTION_WRONG,
    Kind.METHOD: OPTION_WRONG,
    Kind.RANGE: OPTION_WRONG,
    Kind.TOO_LARGE: CHUNK_TOO_LONG,
    Kind.HEADERS_TOO_LARGE: OPTION_WRONG,
    Kind.TIMEOUT: Said("ERR2001", StatusCode.DEADLINE_EXCEEDED),
    Kind.FORBIDDEN: Said("ERR4008", StatusCode.PERMISSION_DENIED),
    Kind.UNAUTHORIZED: Said("ERR1014", StatusCode.UNAUTHENTICATED),
    Kind.CONFLICT: _NOT_SO,
    Kind.PRECONDITION: _NOT_SO,
    Kind.LIMITED: Said("ERR1011", StatusCode.RESOURCE_EXHAUSTED),
    Kind.STORAGE_FULL: NO_ROOM,
    Kind.WONT_FIT: NO_ROOM,
    Kind.BUSY: Said("ERR2002", StatusCode.UNAVAILABLE),  # the status that clients retry
    Kind.CANCELLED: _FAILED,
    Kind.FAILED: _FAILED,
}
"""By its kind, where the code is not there."""
CREATE_FAULT = Said("ERR3001", StatusCode.UNKNOWN)
STREAM_FAULT = Said("ERR3002", StatusCode.UNKNOWN)


def said_of(wrong: Exception, fault: Said = STREAM_FAULT) -> Said:
    """How this wire says what went wrong, message and all; of a fault of ours it says that it is
    one, as ``fault``, and no more."""
    if isinstance(wrong, Refused):
        return Said(wrong.said.number, wrong.said.status, wrong.detail)
    if not isinstance(wrong, errors.SidecarError):
        return Said(fault.number, fault.status, errors.SidecarError.default_detail)
    ours = wrong.code == errors.SidecarError.code
    found = fault if ours else CODES.get(wrong.code) or KINDS[wrong.kind]
    return Said(found.number, found.status, found.message or wrong.detail)


log = logging.getLogger(__name__)


async def end(
    context: Any,
    wrong: Exception,
    trailing: tuple[tuple[str, str], ...] = (),
    fault: Said = STREAM_FAULT,
) -> None:
    """Say it: status, number and message, and in the trailing metadata, where it is an error that
    every wire knows, its stable code and what to do. ``fault``: how a fault of ours is said.

    Raises:
        grpc.aio.AbortError: always; that is how a call ends.
    """
    said = said_of(wrong, fault)
    if isinstance(wrong, errors.SidecarError):
        hint = wrong.hint.encode("ascii", "replace").decode()
        trailing = (*trailing, ("error-code", wrong.code), ("error-hint", hint))
        if wrong.retry_after is not None:
            trailing = (*trailing, ("retry-after", str(wrong.retry_after)))
    elif not isinstance(wrong, Refused):
        log.error("a fault of ours in a call over gRPC", exc_info=wrong)
    if trailing:
        context.set_trailing_metadata(trailing)
    await context.abort(said.status, f"{said.number} {said.message}")
