"""uvicorn protocols: paced reads, limits of a request's head, WebSocket upgrade, send timeout.

They change six defaults of uvicorn. It parses up to 256 KB of one connection while all others wait.
It has no limit for the head of a request. It logs query strings, which may have a key. It keeps a
connection to a peer that reads nothing. It answers an oversized message by a reset instead of a
close frame. At shutdown it leaves the protocols no time for their own close frame.
"""

from __future__ import annotations

import asyncio
import logging
import select
import sys
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sidecar.api.http.request_headers import MAX_ALL_HEADERS_BYTES, PEER_GONE_KEY
from sidecar.limit_overrides import limit
from sidecar.observability.logs import ONCE_A_MINUTE

SEND_TIMEOUT_S = 60.0
"""Time for a peer to take data from the connection's buffers, which any network empties in
seconds."""
READ_BYTES = 8 << 10
"""Maximum of bytes that a parser gets in one turn of the event loop. 8 KB of the smallest frames
take 7 ms, of the smallest chunks 1 ms."""
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

    The parser gets at most `READ_BYTES` in a turn of the event loop. A connection with too many
    small pieces is not read for a while: its peer waits, and no one else. It is also aborted if the
    peer takes nothing for `unread_s` seconds.
    """

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    unread_s = SEND_TIMEOUT_S
    pieces = 0
    """Number of pieces that the parser has found in the bytes of this turn."""
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
        cls._buffer = memoryview(bytearray(READ_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer to read into."""
        return self._buffer

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


MAX_HEADER_LINES = 256
"""Maximum of header lines of a request, with its trailers; browsers and proxies send up to 60."""
MAX_PIPELINED = 16
"""Maximum of requests that wait behind another one of their connection; today's clients wait for
each response."""


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


