"""Retry-After of a full queue: a time of its own for each client that is refused."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

MAX_RETRY_AFTER_S = 60
"""OpenAI's SDKs wait no longer for a Retry-After; if it says more, they come after a second."""
MAX_RETURNS = 1000
"""Clients that were refused and are expected again; more are not told apart."""
MAX_RETURNS_OF_OTHERS = 4
"""Those of one owner that another waits for: who is refused often delays itself alone."""


class ExpectedReturns:
    """Clients that were refused by a service, and when they were told to come again."""

    def __init__(self, begun_in_s: Callable[[int], float | None]) -> None:
        """``begun_in_s``: seconds until so many of the waiting jobs have begun; None where nobody
        can tell."""
        self._begun_in_s = begun_in_s
        self._returns: list[tuple[float, str]] = []

    def retry_after_s(self, missing: int, caller: str | None) -> int | None:
        """Return the seconds after which a client that is refused now finds a place, if ``missing``
        jobs have to begin first, and those that were refused before it come again when they were
        told to; of each other owner no more than a few. None where nobody can tell. ``caller``: the
        owner who comes again; None: nobody does."""
        now = time.monotonic()
        self._returns = [one for one in self._returns if one[0] > now][-MAX_RETURNS:]
        expected = Counter(owner for _, owner in self._returns)
        before = expected.pop(caller or "", 0)
        before += sum(min(count, MAX_RETURNS_OF_OTHERS) for count in expected.values())
        wait_s = self._begun_in_s(missing + before)
        if wait_s is None:
            return None
        told_s = min(max(1, math.ceil(wait_s)), MAX_RETRY_AFTER_S)
        if caller is not None:
            self._returns.append((now + told_s, caller))
        return told_s
