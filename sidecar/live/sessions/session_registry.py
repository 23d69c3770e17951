"""Registry of live sessions: creation, lookup, resumption, timeouts."""

import asyncio
import collections
import dataclasses
import logging
import math
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from sidecar import errors
from sidecar.auth.identity import Identity
from sidecar.concurrency import running
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import EngineSpec
from sidecar.interfaces.live_events import NoticeRaised
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions.engine_relay import AcquireLiveEngine, relay_channels, relay_session
from sidecar.live.sessions.event_log import EventMetrics
from sidecar.live.sessions.input_log import InputLogTotals
from sidecar.live.sessions.session import SaveSession, Session
from sidecar.live.sessions.session_limits import SessionBounds, accepted_options, may_have_more
from sidecar.live.sessions.session_recording import SessionRecording
from sidecar.live.sessions.stereo_session import StereoSession
from sidecar.observability.logs import ONCE_A_MINUTE
from sidecar.observability.metrics import LiveMetrics, ServiceMetrics
from sidecar.transcripts.transcript import Notice

log = logging.getLogger(__name__)

AddKnownSpeakers = Callable[[LiveOptions, str], Awaitable[LiveOptions]]
"""Function that adds the enrolled speakers of an owner to the options of a session."""

OWN_WIRE = "live"
"""Protocol whose clients get notices of a load and a shutdown; others have other ways."""
SERVICE_ENDS_NOTICE = Notice(
    "shutting_down",
    "The service shuts down: the audio so far is transcribed, and no more is accepted.",
)
SAVE_GRACE_S = 2.0
"""Seconds in which sessions are saved at shutdown, after its grace: a container is killed after ten
in all."""
LAST_WORDS_LATE = "The engine took too long for the last words."
CHECK_INTERVAL_S = 0.2
"""Interval of the check of time limits."""


