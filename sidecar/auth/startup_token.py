"""Token of this start, and its one-time handover to a browser.

A token in an address would stay in histories and in lists of processes; such a word is worth
nothing once it was used.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import SecretStr

from sidecar import errors
from sidecar.config.secret_settings import read_secret, secret_origin
from sidecar.config.settings import MIN_TOKEN_CHARACTERS, Settings
from sidecar.errors import SettingsInvalid

GENERATED_TOKEN_BYTES = 32


def resolve_token(settings: Settings) -> Settings:
    """The settings with the token that they lead to; never from the command line.

    Raises:
        errors.SettingsInvalid: there are two, or none where one was promised, or it is no secret.
    """
    if settings.token is not None and settings.generate_token:
        raise SettingsInvalid(
            "The settings token and generate_token each give a token.", hint="Keep one of them."
        )
    token = client_token(settings)
    if settings.generate_token:
        token = secrets.token_urlsafe(GENERATED_TOKEN_BYTES)
    return settings.model_copy(update={"token": SecretStr(token)}) if token else settings


def client_token(settings: Settings) -> str | None:
    """The token that our own command line sends to a service, if it knows one.

    Raises:
        errors.SettingsInvalid: the file with it cannot be used, or holds none.
    """
    if settings.token is None:
        return None
    return _check_token(read_secret(settings.token), secret_origin(settings.token, "token"))


def _check_token(token: str, where: str) -> str:
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable():
        raise SettingsInvalid(
            f"{where} holds no token of at least {MIN_TOKEN_CHARACTERS} printable ASCII characters."
        )
    return token


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
