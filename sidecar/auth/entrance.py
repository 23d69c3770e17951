"""Who is let in, by whichever wire: the same rules, counts, and list of who is here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sidecar import errors
from sidecar.auth.approach import Approach
from sidecar.auth.auth import Access
from sidecar.auth.identity import Identity
from sidecar.auth.revocable_streams import Visits
from sidecar.auth.turnstile import Turnstile

Pause = Callable[[float], Awaitable[object]]
"""Waits for so many seconds."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """What all wires share. Without a ``turnstile`` nobody is counted."""

    access: Access
    turnstile: Turnstile | None = None
    visits: Visits = field(default_factory=Visits)

    def arrive(self, approach: Approach) -> None:
        """Somebody has come from somewhere.

        Raises:
            errors.HostNotAllowed, errors.PeerNotAllowed, errors.OriginNotAllowed: not from there.
            errors.RateLimited: too often.
        """
        self.access.check_place(approach)
        if self.turnstile is not None:
            self.turnstile.arrive(approach)

    async def identify(self, approach: Approach) -> Identity:
        """Who it is that has arrived.

        Raises:
            errors.TokenMissing, errors.TokenInvalid: nobody who is known.
            errors.RateLimited: one who comes too often.
        """
        who = await identified(self.access, self.turnstile, approach)
        if self.turnstile is not None:
            self.turnstile.enter(who)
        return who


async def identified(
    access: Access, turnstile: Turnstile | None, approach: Approach, pause: Pause = asyncio.sleep
) -> Identity:
    """Who it is; the answer to a wrong token waits.

    Raises:
        errors.TokenMissing, errors.TokenInvalid: nobody who is known.
        errors.RateLimited: as many answers to wrong tokens wait as may.
    """
    try:
        return access.identify(approach)
    except errors.TokenInvalid:
        if turnstile is not None:
            await wait_for_a_wrong_one(turnstile, approach, pause)
        raise


async def wait_for_a_wrong_one(
    turnstile: Turnstile, approach: Approach, pause: Pause = asyncio.sleep
) -> None:
    """A wrong token came: wait before that is said, longer each time.

    Raises:
        errors.RateLimited: as many answers wait as may.
    """
    if delay := turnstile.fail(approach):
        turnstile.held += 1
        try:
            await pause(delay)
        finally:
            turnstile.held -= 1
