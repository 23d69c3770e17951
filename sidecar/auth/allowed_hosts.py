"""Allowed hosts: the names of this machine that a request may have in its `Host` header.

A page that had its own name rebound to 127.0.0.1 cannot choose that header. The names that
containers have for this machine are allowed too: always if a token is required, as a page that had
one of them rebound has no token, else only for requests that no page can have sent.
"""

import re
from dataclasses import dataclass

from sidecar import errors
from sidecar.auth.identity import RequestOrigin
from sidecar.config.server_settings import is_loopback_address
from sidecar.config.settings import Settings

_HOST_HEADER = re.compile(
    r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>\d{1,5}))?", re.IGNORECASE
)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
CONTAINER_HOST_NAMES = frozenset({"host.docker.internal", "host.containers.internal"})
"""Names by which containers call their host machine: those of Docker Desktop and of Podman. Their
gateways connect to its loopback. `.internal` is in no public DNS, so no public site can have such a
name. The DNS of a hostile network can lead a browser there by it (docs/deploy.md)."""


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Allowed host names: those of the loopback, of containers, and ``names``.

    ``anywhere``: the service listens beyond the loopback, where its names are unknown; a token is
    then what keeps strangers out. ``token_required`` of a method: whether clients need a token.
    """

    names: frozenset[str] = frozenset()
    anywhere: bool = False

    def check(self, origin: RequestOrigin, *, token_required: bool) -> None:
        """Refuse a request to a foreign host name.

        Raises:
            errors.HostNotAllowed: the host name is not allowed, or there is not exactly one; none
                is necessary if any is allowed.
        """
        if self.anywhere and not any((*origin.hosts, *origin.origins)):
            return  # a health check, as of HAProxy; no page can omit it
        matched = _HOST_HEADER.fullmatch(origin.hosts[0]) if len(origin.hosts) == 1 else None
        if matched is None:
            raise errors.HostNotAllowed()
        name = matched["name"].lower()
        if self.anywhere or name in _LOOPBACK or name in self.names:
            return
        if name not in CONTAINER_HOST_NAMES:
            raise errors.HostNotAllowed()
        harmless = origin.rebinding_proof or origin.learns_nothing
        if not token_required and (origin.origins or not harmless):
            raise errors.HostNotAllowed(
                f"Without a token the service cannot tell a container that calls it '{name}' from "
                "a web page that had this name rebound.",
                hint="Start it with VIBEVOICE_TOKEN (or --token @FILE) and send that as Bearer, or "
                f"trust the DNS of every network that this machine joins: --allowed-hosts {name}.",
            )

    def may_be_rebound(self, origin: RequestOrigin, *, token_required: bool) -> bool:
        """Return whether a page that had a container's name rebound may have sent this."""
        if self.anywhere or token_required or origin.rebinding_proof:
            return False
        return origin.hosts[0].partition(":")[0].lower() in CONTAINER_HOST_NAMES - self.names


def allowed_hosts_of(settings: Settings) -> AllowedHosts:
    """Return the allowed hosts: the address that the service listens on, and its settings."""
    listens = f"[{settings.host}]" if ":" in settings.host else settings.host
    names = frozenset(name.lower() for name in (listens, *settings.allowed_hosts))
    return AllowedHosts(names, anywhere=not is_loopback_address(settings.host))
