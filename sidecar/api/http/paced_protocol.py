"""Paced reads of a connection: bounded work of its parser, send timeout, refusal without a reset.

uvicorn parses up to 256 KB of one connection while all others wait, and keeps a connection to a
peer that reads nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

SEND_TIMEOUT_S = 60.0
"""Time for a peer to take data from the connection's buffers, which any network empties in
seconds."""
READ_BYTES = 8 << 10
"""Maximum of bytes that a parser gets in one turn of the event loop. 8 KB of the smallest frames
take 7 ms, of the smallest chunks 1 ms."""
BODY_READ_BYTES = 64 << 10
"""The same of the rest of a body of known length: a parser passes it on as one piece. Larger reads
take as much of the processor for a byte."""
TURN_S = 0.005
"""Seconds for which connections with much to read are read in one turn of the event loop. The rest
waits: otherwise 150 uploads make a turn of 25 ms, and a job that has ended and every small request
wait for it."""
READ_S = 0.0003
"""Seconds that count for a read beside those of the parser: what the application does with it."""
REQUEST_S = 0.001
"""The same for the head and for the end of a request."""
SMALL_BYTES = 256
"""Pieces (frames, fragments, chunks) of at least that size on average are not counted: audio at 16
kHz has it in 8 ms."""
SMALL_PIECES_PER_S = 250.0
"""Maximum of smaller pieces per second and connection; Opus in packets of 20 ms makes 50."""
SMALL_PIECES_AT_ONCE = 1000.0
"""Number of smaller pieces that may come at once: a client that reconnects sends again what was
lost."""
REFUSED_CLOSE_S = 0.5
"""Time for which a refused connection stays open and is not read: its peer has the response, and
does not come back at once for the next one."""


class ReadTurns:
    """Turns of the connections of a ``loop`` with much to read: they are parsed for `TURN_S` in one
    turn of the loop, then those that wait come first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._spent_s, self._counting = 0.0, False
        self._waiting: deque[PacedProtocol] = deque()

    @property
    def over(self) -> bool:
        """Return whether further connections have to `wait`."""
        return bool(self._waiting) or self._spent_s >= TURN_S

    def spend(self, seconds: float) -> None:
        """Count what a read took."""
        self._spent_s += seconds
        if not self._counting:
            self._counting = True
            self.loop.call_soon(self._next)

    def wait(self, protocol: PacedProtocol) -> None:
        """Call `PacedProtocol.read_on` once those before have had their turns."""
        self._waiting.append(protocol)

    def _next(self) -> None:
        self._spent_s, self._counting = 0.0, bool(self._waiting)
        if self._counting:
            self.loop.call_soon(self._next)
        while self._waiting and self._spent_s < TURN_S:
            self._waiting.popleft().read_on()


