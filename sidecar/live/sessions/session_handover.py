"""Hand-over of live sessions between services: at a shutdown, or for a client that reconnects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from sidecar import errors
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_checkpoint import (
    ResumedSession,
    SessionCheckpoint,
    SessionName,
    SessionStore,
    parse_checkpoint,
)
from sidecar.live.sessions.session_persistence import SessionSaver

log = logging.getLogger(__name__)


TAKEOVER_TIMEOUT_S = 6.0
"""Seconds to wait for the service that has a session: a dead one is detected by then."""
HANDOVER_POLL_S = 0.25
"""Interval of checks during a hand-over without a notification."""
STEADY_TIMEOUT_S = 1.0
"""Seconds that an engine may take to report its position."""


class SessionHandover:
    """Hand-over of all sessions. ``still``: stops the recognition of a session, so that nothing
    more happens in it; ``goes_on``: undoes that; ``end``: ends a session here with an error."""

    def __init__(
        self,
        store: SessionStore,
        saver: SessionSaver,
        grace_s: float,
        still: Callable[[Session], Awaitable[None]],
        goes_on: Callable[[Session], None],
        end: Callable[[Session, errors.SidecarError], None],
    ) -> None:
        self._store, self._saver, self._grace_s = store, saver, grace_s
        self._still, self._goes_on, self._end = still, goes_on, end
        self._leaving: dict[SessionName, asyncio.Task[bool]] = {}
        self._coming: dict[SessionName, asyncio.Event] = {}
        """Sessions that are being taken over; each event is set at the end."""

    def comes(self, name: SessionName) -> bool:
        """Return whether a client resumes a session now."""
        return name in self._coming

    @asynccontextmanager
    async def alone(self, name: SessionName) -> AsyncIterator[None]:
        """Hold the takeover of a session exclusively; wait while another one runs. A client that
        connects twice starts two."""
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

    async def find(self, name: SessionName, after: int) -> tuple[SessionCheckpoint, int]:
        """Return a session of another service for a client that has its events up to ``after``, and
        the number of its saved event batches.

        Raises:
            errors.SessionNotFound: it does not exist, or the client has more events than are saved.
            errors.JournalUnreachable: the database does not answer.
        """
        found = await self._found(name)
        try:
            one = await asyncio.to_thread(parse_checkpoint, found.session, found.story)
            return one.orphaned(after) if found.orphaned else one, len(found.story)
        except errors.SessionNotFound:
            self._saver.forget(name)
            raise

    async def give_back(self, name: SessionName) -> None:
        """Release a session that was found."""
        with suppress(errors.JournalUnreachable):
            await self._store.leave(name, self._grace_s)

    def leave(
        self, session: Session, why: errors.SidecarError, most_s: float
    ) -> asyncio.Task[bool]:
        """Leave a session for another service and send its client ``why``, within ``most_s``
        seconds; return whether that succeeded. If not, the session goes on here."""
        name = session.owner, session.id
        if (task := self._leaving.get(name)) is None:
            work = self._leave(session, why, most_s)
            task = self._leaving[name] = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(lambda _: self._leaving.pop(name, None))
        return task

    async def _leave(self, session: Session, why: errors.SidecarError, most_s: float) -> bool:
        session.hold()
        await session.steady(STEADY_TIMEOUT_S)
        await self._still(session)
        left = False
        try:
            async with asyncio.timeout(most_s):
                left = await self._saver.leave(session)
        except (errors.JournalUnreachable, TimeoutError):
            log.warning(
                "a live session could not be handed over to another service and goes on here"
            )
        if left:
            self._end(session, why)
        else:
            self._goes_on(session)
            session.release()
        return left

    async def _found(self, name: SessionName) -> ResumedSession:
        loop = asyncio.get_running_loop()
        until = loop.time() + TAKEOVER_TIMEOUT_S
        while True:
            found = await self._store.take(name)
            if isinstance(found, ResumedSession):
                return found
            if not found or loop.time() >= until:
                raise errors.SessionNotFound()
            await self._store.news(HANDOVER_POLL_S)