class SessionRegistry:
    """Registry of the live sessions; owns them and their tasks.

    ``spec`` is that of the live engine, None if there is none; ``share`` leases the engine;
    ``add_known_speakers`` adds the enrolled speakers; ``save`` makes a job of a session, and
    ``new_recording`` stores its audio, of so many channels. ``is_loaded``: whether the engine is in
    memory.
    """

    def __init__(
        self,
        spec: EngineSpec | None,
        share: AcquireLiveEngine,
        settings: Settings,
        now: Callable[[], float] = time.monotonic,
        live_metrics: LiveMetrics | None = None,
        add_known_speakers: AddKnownSpeakers | None = None,
        save: SaveSession | None = None,
        new_recording: Callable[[int], SessionRecording | None] = lambda channels: None,
        is_loaded: Callable[[], bool] = lambda: True,
    ) -> None:
        self._is_loaded = is_loaded
        self.spec = spec
        self._live_metrics = live_metrics or ServiceMetrics().live
        self._share, self._settings = share, settings
        self.bounds = SessionBounds(settings.live_idle, settings.live_longest)
        """Bounds of sessions that begin."""
        self._add_known_speakers, self._save = add_known_speakers, save
        self._new_recording = new_recording
        self.now = now
        self.held = InputLogTotals(settings.live_buffer_mb << 20)
        self._sessions: dict[tuple[str, str], Session] = {}
        """Sessions by owner and the id that the client uses."""
        self._tasks: dict[Session, asyncio.Task[None]] = {}
        self._time_limits_task: asyncio.Task[None] | None = None
        self._checked_at = now()
        self._closing = False

    def __len__(self) -> int:
        """Return the number of sessions in progress, as `count_by`."""
        return self.count_by(lambda one: one.owner).total()

    @property
    def most(self) -> int:
        """Return the limit of sessions."""
        return min(self._settings.live_sessions, self.spec.sessions if self.spec else 0)

    @property
    def grace_s(self) -> float:
        """Return the seconds that a session waits for a disconnected client."""
        return self._settings.live_grace

    @property
    def engine(self) -> EngineSpec:
        """Return the spec of the live engine.

        Raises:
            errors.LiveUnavailable: there is none.
            errors.NotHere: there is none at this front.
        """
        if self.spec is not None:
            return self.spec
        if not self._settings.is_front:
            raise errors.LiveUnavailable()
        raise errors.NotHere()

    def going_on(self) -> list[Session]:
        """Return the sessions in progress; one that has ended only waits for its client."""
        return [session for session in self._sessions.values() if not session.over]

    def count_by(self, label: Callable[[Session], str]) -> collections.Counter[str]:
        """Return the number of sessions in progress by ``label``, of which one of two channels
        counts as two."""
        return collections.Counter(
            label(one) for one in self.going_on() for _ in range(one.channels)
        )

    def open(
        self,
        identity: Identity,
        options: LiveOptions,
        number: str | None = None,
        *,
        wire: str = "",
        forgiving: bool = False,
        idle_s: float | None = None,
        channel_names: Sequence[str] = (),
        name: str = "",
    ) -> Session:
        """Open a session, which the caller holds. ``number``: the client's id for it; ``wire``: its
        protocol; ``forgiving``: as `Session.forgiving`; ``idle_s``: its own idle timeout, if any;
        ``channel_names``: of both channels of a `StereoSession`; ``name``: as `Session.name`.

        Raises:
            errors.LiveUnavailable, errors.NotHere: there is no live engine.
            errors.LanguageUnsupported: the engine does not support the language.
            errors.BadRequest: other options are not possible here.
            errors.LiveFull, errors.LiveLimited: a limit of sessions is reached.
            errors.SessionTaken: a session with that id exists.
            errors.ShuttingDown: the service shuts down.
        """
        number, channels = number or uuid.uuid4().hex, max(1, len(channel_names))
        try:
            if self._closing:
                raise errors.ShuttingDown()
            if (identity.owner, number) in self._sessions:
                raise errors.SessionTaken()
            spec = self.engine
            self._check_limits(identity, channels)
            options = accepted_options(options, self.bounds, spec, channels)
        except errors.SidecarError as error:
            self._live_metrics.refused.add(wire, error.code)
            raise
        settings = self._settings
        options = dataclasses.replace(
            options,
            client=identity.owner,
            patience_s=settings.live_timeout,
            wait_s=settings.live_delay,
        )
        session_class = (
            partial(StereoSession, channel_names=channel_names) if channel_names else Session
        )
        session = session_class(
            number,
            identity.owner,
            options,
            self.bounds,
            self.held,
            self.now,
            event_metrics=EventMetrics(self._live_metrics, wire, settings.live_timeout),
            spec=spec,
        )
        session.save, session.forgiving, session.name = self._save, forgiving, name
        if idle_s is not None:
            session.bounds = dataclasses.replace(self.bounds, idle_s=idle_s)
        session.recording = self._new_recording(session.channels) if options.keep else None
        self._sessions[session.owner, session.id] = session
        create_task = asyncio.get_running_loop().create_task
        task = self._tasks[session] = create_task(self._carry(session), name="live")
        task.add_done_callback(lambda task: self._carried(session, task))
        if self._time_limits_task is None:
            self._time_limits_task = create_task(self._watch_time_limits(), name="live clock")
        return session

    def _check_limits(self, identity: Identity, channels: int) -> None:
        """Refuse another session if there are enough, as described for `open`."""
        if 1 <= self.most < channels or (
            channels > 1 and not may_have_more(self._settings, identity, 0, channels, channels)
        ):  # whatever ends, they are too many
            raise errors.FieldInvalid(
                f"{channels} channels need as many live sessions, and fewer are allowed.",
                hint="Mix the channels, and omit 'channels'.",
            )
        by_owner = self.count_by(lambda one: one.owner)
        free = self.most - by_owner.total()
        if channels > free:
            log.warning(
                "live sessions are refused (live_full): %d are going on, as many as "
                "live_sessions or the engine allows",
                by_owner.total(),
                extra=ONCE_A_MINUTE,
            )
            raise errors.LiveFull()
        if not may_have_more(self._settings, identity, by_owner[identity.owner], free, channels):
            raise errors.LiveLimited()

    async def _carry(self, session: Session) -> None:
        """Run a session to its end. If it is cut short, what was said so far is saved before the
        engine has stopped, which may take long."""
        async with running(self._relay(session)) as [relay]:
            try:
                await asyncio.wait({relay})
            except asyncio.CancelledError:
                if session.over:
                    raise
                relay.cancel()
                await session.fail(session.reason or errors.ShuttingDown())
        relay.result()

    async def _relay(self, session: Session) -> None:
        tells_load = session.event_metrics.wire == OWN_WIRE
        if isinstance(session, StereoSession):
            await relay_channels(session, self._share, self._is_loaded, tells_load=tells_load)
            return
        if self._add_known_speakers is not None:
            session.meet(await self._add_known_speakers(session.options, session.owner))
        await relay_session(session, self._share, self._is_loaded, tells_load=tells_load)

    def find(self, identity: Identity, number: str, channels: int = 1) -> Session:
        """Return a session of the caller for a new connection, which replaces the previous one.

        Raises:
            errors.SessionNotFound: it does not exist, or belongs to another owner.
            errors.FieldInvalid: it has other ``channels``; its previous connection keeps it.
        """
        session = self._sessions.get((identity.owner, number))
        if session is None:
            raise errors.SessionNotFound()
        if session.channels != channels:
            raise errors.FieldInvalid(
                f"The session has {session.channels} channels, and 'channels' is {channels}.",
                hint="Resume a session with the encoding, rate and channels that it began with.",
            )
        session.disconnected_at = None
        session.expect_audio()
        session.taken.set()
        session.taken = asyncio.Event()
        return session

    def leave(self, session: Session, *, for_good: bool = False) -> None:
        """Release the session from its connection. Unless a client reconnects in time, which it
        cannot after it left ``for_good``, it is deleted; one that is kept is finished first."""
        session.disconnected_at = -math.inf if for_good else self.now()
        self._end_if_overdue(session, self.now(), self.grace_s)

    def conclude(self, session: Session, reason: errors.SidecarError | None) -> None:
        """End a session whose client does not: its last words and its summary precede the reason.
        One without audio ends at once."""
        if session.over or session.finishing:
            return
        log.info("a live session is ended: %s", "left" if reason is None else reason.code)
        if not session.received_s:
            self._stop(session, reason)
            return
        if reason is not None and session.event_metrics.wire == OWN_WIRE:
            session.handle_event(NoticeRaised(Notice(reason.code, reason.detail)))
        session.finish(reason, asked=False)

    def end(self, session: Session, error: errors.SidecarError | None = None) -> None:
        """End a session now, whatever its state."""
        self._stop(session, error)
        if self._sessions.get((session.owner, session.id)) is session:  # not a later one of its id
            del self._sessions[session.owner, session.id]

    def _stop(self, session: Session, error: errors.SidecarError | None) -> None:
        session.end(error)
        if (task := self._tasks.get(session)) is not None:
            task.cancel()

    def _cut_short(self, session: Session, error: errors.SidecarError) -> None:
        """End a session whose last words are late: what was said so far is saved, and its summary
        precedes the error."""
        session.reason, session.concluding = error, True
        session.give_time()
        self._tasks[session].cancel()

    def forget_over(self, owner: str) -> None:
        """Drop an owner's sessions that have ended: a client that reconnects for the last events of
        one does not find it."""
        for session in list(self._sessions.values()):
            if session.owner == owner and session.over:
                self.end(session)

    async def drain(self, grace_s: float) -> None:
        """Accept no more sessions; those in progress send the results that are ready within the
        grace, and are saved with those."""
        self._closing = True
        for session in self.going_on():
            is_own = session.event_metrics.wire == OWN_WIRE
            if is_own and not session.finishing:
                session.handle_event(NoticeRaised(SERVICE_ENDS_NOTICE))  # it is the reason, too
            session.finish(None if is_own else errors.ShuttingDown(), asked=False)
        if self._tasks and grace_s > 0:
            await asyncio.wait(set(self._tasks.values()), timeout=grace_s)
        await self.close()

    async def close(self) -> None:
        """End all sessions, after saving what was said so far."""
        self._closing = True
        for session in self.going_on():
            if not session.concluding:
                self._cut_short(session, errors.ShuttingDown())
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()), timeout=SAVE_GRACE_S)
        for session in list(self._sessions.values()):
            self.end(session, errors.ShuttingDown())
        tasks = set(self._tasks.values())
        if self._time_limits_task is not None:
            self._time_limits_task.cancel()
            tasks.add(self._time_limits_task)
            self._time_limits_task = None
        if tasks:
            await asyncio.wait(tasks)

    def _carried(self, session: Session, task: asyncio.Task[None]) -> None:
        del self._tasks[session]
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            log.error("internal error in a live session, which ended", exc_info=fault)
            session.end(errors.SidecarError())

    async def _watch_time_limits(self) -> None:
        while self._sessions:
            await asyncio.sleep(CHECK_INTERVAL_S)
            self.check_time_limits()
        self._time_limits_task = None

    def check_time_limits(self) -> None:
        """End the utterances and the sessions that exceed a time limit."""
        now, grace_s = self.now(), self.grace_s
        # If the event loop stood still, there may be audio that it did not read.
        passed_s, self._checked_at = min(now - self._checked_at, 2 * CHECK_INTERVAL_S), now
        for session in list(self._sessions.values()):
            try:
                session.wait_for_audio(passed_s)
                self._end_if_overdue(session, now, grace_s)
            except Exception:  # a fault in one must not keep the others for ever
                log.exception("internal error while the time limits of a live session were checked")

    def _end_if_overdue(self, session: Session, now: float, grace_s: float) -> None:
        left = session.disconnected_at
        is_gone = left is not None and now - left >= grace_s
        reason = session.reason or (None if is_gone else session.overdue(now))
        if is_gone and (session.over or not session.options.keep):
            self.end(session)
        elif session.over or not (is_gone or reason):
            pass
        elif not session.finishing:
            self.conclude(session, reason)
        elif not (session.concluding or self._is_loaded()):
            session.give_time()  # it begins with the engine
        elif now < session.end_by:
            pass
        elif session.concluding:
            self._stop(session, reason)
        else:
            self._cut_short(session, reason or errors.EngineFailed(LAST_WORDS_LATE))
