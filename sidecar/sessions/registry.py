"""All live sessions: who may have how many, who finds which, and when one ends by the clock."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from sidecar import errors
from sidecar.access.identity import Identity
from sidecar.metering.tally import LiveTally, Tally
from sidecar.sessions.carried import Carried, packed, unpacked
from sidecar.sessions.counted import Counted
from sidecar.sessions.elsewhere import Elsewhere
from sidecar.sessions.relay import Share, carry
from sidecar.sessions.session import Bounds, Keeper, Session
from sidecar.sessions.sound import Held
from sidecar.sessions.tape import Tape
from sidecar.sessions.waits import Waits
from sidecar.sessions.witness import Observer
from sidecar.settings import Settings
from sidecar.speech.engine import EngineSpec
from sidecar.speech.live import LiveOptions

log = logging.getLogger(__name__)

Acquaint = Callable[[LiveOptions, str], Awaitable[LiveOptions]]
"""The options of a session with the people whom its owner knows."""

KEEPING_S = 120.0
"""So long one that is kept may take to tell the rest, when nobody is there or its time is over."""
STEADY_S, LEAVING_S = 1.0, 2.0
"""So long an engine may take to say how much is settled, and a session to be left for another
service at least, however short the grace is."""
LOOK_S = 1.0
"""How often is looked whose time is over."""


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """How many there may be: in all, and of one owner; for how many seconds one waits for a client
    that went; bytes of sound that all of them keep; and how long a final may wait because of
    others before nobody else is let in, 0 for no such limit."""

    sessions: int = 100
    of_owner: int = 100
    grace_s: float = 15.0
    sound_bytes: int = 256 << 20
    delay_s: float = 0.0


class Sessions:
    """Owns all of them, and the tasks that see to them.

    ``spec`` is of the engine that hears live, None where none does; ``share`` gives it;
    ``acquaint`` says who may be recognised; ``keeper`` makes a job of one that is to be kept, and
    ``tape`` takes its sound. ``elsewhere``: where those are left that another service goes on with
    when this one ends.
    """

    def __init__(
        self,
        spec: EngineSpec | None,
        share: Share,
        room: Room,
        bounds: Bounds,
        patience_s: float = 20.0,
        now: Callable[[], float] = time.monotonic,
        tally: LiveTally | None = None,
        observers: Sequence[Observer] = (),
        acquaint: Acquaint | None = None,
        keeper: Keeper | None = None,
        tape: Callable[[], Tape | None] = lambda: None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.spec = spec
        self._tally = tally or Tally().live
        self._share, self._room, self._bounds = share, room, bounds
        self._patience_s = patience_s
        self._acquaint, self._keeper, self._tape = acquaint, keeper, tape
        self._elsewhere = elsewhere
        self._now = now
        self._observers = observers
        said = [observer.greeting for observer in observers]
        self._greeting = {name: value for one in said for name, value in one.items()}
        self._held = Held(room.sound_bytes)
        self._waits = Waits(room.delay_s)
        self._sessions: dict[tuple[str, str], Session] = {}
        self._tasks: dict[Session, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._closing = False

    @classmethod
    def of(
        cls,
        settings: Settings,
        spec: EngineSpec | None,
        share: Share,
        tally: LiveTally,
        observers: Sequence[Observer] = (),
        acquaint: Acquaint | None = None,
        keeper: Keeper | None = None,
        tape: Callable[[], Tape | None] = lambda: None,
        elsewhere: Elsewhere | None = None,
    ) -> Self:
        """As the settings say."""
        room = Room(
            settings.live_sessions,
            settings.live_sessions_per_owner or settings.live_sessions,
            settings.live_grace,
            settings.live_buffer_mb << 20,
            settings.live_delay,
        )
        bounds = Bounds(
            settings.live_idle, settings.live_longest, settings.live_chunk, settings.live_buffer
        )
        return cls(
            spec,
            share,
            room,
            bounds,
            settings.live_timeout,
            tally=tally,
            observers=observers,
            acquaint=acquaint,
            keeper=keeper,
            tape=tape,
            elsewhere=elsewhere,
        )

    def __len__(self) -> int:
        """How many go on; one that has said all waits for nobody but its client."""
        return sum(not session.over for session in self._sessions.values())

    @property
    def grace_s(self) -> float:
        """How long a session is kept for a client that went."""
        return self._room.grace_s

    @property
    def most(self) -> int:
        """How many there may be."""
        return min(self._room.sessions, self.spec.sessions if self.spec else 0)

    @property
    def sound_bytes(self) -> int:
        """What all of them keep of sound."""
        return self._held.bytes

    def going_on(self) -> list[Session]:
        """Those that go on."""
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
        """A new session; who opens it holds it. ``number``: how the client calls it; ``wire``: by
        which way it came; ``forgiving``: as `Session.forgiving`; ``idle_s``: its own, where it has
        one.

        Raises:
            errors.LiveUnavailable: no engine here hears live.
            errors.LanguageUnsupported: it does not know the language.
            errors.LiveFull, errors.LiveLimited: there are enough of them, or they wait too long.
            errors.SessionTaken: there is one with that number.
            errors.ShuttingDown: the service is about to end.
        """
        number = number or uuid.uuid4().hex
        try:
            self._check(caller, number)
            self._check_language(options)
        except errors.SidecarError as error:
            self._tally.refused.add(wire, error.code)
            raise
        ends = options.endpointing
        longest_s = min(ends.longest_s, self._bounds.buffer_s / 2)  # all of a piece is kept
        options = dataclasses.replace(
            options,
            client=caller.owner,
            patience_s=self._patience_s,
            endpointing=dataclasses.replace(ends, longest_s=longest_s),
        )
        session = self._new(caller.owner, number, options, wire)
        session.forgiving, session.stranger = forgiving, self._acquaint is not None
        if idle_s is not None:
            session.bounds = dataclasses.replace(self._bounds, idle_s=idle_s)
        session.tape = self._tape() if options.keep else None
        return self._begun(session)

    def _new(self, owner: str, number: str, options: LiveOptions, wire: str) -> Session:
        session = Session(
            number,
            owner,
            options,
            self._bounds,
            self._held,
            self._now,
            counted=Counted(self._tally, wire, self._patience_s),
            greeting=self._greeting,
            waits=self._waits,
        )
        session.keeper = self._keeper
        return session

    def _begun(self, session: Session) -> Session:
        session.witnesses = [observer.begin(session) for observer in self._observers]
        self._sessions[session.owner, session.id] = session
        self._see_to(session)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="live clock")
        return session

    def _see_to(self, session: Session) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(session), name="live")
        task.add_done_callback(lambda task: self._carried(session, task))
        self._tasks[session] = task

    async def _carry(self, session: Session) -> None:
        if session.stranger and self._acquaint is not None:
            session.meet(await self._acquaint(session.options, session.owner))
        await carry(session, self._share)

    def find(self, caller: Identity, number: str) -> Session:
        """A session of theirs, to be held again; whoever held it holds it no more.

        Raises:
            errors.SessionNotFound: it is not there, or another's.
        """
        session = self._sessions.get((caller.owner, number))
        if session is None:
            raise errors.SessionNotFound()
        session.left_at = None
        session.taken.set()
        session.taken = asyncio.Event()
        return session

    async def take_up(self, caller: Identity, number: str) -> Session:
        """As `find`, of those that another service left when it ended, too.

        Raises:
            errors.SessionNotFound: it is not there, or another's.
            errors.ShuttingDown: it is not here any more.
            errors.LiveFull, errors.LiveLimited: there are enough; it stays where it is.
            errors.JournalUnreachable: nobody can say where it is.
        """
        if (caller.owner, number) in self._sessions or self._elsewhere is None:
            return self.find(caller, number)
        self._check(caller, number)
        data = await self._elsewhere.take(caller.owner, number)
        if data is None:
            return self.find(caller, number)
        if self._closing:  # meanwhile: the next one has it
            await self._elsewhere.leave(caller.owner, number, data, self._room.grace_s)
            raise errors.ShuttingDown()
        one = unpacked(data)
        self._check_language(one.options)
        session = self._new(caller.owner, number, one.options, one.wire)
        session.moves = True
        session.told.restore(one.told)
        session.sound.restore(one.sound)
        session.received_orders, session.finishing = one.received_orders, one.finishing
        session.began -= one.age_s
        self._tally.taken_up.add(one.wire)
        return self._begun(session)

    def leave(self, session: Session, *, unheard: bool = False) -> None:
        """Nobody holds it; it ends if nobody comes in time. One that has said all is gone now,
        unless its last words may be ``unheard``."""
        if (session.over and not unheard) or not self._room.grace_s:
            self.end(session)
        else:
            session.left_at = self._now()

    def end(self, session: Session, wrong: errors.SidecarError | None = None) -> None:
        """It is over now, whatever it was at."""
        session.end(wrong)
        self._sessions.pop((session.owner, session.id), None)
        if (task := self._tasks.get(session)) is not None:
            task.cancel()

    async def drain(self, grace_s: float) -> None:
        """Take no more. Those that can are handed over to another service; the others say what they
        have heard, if that is within the grace."""
        self._closing = True
        going = [one for one in self._sessions.values() if not one.over]
        moving = [one for one in going if self._may_move(one)]
        for session in going:
            if session not in moving:
                session.finish(asked=False)
        async with asyncio.TaskGroup() as group:
            for session in moving:
                group.create_task(self._hand_over(session, max(grace_s, LEAVING_S)))
        if self._tasks and grace_s > 0:
            await asyncio.wait(set(self._tasks.values()), timeout=grace_s)
        await self.close()

    async def close(self) -> None:
        """End all of them."""
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

    def _may_move(self, session: Session) -> bool:
        """Whether another service can go on with it: its client comes again, and all of it goes
        along (a recording of it lies on the disk of this one)."""
        there = self._elsewhere is not None and self._room.grace_s > 0
        return there and session.moves and session.tape is None

    async def _hand_over(self, session: Session, most_s: float) -> None:
        """Leave it for another service and tell its client; where that cannot be, end it here."""
        assert self._elsewhere is not None
        session.hold()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STEADY_S):
                await session.steady()
        if (task := self._tasks.get(session)) is not None:
            task.cancel()  # from here on nothing more is told
            await asyncio.wait({task})
        if session.over:
            return
        age_s = self._now() - session.began
        state = Carried(
            session.options,
            session.told.state,
            session.sound.state,
            session.received_orders,
            session.finishing,
            age_s,
            session.counted.wire,
        )
        try:
            async with asyncio.timeout(most_s):
                data = await asyncio.to_thread(packed, state)
                await self._elsewhere.leave(session.owner, session.id, data, self._room.grace_s)
        except (errors.JournalUnreachable, TimeoutError):
            log.warning("a live session could not be handed over: it ends here")
            self._see_to(session)
            session.release()
            session.finish(asked=False)
            return
        self.end(session, errors.SessionHandedOver())

    def _check_language(self, options: LiveOptions) -> None:
        if self.spec is not None and not self.spec.speaks(options.language):
            raise errors.LanguageUnsupported(
                f"The engine '{self.spec.name}' does not know '{options.language}'."
            )

    def _check(self, caller: Identity, number: str) -> None:
        """Refuse what `open` says."""
        if self.spec is None:
            raise errors.LiveUnavailable()
        if self._closing:
            raise errors.ShuttingDown()
        if (caller.owner, number) in self._sessions:
            raise errors.SessionTaken()
        if len(self) >= self.most:
            raise errors.LiveFull()
        if len(self) and self._waits.too_long(self._now()):
            raise errors.LiveFull(
                "Those who speak here wait too long for their words already.",
                hint="Try again later, or give the service a machine with more cores.",
            )
        of_owner = [
            one for one in self._sessions.values() if one.owner == caller.owner and not one.over
        ]
        if len(of_owner) >= self._room.of_owner:
            raise errors.LiveLimited()

    def _carried(self, session: Session, task: asyncio.Task[None]) -> None:
        del self._tasks[session]
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            log.error("a live session failed", exc_info=fault)
            session.end(errors.SidecarError())

    def _finishes(self, session: Session, now: float) -> bool:
        """Whether one whose time may be over is kept, and tells the rest for that."""
        left = session.left_at is not None
        if not session.options.keep or session.over:
            return False
        if not session.finishing:
            if not left and session.overdue(now) is None:
                return False
            session.finish(asked=False)
        return now - session.touched < KEEPING_S

    async def _look(self) -> None:
        """End those whose time is over."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._now()
            for session in list(self._sessions.values()):
                left = session.left_at
                if left is not None and now - left >= self._room.grace_s:
                    if not self._finishes(session, now):
                        self.end(session)
                elif (
                    not session.over
                    and not self._finishes(session, now)
                    and (wrong := session.overdue(now)) is not None
                ):
                    log.info("a live session ends: %s", wrong.code)
                    session.end(wrong)
                    with contextlib.suppress(KeyError):
                        self._tasks[session].cancel()
