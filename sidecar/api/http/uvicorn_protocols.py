"""uvicorn protocols: header deadline, WebSocket upgrade, send timeout.

It logs addresses with all that stands behind the '?', which may be a key; a connection whose peer
takes nothing stays for ever; what is too big is answered by a reset instead of a close frame; and
at the end of the service the wire has no time for its own last words.
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
"""To take what lies in the connection's buffers; they hold seconds of any network."""


class SendTimeoutProtocol(asyncio.Protocol):
    """A clock while a peer takes nothing; before a protocol of uvicorn's."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    unread_s = SEND_TIMEOUT_S
    _unread: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The buffers are full."""
        super().pause_writing()
        self._taken()
        self._unread = self.loop.call_later(self.unread_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The peer has taken enough of them."""
        self._taken()
        super().resume_writing()

    def _taken(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


MAX_CONNECTIONS_PER_ADDRESS = 10_000
"""Connections of one address, which may be a proxy's with all its clients."""
_FIELD = re.compile(
    rb"(?P<field_name>[-!#$%&'*+.^_`|~0-9a-zA-Z]+):[ \t]*+"
    rb"(?P<field_value>(?:[^\x00\s]++(?:[ \t]++[^\x00\s]++)*+)?)[ \t]*+"
)
"""A header or trailer as h11 reads it. h11's own expression means the same and backtracks: 80,000
spaces before a NUL take it 13 s of the event loop, before anybody is asked who it is."""


def http_protocol(
    seconds: float, unread_s: float = SEND_TIMEOUT_S, most: int = MAX_CONNECTIONS_PER_ADDRESS
) -> type[asyncio.Protocol]:
    """uvicorn's protocol, closing connections whose request's head is not there in time, or whose
    answer nobody takes, and those beyond ``most`` of one address. All of h11 in this process reads
    headers in linear time from then on."""
    _readers.header_field_re = _FIELD
    addresses = Counter[str]()

    class Timed(SendTimeoutProtocol, H11Protocol):
        """A clock from the first byte of a connection, or of its next request, to the end of the
        head; h11 hands a request to a cycle then."""

        _clock: asyncio.TimerHandle | None = None
        _address: str | None = None
        """By which it is counted."""

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
            self._stop()  # from here on it is no request, and its wire has clocks of its own
            self._uncount()
            super().handle_websocket_upgrade(event)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            self._uncount()
            super().connection_lost(exc)

        def _is_peer_gone(self) -> bool:
            if self.transport.is_closing():
                return True
            if not hasattr(select, "POLLRDHUP"):  # only Linux tells of it behind unread bytes
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
"""Seconds that a client may take to send the head of a request, or to shake hands."""
LIVE_PING_S = limit("live_ping", 20.0)
"""Seconds between two questions to a live connection whether somebody is there; who does not answer
within the same time is not. That is less than proxies wait for a word, a minute as a rule."""
MAX_MESSAGE_BYTES = 4 << 20
"""Bytes. The longest sound of one message (`MAX_CHUNK_S`) is 2.6 MB as float32 at 48 kHz in base64;
what is larger is closed with 1009 before it is read."""
OVERSIZED_DRAIN_S = 2.0
"""After a message that is too big: so long the rest of it is read away, for a peer that still
writes would see a reset instead of the reason."""
SHUTDOWN_CLOSE_S = 0.5
"""At the end of the service: for the wire's own close, before the server's (1012)."""


def websocket_protocol(unread_s: float = SEND_TIMEOUT_S) -> type[asyncio.Protocol]:
    """uvicorn's protocol; who takes nothing for ``unread_s`` seconds of what is sent is gone."""
    quiet = logging.getLogger("uvicorn.error.websocket")
    quiet.setLevel(logging.WARNING)  # below it are addresses and headers, with keys in them
    quiet.addFilter(_is_ours)

    class Upgraded(SendTimeoutProtocol, WebSocketsSansIOProtocol):
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

        async def send(self, message: Any) -> None:
            await super().send(message)
            if self.initial_response is not None and self.close_sent:  # a refusal that is whole
                self.handshake_complete = True  # else uvicorn logs that there was no answer

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
                self.loop.call_later(SHUTDOWN_CLOSE_S, self._shut_down)

        def _shut_down(self) -> None:
            if not self.disconnected:
                super().shutdown()

    Upgraded.unread_s = unread_s
    return Upgraded


def _is_ours(record: logging.LogRecord) -> bool:
    """Text that is no UTF-8 is the peer's fault: it is closed with 1007, and no traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError))
