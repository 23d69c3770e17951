"""Who may come in: decisions on what a request says of where it comes from. Pure.

A service on this machine's loopback is within reach of every web page its user opens. The wall is
the `Host` header, which a page that had its own name rebound to 127.0.0.1 cannot choose, and the
`Origin` that browsers put beside what a page sends; a token keeps out other programs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from sidecar import errors
from sidecar.auth.approach import Approach
from sidecar.auth.identity import UNLIMITED, Authenticator, Identity, Limits, Nobody, Proof

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>\d{1,5}))?", re.IGNORECASE)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_LOCALHOST_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")


@dataclass(frozen=True, slots=True)
class Access:
    """The rules. ``names`` are hosts that clients may use beside those of the loopback.

    Where the ``authenticator`` knows nobody from elsewhere only this machine is served: what counts
    is who asks, not where the service was told to listen, for another server than ours may have
    been told otherwise.

    ``anywhere``: the service listens beyond the loopback, where nobody knows its names; a token is
    then what keeps strangers out. ``origins``: pages that may ask, such as a host's own;
    ``localhost_origins``: those of any server on this machine too.
    """

    names: frozenset[str] = frozenset()
    anywhere: bool = False
    origins: frozenset[str] = frozenset()
    localhost_origins: bool = False
    authenticator: Authenticator = field(default_factory=Nobody)
    limits: Limits = UNLIMITED
    """Of who has none of its own."""

    def check_place(self, approach: Approach) -> None:
        """Refuse what was sent to another name, by a page that is not ours, or, where nobody
        elsewhere can be known, from another machine.

        Raises:
            errors.HostNotAllowed: the name is none of ours.
            errors.PeerNotAllowed: it came from elsewhere, and there is no token to know it by.
            errors.OriginNotAllowed: the page is not one that may ask.
        """
        if len(approach.hosts) != 1 or not self._is_ours(approach.hosts[0]):
            raise errors.HostNotAllowed()
        if self.authenticator.local_only and not approach.is_local:
            raise errors.PeerNotAllowed()
        if len(approach.origins) > 1:
            raise errors.OriginNotAllowed()
        if approach.origins:
            same = approach.origins[0] == f"{approach.scheme}://{approach.hosts[0].lower()}"
            if not same and not self.admits_origin(approach.origins[0]):
                raise errors.OriginNotAllowed()
        elif approach.fetch_site in ("cross-site", "same-site") and not approach.navigates:
            raise errors.OriginNotAllowed()

    def admits_origin(self, origin: str) -> bool:
        """Whether a page from there may ask, and see the answer."""
        return origin in self.origins or (
            self.localhost_origins and _LOCALHOST_ORIGIN.fullmatch(origin) is not None
        )

    def identify(self, approach: Approach) -> Identity:
        """Who asks, and what that allows from where it asks.

        Raises:
            errors.TokenMissing, errors.TokenInvalid: nobody who is known.
        """
        who = self.authenticator.identify(approach).at(approach)
        if who.limits != UNLIMITED:
            return who
        return replace(who, limits=replace(self.limits, shares=who.proof is Proof.JWT))

    def _is_ours(self, host: str) -> bool:
        said = _HOST.fullmatch(host)
        if said is None:
            return False
        name = said["name"].lower()
        return self.anywhere or name in _LOOPBACK or name in self.names
