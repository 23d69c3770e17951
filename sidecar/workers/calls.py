"""What is being asked of a worker: numbered calls on one line, each read at its own pace.

To a worker go `{call, operation, …}` (begin), `{call, told}` (more, with sound behind it),
`{call, granted}`, `{call, cancel}` and `{ping}`; from it come `{call, answer}`, `{call, granted}`,
`{call, done}`, `{call, error}` and `{pong}`.

A worker does one call after the other, in the order in which they came: one that is asked while
another is at work waits inside, and begins without a word from here. That an end was heard is what
tells which is at work.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from sidecar import errors
from sidecar.waiting import comes
from sidecar.workers import channel
from sidecar.workers.credit import WINDOW, Incoming, Outgoing, told_size
from sidecar.workers.line import Line

OVERDRAWN = 2 * WINDOW + channel.FRAME_LIMIT
"""Bytes of one call that lie unread: a worker that sends more does not know the rules."""


class CallOver(Exception):
    """It has ended, and hears nothing any more."""


class Way(Protocol):
    """By which a call goes: as `line.Line`, to a process of ours or to who knows whom."""

    async def send(
        self, message: dict[str, Any], fds: Sequence[int] = (), raw: bytes = b""
    ) -> None:
        """Send a message; raises `channel.ChannelClosed` where the other side is gone."""

    def tell(self, message: dict[str, Any]) -> None:
        """Send one to whoever is still there."""

    def close(self, why: str = "closed") -> None:
        """Say and hear no more."""


class Call:
    """One call from the service's side: one reads its answers, one may tell it more."""

    def __init__(self, number: int, line: Way) -> None:
        self.number = number
        self.reached = asyncio.Event()
        """All before it have ended: it is at work. Or it is over."""
        self.over = asyncio.Event()
        """It has ended on the other side, or with it."""
        self.began = False
        """Whether it was ever at work."""
        self._line = line
        self._answers: deque[channel.Frame] = deque()
        self._unread = 0
        self._wrong: errors.SidecarError | channel.ChannelClosed | None = None
        self._incoming, self._outgoing = Incoming(), Outgoing()
        self._news, self._room = asyncio.Event(), asyncio.Event()

    async def answers(self) -> AsyncIterator[tuple[dict[str, Any], bytes]]:
        """What it answers, with the bytes behind it, until it is done.

        Raises:
            channel.ChannelClosed: the other side is gone.
            errors.SidecarError: the operation said no.
        """
        while True:
            self._news.clear()
            while self._answers:
                frame = self._answers.popleft()
                self._unread -= frame.size
                if granted := self._incoming.read(frame.size):
                    self._line.tell({"call": self.number, "granted": granted})
                yield frame.message["answer"], frame.raw
            if self._wrong is not None:
                raise self._wrong
            if self.over.is_set():
                return
            await self._news.wait()

    async def send(self, message: dict[str, Any], raw: bytes = b"") -> None:
        """Tell it more, once it has read enough of what was told before.

        Raises:
            channel.ChannelClosed: the other side is gone.
            CallOver: the call has ended.
        """
        size = told_size(message, raw)
        while not self._outgoing.allows(size) and not self.over.is_set():
            self._room.clear()
            await self._room.wait()
        if self.over.is_set():
            raise self._wrong if isinstance(self._wrong, channel.ChannelClosed) else CallOver()
        self._outgoing.sent(size)
        await self._line.send({"call": self.number, "told": message}, raw=raw)

    def tell(self, **message: Any) -> None:
        """Tell it something small, behind what is on its way; one that has ended hears nothing."""
        if not self.over.is_set():
            self._line.tell({"call": self.number, "told": message})

    def cancel(self) -> None:
        """Ask it to stop."""
        if not self.over.is_set():
            self._line.tell({"call": self.number, "cancel": True})

    def heard(self, frame: channel.Frame) -> None:
        """Take in what the line brings."""
        match frame.message:
            case {"answer": dict()}:
                self._answers.append(frame)
                self._unread += frame.size
                if self._unread > OVERDRAWN:
                    self._line.close("more of a call than may lie unread")
            case {"granted": int(size)}:
                self._outgoing.granted(size)
                self._room.set()
            case {"error": wrong}:
                self.end(errors.from_wire(wrong))
            case _:
                self.end()
        self._news.set()

    def begin(self) -> None:
        """It is at work."""
        self.began = True
        self.reached.set()

    def end(self, wrong: errors.SidecarError | channel.ChannelClosed | None = None) -> None:
        """Nothing more comes; who reads is told after what has come."""
        if not self.over.is_set():
            self._wrong = wrong
            self.reached.set()
            self.over.set()
            self._news.set()
            self._room.set()


class Calls:
    """All calls on the line to one worker."""

    def __init__(self) -> None:
        self._line: Line | None = None
        self._going: dict[int, Call] = {}
        self._in_turn: deque[Call] = deque()
        """Those that have not ended: the first is at work."""
        self._beginning = asyncio.Lock()
        self._last = 0
        self._pongs: list[asyncio.Event] = []
        self.lost: channel.ChannelClosed | None = None

    async def begin(
        self, line: Line, operation: str, fds: Sequence[int], arguments: dict[str, Any]
    ) -> Call:
        """A call with a number of its own.

        Raises:
            channel.ChannelClosed: the other side is gone.
        """
        self._line = line
        self._last += 1
        call = Call(self._last, line)
        self._going[call.number] = call
        try:
            async with self._beginning:  # they are numbered as they go out
                if "beside" in arguments:
                    call.begin()
                else:
                    self._in_turn.append(call)
                    self._go_on()
                await line.send({"call": call.number, "operation": operation, **arguments}, fds)
        except BaseException:
            self._ended(call.number)
            self.forget(call)
            raise
        return call

    def forget(self, call: Call) -> None:
        """Nobody reads it any more; what still comes of it is dropped."""
        self._going.pop(call.number, None)

    async def answers_ping(self, within_s: float) -> bool:
        """Whether the process hears us, whatever it is at."""
        if self._line is None or self.lost is not None:
            return False
        pong = asyncio.Event()
        self._pongs.append(pong)
        self._line.tell({"ping": True})
        try:
            return await comes(pong, within_s) and self.lost is None
        finally:
            self._pongs.remove(pong)

    def heard(self, frame: channel.Frame) -> None:
        """A frame of some call; of one that nobody knows any more, it is dropped."""
        match frame.message:
            case {"call": int(number), **rest}:
                if number in self._going:
                    self._going[number].heard(frame)
                if not ("answer" in rest or "granted" in rest):
                    self._ended(number)
            case {"pong": _}:
                for pong in self._pongs:
                    pong.set()

    def end(self, why: channel.ChannelClosed) -> None:
        """The line is gone, and all calls with it."""
        self.lost = why
        for call in self._going.values():
            call.end(why)
        for pong in self._pongs:
            pong.set()

    def _ended(self, number: int) -> None:
        """The next is at work."""
        self._in_turn = deque(call for call in self._in_turn if call.number != number)
        self._go_on()

    def _go_on(self) -> None:
        if self._in_turn and self.lost is None:
            self._in_turn[0].begin()
