"""What a request says of where it comes from. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Approach:
    """What a request says of where it comes from; headers as often as they were there."""

    hosts: Sequence[str]
    origins: Sequence[str]
    authorizations: Sequence[str]
    fetch_site: str = ""
    """`Sec-Fetch-Site`, which browsers send and pages cannot choose."""
    navigates: bool = False
    """Whether it is a page that somebody opens (`Sec-Fetch-Mode`), not one that a page asks for."""
    scheme: str = "http"
    """How it came: by HTTPS, to us or to a proxy that is believed, or plainly."""
    peer: str | None = None
    """Address at the other end of the connection; None where the server does not tell."""
    forwarded: bool = False
    """Whether it says that somebody sent it on (`Forwarded` and its like), from who knows where."""

    @property
    def is_local(self) -> bool:
        """Whether it was sent on this machine; who is not known to be here is a stranger."""
        return self.peer is not None and is_loopback(self.peer) and not self.forwarded


def is_loopback(address: str) -> bool:
    """Whether nobody beyond this machine reaches what listens there."""
    if address.lower() == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
