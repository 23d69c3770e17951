"""Live sessions that go from one service to another: how one is found, and how one is left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from sidecar import errors
from sidecar.live.sessions.carried import Carried, unpacked
from sidecar.live.sessions.elsewhere import ASKED_S, Elsewhere, Found, Name
from sidecar.live.sessions.saver import Saver
from sidecar.live.sessions.session import Session

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often is looked meanwhile, if nobody says anything."""
STEADY_S = 1.0
"""So long an engine may take to say how much is settled."""


class Moving:
    """Of all sessions. ``still``: ends what hears one, so that nothing more happens in it;
    ``goes_on``: undoes that; ``end``: is told what ends one here."""

    def __init__(
        self,
        elsewhere: Elsewhere,
        saver: Saver,
        grace_s: float,
        still: Callable[[Session], Awaitable[None]],
        goes_on: Callable[[Session], None],
        end: Callable[[Session, errors.SidecarError], None],
    ) -> None:
        self._elsewhere, self._saver, self._grace_s = elsewhere, saver, grace_s
        self._still, self._goes_on, self._end = still, goes_on, end
        self._leaving: dict[Name, asyncio.Task[bool]] = {}
        self._coming: dict[Name, asyncio.Event] = {}
        """Those that are taken up now; set once that is over."""

    def comes(self, name: Name) -> bool:
        """Whether somebody takes a session up now."""
        return name in self._coming

    @asynccontextmanager
    async def alone(self, name: Name) -> AsyncIterator[None]:
        """Nobody else takes a session up as long as this lasts; waits for who does, or leaves it.
        A client that connects twice has two who want it."""
        while True:
            if (leaving := self._leaving.get(name)) is not None:
                await asyncio.wait({leaving})
            elif (coming := self._coming.get(name)) is not None:
                await coming.wait()
            else:
                break
        over = self._coming[name] = asyncio.Event()
        try:
            yield
        finally:
            del self._coming[name]
            over.set()

    async def find(self, name: Name, after: int) -> tuple[Carried, int]:
        """A session that another service has, or had, for whoever was told ``after`` of it; and in
        how many pieces what was said of it came.

        Raises:
            errors.SessionNotFound: it is not there; or more was told of it than is.
            errors.JournalUnreachable: nobody can say where it is.
        """
        found = await self._found(name)
        try:
            one = await asyncio.to_thread(unpacked, found.session, found.story)
            return one.orphaned(after) if found.orphaned else one, len(found.story)
        except errors.SessionNotFound:
            self._saver.forget(name)
            raise

    async def give_back(self, name: Name) -> None:
        """One that was found is nobody's again."""
        with suppress(errors.JournalUnreachable):
            await self._elsewhere.leave(name, self._grace_s)

    def leave(
        self, session: Session, why: errors.SidecarError, most_s: float
    ) -> asyncio.Task[bool]:
        """Leave it for another service and tell its client ``why``, within so many seconds; whether
        that could be. If not it goes on here."""
        name = session.owner, session.id
        if (task := self._leaving.get(name)) is None:
            work = self._leave(session, why, most_s)
            task = self._leaving[name] = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(lambda _: self._leaving.pop(name, None))
        return task

    async def _leave(self, session: Session, why: errors.SidecarError, most_s: float) -> bool:
        session.hold()
        await session.steady(STEADY_S)
        await self._still(session)
        left = False
        try:
            async with asyncio.timeout(most_s):
                left = await self._saver.leave(session)
        except (errors.JournalUnreachable, TimeoutError):
            log.warning("a live session could not be handed over: it goes on here")
        if left:
            self._end(session, why)
        else:
            self._goes_on(session)
            session.release()
        return left

    async def _found(self, name: Name) -> Found:
        loop = asyncio.get_running_loop()
        until = loop.time() + ASKED_S
        while True:
            found = await self._elsewhere.take(name)
            if isinstance(found, Found):
                return found
            if not found or loop.time() >= until:
                raise errors.SessionNotFound()
            await self._elsewhere.news(LOOK_S)
