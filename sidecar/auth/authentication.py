"""Authentication: access policy, bearer tokens, access control of all protocols, limits.

A token keeps out programs; the origin of a request, web pages and other machines. Every web page
that a user opens can reach a service on this machine's loopback. Two headers protect it: `Host`,
which a page cannot choose that had its name rebound to 127.0.0.1, and `Origin`, which browsers add
to the requests of pages.

A token in a URL would stay in browser histories and process lists, so sign-in links and WebSockets
of browsers have one-time codes, which are worth nothing once they were used.
"""

import asyncio
import hmac
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from sidecar import errors
from sidecar.auth import signed_tokens
from sidecar.auth.allowed_hosts import AllowedHosts
from sidecar.auth.identity import (
    ANONYMOUS,
    HOST,
    UNLIMITED_OWNER,
    AuthMethod,
    Identity,
    OwnerLimits,
    RequestOrigin,
    Scope,
    SignedCredential,
    bearer_token,
)
from sidecar.auth.rate_limits import RateLimiter, RevocableStreams
from sidecar.auth.token_issuing import SUBFOLDER
from sidecar.bounded_dict import index_to_drop
from sidecar.config.server_settings import is_loopback_address
from sidecar.config.settings import Settings
from sidecar.file_watcher import FileWatcher
from sidecar.observability.logs import ONCE_A_MINUTE, default_data_folder

log = logging.getLogger(__name__)


MAX_LOGGED_ORIGIN = 200
"""Characters of a refused page's origin in the log."""
_WEB_SCHEMES = frozenset({"http", "https", "file", "null"})
"""Schemes of origins that any page can have; settings cannot allow a whole scheme of these."""
_LOCALHOST_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")
DEFAULT_LIMITS = OwnerLimits(
    requests_per_minute=1200,
    jobs=32,
    queued_audio_s=24 * 3600.0,
    upload_bytes=16 << 30,
    live_sessions=32,
)
"""Defaults of a service that other machines can reach: far beyond the needs of a person."""
T = TypeVar("T")
CODE_LIFETIME_S = 120.0
"""Time from the command to the page in the browser, which may have to start first."""
MAX_CODES_PER_OWNER = 64
"""Maximum of unused codes of one owner; beyond it the oldest is dropped."""
MAX_CODES = 8 * MAX_CODES_PER_OWNER
"""Maximum of unused codes of all owners; then the owner with the most loses the oldest."""
_CODE_BYTES = 32


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

    def identify(self, origin: RequestOrigin) -> Identity:
        """Return the identity of a client; compare the token of this start in constant time.

        Raises:
            errors.TokenMissing, errors.TokenInvalid: no token was sent, or it is not valid.
        """
        if self.local_only:
            return ANONYMOUS
        given = bearer_token(origin)
        if self.token is not None and hmac.compare_digest(given.encode(), self.token.encode()):
            return HOST
        if self.verifier is None:
            raise errors.TokenInvalid()
        return self.verifier.verify(given)

    def refusal(self, credential: SignedCredential) -> str | None:
        """Return why a credential is not valid any more, or `None` while it is valid."""
        return None if self.verifier is None else self.verifier.refusal(credential)


