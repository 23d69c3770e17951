"""Relay between a session and the engine's process.

Where a process dies it begins anew in a fresh one. Only a session that was being recognized counts
that as an attempt, and is recognized alone the next time: so the second attempt leaves no doubt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from sidecar import errors
from sidecar.interfaces.live_events import Noticed, Summary, TurnedAway, from_wire
from sidecar.live.sessions.input_log import Chunk, Commit, Forget
from sidecar.live.sessions.session import Session
from sidecar.transcripts.transcript import Notice
from sidecar.workers import channel
from sidecar.workers.rpc_client import Call, CallOver
from sidecar.workers.slot_interface import HandedOver, WorkerDied

log = logging.getLogger(__name__)

RESTARTED = Notice("engine_restarted", "The engine had to be started anew; nothing said is lost.")
TOO_MANY_SPEAK = "As many people speak as this machine can transcribe in time."
LATER = "Try again later, or give the service a machine with more cores."


class Shared(Protocol):
    """An engine that several use at once."""

    def calling(self, operation: str, **arguments: Any) -> AbstractAsyncContextManager[Call]:
        """As `workers.worker_process.Worker.calling`."""


ATTEMPTS = 2
"""Deaths at one place of the sound that end a session which was being recognized."""
SOLE = 5
"""Deaths wherever in its sound, while nobody else was being recognized, that a session survives."""
UNEXPLAINED = 5
"""Deaths there while nobody was being recognized that a session survives."""
LOSSES = 3
"""So often sound is left out in a row, and nothing is heard in between, before an engine is given
up: not the sound is to blame then."""

Share = Callable[[], AbstractAsyncContextManager[Shared]]
"""An engine for as long as the session needs it, loaded if it is not there."""


class Deaths:
    """The engine's deaths at one place of a session's sound, and which of them were its doing; and
    those without a doubt of which, wherever they were."""

    def __init__(self) -> None:
        self._place: float | None = None
        self._attempts = self._unexplained = self._sole = 0

    def suspects(self, place: float) -> bool:
        """Return whether what is there may have ended an engine."""
        return place == self._place and self._attempts > 0

    def add(self, died: WorkerDied, place: float) -> bool:
        """Count one, as an attempt only if the session was being recognized; return whether that
        is enough. One that other sessions explain counts nothing."""
        if place != self._place:
            self._place, self._attempts, self._unexplained = place, 0, 0
        self._attempts += died.began
        self._unexplained += not (died.began or died.explained)
        self._sole += died.sole
        too_many = self._unexplained > UNEXPLAINED or self._sole > SOLE
        return self._attempts >= ATTEMPTS or too_many


async def carry(session: Session, share: Share) -> None:
    """See a session to its end; it is told of whatever goes wrong."""
    deaths = Deaths()
    losses, lost_at = 0, -1.0
    while True:
        try:
            async with share() as engine:
                await _carry_once(session, engine, alone=deaths.suspects(session.place))
                return session.end()
        except HandedOver:
            continue
        except WorkerDied as died:
            place = session.place
            if not (session.sound.seconds and deaths.add(died, place)):
                session.heard(Noticed(RESTARTED))
                continue
            log.warning("the engine died again and again at the same place of a live session")
            losses = losses + 1 if place == lost_at else 1
            if not session.forgiving or losses > LOSSES:
                return session.end(errors.EngineCrashed())
            session.lose()
            deaths, lost_at = Deaths(), session.place
        except errors.SidecarError as error:
            return session.end(error)


async def _carry_once(session: Session, engine: Shared, *, alone: bool) -> None:
    session.begins_anew()
    begin = session.told.so_far(session.sound.settled, session.sound.lead).to_wire()
    options = session.options.to_wire()
    async with engine.calling("live", options=options, begin=begin, alone=alone) as call:
        session.placed.set()
        sending = asyncio.get_running_loop().create_task(_send(session, call))
        try:
            async for answer, _ in call.answers():
                event = from_wire(answer)
                if isinstance(event, TurnedAway):
                    raise errors.LiveFull(TOO_MANY_SPEAK, hint=LATER)
                if isinstance(event, Summary):
                    event = await session.kept(event)
                session.heard(event)
        finally:
            sending.cancel()
            await asyncio.wait({sending})


async def _send(session: Session, call: Call) -> None:
    """Everything that is not settled, and then what comes."""
    with contextlib.suppress(channel.ChannelClosed, CallOver):  # who reads is told
        while True:
            session.news.clear()
            for order in session.orders():
                await call.send(order)
            match session.sound.take():
                case Chunk(raw=raw, encoding=encoding, rate=rate):
                    if raw:
                        await call.send({"sound": encoding.value, "rate": rate}, raw)
                case Commit():
                    await call.send({"commit": True})
                case Forget():
                    await call.send({"forget": True})
                case None if session.finishing:
                    return await call.send({"finish": True})
                case None:
                    await session.news.wait()
