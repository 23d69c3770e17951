"""Messages, model names, close codes. Pure.

Two generations of clients use different names for the same fields, and ignore unknown ones. So both
names are sent, and errors have their reason in both places.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar import errors
from sidecar.api.http import request_headers, websocket_connections
from sidecar.interfaces.request_options import decode_base64
from sidecar.plugins.yap.settings import YapCloseCodes

UNKNOWN = "unknown"
"""Id in frames that answer no request."""
LONGEST_ID = 256
"""Maximum characters of a client's id, which is stored until its request is answered."""
TYPES = frozenset(
    {
        *("session.update", "input_audio_buffer.append", "input_audio_buffer.commit"),
        *("cancel", "ping", "pong", "end"),
    }
)

MODELS = ("mistralai/Voxtral-Mini-4B-Realtime-2602",)
"""Models that these clients name by default: aliases of the loaded one."""

IDLE, TOO_LONG = 4000, 4003


@dataclass(frozen=True, slots=True)
class YapIds:
    """Ids of a session and a request, chosen by the client and repeated in answers."""

    session: str = UNKNOWN
    request: str = UNKNOWN


@dataclass(frozen=True, slots=True)
class YapMessage:
    """Message of a client."""

    type: str
    ids: YapIds
    payload: Mapping[str, Any]


class YapRefused(Exception):
    """Error of a message, in this protocol's format; the connection stays open."""

    def __init__(
        self, code: str, reason: str, message: str, ids: YapIds | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.ids, self.details = ids, details


def invalid_message(
    message: str, reason: str = "invalid_message", ids: YapIds | None = None
) -> YapRefused:
    """Return the error of a message that has no valid form or an unknown type."""
    return YapRefused("invalid_message", reason, message, ids)


def bad_payload(reason: str, message: str, **details: Any) -> YapRefused:
    """Return the error of a payload that is invalid, or not allowed in this state."""
    return YapRefused("invalid_payload", reason, message, **details)


def parse_message(raw: str | bytes) -> YapMessage:
    """Parse a message of a client.

    Raises:
        YapRefused: it is not a frame of this protocol.
    """
    if isinstance(raw, bytes):
        raise invalid_message("Frames are JSON text; the audio is base64 in 'audio'.")
    body = request_headers.parse_json_object(raw)
    if body is None:
        raise invalid_message("The message is not a JSON object.")
    words = {name: _word(body.get(name)) for name in ("type", "session_id", "request_id")}
    if any(len(word) > LONGEST_ID for word in words.values()):
        raise invalid_message(f"A type or an id has more than {LONGEST_ID} characters.")
    ids = YapIds(words["session_id"] or UNKNOWN, words["request_id"] or UNKNOWN)
    for name, word in words.items():
        if not word:
            raise invalid_message(f"'{name}' has to be text that is not empty.", ids=ids)
    payload = body.get("payload")
    if payload is None:
        payload = {}
    if not isinstance(payload, dict):
        raise invalid_message("'payload' has to be an object.", ids=ids)
    if words["type"] not in TYPES:
        raise invalid_message(
            "There is no such type of message: " + ", ".join(sorted(TYPES)) + ".",
            "unknown_message_type",
            ids,
        )
    return YapMessage(words["type"], ids, payload)


def audio_of(payload: Mapping[str, Any]) -> bytes:
    """Return the audio of an append message.

    Raises:
        YapRefused: there is none, or it is not base64.
    """
    given = payload.get("audio")
    if not isinstance(given, str) or not given:
        raise bad_payload("missing_audio", "'audio' has to be PCM16 in base64.")
    try:
        return decode_base64(given)
    except ValueError:
        raise bad_payload("invalid_audio", "'audio' is not base64.") from None


def message_text(type: str, ids: YapIds, payload: Mapping[str, Any] | None = None) -> str:
    """Return a frame to a client."""
    body = {"type": type, "session_id": ids.session, "request_id": ids.request}
    return json.dumps(body | {"payload": payload or {}}, ensure_ascii=False)


def error_frame(refused: YapRefused, ids: YapIds) -> str:
    """Return an error frame, with its reason where either generation of clients expects it."""
    payload = {
        "code": refused.code,
        "message": refused.message,
        "reason_code": refused.reason,
        "details": {"reason_code": refused.reason, **refused.details},
    }
    return message_text("error", refused.ids or ids, payload)


def yap_error(error: errors.SidecarError) -> YapRefused:
    """Return an error of the service in this protocol's format.

    Errors on which clients can act have the original's codes. All others are `internal_error`, with
    this service's code as the reason.
    """
    code, reason = "internal_error", error.code
    if error.kind in (errors.ErrorKind.UNAUTHORIZED, errors.ErrorKind.FORBIDDEN):
        code = reason = "authentication_failed"
    elif isinstance(error, errors.LiveFull | errors.LiveLimited):
        code = reason = "server_at_capacity"
    elif isinstance(error, errors.RateLimited):
        code, reason = "rate_limited", "message_rate_limited"
    elif isinstance(error, errors.SoundInvalid | errors.ChunkTooLong):
        code = "invalid_payload"
    details: dict[str, Any] = {"hint": error.hint_on("docs/live.md")}
    if error.retry_after is not None:
        details["retry_in"] = error.retry_after
    return YapRefused(code, reason, error.detail, None, **details)


def _word(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def close_of(
    error: errors.SidecarError, codes: YapCloseCodes
) -> websocket_connections.ConnectionEnding:
    """Return the close code and reason of ``error``."""
    if isinstance(error, errors.SessionIdle):
        return websocket_connections.ConnectionEnding(IDLE, codes.idle_reason)
    if isinstance(error, errors.SessionTooLong):
        return websocket_connections.ConnectionEnding(TOO_LONG, "max connection duration reached")
    refused = yap_error(error)
    own: dict[errors.ErrorKind | str, int] = {
        errors.ErrorKind.UNAUTHORIZED: codes.unauthorized,
        errors.ErrorKind.FORBIDDEN: codes.unauthorized,
        errors.ErrorKind.LIMITED: codes.busy,
        errors.ErrorKind.BUSY: codes.busy,
        errors.ShuttingDown.code: 1001,
    }
    return websocket_connections.ConnectionEnding(
        websocket_connections.close_code(error, own), refused.reason, error_frame(refused, YapIds())
    )
