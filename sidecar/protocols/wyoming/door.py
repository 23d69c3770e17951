"""Who may come in over a protocol that has no word for who somebody is.

So there are two ways: whoever is on this machine, where nobody has to say who they are; or whoever
asks from an address that the operator has named, who then needs no token here. No page of a browser
gets through: what it sends begins with the head of a request, which is no event.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sidecar import errors
from sidecar.auth.approach import Approach, is_loopback
from sidecar.auth.entrance import Entrance
from sidecar.auth.identity import Identity, Proof
from sidecar.config.settings import Settings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
GUEST = "wyoming"
"""Whose the jobs are of those who need no token here."""


@dataclass(frozen=True, slots=True)
class Door:
    """The rules. ``guests``: from where one may come without a token; none: from this machine."""

    entrance: Entrance
    guests: Sequence[Network] = ()

    @classmethod
    def of(cls, settings: Settings, entrance: Entrance) -> Door:
        """As the settings have it.

        Raises:
            errors.SettingsInvalid: nobody could come in, or what is named is no address.
        """
        guests = [_network(text) for text in settings.wyoming_clients]
        if not guests and not entrance.access.authenticator.local_only:
            raise errors.SettingsInvalid(
                "A token is asked for, and clients of --wyoming-port send none.",
                hint="Say who may come without one: --wyoming-clients 127.0.0.1, or the address "
                "of Home Assistant.",
            )
        away = [str(one) for one in guests if not is_loopback(str(one.network_address))]
        if away and is_loopback(settings.host):
            raise errors.SettingsInvalid(
                f"Nobody from {', '.join(away)} reaches {settings.host} (--wyoming-clients).",
                hint="Listen on an address that others reach, such as --host 0.0.0.0 with a token.",
            )
        return cls(entrance, guests)

    async def enter(self, peer: str | None) -> Identity:
        """Who somebody from an address is, each time that they ask for something.

        Raises:
            errors.PeerNotAllowed: they may not come.
            errors.RateLimited: they come too often.
        """
        approach = Approach(hosts=["localhost"], origins=[], authorizations=[], peer=peer)
        if self.guests and not self._invites(peer):
            raise errors.PeerNotAllowed(
                "Wyoming is not open to this address.",
                hint="The setting 'wyoming_clients' says to which ones it is.",
            )
        self.entrance.arrive(approach)
        access = self.entrance.access
        if access.authenticator.local_only:
            return await self.entrance.identify(approach)
        who = Identity(GUEST, Proof.PLACE, limits=replace(access.limits, shares=True))
        if self.entrance.turnstile is not None:
            self.entrance.turnstile.enter(who)
        return who

    def _invites(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any((mapped or address) in network for network in self.guests)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise errors.SettingsInvalid(
            f"'{text}' is no address and no network (--wyoming-clients).",
            hint="Name addresses such as 192.168.1.5, or networks such as 192.168.1.0/24.",
        ) from None