@dataclass(frozen=True, slots=True)
class AccessControl:
    """Access control of all protocols: where requests may come from, and who may send them.

    If no token can identify remote clients, only this machine is served. The address of the peer
    decides that, not the address that the service listens on, which another server may choose
    differently.

    ``origins``: pages that may send requests, such as those of an embedding app, or all of a scheme
    that only programs have (``app://*``). ``localhost_origins``: allow the pages of any server on
    this machine too. If ``rate_limiter`` is `None`, requests are not limited. ``pause`` waits for
    that many seconds.
    """

    hosts: AllowedHosts = field(default_factory=AllowedHosts)
    origins: frozenset[str] = frozenset()
    localhost_origins: bool = False
    authenticator: Authenticator = field(default_factory=Authenticator)
    limits: OwnerLimits = UNLIMITED_OWNER
    """Limits of owners that have none of their own."""
    rate_limiter: RateLimiter | None = None
    streams: RevocableStreams = field(default_factory=RevocableStreams)
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep

    def check_origin(self, origin: RequestOrigin) -> None:
        """Refuse a request to a foreign host name, from a foreign page, or from a remote peer that
        no token can identify.

        Raises:
            errors.HostNotAllowed: the host name is not allowed.
            errors.PeerNotAllowed: the peer is on another machine, and no token is configured.
            errors.OriginNotAllowed: the page may not send requests.
        """
        self.hosts.check(origin, token_required=not self.authenticator.local_only)
        if self.authenticator.local_only and not origin.is_local:
            raise errors.PeerNotAllowed()
        if len(origin.origins) > 1:
            raise errors.OriginNotAllowed()
        if origin.origins:
            same = origin.origins[0] == f"{origin.scheme}://{origin.hosts[0].lower()}"
            if not same and not self.admits_origin(origin.origins[0]):
                log.warning(
                    "a web page is refused: its origin %a is not in allowed_origins",
                    origin.origins[0][:MAX_LOGGED_ORIGIN],
                    extra=ONCE_A_MINUTE,
                )
                raise errors.OriginNotAllowed()
        elif origin.fetch_site in ("cross-site", "same-site") and not origin.navigates:
            raise errors.OriginNotAllowed()

    def admits_origin(self, origin: str) -> bool:
        """Return whether a page of that origin may send requests and read the responses."""
        scheme = origin.partition("://")[0]
        return (
            origin in self.origins
            or (scheme not in _WEB_SCHEMES and f"{scheme}://*" in self.origins)
            or (self.localhost_origins and _LOCALHOST_ORIGIN.fullmatch(origin) is not None)
        )

    def admit_request(self, origin: RequestOrigin) -> None:
        """Check the origin and the rate of a request.

        Raises:
            errors.HostNotAllowed, errors.PeerNotAllowed, errors.OriginNotAllowed: the origin is not
                allowed.
            errors.RateLimited: the address sends too many requests.
        """
        self.check_origin(origin)
        if self.rate_limiter is not None:
            self.rate_limiter.admit_request(origin)

    async def authenticate(self, origin: RequestOrigin) -> Identity:
        """Return the identity of a client, with the rights that the origin of its request leaves
        it; delay the answer to a wrong token.

        Raises:
            errors.TokenMissing, errors.TokenInvalid: the client is not identified.
            errors.RateLimited: too many answers to wrong tokens are being delayed.
        """
        try:
            identity = self.authenticator.identify(origin)
            token_required = not self.authenticator.local_only
            if self.hosts.may_be_rebound(origin, token_required=token_required):
                identity = replace(identity, scopes=frozenset())
            elif not origin.is_local:  # it may name no file of this machine
                identity = replace(identity, scopes=identity.scopes - {Scope.AUDIO_PATH})
        except errors.TokenInvalid:
            await self.delay_wrong_token(origin)
            raise
        if identity.limits != UNLIMITED_OWNER:
            return identity
        shares = identity.proof is AuthMethod.JWT
        limits = replace(self.limits, shares=True) if shares else self.limits
        return replace(identity, limits=limits)

    async def identify(self, origin: RequestOrigin) -> Identity:
        """Return the identity of a client and count its request.

        Raises:
            errors.TokenMissing, errors.TokenInvalid: the client is not identified.
            errors.RateLimited: the client sends too many requests.
        """
        identity = await self.authenticate(origin)
        if self.rate_limiter is not None:
            self.rate_limiter.enter(identity)
        return identity

    async def delay_wrong_token(self, origin: RequestOrigin) -> None:
        """Delay the answer to a wrong token, longer with each one.

        Raises:
            errors.RateLimited: too many answers to wrong tokens are being delayed.
        """
        if self.rate_limiter is not None and (delay := self.rate_limiter.fail(origin)):
            self.rate_limiter.held += 1
            try:
                await self.pause(delay)
            finally:
                self.rate_limiter.held -= 1


