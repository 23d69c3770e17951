"""Signed tokens (JWT, ES256): public keys, verification, revocation list.

The answer to a refused token says why only to its holder: of a token that a known key has signed,
that it has expired or was revoked. One signature is checked for every token; a malformed token is
replaced by a decoy that fails. So refusing a token takes as long as accepting one. Only the
signature of a token that was accepted is not checked again.

In the revocation list blank lines and lines that begin with `#` are ignored. A list with an error
is not used in part: the last valid list stays in force.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar import clock, files
from sidecar.auth.identity import AuthMethod, Identity, Scope, SignedCredential
from sidecar.bounded_dict import BoundedDict
from sidecar.errors import FieldInvalid, SettingsInvalid, TokenInvalid
from sidecar.installation import needed_for
from sidecar.interfaces.request_options import parse_hotwords
from sidecar.observability.logs import ONCE_A_MINUTE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey


log = logging.getLogger(__name__)

MAX_REVOCATION_BYTES = 8 << 20
MAX_KEYS = 64
MAX_KEY_BYTES = 16 << 10
_COORDINATE_BYTES = 32
FEATURE_NAME = "Signed tokens"
TOKEN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
REVOCATION_FILE_HEADER = (
    "# Tokens that count no more, by their ids. 'vibevoice-asr token revoke' writes it.\n"
)
ALGORITHM = "ES256"
AUDIENCE = "vibevoice-asr"
SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
"""Subjects without look-alikes, spaces or characters with a meaning in logs or paths."""
MAX_TOKEN_CHARACTERS = 2048
"""Maximum; the tokens of `TokenIssuer` have about 350."""
MAX_KEY_ID_CHARACTERS = 64
"""Maximum in a log line; ours have 43."""
LEEWAY_S = 30
"""Tolerated clock difference."""
MAX_TIMESTAMP_S = 253_402_300_800
"""The year 10000, in seconds since 1970; later dates are refused."""
REPLACEMENT_HINT = "Ask the administrator of this service for a new one."
_JOSE_FIELDS = frozenset({"alg", "kid", "typ"})
"""Allowed header fields: no key, URL of a key or extension is taken from a token."""
_SIGNATURE_BYTES = 64
MAX_ACCEPTED = 1024
"""Maximum of accepted tokens that are remembered, by their hashes."""
_CLAIM_TYPE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)
"""Exceptions that PyJWT does not convert, for example if the expiry is null."""


def parse_revocations(text: str) -> frozenset[str]:
    """Return the token ids in the text of a revocation list.

    Raises:
        ValueError: a line is no id; the message names the line.
    """
    ids = set()
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if TOKEN_ID.fullmatch(entry) is None:
            raise ValueError(f"line {number} is not a token id")
        ids.add(entry)
    return frozenset(ids)


def read_revocations(path: Path) -> frozenset[str]:
    """Return the token ids in a revocation list.

    Raises:
        errors.SettingsInvalid: it cannot be read or parsed, or it is empty: a list without
            revocations has a comment, a file that is being written is empty.
    """
    data = files.read(path, MAX_REVOCATION_BYTES)
    try:
        if not data:
            raise ValueError("it is empty, which a file is while it is written")
        return parse_revocations(data.decode())
    except ValueError as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise SettingsInvalid(
            f"The file of revoked tokens {path} cannot be used: {why}.",
            hint="Write one id ('jti') a line; a file that revokes nothing has a line with '#'.",
        ) from None


def _is_absent(path: Path) -> bool:
    try:
        os.lstat(path)
    except OSError as error:  # of others, the read says why
        return isinstance(error, FileNotFoundError)
    return False


class RevocationFile:
    """Reader of the revocation list for `WatchedFiles`; it logs if tokens become valid again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._exists = False
        self._before: frozenset[str] = frozenset()

    def __call__(self) -> frozenset[str]:
        """Return the token ids in the file, none as long as it does not exist; see
        `read_revocations` for errors."""
        if not self._exists and _is_absent(self._path):
            log.warning(
                "there is no list of revoked tokens at %s; it is read as soon as it exists",
                self._path,
            )
            return self._before
        self._exists = True
        ids = read_revocations(self._path)
        if gone := self._before - ids:
            log.warning(
                "%d tokens are valid again: they were removed from the list of revoked tokens",
                len(gone),
            )
        self._before = ids
        return ids


