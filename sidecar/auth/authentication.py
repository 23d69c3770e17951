"""Authentication: access policy, bearer tokens, access control of all protocols.

Every web page that a user opens can reach a service on this machine's loopback. Two headers protect
it: `Host`, which a page cannot choose that had its name rebound to 127.0.0.1, and `Origin`, which
browsers add to the requests of pages. A token keeps out other programs.
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
from sidecar.observability.logs import ONCE_A_MINUTE, default_data_folder

_HOST_HEADER = re.compile(
    r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>\d{1,5}))?", re.IGNORECASE
)
MAX_LOGGED_ORIGIN = 200
"""Characters of a refused page's origin in the log."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Authentication of clients by the ``token`` of this start or a signed token (``verifier``).

    If both are `None`, no token is required, and all clients of this machine are one owner.
    """

    token: str | None = field(default=None, repr=False)
    verifier: signed_tokens.TokenVerifier | None = None

    @property
    def local_only(self) -> bool:
        """Return whether only clients of this machine can be identified."""
        return self.token is None and self.verifier is None

    def identify(self, approach: RequestOrigin) -> identity.Identity:
        """Return the identity of a client; compare the token of this start in constant time.

        Raises:
            errors.TokenMissing, errors.TokenInvalid: no token was sent, or it is not valid.
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
        """Return why a credential is not valid any more, or `None` while it is valid."""
        return None if self.verifier is None else self.verifier.refusal(credential)


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """Access policy: allowed hosts, peers and origins. ``names``: allowed hosts beyond the
    loopback.

    If the ``authenticator`` cannot identify remote clients, only this machine is served. The
    address of the peer decides that, not the address that the service listens on, which another
    server may choose differently. The names that containers have for this machine are allowed too.
    If a token is required, they are always allowed, as a page that had one of them rebound has no
    token. Without a token they are allowed only for requests that no page can have sent.

    ``anywhere``: the service listens beyond the loopback, where its names are unknown; a token is
    then what keeps strangers out. ``origins``: pages that may send requests, such as those of an
    embedding app, or all of a scheme that only programs have (``app://*``). ``localhost_origins``:
    allow the pages of any server on this machine too.
    """

    names: frozenset[str] = frozenset()
    anywhere: bool = False
    origins: frozenset[str] = frozenset()
    localhost_origins: bool = False
    authenticator: Authenticator = field(default_factory=Authenticator)
    limits: identity.OwnerLimits = identity.UNLIMITED_OWNER
    """Limits of owners that have none of their own."""

    def check_peer_and_host(self, approach: RequestOrigin) -> None:
        """Refuse a request to a foreign host name, from a foreign page, or from a remote peer that
        no token can identify.

        Raises:
            errors.HostNotAllowed: the host name is not allowed.
            errors.PeerNotAllowed: the peer is on another machine, and no token is configured.
            errors.OriginNotAllowed: the page may not send requests.
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
        return is_allowed_origin(origin, self.origins, localhost=self.localhost_origins)

    def identify(self, approach: RequestOrigin) -> identity.Identity:
        """Return the identity of a client, with the rights that the origin of its request leaves
        it.

        Raises:
            errors.TokenMissing, errors.TokenInvalid: the client is not identified.
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
"""Function that waits for that many seconds."""


@dataclass(frozen=True, slots=True)
class AccessControl:
    """Access control of all protocols. If ``rate_limiter`` is `None`, requests are not limited."""

    access: AccessPolicy
    rate_limiter: RateLimiter | None = None
    visits: RevocableStreams = field(default_factory=RevocableStreams)

    def admit_request(self, approach: RequestOrigin) -> None:
        """Check the origin and the rate of a request.

        Raises:
            errors.HostNotAllowed, errors.PeerNotAllowed, errors.OriginNotAllowed: the origin is not
                allowed.
            errors.RateLimited: the address sends too many requests.
        """
        self.access.check_peer_and_host(approach)
        if self.rate_limiter is not None:
            self.rate_limiter.admit_request(approach)

    async def identify(self, approach: RequestOrigin) -> identity.Identity:
        """Return the identity of a client and count its request.

        Raises:
            errors.TokenMissing, errors.TokenInvalid: the client is not identified.
            errors.RateLimited: the client sends too many requests.
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
    """Return the identity of a client; delay the answer to a wrong token.

    Raises:
        errors.TokenMissing, errors.TokenInvalid: the client is not identified.
        errors.RateLimited: too many answers to wrong tokens are being delayed.
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
    """Delay the answer to a wrong token, longer with each one.

    Raises:
        errors.RateLimited: too many answers to wrong tokens are being delayed.
    """
    if delay := rate_limiter.fail(approach):
        rate_limiter.held += 1
        try:
            await pause(delay)
        finally:
            rate_limiter.held -= 1


log = logging.getLogger(__name__)


def create_authenticator(settings: Settings, watch: FileWatcher) -> Authenticator:
    """Create the authenticator; ``watch`` reads its files again when they change.

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
    read = signed_tokens.RevocationFile(list_file)
    revoked = watch.add("the list of revoked tokens", [list_file], read)
    verifier = signed_tokens.TokenVerifier(lambda: public.value, lambda: revoked.value)
    return Authenticator(token, verifier)


def _default_key_folder(settings: Settings) -> Path | None:
    """Return the folder in which `token create` puts public keys, or `None` if the service listens
    on the loopback only or the folder does not exist."""
    data = None if is_loopback_address(settings.host) else default_data_folder(settings.data_dir)
    folder = data and data / SUBFOLDER / "public"
    return folder if folder is not None and folder.is_dir() else None
