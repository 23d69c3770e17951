"""Errors by the numbers that clients of `/admin/…` know; what every wire says is beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Response

from sidecar import errors
from sidecar.api.http.bodies import to_json
from sidecar.api.http.problems import STATUS, Say, headers_of, problem_body
from sidecar.errors import Kind

OFF = ("ERR4001", 501, "Admin API not enabled")
LOADED = ("ERR4002", 409, "Model is already loaded")
NOT_FOUND = ("ERR4003", 400, "Model not found or is default")
WRONG_TOKEN = ("ERR4004", 401, "Invalid or missing admin token")
WRONG_PATH = ("ERR4005", 403, "model_path is not allowed")
SAID: Mapping[str, tuple[str, int, str]] = {
    errors.AdminOff.code: OFF,
    errors.ModelLoaded.code: LOADED,
    errors.ModelNotFound.code: NOT_FOUND,
    errors.ModelUnsuited.code: ("ERR4003", 400, ""),
    errors.TokenMissing.code: WRONG_TOKEN,
    errors.TokenInvalid.code: WRONG_TOKEN,
    errors.ScopeMissing.code: WRONG_TOKEN,
    errors.ModelPathForbidden.code: WRONG_PATH,
    errors.RateLimited.code: ("ERR4007", 429, ""),
    errors.PeerNotAllowed.code: ("ERR4008", 403, ""),
    errors.HostNotAllowed.code: ("ERR4008", 403, ""),
    errors.OriginNotAllowed.code: ("ERR4008", 403, ""),
}
"""By the code of an error: number, status and message, "" for that of the error."""
_UNKNOWN = (errors.TokenMissing, errors.TokenInvalid)


def say_where(*, on: bool) -> Say:
    """How errors are said here. Where it is not ``on`` that comes before who asks."""

    def say(error: errors.SidecarError) -> Response:
        return _said(errors.AdminOff() if not on and isinstance(error, _UNKNOWN) else error)

    return say


def _said(error: errors.SidecarError) -> Response:
    number, status, message = number_of(error)
    body: dict[str, Any] = problem_body(error)
    body |= {"status": status, "error": error.code, "code": number}
    body |= {"message": message or error.detail}
    return Response(
        to_json(body),
        status_code=status,
        media_type="application/json",
        headers=headers_of(error),
    )


def number_of(error: errors.SidecarError) -> tuple[str, int, str]:
    """Number, status and message of an error."""
    if error.code in SAID:
        return SAID[error.code]
    malformed = error.kind in (Kind.MALFORMED, Kind.UNPROCESSABLE, Kind.UNSUPPORTED)
    return ("ERR1010", 400, "") if malformed else ("ERR3001", STATUS[error.kind], "")
