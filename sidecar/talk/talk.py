"""A conversation that goes on: the machine, with an ear, stages, a pacer and a clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from sidecar import errors
from sidecar.sessions.session import Session
from sidecar.speech.live import Encoding
from sidecar.speech.voice import SayOptions
from sidecar.talk import commands as todo
from sidecar.talk.ear import Ear
from sidecar.talk.events import Cancelled, Played, TalkEvent, Tick
from sidecar.talk.machine import Conversation
from sidecar.talk.options import TalkOptions
from sidecar.talk.pacing import Client, Frame, Pacer
from sidecar.talk.stages import Speaks, Stages
from sidecar.talk.told import Failed, Phase, ReplyEnded, Told
from sidecar.thinking.thinker import Thinker


@dataclass(frozen=True, slots=True)
class Clear:
    """The client is to drop what it has of that turn's sound."""

    turn: int


@dataclass(frozen=True, slots=True)
class Hold:
    """The client is to stop that turn's sound where it is, and to keep it."""

    turn: int


@dataclass(frozen=True, slots=True)
class Release:
    """That turn's sound goes on."""

    turn: int


@dataclass(frozen=True, slots=True)
class Over:
    """The client has asked for the end: nothing comes behind this."""


Out = Told | Frame | Clear | Hold | Release | Over
"""What goes to the client, in order."""


def _unseen(told: Told) -> None:
    """Nobody wants to know."""


class Talk:
    """One conversation. Everything happens in one thread and at once: an event goes to the machine,
    and what that wants is begun before anything else happens.

    ``client``: what can be told to who plays the sound. ``manner``: how the voice speaks.
    ``seen`` is shown what is told.
    """

    def __init__(
        self,
        session: Session,
        thinker: Thinker,
        voice: Speaks | None,
        options: TalkOptions,
        manner: SayOptions,
        *,
        client: Client | None = None,
        seen: Callable[[Told], None] = _unseen,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now, self._seen = now, seen
        self.greeting = session.greeting
        """What a client is to know when it begins, beside what its wire says."""
        self._machine = Conversation(options)
        self._ear = Ear(session, now, self._happened)
        self._stages = Stages(thinker, voice, manner, now, self._happened)
        self._pacer = Pacer(client)
        self._out: asyncio.Queue[Out] = asyncio.Queue()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def options(self) -> TalkOptions:
        """As they are now."""
        return self._machine.options

    @property
    def phase(self) -> Phase:
        """What it is doing."""
        return self._machine.phase

    async def hear(
        self, raw: bytes, encoding: Encoding = Encoding.PCM16, rate: int = 16_000
    ) -> None:
        """More sound of the person's, as `Session.send`."""
        await self._ear.hear(raw, encoding, rate)

    def wish(self, what: Callable[..., TalkEvent], *values: Any) -> None:
        """The client wishes something now: the kind of event, and what belongs to it."""
        self._happened(what(self._now(), *values))

    def plays(self, client: Client) -> None:
        """From here on this can be told to who plays the sound."""
        self._pacer.client = client

    def speaks(self, manner: SayOptions) -> None:
        """Speak like that from the next reply's first piece on."""
        self._stages.manner = manner

    def thinks(self, thinker: Thinker) -> None:
        """Have replies thought of by that one from the next on."""
        self._stages.thinker = thinker

    def played(self, turn: int, seconds: float) -> None:
        """The client has played so much of that turn's sound by now; of one that is over this is
        too late, and changes nothing."""
        now = self._now()
        self._pacer.report(turn, seconds, now)
        self._happened(Tick(now))

    def end(self) -> None:
        """No more of it: a reply that goes on ends here, and `Over` is the last that is told."""
        self.wish(Cancelled)
        self._out.put_nowait(Over())

    def warn(self, error: errors.SidecarError) -> None:
        """Something is amiss; the conversation goes on."""
        self._out.put_nowait(Failed(0, error))

    async def run(self) -> None:
        """Go on until the session ends.

        Raises:
            errors.SidecarError: what ended it.
        """
        listening = asyncio.ensure_future(self._ear.listen())
        try:
            await asyncio.wait({listening, self._broken}, return_when=asyncio.FIRST_COMPLETED)
            for one in (self._broken, listening):
                if one.done():
                    one.result()
        finally:
            listening.cancel()
            await asyncio.wait({listening})
            await self._close()

    async def outgoing(self) -> AsyncIterator[Out]:
        """What goes to the client; for ever, and for one reader."""
        while True:
            yield await self._out.get()

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._broken.cancel()
        await self._stages.close()

    def _happened(self, event: TalkEvent) -> None:
        """Tell the machine, and do what it says. How much was heard comes first: an interruption
        goes by that."""
        if self._broken.done():
            return
        try:
            now = self._now()
            if self._pacer.turn:
                self._do(self._machine.take(Played(now, self._pacer.turn, self._pacer.played(now))))
            self._do(self._machine.take(event))
            for frame in self._pacer.due(now):
                self._out.put_nowait(frame)
            self._set_timer(now)
        except Exception as fault:  # a fault of ours ends it, and is told where it runs
            self._broken.set_exception(fault)

    def _do(self, commands: list[todo.Command]) -> None:
        for command in commands:
            self._carry_out(command, self._now())

    def _carry_out(self, command: todo.Command, now: float) -> None:
        match command:
            case todo.Tell(told):
                if isinstance(told, ReplyEnded):
                    self._pacer.hush(told.turn, now)
                self._seen(told)
                self._out.put_nowait(told)
            case todo.Emit(turn, piece, sound):
                self._pacer.add(turn, piece, sound, now)
            case todo.Hush(turn):
                self._pacer.hush(turn, now)
                self._out.put_nowait(Clear(turn))
            case todo.Pause(turn):
                self._pacer.pause(now)
                self._tell_holder(Hold(turn))
            case todo.Resume(turn):
                self._pacer.resume(now)
                self._tell_holder(Release(turn))
            case todo.Think():
                self._stages.think(command)
            case todo.Say():
                self._stages.say(command)
            case todo.Stop(turn, stage):
                self._stages.stop(turn, stage)
            case todo.Attend(threshold):
                self._ear.attend(threshold)
            case todo.WakeAt(at):
                self._due = at
            case todo.Recognise():
                pass  # the ear does that by itself

    def _tell_holder(self, wish: Hold | Release) -> None:
        if self._pacer.client.holds:
            self._out.put_nowait(wish)

    def _set_timer(self, now: float) -> None:
        """Be there when the machine or the pacer wants it."""
        times = [self._due, self._pacer.wake_at(now)]
        at = min((one for one in times if one is not None), default=None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, at - now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._happened(Tick(self._now()))
