"""Making tokens: on a machine of its own, or on the server's, in a folder that has it all.

`private/` and `public/` are keys (`keys`), `issued.jsonl` says what was made (never a token
itself), `revoked.txt` which of them count no more.
"""

from __future__ import annotations

import datetime
import json
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sidecar import private
from sidecar.auth import revocations
from sidecar.auth.keys import KeyPairs
from sidecar.auth.signed import ALGORITHM, AUDIENCE, SUBJECT
from sidecar.dates import today
from sidecar.errors import SettingsInvalid
from sidecar.errors.extra import needed_for

FOLDER = "tokens"
"""In the data folder."""
MOST_BYTES = 64 << 20
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that was made, but for the token."""

    token_id: str
    subject: str
    key: str
    issued: datetime.datetime
    expires: datetime.datetime | None
    scopes: tuple[str, ...] = ()


class Issuer:
    """Makes tokens with what is in ``folder``; ``now`` tells the date."""

    def __init__(self, folder: Path, now: Callable[[], datetime.datetime] = today) -> None:
        self.folder = folder
        self.keys = KeyPairs(folder)
        self.revoked_file = folder / "revoked.txt"
        self._issued_file = folder / "issued.jsonl"
        self._now = now

    def create(
        self, subject: str, lasts_s: float | None = None, scopes: Iterable[str] = ()
    ) -> tuple[str, Issued]:
        """A new token for ``subject``, which expires after ``lasts_s`` seconds or never.

        Raises:
            errors.SettingsInvalid: the name or the time is not possible, or the folder of no use.
        """
        if SUBJECT.fullmatch(subject) is None:
            raise SettingsInvalid(
                f"'{subject}' cannot be the name in a token.",
                hint="Up to 64 letters, digits and . _ @ + - without accents.",
            )
        with needed_for("Signed tokens"):
            import jwt
        with self._alone():
            name, key = self.keys.signer()
            issued = self._now()
            issue = Issued(
                uuid.uuid4().hex, subject, name, issued, _later(issued, lasts_s), tuple(scopes)
            )
            claims: dict[str, object] = {
                "sub": subject,
                "jti": issue.token_id,
                "aud": AUDIENCE,
                "iat": issued,
            }
            if issue.expires is not None:
                claims["exp"] = issue.expires
            if issue.scopes:
                claims["scope"] = " ".join(issue.scopes)
            token = jwt.encode(claims, key, ALGORITHM, headers={"kid": name})
            self._note(issue)
            self._begin_list()
        return token, issue

    def rotate(self) -> str:
        """A new key that signs from now on; its name."""
        with self._alone():
            self._begin_list()
            return self.keys.make()

    def issued(self) -> list[Issued]:
        """All tokens that were made here, oldest first.

        Raises:
            errors.SettingsInvalid: the list of them is damaged.
        """
        if not self._issued_file.exists():
            return []
        try:
            lines = private.read(self._issued_file, MOST_BYTES, private=True).decode().splitlines()
            return [_parsed(line) for line in lines]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SettingsInvalid(f"The file {self._issued_file} is damaged.") from None

    def revoked(self) -> frozenset[str]:
        """Ids of the tokens that count no more.

        Raises:
            errors.SettingsInvalid: the list of them is damaged.
        """
        return revocations.read(self.revoked_file) if self.revoked_file.exists() else frozenset()

    def revoke(self, who: str) -> list[str]:
        """Have all tokens of a name, or the one with an id, count no more; their ids.

        An id that was not made here is taken too: its token may come from elsewhere.

        Raises:
            errors.SettingsInvalid: no such token, or a list is damaged.
        """
        with self._alone():
            ids = [each.token_id for each in self.issued() if who in (each.subject, each.token_id)]
            if not ids and _ID.fullmatch(who):
                ids = [who]
            if not ids:
                raise SettingsInvalid(
                    f"No token was made here for '{who}'.",
                    hint="'vibevoice-asr token list' shows names and ids.",
                )
            self._write_revoked(self.revoked() | set(ids))
        return ids

    def _alone(self) -> private.Alone:
        private.make_folder(self.folder)
        return private.locked(self.folder)

    def _begin_list(self) -> None:
        """Write an empty list of revoked tokens: a service watches only one that it finds."""
        if not self.revoked_file.exists():
            self._write_revoked(frozenset())

    def _write_revoked(self, ids: frozenset[str]) -> None:
        private.write(self.revoked_file, revocations.render(ids).encode(), private.PUBLIC)

    def _note(self, issue: Issued) -> None:
        line = {
            "jti": issue.token_id,
            "sub": issue.subject,
            "kid": issue.key,
            "iat": issue.issued.isoformat(),
            "exp": issue.expires and issue.expires.isoformat(),
            "scope": list(issue.scopes),
        }
        before = b""
        if self._issued_file.exists():
            before = private.read(self._issued_file, MOST_BYTES, private=True)
        private.write(self._issued_file, before + json.dumps(line).encode() + b"\n")


def _later(begin: datetime.datetime, lasts_s: float | None) -> datetime.datetime | None:
    if lasts_s is None:
        return None
    try:
        if lasts_s > 0:
            return begin + datetime.timedelta(seconds=lasts_s)
    except OverflowError:
        pass
    raise SettingsInvalid("So long a time is not possible for a token.", hint="Such as '90d'.")


def _parsed(line: str) -> Issued:
    said = json.loads(line)
    return Issued(
        token_id=said["jti"],
        subject=said["sub"],
        key=said["kid"],
        issued=datetime.datetime.fromisoformat(said["iat"]),
        expires=said["exp"] and datetime.datetime.fromisoformat(said["exp"]),
        scopes=tuple(said["scope"]),
    )
