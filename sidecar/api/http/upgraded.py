"""What uvicorn makes of a connection that becomes a WebSocket, with what it leaves out.

It logs addresses with all that stands behind the '?', which may be a key; a connection whose peer
takes nothing stays for ever; what is too big is answered by a reset instead of a close frame; and
at the end of the service the wire has no time for its own last words.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sidecar.api.http.unread import UNREAD_S, Unread

LARGEST_MESSAGE = 4 << 20
"""Bytes. The longest sound of one message (`live_chunk`) is 2.6 MB as float32 at 48 kHz in base64;
what is larger is closed with 1009 before it is read."""
LINGER_S = 2.0
"""After a message that is too big: so long the rest of it is read away, for a peer that still
writes would see a reset instead of the reason."""
FAREWELL_S = 0.5
"""At the end of the service: for the wire's own close, before the server's (1012)."""


def upgraded(unread_s: float = UNREAD_S) -> type[asyncio.Protocol]:
    """uvicorn's protocol; who takes nothing for ``unread_s`` seconds of what is sent is gone."""
    quiet = logging.getLogger("uvicorn.error.websocket")
    quiet.setLevel(logging.WARNING)  # below it are addresses and headers, with keys in them
    quiet.addFilter(_is_ours)

    class Upgraded(Unread, WebSocketsSansIOProtocol):
        """One WebSocket, below ASGI."""

        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.logger = quiet
            self.conn.logger = quiet
            self.conn.debug = False
            self._came = False
            """Something since the last look whether the peer is there."""

        def data_received(self, data: bytes) -> None:
            self._came = True
            if self.conn.parser_exc is None:  # else it is the rest of what was refused
                super().data_received(data)

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
            self.close_timer = self.loop.call_later(LINGER_S, self.transport.abort)

        def send_keepalive_ping(self) -> None:
            self._came = False
            super().send_keepalive_ping()

        def keepalive_timeout(self) -> None:
            # Who sends is there: its answer lies behind what is still to be read, of which nothing
            # comes while a wire has no room.
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
                self.loop.call_later(FAREWELL_S, self._shut_down)

        def _shut_down(self) -> None:
            if not self.disconnected:
                super().shutdown()

    Upgraded.unread_s = unread_s
    return Upgraded


def _is_ours(record: logging.LogRecord) -> bool:
    """Text that is no UTF-8 is the peer's fault: it is closed with 1007, and no traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError))
