"""uvicorn's HTTP protocol with timeouts and limits of a request's head.

It changes three defaults of uvicorn. It has no limit for the head of a request. It logs query
strings, which may have a key. It skips the body of a request that offers another protocol.
"""

from __future__ import annotations

import asyncio
import logging
import select
import sys
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sidecar.api.http.paced_protocol import (
    READ_BYTES,
    REQUEST_S,
    SEND_TIMEOUT_S,
    PacedProtocol,
    RefusedTransport,
)
from sidecar.api.http.request_headers import MAX_ALL_HEADERS_BYTES, PEER_GONE_KEY
from sidecar.limit_overrides import limit
from sidecar.observability.logs import ONCE_A_MINUTE

REQUEST_HEAD_S = limit("request_deadline", 15.0)
"""Seconds for a client to send the head of a request, or to complete a handshake."""
MAX_HEADER_LINES = 256
"""Maximum of header lines of a request, with its trailers; browsers and proxies send up to 60."""
MAX_PIPELINED = 16
"""Maximum of requests that wait behind another one of their connection; today's clients wait for
each response."""

_log = logging.getLogger("uvicorn.error.http")


class HttpProtocol(PacedProtocol, HttpToolsProtocol):  # type: ignore[misc]  # `eof_received`
    """uvicorn's HTTP protocol with a timer from the first byte of a request to the end of its head,
    when the parser passes it to a cycle. For the first request it starts with the connection."""

    head_s: float
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
        """Start the timer of the first head."""
        super().connection_made(transport)
        self.logger = _log
        self.app_state = {**self.app_state, PEER_GONE_KEY: self._is_peer_gone}
        self._start()

    def data_received(self, data: bytes) -> None:
        """Parse what was read, unless the connection is about to end."""
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
        """Begin a request, unless too many of them wait."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")
        self._in_head, self._header_lines = True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, unless there are too many lines."""
        self._header_lines += 1
        if self._header_lines > MAX_HEADER_LINES:
            raise ValueError("too many header lines")
        if self._in_head:  # a trailer is no header: proxies do not check it
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Pass the request on, unless it offers what is not spoken here."""
        self._in_head, self._line_bytes = False, 0
        self.work_s += REQUEST_S
        offers = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        self._offers = offers and not self._should_upgrade()
        if not self._offers:
            super().on_headers_complete()
        if not self.parser.should_upgrade():
            self.body_left = int(dict(self.headers).get(b"content-length", 0))

    def on_message_complete(self) -> None:
        """End the request."""
        self._line_bytes = 0
        self.work_s += REQUEST_S
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
        """Add to the body of the request."""
        self.pieces += 1
        self.body_left -= len(body)
        if self._answering:  # the rest of a body that nobody reads is limited, too
            self._line_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed, and end the connection."""
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
        """Hand the connection over to the WebSocket protocol."""
        self._stop()  # a WebSocket has timeouts of its own
        try:
            address = httptools.parse_url(self.url)  # perhaps with a host (RFC 9112, 3.2.2)
        except httptools.HttpParserError:  # of a tunnel (CONNECT)
            self.send_400_response("The address of the WebSocket is invalid.")
            return
        self.url = (address.path or b"/") + (b"?" + address.query if address.query else b"")
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop()
        super().connection_lost(exc)

    def is_read_paused(self) -> bool:
        """As `PacedProtocol.is_read_paused`."""
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
        self._clock = self.loop.call_later(self.head_s, self._late)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _late(self) -> None:
        self._clock = None
        if not self._answering and self.transport is not None:
            self.transport.close()


def http_protocol(head_s: float, unread_s: float = SEND_TIMEOUT_S) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with timeouts and limits.

    It closes a connection if a request head takes longer than ``head_s`` seconds or is too large,
    or if its peer reads nothing for ``unread_s`` seconds.
    """
    _log.addFilter(_mute_warnings)
    return type("HttpProtocol", (HttpProtocol,), {"head_s": head_s, "unread_s": unread_s})


def _mute_warnings(record: logging.LogRecord) -> bool:
    """Let a warning about invalid requests, which clients can cause at will, be written once in a
    while."""
    if record.levelno == logging.WARNING:
        record.__dict__.update(ONCE_A_MINUTE)
    return True
