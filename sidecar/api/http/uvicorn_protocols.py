"""uvicorn protocols: header deadline, WebSocket upgrade, send timeout.

They change four defaults of uvicorn. It logs query strings, which may have a key. It keeps a
connection to a peer that reads nothing. It answers an oversized message by a reset instead of a
close frame. At shutdown it leaves the protocols no time for their own close frame.
"""

from __future__ import annotations

import asyncio
import logging
import re
import select
from collections import Counter
from typing import Any

from h11 import _readers
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sidecar.api.http.request_headers import PEER_GONE_KEY
from sidecar.auth.rate_limits import rate_limit_key
from sidecar.limit_overrides import limit

SEND_TIMEOUT_S = 60.0
"""Time for a peer to take data from the connection's buffers, which any network empties in
seconds."""


class SendTimeoutProtocol(asyncio.Protocol):
    """Mixin for a uvicorn protocol: abort if the peer takes nothing for `unread_s` seconds."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    unread_s = SEND_TIMEOUT_S
    _unread: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._taken()
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

    def _taken(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


MAX_CONNECTIONS_PER_ADDRESS = 10_000
"""Maximum for one address, which may be a proxy with all its clients."""
_FIELD = re.compile(
    rb"(?P<field_name>[-!#$%&'*+.^_`|~0-9a-zA-Z]+):[ \t]*+"
    rb"(?P<field_value>(?:[^\x00\s]++(?:[ \t]++[^\x00\s]++)*+)?)[ \t]*+"
)
"""Header or trailer as h11 reads it. h11's own expression matches the same but backtracks. With it
80,000 spaces before a NUL block the event loop for 13 s, before authentication."""


def http_protocol(
    seconds: float, unread_s: float = SEND_TIMEOUT_S, most: int = MAX_CONNECTIONS_PER_ADDRESS
) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with timeouts and limits.

    It closes a connection if a request head takes longer than ``seconds``, if its peer reads
    nothing for ``unread_s`` seconds, or beyond ``most`` of one address. From then on all of h11 in
    this process reads headers in linear time.
    """
    _readers.header_field_re = _FIELD
    addresses = Counter[str]()

    class Timed(SendTimeoutProtocol, H11Protocol):
        """Protocol with a timer from the first byte of a request to the end of its head, when h11
        passes it to a cycle. For the first request the timer starts with the connection."""

        _clock: asyncio.TimerHandle | None = None
        _address: str | None = None
        """Key by which it is counted."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.app_state = {**self.app_state, PEER_GONE_KEY: self._is_peer_gone}
            self._start()
            if self.client is not None:
                self._address = rate_limit_key(self.client[0])
                addresses[self._address] += 1
                if addresses[self._address] > most:
                    transport.abort()

        def data_received(self, data: bytes) -> None:
            if self._clock is None and not self._answering:
                self._start()
            super().data_received(data)
            if self._answering:
                self._stop()

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._stop()  # a WebSocket has timeouts of its own
            self._uncount()
            super().handle_websocket_upgrade(event)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            self._uncount()
            super().connection_lost(exc)

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

        def _uncount(self) -> None:
            if self._address is not None:
                addresses[self._address] -= 1
                if not addresses[self._address]:
                    del addresses[self._address]
                self._address = None

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


REQUEST_HEAD_S = limit("request_deadline", 15.0)
"""Seconds for a client to send the head of a request, or to complete a handshake."""
OVERSIZED_DRAIN_S = 2.0
"""Seconds for which the rest of an oversized message is read: a peer that is still writing would
see a reset instead of the close code."""
SHUTDOWN_CLOSE_S = 0.5
"""Seconds at shutdown for the protocol's own close frame, before the server's (1012)."""


def websocket_protocol(unread_s: float = SEND_TIMEOUT_S) -> type[asyncio.Protocol]:
    """Return uvicorn's WebSocket protocol with timeouts; a peer that reads nothing for ``unread_s``
    seconds is disconnected."""
    quiet = logging.getLogger("uvicorn.error.websocket")
    quiet.setLevel(logging.WARNING)  # lower levels log URLs and headers, with keys in them
    quiet.addFilter(_is_ours)

    class Upgraded(SendTimeoutProtocol, WebSocketsSansIOProtocol):
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

        async def send(self, message: Any) -> None:
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
                self.loop.call_later(SHUTDOWN_CLOSE_S, self._shut_down)

        def _shut_down(self) -> None:
            if not self.disconnected:
                super().shutdown()

    Upgraded.unread_s = unread_s
    return Upgraded


def _is_ours(record: logging.LogRecord) -> bool:
    """Return whether a record is logged: not for invalid UTF-8 of a peer, which is closed with
    1007."""
    return not (record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError))
