"""Sessions that were created and wait for their streams: for a while, and for the right one."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.auth.identity import Identity
from sidecar.live.sessions.session import Session


@dataclass(eq=False, slots=True)
class Created:
    """A session, who created it, and the token that its chunks must have (none where "").

    ``asked``: the client wants that; else it is there for streams that do not say who they are.
    """

    session: Session
    caller: Identity
    token: str = field(repr=False, default="")
    asked: bool = False
    over: asyncio.TimerHandle | None = None

    def admits(self, token: str) -> bool:
        """Whether that is its token, in the same time whatever was given."""
        return not self.token or hmac.compare_digest(token.encode(), self.token.encode())


class Waiting:
    """Those that wait; ``drop`` is called with one that waited for too long."""

    def __init__(self, unused_s: float, drop: Callable[[Session], None]) -> None:
        self._unused_s = unused_s
        self._drop = drop
        self._waiting: dict[tuple[str, str], Created] = {}

    def add(self, created: Created) -> None:
        """From now on it waits."""
        self._waiting[created.caller.owner, created.session.id] = created
        later = asyncio.get_running_loop().call_later
        created.over = later(self._unused_s, self._expire, created)

    def of(self, number: str, owner: str | None = None) -> list[Created]:
        """Those with that id: of one owner, or of whomever."""
        if owner is not None:
            found = self._waiting.get((owner, number))
            return [found] if found else []
        return [one for (_, each), one in self._waiting.items() if each == number]

    def take(self, created: Created) -> bool:
        """It waits no more; False where it did not."""
        if created.over is not None:
            created.over.cancel()
        return self._waiting.pop((created.caller.owner, created.session.id), None) is created

    def close(self) -> None:
        """None of them waits any more."""
        for created in list(self._waiting.values()):
            self._expire(created)

    def _expire(self, created: Created) -> None:
        if self.take(created):
            self._drop(created.session)