class TokenVerifier:
    """Verification of tokens; ``keys`` and ``revoked`` return the current keys and revoked ids."""

    def __init__(
        self,
        keys: Callable[[], Mapping[str, EllipticCurvePublicKey]],
        revoked: Callable[[], frozenset[str]],
        now: clock.Clock = clock.wall_time,
    ) -> None:
        with needed_for("Signed tokens"):
            import jwt
            from cryptography.hazmat.primitives.asymmetric import ec
        self._keys = keys
        self._revoked = revoked
        self._now = now
        self._jwt = jwt
        signer, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        decoy_claims = {"sub": "nobody", "jti": "0" * 32, "aud": AUDIENCE}
        self._accepted = BoundedDict[bytes, Identity](MAX_ACCEPTED)
        self._decoy = (jwt.encode(decoy_claims, signer, ALGORITHM), other.public_key())

    def verify(self, token: str) -> Identity:
        """Return the identity of a token.

        Raises:
            errors.TokenInvalid: it is not valid; it says that it has expired or was revoked if a
                known key has signed it, else nothing.
        """
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        identity = self._accepted.get(digest)
        if identity and identity.credential and self.refusal(identity.credential) is None:
            return identity
        identity = self._verified(token)
        if identity is None or identity.credential is None:
            raise TokenInvalid()
        if why := self.refusal(identity.credential):
            raise TokenInvalid(f"This token {why}.", hint=REPLACEMENT_HINT)
        self._accepted[digest] = identity
        return identity

    def _verified(self, token: str) -> Identity | None:
        """Return the identity in a token that a known key has signed, whether it has expired or was
        revoked, or not; `None` if it is none."""
        key_id = self._key_id_of(token)
        key = self._keys().get(key_id)
        known = key is not None
        if key is None:
            if key_id:
                log.warning(
                    "a token was signed by an unknown key, %s; the public key of its issuer is not "
                    "among those of --token-keys",
                    ascii(key_id[:MAX_KEY_ID_CHARACTERS]),
                    extra=ONCE_A_MINUTE,
                )
            token, key = self._decoy
        try:
            claims = self._jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                leeway=LEEWAY_S,
                options={"require": ["sub", "jti"], "strict_aud": True, "verify_exp": False},
            )
        except (self._jwt.InvalidTokenError, *_CLAIM_TYPE_ERRORS) as error:
            log.debug("signed token rejected: %s", type(error).__name__ if known else "malformed")
            return None
        return self._identity_of(claims, key_id)

    def refusal(self, credential: SignedCredential) -> str | None:
        """Return why a token that was valid is not any more, or `None` while it is valid."""
        if credential.token_id in self._revoked():
            return "was revoked"
        if credential.key_id not in self._keys():
            return "was signed with a key that is known no more"
        if credential.until is not None and credential.until <= self._now() - LEEWAY_S:
            return "has expired"
        return None

    def _identity_of(self, claims: Mapping[str, Any], key_id: str) -> Identity | None:
        subject, token_id, scope = claims["sub"], claims["jti"], claims.get("scope", "")
        if not isinstance(scope, str) or not SUBJECT.fullmatch(subject):
            return None
        if not TOKEN_ID.fullmatch(token_id):
            return None
        if not all(_is_date(claims[name]) for name in ("exp", "nbf", "iat") if name in claims):
            return None
        try:
            hotwords = parse_hotwords(claims.get("hotwords"))
        except FieldInvalid:
            return None
        until = int(claims["exp"]) if "exp" in claims else None
        credential = SignedCredential(token_id, key_id, until)
        scopes = frozenset(one for one in Scope if one in scope.split())  # others mean nothing here
        return Identity(subject, AuthMethod.JWT, scopes, credential=credential, hotwords=hotwords)

    def _key_id_of(self, token: str) -> str:
        """Return the key id of a well-formed token; "" if it is malformed or has none."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            return ""
        try:
            header = self._jwt.get_unverified_header(token)
            part = token.rpartition(".")[2]
            signature = base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True)
        except (self._jwt.InvalidTokenError, ValueError, RecursionError):
            return ""
        if len(signature) != _SIGNATURE_BYTES or not _JOSE_FIELDS.issuperset(header):
            return ""
        if header.get("alg") != ALGORITHM or header.get("typ", "JWT") != "JWT":
            return ""
        return str(header.get("kid", ""))


def _is_date(value: object) -> bool:
    """Return whether it is a number (RFC 7519) in the range of a calendar; PyJWT accepts strings of
    digits too."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < MAX_TIMESTAMP_S  # false for NaN and infinity


