"""Signed tokens: JWT with ES256 and nothing else. What is in one, and whether it counts.

A token that is refused says not why: of every token one signature is checked, and what is not even
a token is replaced by one of ours that fails, so that a wrong one costs what a right one does.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar import clock
from sidecar.auth.identity import Credential
from sidecar.auth.revocations import TOKEN_ID
from sidecar.errors.extra import needed_for

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

log = logging.getLogger(__name__)

ALGORITHM = "ES256"
AUDIENCE = "vibevoice-asr"
SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
"""Names without look-alikes, spaces or signs that a log or a path might read in its own way."""
LONGEST = 2048
"""Characters; ours have about 350."""
LEEWAY_S = 30
"""How far two clocks may differ."""
LATEST = 253_402_300_800
"""The year 10000, in seconds since 1970: no date of a token is so late."""
_HEADER = frozenset({"alg", "kid", "typ"})
"""No key, address of a key, or extension is taken from a token."""
_SIGNATURE_BYTES = 64
_CLAIMS_OF_ANOTHER_KIND = (TypeError, ValueError, OverflowError, RecursionError)
"""What PyJWT lets through: of an expiry that is null, for one."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says that counts."""

    subject: str
    credential: Credential
    scopes: frozenset[str] = frozenset()
    """Words of `scope` (RFC 8693), as they are."""


class Verifier:
    """Checks tokens by the ``keys`` and ``revoked`` ids as they are at that moment."""

    def __init__(
        self,
        keys: Callable[[], Mapping[str, EllipticCurvePublicKey]],
        revoked: Callable[[], frozenset[str]],
        now: clock.Clock = clock.wall,
    ) -> None:
        with needed_for("Signed tokens"):
            import jwt
            from cryptography.hazmat.primitives.asymmetric import ec
        self._keys = keys
        self._revoked = revoked
        self._now = now
        self._jwt = jwt
        signer, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        filling = {"sub": "nobody", "jti": "0" * 32, "aud": AUDIENCE}
        self._decoy = (jwt.encode(filling, signer, ALGORITHM), other.public_key())

    def verify(self, token: str) -> Claims | None:
        """What the token says; None if it does not count, for whatever reason."""
        key_id = self._key_named(token)
        key = self._keys().get(key_id)
        known = key is not None
        if key is None:
            token, key = self._decoy
        try:
            said = self._jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                leeway=LEEWAY_S,
                options={"require": ["sub", "jti"], "strict_aud": True},
            )
        except (self._jwt.InvalidTokenError, *_CLAIMS_OF_ANOTHER_KIND) as error:
            log.debug("a token refused: %s", type(error).__name__ if known else "malformed")
            return None
        return self._counting(said, key_id)

    def refusal(self, credential: Credential) -> str | None:
        """Why a token that counted does so no more, by the same rules; None while it does."""
        if credential.token_id in self._revoked():
            return "was revoked"
        if credential.key_id not in self._keys():
            return "was signed with a key that is known no more"
        if credential.until is not None and credential.until <= self._now() - LEEWAY_S:
            return "has expired"
        return None

    def _counting(self, said: Mapping[str, Any], key_id: str) -> Claims | None:
        subject, token_id, scope = said["sub"], said["jti"], said.get("scope", "")
        if not isinstance(scope, str) or not SUBJECT.fullmatch(subject):
            return None
        if not TOKEN_ID.fullmatch(token_id) or token_id in self._revoked():
            return None
        if not all(_is_date(said[name]) for name in ("exp", "nbf", "iat") if name in said):
            return None
        until = int(said["exp"]) if "exp" in said else None
        return Claims(subject, Credential(token_id, key_id, until), frozenset(scope.split()))

    def _key_named(self, token: str) -> str:
        """The name of its key in a well-formed token; of every other, and without one, none."""
        if len(token) > LONGEST:
            return ""
        try:
            header = self._jwt.get_unverified_header(token)
            signature = _decoded(token.rpartition(".")[2])
        except (self._jwt.InvalidTokenError, ValueError, RecursionError):
            return ""
        if len(signature) != _SIGNATURE_BYTES or not _HEADER.issuperset(header):
            return ""
        if header.get("alg") != ALGORITHM or header.get("typ", "JWT") != "JWT":
            return ""
        return str(header.get("kid", ""))


def _is_date(value: object) -> bool:
    """Whether it is a number (RFC 7519) that a calendar has; PyJWT takes digits in a text, too."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < LATEST  # neither is what is no number


def _decoded(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64url") from None
