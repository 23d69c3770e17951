"""Origin of a request: peer, host, proxy headers; header size limits. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sidecar.errors import HeaderTooLarge


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """Origin of a request, by its peer and headers; each header as often as it was sent."""

    hosts: Sequence[str]
    origins: Sequence[str]
    authorizations: Sequence[str]
    fetch_site: str = ""
    """`Sec-Fetch-Site`, which browsers send and pages cannot choose."""
    navigates: bool = False
    """True if it is a page that a user opens (`Sec-Fetch-Mode`), not a request of a page."""
    rebinding_proof: bool = False
    """True if no page could have sent it without an `Origin`, or would learn anything by it."""
    scheme: str = "http"
    """Scheme of the request to us or to a trusted proxy: `https` or `http`."""
    peer: str | None = None
    """Address at the other end of the connection; None where the server does not tell."""
    forwarded: bool = False
    """True if it has headers of a proxy (`Forwarded` and its like) from an untrusted source."""

    @property
    def is_local(self) -> bool:
        """Return whether it was sent on this machine; a peer that is not known is not local."""
        return self.peer is not None and is_loopback_address(self.peer) and not self.forwarded


def is_loopback_address(address: str) -> bool:
    """Return whether a listener at the address can be reached from this machine only."""
    if address.lower() == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


CONTAINER_HOST_NAMES = frozenset({"host.docker.internal", "host.containers.internal"})
"""Names by which containers call the machine that they run on: Docker Desktop's and Podman's,
whose gateways connect to its loopback. `.internal` is in no public DNS, so no site can have such
a name; a network's own DNS (a hostile Wi-Fi) can lead a browser there by it (docs/deploy.md)."""
MAX_HEADER_BYTES = 1 << 10
"""Of one header, name and value: no client of ours and no browser needs more."""
MAX_ALL_HEADERS_BYTES = 128 << 10
"""Of all headers together. The HTTP parser refuses only what is longer and comes in pieces."""
LONG_HEADERS = (
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
"""Prefixes of headers that only `MAX_ALL_HEADERS_BYTES` limits: tokens, whose check is linear,
and what browsers and proxies add that is never parsed here."""


def check_header_sizes(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a request with a header, or a head, beyond its limit.

    Raises:
        errors.HeaderTooLarge: the text names the header.
    """
    total = 0
    for name, value in headers:
        size = len(name) + len(value)
        total += size
        known = name[:64].decode("latin-1").lower()
        if size > MAX_HEADER_BYTES and not known.startswith(LONG_HEADERS):
            raise HeaderTooLarge(
                f"The header '{known}' has {size} bytes; the limit is {MAX_HEADER_BYTES}."
            )
    if total > MAX_ALL_HEADERS_BYTES:
        raise HeaderTooLarge(
            f"The headers have {total} bytes; the limit is {MAX_ALL_HEADERS_BYTES}."
        )
