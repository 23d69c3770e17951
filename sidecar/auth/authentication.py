"""Authentication of requests: allowlist of hosts and origins, bearer tokens, from settings.

A service on this machine's loopback is within reach of every web page its user opens. The wall is
the `Host` header, which a page that had its own name rebound to 127.0.0.1 cannot choose, and the
`Origin` that browsers put beside what a page sends; a token keeps out other programs.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sidecar import errors
from sidecar.auth import signed_tokens, token_issuing
from sidecar.auth.identity import (
    UNLIMITED,
    Authenticator,
    Credential,
    Identity,
    Limits,
    Nobody,
    Proof,
    Scope,
    SharedToken,
    bearer,
)
from sidecar.auth.rate_limits import Turnstile
from sidecar.auth.request_origin import Approach, is_loopback
from sidecar.auth.revocable_streams import Visits
from sidecar.auth.signed_tokens import Verifier
from sidecar.auth.token_issuing import FOLDER
from sidecar.config.settings import Settings
from sidecar.errors import TokenInvalid
from sidecar.files import Watch
from sidecar.observability.logs import data_folder

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


Pause = Callable[[float], Awaitable[object]]
"""Waits for so many seconds."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """What all wires share. Without a ``turnstile`` nobody is counted."""

    access: Access
    turnstile: Turnstile | None = None
    visits: Visits = field(default_factory=Visits)

    def arrive(self, approach: Approach) -> None:
        """Somebody has come from somewhere.

        Raises:
            errors.HostNotAllowed, errors.PeerNotAllowed, errors.OriginNotAllowed: not from there.
            errors.RateLimited: too often.
        """
        self.access.check_place(approach)
        if self.turnstile is not None:
            self.turnstile.arrive(approach)

    async def identify(self, approach: Approach) -> Identity:
        """Who it is that has arrived.

        Raises:
            errors.TokenMissing, errors.TokenInvalid: nobody who is known.
            errors.RateLimited: one who comes too often.
        """
        who = await identified(self.access, self.turnstile, approach)
        if self.turnstile is not None:
            self.turnstile.enter(who)
        return who


async def identified(
    access: Access, turnstile: Turnstile | None, approach: Approach, pause: Pause = asyncio.sleep
) -> Identity:
    """Who it is; the answer to a wrong token waits.

    Raises:
        errors.TokenMissing, errors.TokenInvalid: nobody who is known.
        errors.RateLimited: as many answers to wrong tokens wait as may.
    """
    try:
        return access.identify(approach)
    except errors.TokenInvalid:
        if turnstile is not None:
            await wait_for_a_wrong_one(turnstile, approach, pause)
        raise


async def wait_for_a_wrong_one(
    turnstile: Turnstile, approach: Approach, pause: Pause = asyncio.sleep
) -> None:
    """A wrong token came: wait before that is said, longer each time.

    Raises:
        errors.RateLimited: as many answers wait as may.
    """
    if delay := turnstile.fail(approach):
        turnstile.held += 1
        try:
            await pause(delay)
        finally:
            turnstile.held -= 1


log = logging.getLogger(__name__)

USUAL = Limits(
    requests_per_minute=1200,
    jobs=32,
    queued_audio_s=24 * 3600.0,
    upload_bytes=16 << 30,
    live_sessions=32,
)
"""Of a service that others than this machine can reach: far beyond what a person needs."""


@dataclass(frozen=True, slots=True)
class SignedTokens:
    """Signed tokens, each with a name in it; the token of this start besides, if there is one."""

    verifier: Verifier
    shared: SharedToken | None = None
    local_only: bool = False

    def identify(self, approach: Approach) -> Identity:
        """Whom the token names.

        Raises:
            errors.TokenMissing, errors.TokenInvalid: none was sent, or one that does not count.
        """
        given = bearer(approach)
        if self.shared is not None and self.shared.knows(given):
            return self.shared.identity
        claims = self.verifier.verify(given)
        if claims is None:
            raise TokenInvalid()
        scopes = frozenset(scope for scope in Scope if scope in claims.scopes)
        return Identity(claims.subject, Proof.JWT, scopes, credential=claims.credential)

    def refusal(self, credential: Credential) -> str | None:
        """Why a token counts no more."""
        return self.verifier.refusal(credential)


def authenticator_of(settings: Settings, watch: Watch) -> Authenticator:
    """Who tells clients apart; its files are read again when they change, by ``watch``.

    Raises:
        errors.SettingsInvalid: a file of keys or revocations cannot be used.
    """
    shared = SharedToken(settings.token.get_secret_value()) if settings.token else None
    folder = settings.token_keys or _usual_keys(settings)
    if folder is None:
        return shared or Nobody()
    public = watch.add(
        "the keys of signed tokens", [folder], lambda: token_issuing.read_public(folder)
    )
    log.info("signed tokens count, by %d keys", len(public.value))
    list_file = settings.revoked_tokens or folder.parent / "revoked.txt"
    read = signed_tokens.Revocations(list_file, optional=settings.revoked_tokens is None)
    revoked = watch.add("the list of revoked tokens", [list_file], read)
    return SignedTokens(Verifier(lambda: public.value, lambda: revoked.value), shared)


def limits_of(settings: Settings) -> Limits:
    """What one owner may have: nothing is counted on the loopback, unless the settings say so."""
    exposed = not is_loopback(settings.host) or bool(settings.forwarded_allow_ips)
    usual = USUAL if exposed else UNLIMITED
    hours, mb = settings.limit_queued_hours, settings.limit_upload_mb
    return Limits(
        requests_per_minute=_limit(settings.limit_requests, usual.requests_per_minute),
        jobs=_limit(settings.limit_jobs, usual.jobs),
        queued_audio_s=usual.queued_audio_s if hours is None else hours * 3600 or None,
        upload_bytes=usual.upload_bytes if mb is None else (mb << 20) or None,
        live_sessions=usual.live_sessions if settings.live_sessions_per_owner is None else None,
    )


def _limit(said: int | None, usual: int | None) -> int | None:
    return usual if said is None else said or None


def _usual_keys(settings: Settings) -> Path | None:
    """Where `token create` puts public keys; they count where others than this machine ask."""
    data = None if is_loopback(settings.host) else data_folder(settings.data_dir)
    folder = data and data / FOLDER / "public"
    return folder if folder is not None and folder.is_dir() else None
