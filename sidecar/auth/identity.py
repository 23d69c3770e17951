"""Identity of a caller: owner, scopes, limits, proof. Pure.

An identity comes out of the gate and goes with the request; the service takes it as the first
argument of whatever touches a job, and decides there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from sidecar import errors
from sidecar.auth.request_origin import RequestOrigin


class Scope(StrEnum):
    """Scope: a right beyond transcribing."""

    RELOAD = "reload"
    """Have the engine loaded anew."""
    NOW = "now"
    """Interrupt what runs for that."""
    AUDIO_PATH = "audio_path"
    """Name a file of this machine instead of sending it."""
    LEASE = "lease"
    """Have live sessions of others heard here, and be told all that is known of them."""
    METRICS = "metrics"
    """Read what is counted, and how the machine is."""
    ADMIN = "admin"
    """See and change what is everybody's."""


ALL_SCOPES = frozenset(Scope)


class AuthMethod(StrEnum):
    """Proof of an identity."""

    PLACE = "place"
    """By asking from this machine, where that is enough."""
    TOKEN = "token"  # noqa: S105 - the name of a way, no secret
    """By the token of this start."""
    JWT = "jwt"
    """By a signed token with a name in it."""


@dataclass(frozen=True, slots=True)
class OwnerLimits:
    """The most that one identity may have; None: no limit of its own."""

    requests_per_minute: int | None = None
    jobs: int | None = None
    """Jobs at once, waiting and running."""
    queued_audio_s: float | None = None
    upload_bytes: int | None = None
    """In an hour."""
    live_sessions: int | None = None
    shares: bool = False
    """True if other owners are told apart from it: it leaves them some of all that is shared out
    (`limits.leaves_room`)."""


UNLIMITED_OWNER = OwnerLimits()


@dataclass(frozen=True, slots=True)
class SignedCredential:
    """A signed token, as far as it tells whether it still counts."""

    token_id: str
    key_id: str
    until: int | None = None
    """Seconds since 1970, None without an end."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity of a client: its name, how that is known, and what it may do."""

    subject: str
    proof: AuthMethod
    scopes: frozenset[Scope] = frozenset()
    limits: OwnerLimits = UNLIMITED_OWNER
    credential: SignedCredential | None = field(default=None, compare=False)
    """Credential that can be revoked during a response; None: no such one."""

    @property
    def owner(self) -> str:
        """Return the owner of its jobs. A name that was proved in one way is never taken for the
        same name that was proved in another."""
        return f"{self.proof}:{self.subject}"

    def demand(self, scope: Scope) -> None:
        """Refuse what it may not do.

        Raises:
            errors.AudioPathForbidden, errors.ScopeMissing: it has not got ``scope``.
        """
        if scope in self.scopes:
            return
        if scope is Scope.AUDIO_PATH:
            raise errors.AudioPathForbidden(
                "'audio_path' is allowed for clients on this machine only."
            )
        raise errors.ScopeMissing(f"The token lacks the scope '{scope}'.")

    def at(self, approach: RequestOrigin) -> Identity:
        """The same, as far as the place allows from where it asks: who is elsewhere, or not known
        to be here, names no files of this machine."""
        if approach.is_local:
            return self
        return replace(self, scopes=self.scopes - {Scope.AUDIO_PATH})


ANONYMOUS = Identity("everybody", AuthMethod.PLACE, ALL_SCOPES)
"""Identity of every client where there are no tokens: without a token, and in a process that is
its own client."""
HOST = Identity("host", AuthMethod.TOKEN, ALL_SCOPES)
"""Identity of a client with the token of this start."""


def bearer_token(approach: RequestOrigin) -> str:
    """Return the bearer token of a request, unchecked.

    Raises:
        errors.TokenMissing: nothing was sent.
        errors.TokenInvalid: it was sent in another way, or more than once.
    """
    if not approach.authorizations:
        raise errors.TokenMissing()
    scheme, token = split_authorization(approach.authorizations[0])
    if scheme != "bearer" or len(approach.authorizations) > 1:
        raise errors.TokenInvalid()
    return token


def split_authorization(header: str) -> tuple[str, str]:
    """Return the scheme, in lower case, and the token of an `Authorization` header."""
    scheme, _, token = header.partition(" ")
    return scheme.lower(), token.strip()
