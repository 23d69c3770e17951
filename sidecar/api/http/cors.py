"""CORS: origins, methods and headers of pages that may read responses."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from sidecar.api.http.request_headers import RATE_LIMIT_HEADERS
from sidecar.auth.authentication import AccessPolicy

PREFLIGHT_MAX_AGE_S = 600
OPENAI_SDK_HEADERS = (
    *("X-Stainless-Arch", "X-Stainless-Lang", "X-Stainless-OS", "X-Stainless-Package-Version"),
    *("X-Stainless-Retry-Count", "X-Stainless-Runtime", "X-Stainless-Runtime-Version"),
    *("X-Stainless-Timeout", "OpenAI-Organization", "OpenAI-Project"),
)
"""Headers that OpenAI's SDK sends from a page."""


class AccessCors(CORSMiddleware):
    """CORS by the rules of `AccessPolicy`."""

    def __init__(self, app: ASGIApp, access: AccessPolicy) -> None:
        super().__init__(
            app,
            allow_methods=("GET", "HEAD", "POST", "PATCH", "DELETE"),
            allow_headers=(
                *("Authorization", "Content-Type", "Prefer", "Idempotency-Key", "Last-Event-ID"),
                *("If-Match", "If-None-Match", "Range"),
                *OPENAI_SDK_HEADERS,
            ),
            expose_headers=(
                *("Location", "Preference-Applied", "Retry-After", "Idempotent-Replayed", "ETag"),
                *("X-Request-Id", "X-Should-Retry", "Warning", "WWW-Authenticate", "Allow"),
                *("Accept-Ranges", "Content-Disposition", "Content-Range"),
                *RATE_LIMIT_HEADERS,
            ),
            allow_private_network=True,
            max_age=PREFLIGHT_MAX_AGE_S,
        )
        self._access = access

    def is_allowed_origin(self, origin: str) -> bool:
        """Return whether the access policy lets pages of ``origin`` read responses."""
        return self._access.admits_origin(origin)
