"""Token of this start, and its one-time handover to a browser.

A token in an address would stay in histories and in lists of processes; such a word is worth
nothing once it was used.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import SecretStr

from sidecar import errors, files
from sidecar.config.settings import MIN_TOKEN_CHARACTERS, Settings
from sidecar.errors import SettingsInvalid

GENERATED_TOKEN_BYTES = 32
_MAX_LINE = 4096


def resolve_token(settings: Settings) -> Settings:
    """The settings with the token that they lead to; never from the command line.

    Raises:
        errors.SettingsInvalid: there are two, or none where one was promised, or it is no secret.
    """
    ways = {
        "token": settings.token is not None,
        "token_file": settings.token_file is not None,
        "token_stdin": settings.token_stdin,
        "generate_token": settings.generate_token,
    }
    named = [name for name, given in ways.items() if given]
    if len(named) > 1:
        raise SettingsInvalid(
            f"The settings {' and '.join(named)} each give a token.", hint="Keep one of them."
        )
    token = None
    if settings.token_file is not None:
        token = read_token_file(settings.token_file)
    elif settings.token_stdin:
        token = _check_token(_first_line(0), "The first line of standard input")
    elif settings.generate_token:
        token = secrets.token_urlsafe(GENERATED_TOKEN_BYTES)
    return settings.model_copy(update={"token": SecretStr(token)}) if token else settings


def client_token(settings: Settings) -> str | None:
    """The token that our own command line sends to a service, if it knows one.

    Raises:
        errors.SettingsInvalid: the file with it cannot be used.
    """
    if settings.token_file is not None:
        return read_token_file(settings.token_file)
    return settings.token.get_secret_value() if settings.token else None


def read_token_file(path: Path) -> str:
    """The token in a file that nobody else may read.

    Raises:
        errors.SettingsInvalid: others may read it, it is not there, or holds no token.
    """
    text = files.read(path, _MAX_LINE, private=True).decode("utf-8", "replace")
    return _check_token(text.strip(), f"The file {path}")


def _check_token(token: str, where: str) -> str:
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable():
        raise SettingsInvalid(
            f"{where} holds no token of at least {MIN_TOKEN_CHARACTERS} printable ASCII characters."
        )
    return token


def _first_line(fd: int) -> str:
    """Not a byte more: the rest is not ours."""
    line = b""
    while len(line) < _MAX_LINE and (byte := os.read(fd, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode("utf-8", "replace").strip()


T = TypeVar("T")
CODE_LIFETIME_S = 120.0
"""From the command to the page that a browser shows: time for one that starts cold."""
MAX_CODES_PER_OWNER = 64
"""Words of one owner that wait at once; the oldest goes first."""
MAX_CODES = 8 * MAX_CODES_PER_OWNER
"""Whoever has many owners gets no more memory by it: the oldest of whoever has most goes."""
_CODE_BYTES = 32


@dataclass(frozen=True, slots=True)
class _OneTimeCode(Generic[T]):
    """What one stands for, whose it is, and until when."""

    until: float
    owner: str
    meaning: T


class OneTimeCodes(Generic[T]):
    """The words that wait, each with the token, or the like, that it stands for; memory only."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._waiting: dict[str, _OneTimeCode[T]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def give(self, meaning: T, owner: str) -> str:
        """A new word for ``meaning``; of those of its ``owner`` the oldest makes room for it, and
        of nobody else's."""
        self._drop_old()
        self._make_room(owner)
        word = secrets.token_urlsafe(_CODE_BYTES)
        self._waiting[word] = _OneTimeCode(self._now() + CODE_LIFETIME_S, owner, meaning)
        return word

    def take(self, word: str) -> T:
        """What a word stands for; the word is used up.

        Raises:
            errors.LinkInvalid: it was used, is too old, or never was one.
        """
        self._drop_old()
        # 32 bytes by chance: what a look into a table gives away by its time helps nobody to them.
        found = self._waiting.pop(word, None)
        if found is None:
            raise errors.LinkInvalid()
        return found.meaning

    def _make_room(self, owner: str) -> None:
        having = Counter(one.owner for one in self._waiting.values())
        if having[owner] < MAX_CODES_PER_OWNER:
            if len(self._waiting) < MAX_CODES:
                return
            ((owner, _),) = having.most_common(1)
        del self._waiting[next(word for word, one in self._waiting.items() if one.owner == owner)]

    def _drop_old(self) -> None:
        now = self._now()
        self._waiting = {word: one for word, one in self._waiting.items() if one.until > now}
