"""Token issuing and signing keys.

Files: `private/` and `public/` hold the keys, `issued.jsonl` the issued tokens (never a token
itself), `revoked.txt` the revoked ones.
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from sidecar import files
from sidecar.auth import signed_tokens
from sidecar.auth.tls import write_private_key
from sidecar.clock import utc_now
from sidecar.errors import SettingsInvalid
from sidecar.installation import needed_for

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


SUBFOLDER = "tokens"
"""Subfolder of the data folder."""
MAX_ISSUED_BYTES = 64 << 20
_TOKEN_ID = re.compile(r"[0-9a-f]{32}")
IsoDate = Annotated[datetime.datetime, PlainSerializer(datetime.datetime.isoformat)]


class SigningKeys:
    """Key pairs in a folder: `private/` for the issuer of tokens, `public/` for servers."""

    def __init__(self, folder: Path) -> None:
        self.private = folder / "private"
        self.public = folder / "public"

    def names(self) -> list[str]:
        """Return the thumbprints of all private keys, oldest first; the last one signs."""
        return [
            signed_tokens.key_thumbprint(_read_private_key(file).public_key())
            for file in self._files()
        ]

    def signer(self) -> tuple[str, EllipticCurvePrivateKey]:
        """Return the thumbprint and the newest private key; create a pair if there is none.

        Raises:
            errors.SettingsInvalid: its file cannot be used, or others may read it.
        """
        if not self._files():
            self.make()
        key = _read_private_key(self._files()[-1])
        return signed_tokens.key_thumbprint(key.public_key()), key

    def make(self) -> str:
        """Create a key pair that signs from now on; return its thumbprint."""
        with needed_for(signed_tokens.FEATURE_NAME):
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = signed_tokens.key_thumbprint(key.public_key())
        for folder in (self.private, self.public):
            files.make_folder(folder)
        number = 1 + max((int(file.name.split("-")[0]) for file in self._files()), default=0)
        file = f"{number:04}-{utc_now():%Y%m%d}-{name[:8]}.pem"
        files.write(
            self.public / file,
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            files.PUBLIC,
        )
        # The private key is written last: a key that signs always has a public one for servers.
        write_private_key(self.private / file, key)
        return name

    def _files(self) -> list[Path]:
        return sorted(self.private.glob("[0-9]*-*.pem"))


def _read_private_key(file: Path) -> EllipticCurvePrivateKey:
    data = files.read(file, signed_tokens.MAX_KEY_BYTES, private=True)
    key: EllipticCurvePrivateKey = signed_tokens.parse_key(file, data, private=True)
    return key


class IssuedToken(BaseModel):
    """Line of `issued.jsonl`: the metadata of an issued token, without the token itself."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, strict=True)

    token_id: str = Field(validation_alias="jti", serialization_alias="jti")
    subject: str = Field(validation_alias="sub", serialization_alias="sub")
    key: str = Field(validation_alias="kid", serialization_alias="kid")
    issued: IsoDate = Field(validation_alias="iat", serialization_alias="iat")
    expires: IsoDate | None = Field(validation_alias="exp", serialization_alias="exp")
    scopes: tuple[str, ...] = Field(validation_alias="scope", serialization_alias="scope")


