"""Origin of a request: peer, host, proxy headers, allowed origins of pages. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

PROXY_HEADER_PREFIXES = ("forwarded", "x-forwarded-", "x-real-ip")
"""Prefixes of the headers that proxies add."""


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """Origin of a request: its peer and headers, each header as often as it was sent."""

    hosts: Sequence[str]
    origins: Sequence[str]
    authorizations: Sequence[str]
    fetch_site: str = ""
    """`Sec-Fetch-Site`, which browsers send and pages cannot choose."""
    navigates: bool = False
    """True if the user opens a page (`Sec-Fetch-Mode`); false for a request that a page sends."""
    rebinding_proof: bool = False
    """True if no page can send such a request without an `Origin`, or could learn anything from
    it."""
    scheme: str = "http"
    """Scheme of the request to the service or to a trusted proxy: `https` or `http`."""
    peer: str | None = None
    """Address at the other end of the connection; `None` if the server does not provide it."""
    forwarded: bool = False
    """True if it has proxy headers (`Forwarded` and the like) from an untrusted source."""

    @property
    def is_local(self) -> bool:
        """Return whether it was sent on this machine; an unknown peer is not local."""
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


_WEB_SCHEMES = frozenset({"http", "https", "file", "null"})
"""Schemes of origins that pages from anywhere can have; settings cannot allow such a scheme as a
whole."""
_LOCALHOST_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")
CONTAINER_HOST_NAMES = frozenset({"host.docker.internal", "host.containers.internal"})
"""Names by which containers call their host machine: those of Docker Desktop and of Podman. Their
gateways connect to its loopback. `.internal` is in no public DNS, so no public site can have such a
name. The DNS of a hostile network can lead a browser there by it (docs/deploy.md)."""


def is_allowed_origin(origin: str, allowed: Collection[str], *, localhost: bool) -> bool:
    """Return whether a page's origin is one of ``allowed``, of a scheme that is allowed as a whole
    (``app://*``), or, with ``localhost``, of any server on this machine."""
    scheme = origin.partition("://")[0]
    return (
        origin in allowed
        or (scheme not in _WEB_SCHEMES and f"{scheme}://*" in allowed)
        or (localhost and _LOCALHOST_ORIGIN.fullmatch(origin) is not None)
    )