def read_public_keys(path: Path) -> Mapping[str, EllipticCurvePublicKey]:
    """Return the public keys in a file, or in the files `*.pem` of a folder, by their thumbprints.

    Raises:
        errors.SettingsInvalid: there are none or too many, the folder or a file cannot be read, or
            a file is no public key on P-256.
    """
    paths = _key_files(path) if os.path.isdir(path) else [path]
    if not paths:
        raise SettingsInvalid(
            f"The folder {path} has no public key (*.pem).",
            hint="'vibevoice-asr token keys' makes a pair and says where the public one is.",
        )
    if len(paths) > MAX_KEYS:
        raise SettingsInvalid(f"The folder {path} has more than {MAX_KEYS} keys.")
    keys = [_read_public_key(file) for file in paths]
    return {key_thumbprint(key): key for key in keys}


def _key_files(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if name.endswith(".pem")]
    except OSError as error:
        raise SettingsInvalid(
            f"The folder {folder} cannot be read: {error.strerror}.",
            hint=f"Let the service's user read it: chmod a+rx {shlex.quote(str(folder))}, and "
            "chmod a+r for its keys (*.pem).",
        ) from None


def _read_public_key(file: Path) -> EllipticCurvePublicKey:
    data = files.read(file, MAX_KEY_BYTES)
    if b"PRIVATE KEY" in data:
        raise SettingsInvalid(
            f"The file {file} holds a private key, and servers need the public one only.",
            hint="Use the folder 'public'; private keys stay where tokens are issued.",
        )
    key: EllipticCurvePublicKey = parse_key(file, data, private=False)
    return key


def parse_key(file: Path, data: bytes, *, private: bool) -> Any:
    """Return the private or the public key in PEM that is the content of a file.

    Raises:
        errors.SettingsInvalid: it is none, or is not on P-256.
    """
    with needed_for(FEATURE_NAME):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization as pem
        from cryptography.hazmat.primitives.asymmetric import ec
    kinds = ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey
    try:
        key = pem.load_pem_private_key(data, None) if private else pem.load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        kind = "private" if private else "public"
        raise SettingsInvalid(f"The file {file} is not a {kind} key in PEM.") from None
    if not isinstance(key, kinds) or not isinstance(key.curve, ec.SECP256R1):
        raise SettingsInvalid(f"The key in {file} is not on the curve P-256 (ES256).")
    return key


def key_thumbprint(key: EllipticCurvePublicKey) -> str:
    """Return the thumbprint of a key, 43 characters of base64url: RFC 7638 with SHA-256."""
    numbers = key.public_numbers()
    x, y = (_base64url(n.to_bytes(_COORDINATE_BYTES, "big")) for n in (numbers.x, numbers.y))
    members = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