class TokenIssuer:
    """Issuer of signed tokens with the keys in ``folder``; ``now`` returns the date."""

    def __init__(self, folder: Path, now: Callable[[], datetime.datetime] = utc_now) -> None:
        self.folder = folder
        self.keys = SigningKeys(folder)
        self.revoked_file = folder / "revoked.txt"
        self._issued_file = folder / "issued.jsonl"
        self._now = now

    def create(
        self,
        subject: str,
        lasts_s: float | None = None,
        scopes: Iterable[str] = (),
        hotwords: str = "",
    ) -> tuple[str, IssuedToken]:
        """Create a token for ``subject`` that expires after ``lasts_s`` seconds, or never.
        ``hotwords``: names and terms to expect in its recordings.

        Raises:
            errors.SettingsInvalid: the subject, the lifetime or a hotword is invalid, the hotwords
                are too many for a token, or the folder is unusable.
        """
        if signed_tokens.SUBJECT.fullmatch(subject) is None:
            raise SettingsInvalid(
                f"'{subject}' is not a valid subject of a token.",
                hint="Use at most 64 ASCII letters, digits and . _ @ + -.",
            )
        with needed_for("Signed tokens"):
            import jwt
        with self._alone():
            name, key = self.keys.signer()
            issued_at = self._now()
            issued_token = IssuedToken(
                token_id=uuid.uuid4().hex,
                subject=subject,
                key=name,
                issued=issued_at,
                expires=_expiry_date(issued_at, lasts_s),
                scopes=tuple(scopes),
            )
            claims: dict[str, object] = {
                "sub": subject,
                "jti": issued_token.token_id,
                "aud": signed_tokens.AUDIENCE,
                "iat": issued_at,
            }
            if issued_token.expires is not None:
                claims["exp"] = issued_token.expires
            if issued_token.scopes:
                claims["scope"] = " ".join(issued_token.scopes)
            if hotwords:
                claims["hotwords"] = hotwords
            token = jwt.encode(claims, key, signed_tokens.ALGORITHM, headers={"kid": name})
            if len(token) > signed_tokens.MAX_TOKEN_CHARACTERS:
                raise SettingsInvalid(
                    "A token has no room for so many hotwords.",
                    hint="Use at most 1,000 characters, or the setting 'hotwords'.",
                )
            self._append_issued(issued_token)
            self._begin_list()
        return token, issued_token

    def rotate(self) -> str:
        """Create a key that signs from now on; return its thumbprint."""
        with self._alone():
            self._begin_list()
            return self.keys.make()

    def issued(self) -> list[IssuedToken]:
        """Return all tokens that were issued from this folder, oldest first.

        Raises:
            errors.SettingsInvalid: the file of issued tokens is damaged.
        """
        if not files.exists(self._issued_file):
            return []
        try:
            lines = files.read(self._issued_file, MAX_ISSUED_BYTES, private=True).decode()
            return [IssuedToken.model_validate_json(line) for line in lines.splitlines()]
        except ValueError:
            raise SettingsInvalid(f"The file {self._issued_file} is damaged.") from None

    def revoked(self) -> frozenset[str]:
        """Return the ids of the revoked tokens.

        Raises:
            errors.SettingsInvalid: the revocation list is damaged.
        """
        if not files.exists(self.revoked_file):
            return frozenset()
        return signed_tokens.read_revocations(self.revoked_file)

    def revoke(self, subject_or_id: str) -> list[str]:
        """Revoke all tokens of a subject, or the token with an id; return their ids.

        An id that was not issued here is accepted too: its token may come from another issuer.

        Raises:
            errors.SettingsInvalid: there is no such token, or a file is damaged.
        """
        with self._alone():
            ids = [
                each.token_id
                for each in self.issued()
                if subject_or_id in (each.subject, each.token_id)
            ]
            if not ids and _TOKEN_ID.fullmatch(subject_or_id):
                ids = [subject_or_id]
            if not ids:
                raise SettingsInvalid(
                    f"No token was issued here for '{subject_or_id}'.",
                    hint="'vibevoice-asr token list' shows names and ids.",
                )
            self._write_revoked(self.revoked() | set(ids))
        return ids

    def _alone(self) -> files.ExclusiveLock:
        files.refuse_root(self.folder)
        files.make_folder(self.folder)
        return files.lock_folder(self.folder)

    def _begin_list(self) -> None:
        """Write an empty revocation list if there is none, so that a service finds one at its
        start."""
        if not files.exists(self.revoked_file):
            self._write_revoked(frozenset())

    def _write_revoked(self, ids: frozenset[str]) -> None:
        text = signed_tokens.REVOCATION_FILE_HEADER + "".join(f"{each}\n" for each in sorted(ids))
        files.write(self.revoked_file, text.encode(), files.PUBLIC)

    def _append_issued(self, issued_token: IssuedToken) -> None:
        line = issued_token.model_dump_json(by_alias=True)
        before = b""
        if files.exists(self._issued_file):
            before = files.read(self._issued_file, MAX_ISSUED_BYTES, private=True)
        files.write(self._issued_file, before + line.encode() + b"\n")


def _expiry_date(begin: datetime.datetime, lasts_s: float | None) -> datetime.datetime | None:
    if lasts_s is None:
        return None
    try:
        if lasts_s > 0:
            return begin + datetime.timedelta(seconds=lasts_s)
    except OverflowError:
        pass
    raise SettingsInvalid(
        "The lifetime of a token is above zero and ends before the year 10000.",
        hint="Use a duration such as '90d'.",
    )
