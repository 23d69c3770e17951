"""uvicorn's WebSocket protocol with timeouts and limits.

It changes three defaults of uvicorn. It answers an oversized message by a reset instead of a close
frame. It logs URLs and headers, which may have a key. At shutdown it leaves the protocols no time
for their own close frame.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sidecar.api.http.paced_protocol import SEND_TIMEOUT_S, PacedProtocol, RefusedTransport

OVERSIZED_DRAIN_S = 2.0
"""Seconds for which the rest of an oversized message is read: a peer that is still writing would
see a reset instead of the close code."""
MAX_FRAGMENTS = 4096
"""Maximum of fragments of a message; they are kept, however small, until it is complete."""
MESSAGES_AT_ONCE = 4
"""Maximum of messages that an application gets in one turn of the event loop. They are so many
because it joins small ones of audio for the engine."""
UNREADABLE_HANDSHAKE = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 40\r\nConnection: close\r\n\r\nThe WebSocket handshake cannot be read.\n"
)
"""Answer to a handshake with a body, or with more lines or longer ones than `websockets` takes."""
SHUTDOWN_CLOSE_S = 0.5
"""Seconds at shutdown for the protocol's own close frame, before the server's (1012)."""

_log = logging.getLogger("uvicorn.error.websocket")


class WebSocketProtocol(PacedProtocol, WebSocketsSansIOProtocol):  # type: ignore[misc]  # the same
    """uvicorn's WebSocket protocol: a connection below ASGI."""

    shutdown_close_s = SHUTDOWN_CLOSE_S

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.logger = _log
        self.conn.logger = _log
        self.conn.debug = False
        self._came = False
        """True if data arrived since the last liveness check."""
        self._given = 0
        """Number of messages that the application got in this turn of the event loop."""

    def data_received(self, data: bytes) -> None:
        """Parse what was read; refuse a handshake that cannot be read."""
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
        """Count the frames."""
        self.pieces += len(self.conn.events)
        super().handle_events()

    def handle_cont(self, event: Any) -> None:
        """Add a fragment to its message, unless that has too many."""
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.send_close(1009)
            self.handle_parser_exception()

    def is_read_paused(self) -> bool:
        """As `PacedProtocol.is_read_paused`."""
        return self.read_paused

    async def receive(self) -> Any:
        """ASGI; if many messages wait, other connections come in between."""
        self._given = 0 if self.queue.empty() else self._given + 1
        if self._given == MESSAGES_AT_ONCE:
            self._given = 0
            await asyncio.sleep(0)
        return await super().receive()

    async def send(self, message: Any) -> None:
        """ASGI; a refusal of the handshake ends the connection without a reset."""
        if not self.handshake_complete and message["type"] != "websocket.accept":
            self.transport = cast(Any, RefusedTransport(self.transport, self.loop))
        await super().send(message)
        if self.initial_response is not None and self.close_sent:  # a complete refusal
            self.handshake_complete = True  # otherwise uvicorn logs a missing response

    def handle_parser_exception(self) -> None:
        """Close with a close frame, and read the rest of the message for a while."""
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
        """Ping the peer."""
        self._came = False
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """Close if nothing came since the ping. A peer that sends is alive: its pong is behind
        unread data, and nothing is read while the protocol cannot take more."""
        if self.read_paused or self._came:
            self._came = self.read_paused
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0, self.keepalive_timeout)
        else:
            super().keepalive_timeout()

    def shutdown(self) -> None:
        """Close, after a time for the protocol's own close frame."""
        if self.close_sent or not self.handshake_complete:
            super().shutdown()
        else:
            self.loop.call_later(self.shutdown_close_s, self.close_for_restart)

    def close_for_restart(self) -> None:
        """Close with 1012, unless it is closed."""
        if not self.disconnected:
            super().shutdown()


def websocket_protocol(
    unread_s: float = SEND_TIMEOUT_S, shutdown_close_s: float = SHUTDOWN_CLOSE_S
) -> type[asyncio.Protocol]:
    """Return uvicorn's WebSocket protocol with timeouts; a peer that reads nothing for ``unread_s``
    seconds is disconnected."""
    _log.setLevel(logging.WARNING)  # lower levels log URLs and headers, with keys in them
    _log.addFilter(_is_ours)
    timeouts = {"unread_s": unread_s, "shutdown_close_s": shutdown_close_s}
    return type("WebSocketProtocol", (WebSocketProtocol,), timeouts)


def _is_ours(record: logging.LogRecord) -> bool:
    """Return whether a record is logged: not for invalid UTF-8 of a peer, which is closed with
    1007."""
    return not (record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError))
