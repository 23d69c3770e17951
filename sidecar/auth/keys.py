"""Keys of signed tokens: pairs on the curve P-256, each known by its thumbprint (RFC 7638).

A folder has the public ones, a file each; servers need nothing else. The private ones stay on the
machine that makes tokens. What a key is called in a token (`kid`) is worked out from the key, and
is never a file's name.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar import private
from sidecar.dates import today
from sidecar.errors import SettingsInvalid
from sidecar.errors.extra import needed_for

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

MOST_BYTES = 16 << 10
MOST_KEYS = 64
_COORDINATE_BYTES = 32
_WHAT = "Signed tokens"


def thumbprint(key: EllipticCurvePublicKey) -> str:
    """The name of a key, 43 characters of base64url: RFC 7638 with SHA-256."""
    numbers = key.public_numbers()
    x, y = (_base64url(n.to_bytes(_COORDINATE_BYTES, "big")) for n in (numbers.x, numbers.y))
    members = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def read_public(path: Path) -> Mapping[str, EllipticCurvePublicKey]:
    """The public keys in a file or in the files `*.pem` of a folder, by their thumbprints.

    Raises:
        errors.SettingsInvalid: there are none, or a file is no public key on P-256.
    """
    files = sorted(path.glob("*.pem")) if path.is_dir() else [path]
    if not files:
        raise SettingsInvalid(
            f"The folder {path} has no public key (*.pem).",
            hint="'vibevoice-asr token keys' makes a pair and says where the public one is.",
        )
    if len(files) > MOST_KEYS:
        raise SettingsInvalid(f"The folder {path} has more than {MOST_KEYS} keys.")
    keys = [_public(file) for file in files]
    return {thumbprint(key): key for key in keys}


class KeyPairs:
    """The pairs of a folder: `private/` for who makes tokens, `public/` for servers."""

    def __init__(self, folder: Path) -> None:
        self.private = folder / "private"
        self.public = folder / "public"

    def names(self) -> list[str]:
        """The thumbprints of all private keys, oldest first; the last one signs."""
        return [thumbprint(_private(file).public_key()) for file in self._files()]

    def signer(self) -> tuple[str, EllipticCurvePrivateKey]:
        """The newest private key and its thumbprint; made if there is none.

        Raises:
            errors.SettingsInvalid: its file cannot be used, or others may read it.
        """
        if not self._files():
            self.make()
        key = _private(self._files()[-1])
        return thumbprint(key.public_key()), key

    def make(self) -> str:
        """A new pair, which signs from now on; its thumbprint."""
        with needed_for(_WHAT):
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = thumbprint(key.public_key())
        for folder in (self.private, self.public):
            private.make_folder(folder)
        number = 1 + max((int(file.name.split("-")[0]) for file in self._files()), default=0)
        file = f"{number:04}-{today():%Y%m%d}-{name[:8]}.pem"
        private.write(
            self.public / file,
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            private.PUBLIC,
        )
        # Last: a key that signs is one that servers can be given.
        private.write(
            self.private / file,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        return name

    def _files(self) -> list[Path]:
        return sorted(self.private.glob("[0-9]*-*.pem"))


def _public(file: Path) -> EllipticCurvePublicKey:
    with needed_for(_WHAT):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = private.read(file, MOST_BYTES)
    if b"PRIVATE KEY" in data:
        raise SettingsInvalid(
            f"The file {file} holds a private key, and servers need the public one only.",
            hint="Name the folder 'public'; private keys stay where tokens are made.",
        )
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsInvalid(f"The file {file} is no public key in PEM.") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SettingsInvalid(f"The key in {file} is not on the curve P-256 (ES256).")
    return key


def _private(file: Path) -> EllipticCurvePrivateKey:
    with needed_for(_WHAT):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private.read(file, MOST_BYTES, private=True), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SettingsInvalid(f"The file {file} is no private key in PEM.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SettingsInvalid(f"The key in {file} is not on the curve P-256 (ES256).")
    return key


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
