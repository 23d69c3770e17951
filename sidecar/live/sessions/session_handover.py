"""Hand-over of live sessions between services, at a shutdown or for a client; saved checkpoints."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from sidecar import errors
from sidecar.concurrency import wait_for_event
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_checkpoint import (
    MAX_EVENT_HOLD_S,
    ResumedSession,
    SaveOutcome,
    SessionCheckpoint,
    SessionCheckpointer,
    SessionName,
    SessionSave,
    SessionSnapshot,
    SessionStore,
    parse_checkpoint,
    serialize_checkpoint,
    serialize_events,
)

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
        session.stays.clear()
        await wait_for_event(session.steady, STEADY_TIMEOUT_S)
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
            session.stays.set()
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


SAVE_RETRY_S = 1.0
"""Seconds until a failed save is tried again."""
CLOSE_TIMEOUT_S = 2.0
"""Seconds that the last save may take."""


class SessionSaver:
    """Owner of the task that saves. ``now``: the clock of the sessions; ``grace_s``: how long a
    session stays saved after this service dies; ``lost``: called for a session that another service
    has taken over."""

    def __init__(
        self,
        store: SessionStore,
        grace_s: float,
        now: Callable[[], float],
        lost: Callable[[Session], None],
    ) -> None:
        self._store, self._grace_s, self._now, self._lost = store, grace_s, now, lost
        self._due: dict[Session, None] = {}
        self._over: dict[SessionName, None] = {}
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        self._away = False
        self._task: asyncio.Task[None] | None = None

    async def begin(
        self, session: Session, found: SessionCheckpoint | None = None, pieces: int = 0
    ) -> None:
        """Save a session from here on; return once it is saved, or cannot be saved now. ``found``:
        the checkpoint of another service, with ``pieces`` batches of events.

        Raises:
            errors.SessionTaken: another service has a session of that name.
        """
        checkpointer = session.checkpointer = SessionCheckpointer(
            session.told,
            session.sound,
            lambda: self._poke(session),
            lambda: self._away,
            session.heard,
        )
        if found is not None:
            checkpointer.found(found, pieces)
        self._poke(session)
        if self._away:
            checkpointer.unsaved()
            return
        if not await wait_for_event(checkpointer.reached, MAX_EVENT_HOLD_S):
            checkpointer.unsaved()
        if checkpointer.closed:
            raise errors.SessionTaken()

    def over(self, session: Session) -> None:
        """Forget a session that has ended."""
        self._due.pop(session, None)
        if session.checkpointer is not None and not session.checkpointer.closed:
            session.checkpointer.close()
            self.forget((session.owner, session.id))

    def forget(self, name: SessionName) -> None:
        """Delete the saved state of a session that no service continues."""
        self._over[name] = None
        self._wake()

    async def leave(self, session: Session) -> bool:
        """Leave a stopped session for another service; return whether this service has released it.

        Raises:
            errors.JournalUnreachable: the outcome is unknown.
        """
        checkpointer = session.checkpointer
        if checkpointer is None or checkpointer.closed:
            return False
        self._due[session] = None
        async with self._writing:
            await self._write([session])
            if checkpointer.closed:
                return True
            left = await self._store.leave((session.owner, session.id), self._grace_s)
        self._due.pop(session, None)
        checkpointer.close()
        return left

    async def close(self) -> None:
        """Write the remaining deletions, and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        if self._over:
            with suppress(errors.JournalUnreachable, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S), self._writing:
                    await self._write([])

    def _poke(self, session: Session) -> None:
        self._due[session] = None
        self._wake()

    def _wake(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="save sessions")
        self._news.set()

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                async with self._writing:
                    await self._write([one for one in self._due if one.steady.is_set()])
            except errors.JournalUnreachable:
                await self._unsaved()
            except Exception:  # otherwise saving would stop without notice
                log.exception("internal error while live sessions were saved")
                await self._unsaved()

    async def _unsaved(self) -> None:
        """Note that sessions could not be saved, and try again in a while."""
        self._away = True
        for session in list(self._due):
            if session.checkpointer is not None:
                session.checkpointer.unsaved()
        await asyncio.sleep(SAVE_RETRY_S)
        self._news.set()

    async def _write(self, due: Sequence[Session]) -> None:
        """Save sessions in their current state; later changes make them due again."""
        snapshots = dict[SessionName, tuple[Session, SessionSnapshot]]()
        for session in due:
            self._due.pop(session, None)
            if session.told.wrong is not None:
                self.over(session)  # no service continues it
            elif session.checkpointer is not None and not session.checkpointer.closed:
                one = session.checkpointer.snapshot(session, self._now() - session.began)
                snapshots[session.owner, session.id] = session, one
        over, self._over = self._over, {}
        if not (snapshots or over):
            return
        saved = [_session_save(name, one) for name, (_, one) in snapshots.items()]
        try:
            fates = await self._store.save(saved, list(over), self._grace_s)
        except BaseException:
            self._due = {session: None for session, _ in snapshots.values()} | self._due
            self._over = over | self._over
            raise
        self._away = False
        for name, (session, one) in snapshots.items():
            self._came(session, one, fates[name])

    def _came(self, session: Session, one: SessionSnapshot, fate: SaveOutcome) -> None:
        checkpointer = session.checkpointer
        assert checkpointer is not None
        if fate is SaveOutcome.SAVED:
            checkpointer.saved(one)
        elif fate is SaveOutcome.GONE:
            checkpointer.lost()
        else:
            log.info("another service has taken over a live session")
            self._due.pop(session, None)
            checkpointer.close()
            self._lost(session)


def _session_save(name: SessionName, one: SessionSnapshot) -> SessionSave:
    story = serialize_events(one.said, one.known) if one.has_events else None
    return SessionSave(name, serialize_checkpoint(one.checkpoint), story, one.place, one.fresh)
