"""Authentication: access policy, bearer tokens, access control of all wires; by settings.

A service on this machine's loopback is within reach of every web page its user opens. The wall is
the `Host` header, which a page that had its own name rebound to 127.0.0.1 cannot choose, and the
`Origin` that browsers put beside what a page sends; a token keeps out other programs.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sidecar import errors
from sidecar.auth import identity, signed_tokens, token_issuing
from sidecar.auth.open_connections import RevocableStreams
from sidecar.auth.rate_limits import RateLimiter
from sidecar.auth.request_origin import (
    CONTAINER_HOST_NAMES,
    RequestOrigin,
    is_allowed_origin,
    is_loopback_address,
)
from sidecar.auth.token_issuing import SUBFOLDER
from sidecar.config.settings import Settings
from sidecar.files import FileWatcher
from sidecar.observability.logs import default_data_folder

_HOST_HEADER = re.compile(
    r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>\d{1,5}))?", re.IGNORECASE
)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Knows clients by what they send: the ``token`` of this start, or a signed one that the
    ``verifier`` knows. Without either nothing is asked for, and all of this machine are one owner.
    """

    token: str | None = field(default=None, repr=False)
    verifier: signed_tokens.TokenVerifier | None = None

    @property
    def local_only(self) -> bool:
        """Return whether it can identify clients of this machine only."""
        return self.token is None and self.verifier is None

    def identify(self, approach: RequestOrigin) -> identity.Identity:
        """Return the identity of a client; the token of this start is compared in the same time
        for every token.

        Raises:
            errors.TokenMissing, errors.TokenInvalid: none was sent, or one that does not count.
        """
        if self.local_only:
            return identity.ANONYMOUS
        given = identity.bearer_token(approach)
        if self.token is not None and hmac.compare_digest(given.encode(), self.token.encode()):
            return identity.HOST
        claims = None if self.verifier is None else self.verifier.verify(given)
        if claims is None:
            raise errors.TokenInvalid()
        scopes = frozenset(scope for scope in identity.Scope if scope in claims.scopes)
        return identity.Identity(
            claims.subject, identity.AuthMethod.JWT, scopes, credential=claims.credential
        )

    def refusal(self, credential: identity.SignedCredential) -> str | None:
        """Return why what proved an identity counts no more; None while it does."""
        return None if self.verifier is None else self.verifier.refusal(credential)


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """The rules. ``names`` are hosts that clients may use beside those of the loopback.

    If the ``authenticator`` knows no remote client, only this machine is served: the peer counts,
    not the address that the service listens on, which another server may choose differently. The
    names that containers have for this machine are allowed too: where a token is asked for, as a
    page that had one of them rebound has no token, else to what no page could have sent.

    ``anywhere``: the service listens beyond the loopback, where nobody knows its names; a token is
    then what keeps strangers out. ``origins``: pages that may ask, such as a host's own, or all of
    a scheme that only programs have (``app://*``); ``localhost_origins``: those of any server on
    this machine too.
    """

    names: frozenset[str] = frozenset()
    anywhere: bool = False
    origins: frozenset[str] = frozenset()
    localhost_origins: bool = False
    authenticator: Authenticator = field(default_factory=Authenticator)
    limits: identity.OwnerLimits = identity.UNLIMITED_OWNER
    """Of who has none of its own."""

    def check_peer_and_host(self, approach: RequestOrigin) -> None:
        """Refuse what was sent to another name, by a page that is not ours, or, where nobody
        elsewhere can be known, from another machine.

        Raises:
            errors.HostNotAllowed: the name is none of ours.
            errors.PeerNotAllowed: it came from elsewhere, and there is no token to know it by.
            errors.OriginNotAllowed: the page is not one that may ask.
        """
        if len(approach.hosts) != 1:
            raise errors.HostNotAllowed()
        self._check_host(approach.hosts[0], approach)
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
        """Return whether a page of that origin may send requests and see the answers."""
        return is_allowed_origin(origin, self.origins, localhost=self.localhost_origins)

    def identify(self, approach: RequestOrigin) -> identity.Identity:
        """Return the identity of a client, and what it may do from where it asks.

        Raises:
            errors.TokenMissing, errors.TokenInvalid: it is not known.
        """
        who = self.authenticator.identify(approach).at(approach)
        if who.limits != identity.UNLIMITED_OWNER:
            return who
        return replace(
            who, limits=replace(self.limits, shares=who.proof is identity.AuthMethod.JWT)
        )

    def _check_host(self, host: str, approach: RequestOrigin) -> None:
        matched = _HOST_HEADER.fullmatch(host)
        if matched is None:
            raise errors.HostNotAllowed()
        name = matched["name"].lower()
        if self.anywhere or name in _LOOPBACK or name in self.names:
            return
        if name not in CONTAINER_HOST_NAMES:
            raise errors.HostNotAllowed()
        if self.authenticator.local_only and (approach.origins or not approach.rebinding_proof):
            raise errors.HostNotAllowed(
                f"Without a token the service cannot tell a container that calls it '{name}' from "
                "a web page that had this name rebound.",
                hint="Start it with VIBEVOICE_TOKEN (or --token @FILE) and send that as Bearer, or "
                f"trust the DNS of every network that this machine joins: --allowed-hosts {name}.",
            )


