"""Retry-After of an unfinished job and of a full queue: each refused client has its own time."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

UNFINISHED_JOB_RETRY_AFTER_S = 2
"""Retry-After of a request for the transcript of a job that still waits or runs."""
MAX_RETRY_AFTER_S = 60
"""Longest Retry-After. OpenAI's SDKs ignore a longer one and retry after a second."""
MAX_RETURNS = 1000
"""Refused clients that are expected again; older ones are dropped."""
MAX_RETURNS_OF_OTHERS = 4
"""Expected returns of one owner that delay another: an owner's many retries delay only itself."""


class ExpectedReturns:
    """Refused clients of a service, and when each was told to retry."""

    def __init__(self, begun_in_s: Callable[[int], float | None]) -> None:
        """``begun_in_s``: returns the seconds until this many waiting jobs have
        started; None if unknown."""
        self._begun_in_s = begun_in_s
        self._returns: list[tuple[float, str]] = []

    def retry_after_s(self, missing: int, caller: str | None) -> int | None:
        """Return the seconds after which a refused client finds a free queue position; None if
        unknown.

        ``missing`` jobs have to start first, and clients that were refused earlier retry at their
        times; of each other owner a few count. ``caller``: the owner that retries; None: no retry
        is expected.
        """
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
