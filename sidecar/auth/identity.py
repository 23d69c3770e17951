"""Identity of a client: owner, scopes, limits, authentication method; origin of its request. Pure.

The authentication gate creates an identity, which stays with the request. The service takes it as
the first argument of every method that touches a job, and authorizes there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sidecar import errors
from sidecar.config.server_settings import is_loopback_address

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
    """True if pages cannot send this without an `Origin`."""
    learns_nothing: bool = False
    """True if a caller without scopes learns nothing from it that matters."""
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


class Scope(StrEnum):
    """Scope of a token: a right beyond transcribing."""

    RELOAD = "reload"
    """Have the engine reloaded."""
    NOW = "now"
    """Interrupt running jobs for a reload."""
    AUDIO_PATH = "audio_path"
    """Name a file of this machine instead of sending its audio."""
    METRICS = "metrics"
    """Read the metrics and the state of the machine."""
    ADMIN = "admin"
    """See and change what is shared by all owners."""


ALL_SCOPES = frozenset(Scope)


class AuthMethod(StrEnum):
    """Authentication method: how an identity was proved."""

    PLACE = "place"
    """By a request from this machine, if that is enough."""
    TOKEN = "token"  # noqa: S105 - the name of a method, not a secret
    """By the token of this start."""
    JWT = "jwt"
    """By a signed token that names its subject."""


@dataclass(frozen=True, slots=True)
class OwnerLimits:
    """Limits of one owner; `None`: no limit of its own."""

    requests_per_minute: int | None = None
    jobs: int | None = None
    """At most so many jobs at once, queued and running."""
    queued_audio_s: float | None = None
    upload_bytes: int | None = None
    """Bytes per hour."""
    live_sessions: int | None = None
    shares: bool = False
    """True if it leaves other owners a fair share (`rate_limits.is_within_fair_share`)."""


UNLIMITED_OWNER = OwnerLimits()


@dataclass(frozen=True, slots=True)
class SignedCredential:
    """Ids and expiry of a signed token, from which its validity can be checked again."""

    token_id: str
    key_id: str
    until: int | None = None
    """Seconds since 1970; `None`: no expiry."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity of a client: subject, authentication method, scopes and limits."""

    subject: str
    proof: AuthMethod
    scopes: frozenset[Scope] = frozenset()
    limits: OwnerLimits = UNLIMITED_OWNER
    credential: SignedCredential | None = field(default=None, compare=False)
    """Credential that can be revoked during a response; `None`: it cannot be revoked."""
    hotwords: tuple[str, ...] = field(default=(), compare=False)
    """Names and terms to expect in the recordings that are sent with this token."""

    @property
    def owner(self) -> str:
        """Return the owner of the client's jobs. The same subject under another authentication
        method is another owner."""
        return f"{self.proof}:{self.subject}"

    def demand(self, scope: Scope) -> None:
        """Refuse a request that needs a scope which the client lacks.

        Raises:
            errors.AudioPathForbidden, errors.ScopeMissing: ``scope`` is missing.
        """
        if scope in self.scopes:
            return
        if scope is Scope.AUDIO_PATH:
            raise errors.AudioPathForbidden(
                "'audio_path' is allowed for clients on this machine only; a signed token also "
                "needs the scope 'audio_path'.",
                hint="Upload the file instead.",
            )
        raise errors.ScopeMissing(f"The token lacks the scope '{scope}'.")


ANONYMOUS = Identity("everybody", AuthMethod.PLACE, ALL_SCOPES)
"""Identity of all clients where no token is configured, and of a process that is its own client."""
HOST = Identity("host", AuthMethod.TOKEN, ALL_SCOPES)
"""Identity of a client with the token of this start."""


def bearer_token(origin: RequestOrigin) -> str:
    """Return the bearer token of a request, unchecked.

    Raises:
        errors.TokenMissing: no `Authorization` header was sent.
        errors.TokenInvalid: another scheme was used, or the header was sent more than once.
    """
    if not origin.authorizations:
        raise errors.TokenMissing()
    scheme, token = split_authorization(origin.authorizations[0])
    if scheme != "bearer" or len(origin.authorizations) > 1:
        raise errors.TokenInvalid()
    return token


def split_authorization(header: str) -> tuple[str, str]:
    """Return the scheme, in lower case, and the token of an `Authorization` header."""
    scheme, _, token = header.partition(" ")
    return scheme.lower(), token.strip()