def http_protocol(seconds: float, unread_s: float = SEND_TIMEOUT_S) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with timeouts and limits.

    It closes a connection if a request head takes longer than ``seconds`` or is too large, or if
    its peer reads nothing for ``unread_s`` seconds.
    """
    limited = logging.getLogger("uvicorn.error.http")
    limited.addFilter(_mute_warnings)

    class Timed(PacedProtocol, HttpToolsProtocol):  # type: ignore[misc]  # `eof_received`
        """Protocol with a timer from the first byte of a request to the end of its head, when the
        parser passes it to a cycle. For the first request the timer starts with the connection."""

        _clock: asyncio.TimerHandle | None = None
        _header_lines = 0
        _line_bytes = 0
        """Bytes since a head or a request was complete, or data of a body came: lines of a head, of
        trailers, of a chunk's size."""
        _in_head = True
        _offers = False
        """True if the request offers a protocol that is not spoken here, as HTTP/2 (h2c)."""
        _read = b""
        """Bytes that are parsed in this turn."""
        _ignoring = False
        """True if nothing more is parsed: the connection ends with its last response."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.logger = limited
            self.app_state = {**self.app_state, PEER_GONE_KEY: self._is_peer_gone}
            self._start()

        def data_received(self, data: bytes) -> None:
            if self._ignoring:
                return
            if self._clock is None and not self._answering:
                self._start()
            self._read = data
            self._line_bytes += len(data)
            super().data_received(data)
            self._read = b""
            if self._answering:
                self._stop()
            too_large = self._line_bytes > MAX_ALL_HEADERS_BYTES + READ_BYTES
            if too_large and not self._ignoring and not self.transport.is_closing():
                self.send_400_response("The head or the trailers of the request are too large.")

        def on_message_begin(self) -> None:
            if len(self.pipeline) >= MAX_PIPELINED:
                raise ValueError("too many requests at once")
            self._in_head, self._header_lines = True, 0
            super().on_message_begin()

        def on_header(self, name: bytes, value: bytes) -> None:
            self._header_lines += 1
            if self._header_lines > MAX_HEADER_LINES:
                raise ValueError("too many header lines")
            if self._in_head:  # a trailer is no header: proxies do not check it
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._in_head, self._line_bytes = False, 0
            offers = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
            self._offers = offers and not self._should_upgrade()
            if not self._offers:
                super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._line_bytes = 0
            if not self._offers:
                super().on_message_complete()

        def _unsupported_upgrade_warning(self) -> None:
            """Read a request without what it offers: the parser would skip its body (RFC 9110, 7.8:
            a server may ignore an offer)."""
            upgrade = sys.exc_info()[1]
            if not self._offers or not isinstance(upgrade, httptools.HttpParserUpgrade):
                super()._unsupported_upgrade_warning()
                return
            method, version = self.parser.get_method(), self.parser.get_http_version().encode()
            head = [b"%b %b HTTP/%b" % (method, self.url, version)]
            offer = b"upgrade", b"http2-settings"
            head += [b"%b: %b" % (k, value) for k, value in self.headers if k not in offer]
            rest = self._read[upgrade.args[0] :]
            self._read = b"\r\n".join([*head, b"", rest])
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            super().data_received(self._read)

        def on_body(self, body: bytes) -> None:
            self.pieces += 1
            if self._answering:  # the rest of a body that nobody reads is limited, too
                self._line_bytes = 0
            super().on_body(body)

        def send_400_response(self, msg: str) -> None:
            self._stop()
            if self._answering and not self.cycle.more_body:  # bytes behind a whole request
                self.cycle.keep_alive, self._ignoring = False, True
                return
            if self._answering:
                if self.cycle.response_started:  # what follows would belong to that response
                    self.transport.close()
                    return
                self.cycle.disconnected = True  # its body is broken
                self.cycle.message_event.set()
            self.transport = cast(Any, RefusedTransport(self.transport, self.loop))
            super().send_400_response(msg)

        def handle_websocket_upgrade(self) -> None:
            self._stop()  # a WebSocket has timeouts of its own
            try:
                address = httptools.parse_url(self.url)  # perhaps with a host (RFC 9112, 3.2.2)
            except httptools.HttpParserError:  # of a tunnel (CONNECT)
                self.send_400_response("The address of the WebSocket is invalid.")
                return
            self.url = (address.path or b"/") + (b"?" + address.query if address.query else b"")
            super().handle_websocket_upgrade()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def is_read_paused(self) -> bool:
            return self.flow.read_paused

        def _is_peer_gone(self) -> bool:
            if self.transport.is_closing():
                return True
            if not hasattr(select, "POLLRDHUP"):  # only Linux reports it behind unread bytes
                return False
            poll = select.poll()
            poll.register(self.transport.get_extra_info("socket"), select.POLLRDHUP)
            return bool(poll.poll(0))

        @property
        def _answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _start(self) -> None:
            self._clock = self.loop.call_later(seconds, self._late)

        def _stop(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

        def _late(self) -> None:
            self._clock = None
            if not self._answering and self.transport is not None:
                self.transport.close()

    Timed.unread_s = unread_s
    return Timed


def _mute_warnings(record: logging.LogRecord) -> bool:
    """Let a warning about invalid requests, which clients can cause at will, be written once in a
    while."""
    if record.levelno == logging.WARNING:
        record.__dict__.update(ONCE_A_MINUTE)
    return True


REQUEST_HEAD_S = limit("request_deadline", 15.0)
"""Seconds for a client to send the head of a request, or to complete a handshake."""
OVERSIZED_DRAIN_S = 2.0
"""Seconds for which the rest of an oversized message is read: a peer that is still writing would
see a reset instead of the close code."""
MAX_FRAGMENTS = 4096
"""Maximum of fragments of a message; they are kept, however small, until it is complete."""
UNREADABLE_HANDSHAKE = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 40\r\nConnection: close\r\n\r\nThe WebSocket handshake cannot be read.\n"
)
"""Answer to a handshake with a body, or with more lines or longer ones than `websockets` takes."""
SHUTDOWN_CLOSE_S = 0.5
"""Seconds at shutdown for the protocol's own close frame, before the server's (1012)."""


def websocket_protocol(
    unread_s: float = SEND_TIMEOUT_S, shutdown_close_s: float = SHUTDOWN_CLOSE_S
) -> type[asyncio.Protocol]:
    """Return uvicorn's WebSocket protocol with timeouts; a peer that reads nothing for ``unread_s``
    seconds is disconnected."""
    quiet = logging.getLogger("uvicorn.error.websocket")
    quiet.setLevel(logging.WARNING)  # lower levels log URLs and headers, with keys in them
    quiet.addFilter(_is_ours)

    class Upgraded(PacedProtocol, WebSocketsSansIOProtocol):  # type: ignore[misc]  # the same
        """WebSocket connection below ASGI."""

        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.logger = quiet
            self.conn.logger = quiet
            self.conn.debug = False
            self._came = False
            """True if data arrived since the last liveness check."""

        def data_received(self, data: bytes) -> None:
            self._came = True
            if self.conn.parser_exc is None:  # otherwise it is the rest of a refused message
                super().data_received(data)
            if self.conn.handshake_exc is not None and not self.handshake_initiated:
                self._refuse_handshake()

        def _refuse_handshake(self) -> None:
            """Answer a handshake that `websockets` cannot read, with its answer if it has one."""
            answer = b"".join(self.conn.data_to_send())
            self.transport = cast(Any, RefusedTransport(self.transport, self.loop))
            self.transport.write(answer or UNREADABLE_HANDSHAKE)
            self.transport.close()
            self.handshake_initiated = self.handshake_complete = self.close_sent = True

        def handle_events(self) -> None:
            self.pieces += len(self.conn.events)
            super().handle_events()

        def handle_cont(self, event: Any) -> None:
            if len(self.frames) < MAX_FRAGMENTS:
                super().handle_cont(event)
            elif not self.close_sent:
                self.conn.send_close(1009)
                self.handle_parser_exception()

        def is_read_paused(self) -> bool:
            return self.read_paused

        async def send(self, message: Any) -> None:
            if not self.handshake_complete and message["type"] != "websocket.accept":
                self.transport = cast(Any, RefusedTransport(self.transport, self.loop))
            await super().send(message)
            if self.initial_response is not None and self.close_sent:  # a complete refusal
                self.handshake_complete = True  # otherwise uvicorn logs a missing response

        def handle_parser_exception(self) -> None:
            closing = self.conn.close_sent
            code, reason = (closing.code, closing.reason) if closing else (1002, "")
            self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
            self.stop_keepalive()
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            if self.read_paused:
                self.read_paused = False
                self.transport.resume_reading()
            self.close_timer = self.loop.call_later(OVERSIZED_DRAIN_S, self.transport.abort)

        def send_keepalive_ping(self) -> None:
            self._came = False
            super().send_keepalive_ping()

        def keepalive_timeout(self) -> None:
            # A peer that sends is alive: its pong is behind unread data, and nothing is read while
            # the protocol cannot take more.
            if self.read_paused or self._came:
                self._came = self.read_paused
                self.pong_timer = self.loop.call_later(
                    self.ping_timeout or 0, self.keepalive_timeout
                )
            else:
                super().keepalive_timeout()

        def shutdown(self) -> None:
            if self.close_sent or not self.handshake_complete:
                super().shutdown()
            else:
                self.loop.call_later(shutdown_close_s, self.close_for_restart)

        def close_for_restart(self) -> None:
            if not self.disconnected:
                super().shutdown()

    Upgraded.unread_s = unread_s
    return Upgraded


def _is_ours(record: logging.LogRecord) -> bool:
    """Return whether a record is logged: not for invalid UTF-8 of a peer, which is closed with
    1007."""
    return not (record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError))
