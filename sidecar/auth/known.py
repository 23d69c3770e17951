"""Who is known here, by the settings: by the token of this start, by signed ones, or not."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from sidecar.auth import keys, revocations
from sidecar.auth.approach import Approach, is_loopback
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
from sidecar.auth.issuing import FOLDER
from sidecar.auth.signed import Verifier
from sidecar.config.settings import Settings
from sidecar.errors import TokenInvalid
from sidecar.observability.crash import data_folder
from sidecar.watched import Watch

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
    public = watch.add("the keys of signed tokens", [folder], lambda: keys.read_public(folder))
    log.info("signed tokens count, by %d keys", len(public.value))
    list_file = settings.revoked_tokens or folder.parent / "revoked.txt"
    read = revocations.Revocations(list_file, optional=settings.revoked_tokens is None)
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