def create_authenticator(settings: Settings, watcher: FileWatcher) -> Authenticator:
    """Create the authenticator; ``watcher`` reads its files again when they change.

    Raises:
        errors.SettingsInvalid: a file of keys or revocations cannot be used.
    """
    token = settings.token.get_secret_value() if settings.token else None
    folder = settings.token_keys or _default_key_folder(settings)
    if folder is None:
        return Authenticator(token)
    public = watcher.add(
        "the keys of signed tokens", [folder], lambda: signed_tokens.read_public_keys(folder)
    )
    log.info("signed tokens are accepted; public keys: %d", len(public.value))
    list_file = folder.parent / "revoked.txt"
    read = signed_tokens.RevocationFile(list_file)
    revoked = watcher.add("the list of revoked tokens", [list_file], read)
    verifier = signed_tokens.TokenVerifier(lambda: public.value, lambda: revoked.value)
    return Authenticator(token, verifier)


def _default_key_folder(settings: Settings) -> Path | None:
    """Return the folder in which `token create` puts public keys, or `None` if the service listens
    on the loopback only or the folder does not exist."""
    data = None if is_loopback_address(settings.host) else default_data_folder(settings.data_dir)
    folder = data and data / SUBFOLDER / "public"
    return folder if folder is not None and folder.is_dir() else None


def owner_limits_of(settings: Settings) -> OwnerLimits:
    """Return the limits of one owner. On loopback there are none by default."""
    exposed = not is_loopback_address(settings.host) or bool(settings.forwarded_allow_ips)
    usual = DEFAULT_LIMITS if exposed else UNLIMITED_OWNER
    hours, mb = settings.limit_queued_hours, settings.limit_upload_mb
    return OwnerLimits(
        requests_per_minute=_limit_or_default(settings.limit_requests, usual.requests_per_minute),
        jobs=_limit_or_default(settings.limit_jobs, usual.jobs),
        queued_audio_s=usual.queued_audio_s if hours is None else hours * 3600 or None,
        upload_bytes=usual.upload_bytes if mb is None else (mb << 20) or None,
        live_sessions=usual.live_sessions if settings.live_sessions_per_owner is None else None,
    )


def _limit_or_default(given: int | None, default: int | None) -> int | None:
    return default if given is None else given or None


@dataclass(frozen=True, slots=True)
class _OneTimeCode(Generic[T]):
    """Value of a code, its owner, and its expiry."""

    until: float
    owner: str
    value: T


class OneTimeCodes(Generic[T]):
    """Unused one-time codes, each with its value; in memory only."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._unused: dict[str, _OneTimeCode[T]] = {}

    def __len__(self) -> int:
        return len(self._unused)

    def give(self, value: T, owner: str) -> str:
        """Return a new code for ``value``. Beyond the limit the oldest code of the same ``owner``
        is dropped."""
        self._drop_old()
        self._make_room(owner)
        code = secrets.token_urlsafe(_CODE_BYTES)
        self._unused[code] = _OneTimeCode(self._now() + CODE_LIFETIME_S, owner, value)
        return code

    def take(self, code: str) -> T:
        """Return the value of a code; the code is used up.

        Raises:
            errors.LinkInvalid: the code was used, has expired or is unknown.
        """
        self._drop_old()
        # The time of this look-up gives nothing away that helps to guess 32 random bytes.
        entry = self._unused.pop(code, None)
        if entry is None:
            raise errors.LinkInvalid()
        return entry.value

    def _make_room(self, owner: str) -> None:
        owners = [entry.owner for entry in self._unused.values()]
        index = index_to_drop(owners, owner, MAX_CODES_PER_OWNER, MAX_CODES)
        if index is not None:
            del self._unused[[*self._unused][index]]

    def _drop_old(self) -> None:
        now = self._now()
        self._unused = {code: entry for code, entry in self._unused.items() if entry.until > now}
