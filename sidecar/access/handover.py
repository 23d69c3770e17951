"""A token handed from a command line to a browser by a word that counts once, and not for long.

A token in an address would stay in histories and in lists of processes; such a word is worth
nothing once it was used.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from sidecar import errors

LASTS_S = 120.0
"""From the command to the page that a browser shows: time for one that starts cold."""
MOST = 64
"""Words that wait at once; the oldest goes first."""
_BYTES = 32


class Handover:
    """The words that wait, each with the token that it stands for; memory only."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._waiting: dict[str, tuple[float, str]] = {}

    def give(self, token: str) -> str:
        """A new word for a token."""
        self._drop_old()
        while len(self._waiting) >= MOST:
            del self._waiting[next(iter(self._waiting))]
        word = secrets.token_urlsafe(_BYTES)
        self._waiting[word] = (self._now() + LASTS_S, token)
        return word

    def take(self, word: str) -> str:
        """The token that a word stands for; the word is used up.

        Raises:
            errors.LinkInvalid: it was used, is too old, or never was one.
        """
        self._drop_old()
        # 32 bytes by chance: what a look into a table gives away by its time helps nobody to them.
        _, token = self._waiting.pop(word, (0.0, ""))
        if not token:
            raise errors.LinkInvalid()
        return token

    def _drop_old(self) -> None:
        now = self._now()
        self._waiting = {word: one for word, one in self._waiting.items() if one[0] > now}
