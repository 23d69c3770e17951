"""Paced reads of a connection: bounded work of its parser, send timeout, refusal without a reset.

uvicorn parses up to 256 KB of one connection while all others wait, and keeps a connection to a
peer that reads nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any

SEND_TIMEOUT_S = 60.0
"""Time for a peer to take data from the connection's buffers, which any network empties in
seconds."""
READ_BYTES = 8 << 10
"""Maximum of bytes that a parser gets in one turn of the event loop. 8 KB of the smallest frames
take 7 ms, of the smallest chunks 1 ms."""
BODY_READ_BYTES = 32 << 10
"""The same of the rest of a body of known length: a parser passes it on as one piece. Larger reads
take as much of the processor for a byte."""
SMALL_BYTES = 256
"""Pieces (frames, fragments, chunks) of at least that size on average are not counted: audio at 16
kHz has it in 8 ms."""
SMALL_PIECES_PER_S = 250.0
"""Maximum of smaller pieces per second and connection; Opus in packets of 20 ms makes 50."""
SMALL_PIECES_AT_ONCE = 1000.0
"""Number of smaller pieces that may come at once: a client that reconnects sends again what was
lost."""


class PacedProtocol(asyncio.BufferedProtocol):
    """Mixin for a uvicorn protocol: bounds the work of its parser.

    The parser gets at most `READ_BYTES` in a turn of the event loop, or `BODY_READ_BYTES` of
    nothing but a body. A connection with too many
    small pieces is not read for a while: its peer waits, and no one else. It is also aborted if the
    peer takes nothing for `unread_s` seconds.
    """

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    unread_s = SEND_TIMEOUT_S
    pieces = 0
    """Number of pieces that the parser has found in the bytes of this turn."""
    body_left = 0
    """Number of bytes to come that are the body of a request."""
    _buffer: memoryview
    """Of all connections: what is read is parsed before anything else is read."""
    _unread: asyncio.TimerHandle | None = None
    _resting: asyncio.TimerHandle | None = None
    """Set while too many pieces have come."""
    _held = b""
    """Bytes that were read meanwhile."""
    _left, _counted_at = SMALL_PIECES_AT_ONCE, 0.0

    def __init_subclass__(cls) -> None:
        """Give the protocol its buffer."""
        cls._buffer = memoryview(bytearray(BODY_READ_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer to read into."""
        body = min(self.body_left, BODY_READ_BYTES) if self._resting is None else 0
        return self._buffer[: max(READ_BYTES, body)]

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what was read, or hold it if its time has not come: uvicorn, too, resumes
        reading."""
        data = bytes(self._buffer[:nbytes])
        if self._resting is None:
            self._parse(data)
        else:
            self._held += data
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._taken()
        if self._resting is not None:
            self._resting.cancel()
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
        self.pieces = 0
        self.data_received(data)  # type: ignore[attr-defined]
        small = self.pieces - len(data) // SMALL_BYTES
        if small <= 0 or self.transport.is_closing():
            return
        now = self.loop.time()
        refilled = self._left + (now - self._counted_at) * SMALL_PIECES_PER_S
        self._left, self._counted_at = min(SMALL_PIECES_AT_ONCE, refilled) - small, now
        if self._left < 0:
            self.transport.pause_reading()
            rest_s = -self._left / SMALL_PIECES_PER_S
            self._resting = self.loop.call_later(rest_s, self._read_on)

    def _read_on(self) -> None:
        self._resting, held, self._held = None, self._held, b""
        if held:
            self._parse(held)
        if self._resting is None and not self.is_read_paused():
            self.transport.resume_reading()

    def _taken(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


REFUSED_CLOSE_S = 0.5
"""Time for which a refused connection stays open and is not read: its peer has the response, and
does not come back at once for the next one."""


class RefusedTransport:
    """Transport of a refused connection: `close` leaves it open for `REFUSED_CLOSE_S`, unread."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
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
            self._closing = self._loop.call_later(REFUSED_CLOSE_S, self._transport.close)
