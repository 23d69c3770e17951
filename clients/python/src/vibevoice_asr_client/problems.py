"""The service's errors (problem+json, RFC 9457) as exceptions. Pure."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Type

from vibevoice_asr_client import codes, errors
from vibevoice_asr_client.errors import ServiceError

FAMILIES: Mapping[int, Type[ServiceError]] = {
    400: errors.Refused,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    415: errors.Refused,
    422: errors.Refused,
    429: errors.Busy,
    502: errors.Busy,
    503: errors.Busy,
    504: errors.Busy,
    507: errors.OutOfSpace,
}
"""Of codes that this version does not know, by the status of HTTP."""


def error_of(
    body: Mapping[str, Any], status: Optional[int] = None, retry_after: Optional[float] = None
) -> ServiceError:
    """The exception for what the service said, in an answer or as the error of a job."""
    code = str(body.get("code") or "")
    family = FAMILIES.get(status or 0, errors.Failed if (status or 0) >= 500 else ServiceError)
    kind = codes.BY_CODE.get(code, family)
    asked = body.get("retry_after")
    if retry_after is None and isinstance(asked, (int, float)):
        retry_after = float(asked)
    return kind(
        str(
            body.get("detail")
            or body.get("title")
            or body.get("message")
            or "The service refused the request."
        ),
        code=code,
        hint=str(body.get("hint") or ""),
        status=status,
        retry_after=retry_after,
        request_id=str(body.get("request_id") or ""),
    )


def wire_of(error: ServiceError) -> Dict[str, Any]:
    """What the service said, as plain values; what `error_of` takes."""
    return {
        "code": error.code,
        "detail": error.detail,
        "hint": error.hint,
        "retry_after": error.retry_after,
    }
