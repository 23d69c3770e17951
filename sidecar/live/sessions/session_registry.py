"""Registry of live sessions: creation, lookup, resumption, timeouts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence

from sidecar import errors
from sidecar.auth.identity import Identity
from sidecar.interfaces.engine_interface import EngineSpec
from sidecar.interfaces.live_events import NoticeRaised
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions import session_limits
from sidecar.live.sessions.engine_relay import AcquireLiveEngine, relay_session
from sidecar.live.sessions.event_log import EventMetrics
from sidecar.live.sessions.input_log import InputLogTotals
from sidecar.live.sessions.session import SaveSession, Session, SessionObserverFactory
from sidecar.live.sessions.session_checkpoint import SessionCheckpoint, SessionName, SessionStore
from sidecar.live.sessions.session_handover import SessionHandover, SessionSaver
from sidecar.live.sessions.session_limits import SessionBounds
from sidecar.live.sessions.session_recording import SessionRecording
from sidecar.observability.metrics import LiveMetrics, ServiceMetrics
from sidecar.transcripts.transcript import Notice

log = logging.getLogger(__name__)

AddKnownSpeakers = Callable[[LiveOptions, str], Awaitable[LiveOptions]]
"""Function that adds the enrolled speakers of an owner to the options of a session."""

OWN_WIRE = "live"
"""Protocol whose clients get notices of a load and a shutdown; others have their own way, or
none."""
SERVICE_ENDS_NOTICE = Notice(
    "shutting_down",
    "The service shuts down: the audio so far is transcribed, and no more is accepted.",
)
LEAVE_TIMEOUT_S = 2.0
"""Seconds allowed for the hand-over of a session, even if the grace is shorter."""
REMOTE_START_WAIT_S = 1.0
"""Seconds that a session of a remote engine waits for its admission, at most, before its client is
notified that it has begun."""
FINISH_TIMEOUT_S = 120.0
"""Seconds to send the remaining events of a session that becomes a job, after its time is up."""
TIMEOUT_POLL_S = 1.0
"""Interval of the check of time limits."""


class SessionRegistry:
    """Registry of the live sessions; owns them and their tasks.

    ``spec`` is that of the live engine, None if there is none; ``share`` leases the engine;
    ``add_known_speakers`` adds the enrolled speakers; ``save`` makes a job of a session, and
    ``new_recording`` stores its audio. ``store``: the sessions that another service can take over
    when this one ends or dies. ``is_loaded``: whether the engine is in memory.
    """

    def __init__(
        self,
        spec: EngineSpec | None,
        share: AcquireLiveEngine,
        room: session_limits.SessionLimits,
        bounds: SessionBounds,
        patience_s: float = 20.0,
        now: Callable[[], float] = time.monotonic,
        tally: LiveMetrics | None = None,
        observers: Sequence[SessionObserverFactory] = (),
        add_known_speakers: AddKnownSpeakers | None = None,
        save: SaveSession | None = None,
        new_recording: Callable[[], SessionRecording | None] = lambda: None,
        store: SessionStore | None = None,
        is_loaded: Callable[[], bool] = lambda: True,
    ) -> None:
        self._is_loaded = is_loaded
        self.admission = session_limits.SessionAdmission(spec, room)
        self._tally = tally or ServiceMetrics().live
        self._share, self.room, self._bounds = share, room, bounds
        self._patience_s = patience_s
        self._add_known_speakers, self._save = add_known_speakers, save
        self._new_recording = new_recording
        self._now = now
        self._observers = observers
        said = [observer.greeting for observer in observers]
        self._greeting = {name: value for one in said for name, value in one.items()}
        self.held = InputLogTotals(room.sound_bytes)
        self._sessions: dict[SessionName, Session] = {}
        self._tasks: dict[Session, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._closing = False
        self._saver: SessionSaver | None = None
        self._moving: SessionHandover | None = None
        if store is not None and room.grace_s > 0:
            saver = self._saver = SessionSaver(
                store, room.grace_s, now, lambda moved: self.end(moved, errors.SessionMoved())
            )
            self._moving = SessionHandover(
                store, saver, room.grace_s, self._still, self._goes_on, self.end
            )
            store.on_asked(self._asked)

    def __len__(self) -> int:
        """Return the number of sessions in progress; one that has ended only waits for its
        client."""
        return sum(not session.over for session in self._sessions.values())

    @property
    def spec(self) -> EngineSpec | None:
        """Return the spec of the live engine; None if there is none."""
        return self.admission.spec

    def going_on(self) -> list[Session]:
        """Return the sessions in progress."""
        return [session for session in self._sessions.values() if not session.over]

    def open(
        self,
        caller: Identity,
        options: LiveOptions,
        number: str | None = None,
        *,
        wire: str = "",
        forgiving: bool = False,
        idle_s: float | None = None,
    ) -> Session:
        """Open a session, which the caller holds. ``number``: the client's id for it; ``wire``: its
        protocol; ``forgiving``: as `Session.forgiving`; ``idle_s``: its own idle timeout, if any.

        Raises:
            errors.LiveUnavailable: there is no live engine.
            errors.LanguageUnsupported: the engine does not support the language.
            errors.BadRequest: other options are not possible here.
            errors.LiveFull, errors.LiveLimited: a limit of sessions is reached.
            errors.SessionTaken: a session with that id exists.
            errors.ShuttingDown: the service shuts down.
        """
        number = number or uuid.uuid4().hex
        try:
            if self._moving is not None and self._moving.comes((caller.owner, number)):
                raise errors.SessionTaken()
            self._check(caller, number)
            options = self.admission.accepted(options, self._bounds)
        except errors.SidecarError as error:
            self._tally.refused.add(wire, error.code)
            raise
        options = dataclasses.replace(
            options,
            client=caller.owner,
            patience_s=self._patience_s,
            wait_s=self.room.delay_s,
        )
        session = self._new(caller.owner, number, options, wire)
        session.forgiving, session.stranger = forgiving, self._add_known_speakers is not None
        if idle_s is not None:
            session.bounds = dataclasses.replace(self._bounds, idle_s=idle_s)
        session.recording = self._new_recording() if options.keep else None
        return self._begun(session)

    def _new(self, owner: str, number: str, options: LiveOptions, wire: str) -> Session:
        session = Session(
            number,
            owner,
            options,
            self._bounds,
            self.held,
            self._now,
            counted=EventMetrics(self._tally, wire, self._patience_s),
            greeting=self._greeting,
            accepted=self.admission.accepted,
        )
        session.save = self._save
        return session

    def _begun(self, session: Session) -> Session:
        session.observers = [observer.begin(session) for observer in self._observers]
        self._sessions[session.owner, session.id] = session
        if not session.over:
            self._see_to(session)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="live clock")
        return session

    def _see_to(self, session: Session) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(session), name="live")
        task.add_done_callback(lambda task: self._carried(session, task))
        self._tasks[session] = task

    async def _carry(self, session: Session) -> None:
        if session.stranger and self._add_known_speakers is not None:
            session.meet(await self._add_known_speakers(session.options, session.owner))
        tells_load = session.counted.wire == OWN_WIRE and not session.told.last
        await relay_session(session, self._share, self._is_loaded, tells_load=tells_load)

    def find(self, caller: Identity, number: str, after: int = 0) -> Session:
        """Return a session of the caller for a new connection, which replaces the previous one.
        ``after``: the last event that the client got.

        Raises:
            errors.SessionNotFound: it does not exist, or belongs to another owner.
        """
        session = self._sessions.get((caller.owner, number))
        if session is None:
            raise errors.SessionNotFound()
        session.disconnected_at = None
        session.goes_on(after)
        session.held_since = self._now()
        session.taken.set()
        session.taken = asyncio.Event()
        return session

    async def move(self, session: Session) -> None:
        """Allow other services to take over a new session if this one ends or dies; its client
        reconnects then. Return once the session is saved, or cannot be saved now.

        Raises:
            errors.SessionTaken: another service has a session with that id; this one has ended.
        """
        session.moves = True
        if self._saver is not None and session.recording is None:
            try:
                await self._saver.begin(session)
            except BaseException:
                self.end(session)
                raise

    async def placed(self, session: Session) -> None:
        """Wait shortly until a remote engine has admitted a new session, so that its client gets a
        refusal at once.

        Raises:
            errors.SidecarError: the engine refused it; the session has ended.
        """
        if self.spec is None or not self.spec.remote:
            return
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REMOTE_START_WAIT_S):
                    await session.placed.wait()
            if session.told.wrong is not None:
                raise session.told.wrong
        except BaseException:
            self.end(session)
            raise

    async def find_or_take_over(self, caller: Identity, number: str, after: int = 0) -> Session:
        """Find a session as `find` does, or take it over from another service, running or not.
        ``after``: the last event that the client got.

        Raises:
            errors.SessionNotFound: it does not exist, or belongs to another owner.
            errors.ShuttingDown: the service shuts down.
            errors.LiveFull, errors.LiveLimited: a limit is reached; it stays where it is.
            errors.JournalUnreachable: the database does not answer.
        """
        name = caller.owner, number
        if self._moving is None:
            return self.find(caller, number, after)
        async with self._moving.alone(name):
            if name in self._sessions:
                return self.find(caller, number, after)
            self._check(caller, number)
            one, pieces = await self._moving.find(name, after)
            try:
                self._check(caller, number)  # the situation may have changed meanwhile
                options = self.admission.accepted(one.options, self._bounds)
            except errors.SidecarError:
                await self._moving.give_back(name)
                raise
            one = dataclasses.replace(one, options=options)
            return await self._restored(caller.owner, number, one, pieces)

    async def _restored(
        self, owner: str, number: str, one: SessionCheckpoint, pieces: int
    ) -> Session:
        session = self._new(owner, number, one.options, one.wire)
        session.moves = True
        session.restore(one)
        self._tally.taken_up.add(one.wire)
        self._begun(session)
        assert self._saver is not None
        try:
            await self._saver.begin(session, one, pieces)
        except BaseException:
            self.leave(session, unheard=True)
            raise
        return session

    def leave(self, session: Session, *, unheard: bool = False) -> None:
        """Release the session from its connection; it ends if no client reconnects in time. If it
        has ended it is deleted now, unless its last events may be ``unheard``."""
        if (session.over and not unheard) or not self.room.grace_s:
            self.end(session)
        else:
            session.disconnected_at = self._now()

    def end(self, session: Session, wrong: errors.SidecarError | None = None) -> None:
        """End a session now, whatever its state."""
        session.end(wrong)
        if isinstance(wrong, errors.SessionMoved):
            session.taken.set()
        if self._sessions.get((session.owner, session.id)) is session:  # not a later one of its id
            del self._sessions[session.owner, session.id]
        if self._saver is not None:
            self._saver.over(session)
        if (task := self._tasks.get(session)) is not None:
            task.cancel()

    def forget_over(self, owner: str) -> None:
        """Drop an owner's sessions that have ended: a client that reconnects for the last events of
        one does not find it."""
        for session in list(self._sessions.values()):
            if session.owner == owner and session.over:
                self.end(session)

    async def drain(self, grace_s: float) -> None:
        """Accept no more sessions. Hand over those that another service can take; the others send
        the results that are ready within the grace."""
        self._closing = True
        going = [one for one in self._sessions.values() if not one.over]
        moving = [one for one in going if self._may_move(one)]
        for session in going:
            if session not in moving:
                if session.counted.wire == OWN_WIRE and not session.finishing:
                    session.heard(NoticeRaised(SERVICE_ENDS_NOTICE))
                session.finish(asked=False)
        async with asyncio.TaskGroup() as group:
            for session in moving:
                group.create_task(self._hand_over(session, max(grace_s, LEAVE_TIMEOUT_S)))
        if self._tasks and grace_s > 0:
            await asyncio.wait(set(self._tasks.values()), timeout=grace_s)
        await self.close()

    async def close(self) -> None:
        """End all sessions."""
        self._closing = True
        for session in list(self._sessions.values()):
            self.end(session, errors.ShuttingDown())
        tasks = set(self._tasks.values())
        if self._looking is not None:
            self._looking.cancel()
            tasks.add(self._looking)
            self._looking = None
        if tasks:
            await asyncio.wait(tasks)
        if self._saver is not None:
            await self._saver.close()

    def _may_move(self, session: Session) -> bool:
        """Return whether another service can continue it: its client reconnects, and all of it is
        saved (a recording would be on the disk of this service)."""
        return session.checkpointer is not None and not session.checkpointer.closed

    async def _hand_over(self, session: Session, most_s: float) -> None:
        """Hand a session over and notify its client; if that fails, end it here."""
        assert self._moving is not None
        if not await self._moving.leave(session, errors.SessionHandedOver(), most_s):
            session.finish(asked=False)

    def _asked(self, name: SessionName, since_s: float) -> None:
        """Hand over a session if its client connected to another service ``since_s`` seconds ago
        and has not reconnected here meanwhile."""
        session = self._sessions.get(name)
        if session is None or self._closing or self._moving is None or not self._may_move(session):
            return
        if self._now() - session.held_since >= since_s:
            self._moving.leave(session, errors.SessionMoved(), LEAVE_TIMEOUT_S)

    async def _still(self, session: Session) -> None:
        """Stop the relay of the session without an event."""
        if (task := self._tasks.get(session)) is not None:
            task.cancel()
            await asyncio.wait({task})

    def _goes_on(self, session: Session) -> None:
        if not session.over:
            self._see_to(session)

    def _check(self, caller: Identity, number: str) -> None:
        """Check the limits, as described for `open`."""
        if self._closing:
            raise errors.ShuttingDown()
        if (caller.owner, number) in self._sessions:
            raise errors.SessionTaken()
        self.admission.check(caller, [one.owner for one in self._sessions.values() if not one.over])

    def _carried(self, session: Session, task: asyncio.Task[None]) -> None:
        del self._tasks[session]
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            log.error("internal error in a live session, which ended", exc_info=fault)
            session.end(errors.SidecarError())

    async def _look(self) -> None:
        """End the sessions that exceed a time limit."""
        while True:
            await asyncio.sleep(TIMEOUT_POLL_S)
            now, grace_s = self._now(), self.room.grace_s
            for session in list(self._sessions.values()):
                try:
                    self._look_at(session, now, grace_s)
                except Exception:  # a fault in one must not keep the others for ever
                    log.exception(
                        "internal error while the time limits of a live session were checked"
                    )

    def _look_at(self, session: Session, now: float, grace_s: float) -> None:
        left = session.disconnected_at
        if _is_finishing(session, now):
            return
        if left is not None and now - left >= grace_s:
            self.end(session)
        elif not session.over and (wrong := session.overdue(now)) is not None:
            log.info("a live session reached a time limit and ends: %s", wrong.code)
            session.end(wrong)
            with contextlib.suppress(KeyError):
                self._tasks[session].cancel()


def _is_finishing(session: Session, now: float) -> bool:
    """Return whether a session that becomes a job still sends its remaining events."""
    left = session.disconnected_at is not None
    if not session.options.keep or session.over:
        return False
    if not session.finishing:
        if not left and session.overdue(now) is None:
            return False
        session.finish(asked=False)
    return now - session.touched < FINISH_TIMEOUT_S
