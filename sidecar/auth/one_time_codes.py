"""One-time codes for sign-in links of browsers and for WebSockets.

A token in a URL would stay in browser histories and process lists. A one-time code is worth nothing
once it was used.
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
"""Time from the command to the page in the browser, which may have to start first."""
MAX_CODES_PER_OWNER = 64
"""Maximum of unused codes of one owner; beyond it the oldest is dropped."""
MAX_CODES = 8 * MAX_CODES_PER_OWNER
"""Maximum of unused codes of all owners. It bounds the memory that a client with many owners gets:
beyond it the oldest code of the owner with the most codes is dropped."""
_CODE_BYTES = 32


@dataclass(frozen=True, slots=True)
class _OneTimeCode(Generic[T]):
    """Value of a code, its owner, and its expiry."""

    until: float
    owner: str
    meaning: T


class OneTimeCodes(Generic[T]):
    """Unused one-time codes, each with its value; in memory only."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._waiting: dict[str, _OneTimeCode[T]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def give(self, meaning: T, owner: str) -> str:
        """Return a new code for ``meaning``. Beyond the limit the oldest code of the same ``owner``
        is dropped."""
        self._drop_old()
        self._make_room(owner)
        word = secrets.token_urlsafe(_CODE_BYTES)
        self._waiting[word] = _OneTimeCode(self._now() + CODE_LIFETIME_S, owner, meaning)
        return word

    def take(self, word: str) -> T:
        """Return the value of a code; the code is used up.

        Raises:
            errors.LinkInvalid: the code was used, has expired or is unknown.
        """
        self._drop_old()
        # The time of this look-up gives nothing away that helps to guess 32 random bytes.
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