SleepFunction = Callable[[float], Awaitable[object]]
"""Waits for so many seconds."""


@dataclass(frozen=True, slots=True)
class AccessControl:
    """Access control of all wires. Without a ``rate_limiter`` nothing is counted."""

    access: AccessPolicy
    rate_limiter: RateLimiter | None = None
    visits: RevocableStreams = field(default_factory=RevocableStreams)

    def admit_request(self, approach: RequestOrigin) -> None:
        """Check the origin of a request.

        Raises:
            errors.HostNotAllowed, errors.PeerNotAllowed, errors.OriginNotAllowed: not from there.
            errors.RateLimited: too often.
        """
        self.access.check_peer_and_host(approach)
        if self.rate_limiter is not None:
            self.rate_limiter.admit_request(approach)

    async def identify(self, approach: RequestOrigin) -> identity.Identity:
        """Return the identity of a client.

        Raises:
            errors.TokenMissing, errors.TokenInvalid: it is not known.
            errors.RateLimited: it comes too often.
        """
        who = await identify_request(self.access, self.rate_limiter, approach)
        if self.rate_limiter is not None:
            self.rate_limiter.enter(who)
        return who


async def identify_request(
    access: AccessPolicy,
    rate_limiter: RateLimiter | None,
    approach: RequestOrigin,
    pause: SleepFunction = asyncio.sleep,
) -> identity.Identity:
    """Return the identity of a client; the answer to a wrong token is delayed.

    Raises:
        errors.TokenMissing, errors.TokenInvalid: it is not known.
        errors.RateLimited: as many answers to wrong tokens wait as may.
    """
    try:
        return access.identify(approach)
    except errors.TokenInvalid:
        if rate_limiter is not None:
            await delay_wrong_token(rate_limiter, approach, pause)
        raise


async def delay_wrong_token(
    rate_limiter: RateLimiter, approach: RequestOrigin, pause: SleepFunction = asyncio.sleep
) -> None:
    """A wrong token came: wait before that is said, longer each time.

    Raises:
        errors.RateLimited: as many answers wait as may.
    """
    if delay := rate_limiter.fail(approach):
        rate_limiter.held += 1
        try:
            await pause(delay)
        finally:
            rate_limiter.held -= 1


log = logging.getLogger(__name__)


def create_authenticator(settings: Settings, watch: FileWatcher) -> Authenticator:
    """Create the authenticator; its files are read again when they change, by ``watch``.

    Raises:
        errors.SettingsInvalid: a file of keys or revocations cannot be used.
    """
    token = settings.token.get_secret_value() if settings.token else None
    folder = settings.token_keys or _default_key_folder(settings)
    if folder is None:
        return Authenticator(token)
    public = watch.add(
        "the keys of signed tokens", [folder], lambda: token_issuing.read_public_keys(folder)
    )
    log.info("signed tokens are accepted; public keys: %d", len(public.value))
    list_file = folder.parent / "revoked.txt"
    read = signed_tokens.RevocationFile(list_file, optional=True)
    revoked = watch.add("the list of revoked tokens", [list_file], read)
    verifier = signed_tokens.TokenVerifier(lambda: public.value, lambda: revoked.value)
    return Authenticator(token, verifier)


def _default_key_folder(settings: Settings) -> Path | None:
    """Return the folder in which `token create` puts public keys; they count where others than
    this machine ask."""
    data = None if is_loopback_address(settings.host) else default_data_folder(settings.data_dir)
    folder = data and data / SUBFOLDER / "public"
    return folder if folder is not None and folder.is_dir() else None