class PacedProtocol(asyncio.BufferedProtocol):
    """Mixin for a uvicorn protocol: bounds the work of its parser.

    The parser gets at most `READ_BYTES` in a turn of the event loop, or `BODY_READ_BYTES` of
    nothing but a body, and many connections take turns (`ReadTurns`). A connection with too many
    small pieces is not read for a while: its peer waits, and no one else. It is also aborted if the
    peer takes nothing for `unread_s` seconds.
    """

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    unread_s = SEND_TIMEOUT_S
    refused_close_s = REFUSED_CLOSE_S
    pieces = 0
    """Number of pieces that the parser has found in the bytes of this turn."""
    work_s = 0.0
    """Seconds of work that they make for the application."""
    body_left = 0
    """Number of bytes to come that are the body of a request."""
    _buffer: memoryview
    """Of all connections: what is read is parsed before anything else is read."""
    _turns: ReadTurns | None = None
    """Of all connections."""
    _unread: asyncio.TimerHandle | None = None
    _resting: asyncio.TimerHandle | None = None
    """Set while too many pieces have come."""
    _queued = False
    """Set while other connections have their turns."""
    _held = b""
    """Bytes that were read meanwhile."""
    _left, _counted_at = SMALL_PIECES_AT_ONCE, 0.0

    def __init_subclass__(cls) -> None:
        """Give the protocol its buffer."""
        cls._buffer = memoryview(bytearray(BODY_READ_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer to read into."""
        body = 0 if self._waits else min(self.body_left, BODY_READ_BYTES)
        return self._buffer[: max(READ_BYTES, body)]

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what was read, or hold it if its time has not come: uvicorn, too, resumes
        reading."""
        data = bytes(self._buffer[:nbytes])
        if not self._waits and nbytes >= READ_BYTES and (turns := self._loop_turns()).over:
            self._queued = True
            turns.wait(self)
        if self._waits or self._held:
            self._held += data
            self.transport.pause_reading()
        else:
            self._parse(data)

    def read_on(self) -> None:
        """Read again, as the turn has come."""
        self._queued = False
        self._go_on()

    def refuse(self) -> None:
        """Close the connection, from now on, as `RefusedTransport` does."""
        if not isinstance(self.transport, RefusedTransport):
            refused = RefusedTransport(self.transport, self.loop, self.refused_close_s)
            self.transport = cast(Any, refused)

    def shutdown(self) -> None:
        """Close at the server's shutdown; a refused connection at once."""
        if isinstance(self.transport, RefusedTransport) and self.transport.is_closing():
            self.transport.close_now()
        else:
            super().shutdown()  # type: ignore[misc]

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers; what waits is a request of nobody."""
        self._taken()
        if self._resting is not None:
            self._resting.cancel()
        self._held = b""
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the timer, as the buffers are full."""
        super().pause_writing()
        self._taken()
        self._unread = self.loop.call_later(self.unread_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timer, as the peer has taken enough."""
        self._taken()
        super().resume_writing()

    def is_read_paused(self) -> bool:
        """Return whether uvicorn has paused reading."""
        raise NotImplementedError

    def _parse(self, data: bytes) -> None:
        self.pieces, self.work_s = 0, READ_S
        begun = self.loop.time()
        self.data_received(data)  # type: ignore[attr-defined]
        now = self.loop.time()
        self._loop_turns().spend(now - begun + self.work_s)
        small = self.pieces - len(data) // SMALL_BYTES
        if small <= 0 or self.transport.is_closing():
            return
        refilled = self._left + (now - self._counted_at) * SMALL_PIECES_PER_S
        self._left, self._counted_at = min(SMALL_PIECES_AT_ONCE, refilled) - small, now
        if self._left < 0:
            self.transport.pause_reading()
            rest_s = -self._left / SMALL_PIECES_PER_S
            self._resting = self.loop.call_later(rest_s, self._rested)

    def _rested(self) -> None:
        self._resting = None
        self._go_on()

    @property
    def _waits(self) -> bool:
        return self._resting is not None or self._queued

    def _go_on(self) -> None:
        """Parse what is held and resume reading, unless there is another reason to wait. More than
        one read is held on Windows, whose event loop reads 256 KB."""
        while self._held and not (self._waits or self.transport.is_closing()):
            most = len(self.get_buffer(-1))
            data, self._held = self._held[:most], self._held[most:]
            self._parse(data)
            if self._held and not self._waits and (turns := self._loop_turns()).over:
                self._queued = True
                turns.wait(self)
        if not (self._waits or self.transport.is_closing() or self.is_read_paused()):
            self.transport.resume_reading()

    def _loop_turns(self) -> ReadTurns:
        if PacedProtocol._turns is None or PacedProtocol._turns.loop is not self.loop:
            PacedProtocol._turns = ReadTurns(self.loop)
        return PacedProtocol._turns

    def _taken(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


class RefusedTransport:
    """Transport of a refused connection: `close` leaves it open for ``close_s`` seconds, unread."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, close_s: float
    ) -> None:
        self._transport, self._loop, self._close_s = transport, loop, close_s
        self._closing: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Return whether nothing more may be written."""
        return self._closing is not None or self._transport.is_closing()

    def close(self) -> None:
        """Let the peer know that nothing follows, and close after a while."""
        if not self.is_closing():
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self._transport.pause_reading()
            self._closing = self._loop.call_later(self._close_s, self._transport.close)

    def close_now(self) -> None:
        """Close without that while."""
        if self._closing is not None:
            self._closing.cancel()
        self._transport.close()
