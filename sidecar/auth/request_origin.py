"""Origin of a request: checks of peer, Host and Origin.

Every web page that a user opens can reach a service on this machine's loopback. Two headers protect
it: `Host`, which a page cannot choose that had its name rebound to 127.0.0.1, and `Origin`, which
browsers add to the requests of pages.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar import errors
from sidecar.observability.logs import ONCE_A_MINUTE

log = logging.getLogger(__name__)

_HOST_HEADER = re.compile(
    r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>\d{1,5}))?", re.IGNORECASE
)
MAX_LOGGED_ORIGIN = 200
"""Characters of a refused page's origin in the log."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

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
    """True if pages can neither send this without an `Origin`, nor learn anything from it."""
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
"""Schemes of origins that any page can have; settings cannot allow a whole scheme of these."""
_LOCALHOST_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")
CONTAINER_HOST_NAMES = frozenset({"host.docker.internal", "host.containers.internal"})
"""Names by which containers call their host machine: those of Docker Desktop and of Podman. Their
gateways connect to its loopback. `.internal` is in no public DNS, so no public site can have such a
name. The DNS of a hostile network can lead a browser there by it (docs/deploy.md)."""


@dataclass(frozen=True, slots=True)
class OriginPolicy:
    """Allowed hosts, peers and origins. ``names``: allowed hosts beyond the loopback.

    If no token can identify remote clients, only this machine is served. The address of the peer
    decides that, not the address that the service listens on, which another server may choose
    differently. The names that containers have for this machine are allowed too. If a token is
    required, they are always allowed, as a page that had one of them rebound has no token. Without
    a token they are allowed only for requests that no page can have sent.

    ``anywhere``: the service listens beyond the loopback, where its names are unknown; a token is
    then what keeps strangers out. ``origins``: pages that may send requests, such as those of an
    embedding app, or all of a scheme that only programs have (``app://*``). ``localhost_origins``:
    allow the pages of any server on this machine too.
    """

    names: frozenset[str] = frozenset()
    anywhere: bool = False
    origins: frozenset[str] = frozenset()
    localhost_origins: bool = False

    def check_origin(self, approach: RequestOrigin, *, local_only: bool) -> None:
        """Refuse a request to a foreign host name, from a foreign page, or from a remote peer that
        no token can identify. ``local_only``: no token is configured.

        Raises:
            errors.HostNotAllowed: the host name is not allowed.
            errors.PeerNotAllowed: the peer is on another machine, and no token is configured.
            errors.OriginNotAllowed: the page may not send requests.
        """
        if len(approach.hosts) != 1:
            raise errors.HostNotAllowed()
        self._check_host(approach.hosts[0], approach, local_only)
        if local_only and not approach.is_local:
            raise errors.PeerNotAllowed()
        if len(approach.origins) > 1:
            raise errors.OriginNotAllowed()
        if approach.origins:
            same = approach.origins[0] == f"{approach.scheme}://{approach.hosts[0].lower()}"
            if not same and not self.admits_origin(approach.origins[0]):
                log.warning(
                    "a web page is refused: its origin %a is not in allowed_origins",
                    approach.origins[0][:MAX_LOGGED_ORIGIN],
                    extra=ONCE_A_MINUTE,
                )
                raise errors.OriginNotAllowed()
        elif approach.fetch_site in ("cross-site", "same-site") and not approach.navigates:
            raise errors.OriginNotAllowed()

    def admits_origin(self, origin: str) -> bool:
        """Return whether a page of that origin may send requests and read the responses."""
        scheme = origin.partition("://")[0]
        return (
            origin in self.origins
            or (scheme not in _WEB_SCHEMES and f"{scheme}://*" in self.origins)
            or (self.localhost_origins and _LOCALHOST_ORIGIN.fullmatch(origin) is not None)
        )

    def _check_host(self, host: str, approach: RequestOrigin, local_only: bool) -> None:
        matched = _HOST_HEADER.fullmatch(host)
        if matched is None:
            raise errors.HostNotAllowed()
        name = matched["name"].lower()
        if self.anywhere or name in _LOOPBACK or name in self.names:
            return
        if name not in CONTAINER_HOST_NAMES:
            raise errors.HostNotAllowed()
        if local_only and (approach.origins or not approach.rebinding_proof):
            raise errors.HostNotAllowed(
                f"Without a token the service cannot tell a container that calls it '{name}' from "
                "a web page that had this name rebound.",
                hint="Start it with VIBEVOICE_TOKEN (or --token @FILE) and send that as Bearer, or "
                f"trust the DNS of every network that this machine joins: --allowed-hosts {name}.",
            )
