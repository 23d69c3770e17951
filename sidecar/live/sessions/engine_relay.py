"""Relay between a session and the worker process of its engine.

If a process dies, the session resumes in a new one. Only a session that was being recognized counts
that as an attempt. It is recognized alone the next time, so the second attempt leaves no doubt.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

from sidecar import errors
from sidecar.concurrency import running
from sidecar.interfaces.live_events import NoticeRaised, SessionRejected, Summary, from_wire
from sidecar.interfaces.live_options import LiveOptions, LiveOrder
from sidecar.live.sessions.input_log import InputChunk
from sidecar.live.sessions.session import (
    ENGINE_LOADING_NOTICE,
    ENGINE_RESTARTED_NOTICE,
    Session,
)
from sidecar.live.sessions.stereo_session import StereoSession
from sidecar.observability.logs import ONCE_A_MINUTE
from sidecar.workers import channel
from sidecar.workers.engine_lease import EngineLease
from sidecar.workers.rpc_client import RpcCall, RpcCallEnded
from sidecar.workers.worker_process import WorkerDied

log = logging.getLogger(__name__)

OVERLOADED_DETAIL = "As many people speak as this machine can transcribe in time."
OVERLOADED_HINT = (
    "Try again later, raise live_delay (finals may come later), or give the service a machine with "
    "more cores."
)


MAX_DEATHS_AT_POSITION = 2
"""Engine deaths at one position of the audio that end a session which was being recognized."""
MAX_SOLE_DEATHS = 5
"""Engine deaths that a session survives, anywhere, with no other session being recognized."""
MAX_UNEXPLAINED_DEATHS = 5
"""Engine deaths that a session survives at one position, with no session being recognized."""
MAX_CONSECUTIVE_LOSSES = 3
"""Skips of audio in a row before the session ends: the audio is not the cause then."""
MAX_BUSY_LOADS, BUSY_PAUSE_S = 10, 1.0
"""Times that the machine may lack a process or a descriptor for a session, and the pause after
each: less audio than the buffer holds."""

AcquireLiveEngine = Callable[[], AbstractAsyncContextManager[EngineLease]]
"""Function that leases an engine for as long as the session needs it, and loads it if necessary."""


class EngineDeathCounter:
    """Counter of engine deaths at one position of a session's audio, and of its part in them. It
    also counts the deaths at any position that the session alone can have caused."""

    def __init__(self) -> None:
        self._position_s: float | None = None
        self._attempts = self._unexplained = self._sole = 0

    def suspects(self, position_s: float) -> bool:
        """Return whether the audio at a position may have ended an engine."""
        return position_s == self._position_s and self._attempts > 0

    def add(self, died: WorkerDied, position_s: float) -> bool:
        """Count a death, as an attempt only if the session was being recognized; return whether the
        limit is reached. A death that other sessions explain does not count."""
        if position_s != self._position_s:
            self._position_s, self._attempts, self._unexplained = position_s, 0, 0
        self._attempts += died.began
        self._unexplained += not (died.began or died.explained)
        self._sole += died.sole
        too_many = self._unexplained > MAX_UNEXPLAINED_DEATHS or self._sole > MAX_SOLE_DEATHS
        return self._attempts >= MAX_DEATHS_AT_POSITION or too_many


async def relay_session(
    session: Session,
    share: AcquireLiveEngine,
    is_loaded: Callable[[], bool] = lambda: True,
    *,
    tells_load: bool = False,
) -> None:
    """Run a session to its end, which gets any error. ``is_loaded``: whether the engine is in
    memory; ``tells_load``: notify the client if it is not, once."""
    deaths = EngineDeathCounter()
    losses, lost_at, busy = 0, -1.0, 0
    while True:
        try:
            loads = not is_loaded()
            if loads and tells_load:
                tells_load = False
                session.handle_event(NoticeRaised(ENGINE_LOADING_NOTICE))
            async with share() as engine:
                if loads:
                    session.catches_up()
                await _relay_once(session, engine, alone=deaths.suspects(session.position_s))
                return session.end()
        except WorkerDied as died:
            if session.over or session.concluding:
                return None
            position_s, busy = session.position_s, 0
            if not deaths.add(died, position_s):
                session.handle_event(NoticeRaised(ENGINE_RESTARTED_NOTICE))
                continue
            log.warning(
                "the worker process died repeatedly at the same position of a live session, "
                "which ends or skips that audio"
            )
            losses = losses + 1 if position_s == lost_at else 1
            if not session.forgiving or losses > MAX_CONSECUTIVE_LOSSES:
                return await session.fail(errors.EngineCrashed())
            session.lose()
            deaths, lost_at = EngineDeathCounter(), session.position_s
        except errors.SidecarError as error:
            if session.over or session.concluding:
                return None
            busy += 1
            if not isinstance(error, errors.MachineBusy) or busy > MAX_BUSY_LOADS:
                return await session.fail(error)
            await asyncio.sleep(BUSY_PAUSE_S)


async def relay_channels(
    session: StereoSession,
    share: AcquireLiveEngine,
    is_loaded: Callable[[], bool] = lambda: True,
    *,
    tells_load: bool = False,
) -> None:
    """Run the sessions of both channels to their ends, and with them the session. An error in one
    ends all. The arguments are those of `relay_session`."""
    first, second = session.sessions
    wrong: errors.SidecarError | None = None
    async with running(
        relay_session(first, share, is_loaded, tells_load=tells_load),
        relay_session(second, share, is_loaded),
    ) as tasks:
        for task in asyncio.as_completed(tasks):
            await task
            wrong = next(filter(None, (one.event_log.wrong for one in session.sessions)), None)
            if wrong is not None or session.over:
                break
    if wrong is not None and not session.over:  # no event follows those that its job has
        await session.fail(wrong)
    elif not session.over:
        await session.conclude(session.transcript())


async def _relay_once(session: Session, engine: EngineLease, *, alone: bool) -> None:
    options = session.begins_anew().to_wire()
    begin = session.event_log.so_far(session.input_log.settled, session.input_log.lead).to_wire()
    async with (
        engine.calling("live", options=options, begin=begin, alone=alone) as call,
        running(_send_input(session, call)),
    ):
        async for answer, _ in call.answers():
            event = from_wire(answer)
            if isinstance(event, SessionRejected):
                log.warning("a live session ended (live_full): too many speak", extra=ONCE_A_MINUTE)
                raise errors.LiveFull(OVERLOADED_DETAIL, hint=OVERLOADED_HINT)
            if isinstance(event, Summary):  # an engine that dies now is needed no more
                await session.conclude(event.transcript)
            else:
                session.handle_event(event)


async def _send_input(session: Session, call: RpcCall) -> None:
    """Send all input that is not settled, and then new input."""
    with suppress(channel.ChannelClosed, RpcCallEnded):  # the reader of the call gets the error
        while True:
            session.news.clear()
            match session.input_log.take():
                case InputChunk(raw=raw, encoding=encoding, rate=rate, ahead=ahead):
                    if raw:
                        sound = {"sound": encoding.value, "rate": rate, "ahead": ahead}
                        await call.send(sound, raw)
                case LiveOptions() as options:
                    await call.send({"change": options.spoken.to_wire()})
                case LiveOrder() as order:
                    await call.send({"order": order.value})
                case None if session.finishing:
                    return await call.send({"order": LiveOrder.FINISH.value})
                case None:
                    await session.news.wait()
