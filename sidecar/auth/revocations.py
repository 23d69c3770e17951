"""Tokens that count no more: a text file with a token's id (`jti`) on each line.

Blank lines and those that begin with `#` say nothing. A file that cannot be understood is not taken
in parts: what was revoked before stays revoked, and nobody else is.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from sidecar import private
from sidecar.errors import SettingsInvalid

log = logging.getLogger(__name__)

MOST_BYTES = 8 << 20
TOKEN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
HEADER = "# Tokens that count no more, by their ids. 'vibevoice-asr token revoke' writes it.\n"


def parse(text: str) -> frozenset[str]:
    """The ids in the text of such a file.

    Raises:
        ValueError: a line is no id; the text says which line.
    """
    ids = set()
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if TOKEN_ID.fullmatch(entry) is None:
            raise ValueError(f"line {number} is no id of a token")
        ids.add(entry)
    return frozenset(ids)


def render(ids: frozenset[str]) -> str:
    """The text of a file with these ids."""
    return HEADER + "".join(f"{each}\n" for each in sorted(ids))


def read(path: Path) -> frozenset[str]:
    """The ids in a file.

    Raises:
        errors.SettingsInvalid: it cannot be read or understood, or it is empty: a list without
            revocations has a comment, a file that is being written has nothing.
    """
    data = private.read(path, MOST_BYTES)
    try:
        if not data:
            raise ValueError("it is empty, which a file is while it is written")
        return parse(data.decode())
    except ValueError as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise SettingsInvalid(
            f"The file of revoked tokens {path} cannot be used: {why}.",
            hint="A line for each id ('jti'); a file that revokes nothing has a line with '#'.",
        ) from None


class Revocations:
    """Reads a file for `Watched`, and tells when somebody is let in again."""

    def __init__(self, path: Path, *, optional: bool = False) -> None:
        """``optional``: if the file is not there yet, no token is revoked."""
        self._path = path
        self._optional = optional
        self._before: frozenset[str] = frozenset()

    def __call__(self) -> frozenset[str]:
        """The ids in the file; `read` says what it raises."""
        if self._optional and not os.path.lexists(self._path):
            log.warning("no list of revoked tokens yet; it counts once it is there: %s", self._path)
            return self._before
        self._optional = False
        ids = read(self._path)
        if gone := self._before - ids:
            log.warning("%d tokens are revoked no longer: the file has them no more", len(gone))
        self._before = ids
        return ids
