"""A semaphore whose waiters take turns by owner, and which leaves places for other owners."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sidecar.auth.identity import Identity
from sidecar.auth.limits import leaves_room


class FairSemaphore:
    """At most ``places`` are held at once. Owners who wait are served round robin, each in the
    order of its own requests; one that shares with others (`Limits.shares`) leaves them places."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._held = Counter[str]()
        self._waiting: dict[str, deque[tuple[Identity, asyncio.Future[None]]]] = {}
        """By owner; the first of the owners is the next."""

    @asynccontextmanager
    async def held(self, caller: Identity) -> AsyncIterator[None]:
        """Hold a place, once it is the caller's turn."""
        await self._acquire(caller)
        try:
            yield
        finally:
            self._release(caller.owner)

    async def _acquire(self, caller: Identity) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._waiting.setdefault(caller.owner, deque())
        line.append((caller, granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._leave(caller.owner)
            else:
                self._release(caller.owner)
            raise

    def _release(self, owner: str) -> None:
        self._held[owner] -= 1
        self._held += Counter()  # those without any are forgotten
        self._grant()

    def _grant(self) -> None:
        """Give places to those whose turn it is, as long as there is one for any of them."""
        while (owner := next(filter(self._may, self._waiting), None)) is not None:
            line = self._waiting.pop(owner)
            _, granted = line.popleft()
            if line:
                self._waiting[owner] = line  # behind the others
            if not granted.done():  # else its task was cancelled a moment ago
                self._held[owner] += 1
                granted.set_result(None)

    def _may(self, owner: str) -> bool:
        caller, _ = self._waiting[owner][0]
        has, free = self._held[owner], self._places - self._held.total()
        return leaves_room(has if caller.limits.shares else 0, 1, free)

    def _leave(self, owner: str) -> None:
        """Forget those of an owner who do not wait any more."""
        line = deque(one for one in self._waiting.get(owner, ()) if not one[1].cancelled())
        if line:
            self._waiting[owner] = line
        else:
            self._waiting.pop(owner, None)
