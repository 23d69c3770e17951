"""Who comes how often: counted by address before it is known who asks, and by owner after."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from sidecar import errors
from sidecar.auth.approach import Approach
from sidecar.auth.identity import Identity
from sidecar.auth.limits import (
    ADDRESS_SHARE,
    MINUTE_S,
    Buckets,
    Failures,
    Rate,
    Standing,
    address_key,
)

MOST_HELD = 64
"""Answers to wrong tokens that wait at once; beyond it they are refused as too many."""


class Turnstile:
    """Counts requests. ``per_minute`` is an owner's; an address has several owners' worth."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._owners = Buckets(Rate(per_minute, MINUTE_S))
        self._addresses = Buckets(Rate(ADDRESS_SHARE * per_minute, MINUTE_S))
        self._failures = Failures()
        self.held = 0
        """Answers that wait."""

    def arrive(self, approach: Approach) -> None:
        """A request has come from somewhere.

        Raises:
            errors.RateLimited: too many have.
        """
        _refuse(self._addresses.take(address_key(approach.peer), self._now()))

    def enter(self, who: Identity) -> None:
        """It is known who sent it.

        Raises:
            errors.RateLimited: it sent too many.
        """
        _refuse(self._owners.take(who.owner, self._now()))

    def standing(self, who: Identity) -> Standing:
        """How many more it may send."""
        return self._owners.standing(who.owner, self._now())

    def fail(self, approach: Approach) -> float:
        """It brought a wrong token; how many seconds the answer is to wait.

        Raises:
            errors.RateLimited: as many answers wait as may.
        """
        delay = self._failures.note(address_key(approach.peer), self._now())
        if delay and self.held >= MOST_HELD:
            _refuse(delay)
        return delay


def _refuse(wait_s: float) -> None:
    if wait_s > 0:
        raise errors.RateLimited(retry_after=math.ceil(wait_s))
