"""Size limits of request headers, for HTTP, WebSocket handshakes and gRPC metadata. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.errors import HeaderTooLarge

LIMIT_BYTES = 1 << 10
"""Of one header, name and value: no client of ours and no browser needs more."""
HEAD_BYTES = 128 << 10
"""Of all headers together. The HTTP parser refuses only what is longer and comes in pieces."""
LONG = (
    *("authorization", "proxy-authorization", "x-api-key", "api-key", "api_key"),
    "sec-websocket-protocol",  # tokens of pages, whose WebSockets have no headers
    "cookie",  # browsers send those of every program on localhost
    "referer",
    *("tracestate", "baggage"),
    *("x-forwarded-client-cert", "x-forwarded-tls-client-cert", "client-cert", "x-client-cert"),
    *("ssl-client-", "x-ssl-client-", "x-arr-clientcert"),
    *("x-forwarded-access-token", "x-id-token", "x-access-token", "x-serverless-authorization"),
    *("x-auth-request-", "x-authentik-", "x-pomerium-"),
    *("x-amzn-", "x-ms-", "cf-access-", "x-goog-iap-", "x-envoy-"),
    *("x-original-ur", "x-forwarded-uri"),
)
"""How the names begin of headers that only `HEAD_BYTES` limits: tokens, whose check is linear, and
what browsers and proxies add that is never parsed here."""


def check(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a request with a header, or a head, beyond its limit.

    Raises:
        errors.HeaderTooLarge: the text names the header.
    """
    total = 0
    for name, value in headers:
        size = len(name) + len(value)
        total += size
        known = name[:64].decode("latin-1").lower()
        if size > LIMIT_BYTES and not known.startswith(LONG):
            raise HeaderTooLarge(
                f"The header '{known}' has {size} bytes, of {LIMIT_BYTES} at most."
            )
    if total > HEAD_BYTES:
        raise HeaderTooLarge(f"The headers have {total} bytes, of {HEAD_BYTES} at most.")
