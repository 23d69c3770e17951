"""One-time codes: sign-in links of browsers, tickets of WebSockets.

A token in an address would stay in histories and in lists of processes; such a code is worth
nothing once it was used.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sidecar import errors

T = TypeVar("T")
CODE_LIFETIME_S = 120.0
"""From the command to the page that a browser shows: time for one that starts cold."""
MAX_CODES_PER_OWNER = 64
"""Words of one owner that wait at once; the oldest goes first."""
MAX_CODES = 8 * MAX_CODES_PER_OWNER
"""A client with many owners gets no more memory: the oldest code of the owner with most is
dropped."""
_CODE_BYTES = 32


@dataclass(frozen=True, slots=True)
class _OneTimeCode(Generic[T]):
    """Value of a code, its owner, and its expiry."""

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
        """Return the value of a code; the code is used up.

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
